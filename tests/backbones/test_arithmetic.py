"""The arithmetic that a run records is the arithmetic that happened, whatever the caller set."""

import threading
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
import torch

import mut3r_analysis as m3
from mut3r_analysis.backbones.precision import PRECISIONS, arithmetic
from mut3r_analysis.errors import InvalidArgument

BACKENDS = torch.backends
SWITCHES = [
    BACKENDS, BACKENDS.cuda.matmul, BACKENDS.cudnn, BACKENDS.cudnn.conv, BACKENDS.cudnn.rnn,
    BACKENDS.mkldnn, BACKENDS.mkldnn.matmul, BACKENDS.mkldnn.conv, BACKENDS.mkldnn.rnn,
]  # fmt: skip
CPU = torch.device("cpu")


def legacy(getter):
    try:
        return getter()
    except RuntimeError:
        return "raises"


def settings():
    return {
        "newer": [switch.fp32_precision for switch in SWITCHES],
        "products": legacy(torch.get_float32_matmul_precision),
        "cuda": legacy(lambda: BACKENDS.cuda.matmul.allow_tf32),
        "cudnn": legacy(lambda: BACKENDS.cudnn.allow_tf32),
        "dtype": torch.get_default_dtype(),
        "device": torch.empty(0).device,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn": torch.is_deterministic_algorithms_warn_only_enabled(),
        "search": (BACKENDS.cudnn.benchmark, BACKENDS.cudnn.deterministic),
        "autocast": torch.is_autocast_enabled("cpu"),
        "inference": torch.is_inference_mode_enabled(),
        "gradients": torch.is_grad_enabled(),
    }


@contextmanager
def newer(*places):
    """Say something by torch's newer interface alone, which makes the older one raise."""
    with ExitStack() as restore:
        restore.callback(setattr, BACKENDS.cudnn, "allow_tf32", True)
        restore.callback(torch.set_float32_matmul_precision, "highest")
        for switch, value in places:
            restore.callback(setattr, switch, "fp32_precision", switch.fp32_precision)
            switch.fp32_precision = value
        yield


@contextmanager
def called(function, value, before):
    function(value)
    try:
        yield
    finally:
        function(before)


OUTER = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float64": lambda: called(torch.set_default_dtype, torch.float64, torch.float32),
    "bfloat16": lambda: called(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "another device": lambda: called(torch.set_default_device, "meta", None),
    "medium": lambda: called(torch.set_float32_matmul_precision, "medium", "highest"),
    "high": lambda: called(torch.set_float32_matmul_precision, "high", "highest"),
    "all tf32": lambda: newer((BACKENDS, "tf32")),
    "products ieee": lambda: newer((BACKENDS.cuda.matmul, "ieee")),
    "convolutions ieee": lambda: newer((BACKENDS.cudnn.conv, "ieee")),
    "bf16 products": lambda: newer((BACKENDS.mkldnn.matmul, "bf16")),
    "deterministic": lambda: called(torch.use_deterministic_algorithms, True, False),
    "inference": torch.inference_mode,
    "no gradients": torch.no_grad,
}


@pytest.fixture(scope="module")
def backbone():
    return m3.load_backbone("random:small")


@pytest.fixture(scope="module")
def sequence():
    frames = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), dtype=np.uint8)
    return m3.open_sequence(frames)


def run(backbone, sequence, **more):
    capture = m3.Capture(statistics=["entropy"], sites=["image_self"])
    return m3.run(backbone, sequence, cue=m3.Cue.mut3r(), gate=m3.Gate.mut3r(), capture=capture,
                  progress=False, **more)  # fmt: skip


@pytest.fixture(scope="module")
def expected(backbone, sequence):
    return run(backbone, sequence)


def assert_equal(found, expected):
    for path in ("prediction", "attention/image_self", "cue", "state"):
        for name, values in expected[path].data_vars.items():
            np.testing.assert_array_equal(found[f"{path}/{name}"], values, err_msg=str(name))


@pytest.mark.parametrize("outer", OUTER)
def test_a_run_is_the_same_under_any_setting_and_leaves_it(backbone, sequence, expected, outer):
    seen = []
    with OUTER[outer]():
        before = settings()
        found = run(backbone, sequence, probe=lambda *_: seen.append(settings()))
        assert settings() == before
    assert_equal(found, expected)
    assert found["prediction/depth"].dtype == np.float32
    for inside in seen:
        assert inside["products"] == "highest"
        assert inside["cuda"] is False
        assert inside["cudnn"] is False
        assert inside["dtype"] == torch.float32
        assert not any(inside[name] for name in ("deterministic", "autocast", "inference"))
    assert seen


@pytest.mark.parametrize("outer", ["autocast", "float64", "inference"])
def test_forks_and_batches_are_the_same_too(backbone, sequence, expected, outer):
    plain = m3.fork(expected, 1, backbone=backbone, sequence=sequence, gate=None)
    with OUTER[outer]():
        (batched,) = m3.run_batch(backbone, sequence, [{}], progress=False)
        forked = m3.fork(expected, 1, backbone=backbone, sequence=sequence, gate=None)
    (alone,) = m3.run_batch(backbone, sequence, [{}], progress=False)
    np.testing.assert_array_equal(batched["prediction/pose"], alone["prediction/pose"])
    for name, values in plain.data_vars.items():
        np.testing.assert_array_equal(forked[name], values)


@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("outer", OUTER)
def test_torchs_older_interface_never_raises_inside(outer, tf32):
    precision = PRECISIONS["tf32" if tf32 else "float32"]
    with OUTER[outer]():
        before = settings()
        with arithmetic(precision, CPU):
            inside = settings()
        assert settings() == before
    assert (inside["products"], inside["cuda"], inside["cudnn"]) == (
        ("high", True, True) if tf32 else ("highest", False, False)
    )
    assert inside["gradients"] == before["gradients"]


def test_an_error_inside_restores_the_settings():
    with OUTER["medium"](), OUTER["bf16 products"]():
        before = settings()
        with pytest.raises(ZeroDivisionError), arithmetic(PRECISIONS["float32"], CPU):
            raise ZeroDivisionError
        assert settings() == before


def test_threads_that_compute_at_once_do_not_fight():
    """Each sees its own settings to the end, in whatever order they begin and stop."""
    wrong, before = [], settings()

    def work(name):
        for _ in range(20):
            with arithmetic(PRECISIONS[name], CPU):
                for _ in range(20):
                    if torch.get_float32_matmul_precision() != (
                        "high" if name == "tf32" else "highest"
                    ):
                        wrong.append(name)

    names = ("float32", "tf32", "float32", "bfloat16", "tf32")
    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert wrong == []
    assert settings() == before


def test_one_precision_inside_another_is_refused_in_words():
    with (
        arithmetic(PRECISIONS["tf32"], CPU),
        arithmetic(PRECISIONS["tf32"], CPU),
        pytest.raises(InvalidArgument, match="load both with the same"),
        arithmetic(PRECISIONS["float32"], CPU),
    ):
        pass
    with arithmetic(PRECISIONS["float32"], CPU):
        assert torch.get_float32_matmul_precision() == "highest"


def test_runs_in_threads_equal_runs_alone(backbone, sequence, expected):
    found = {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: run(backbone, sequence)}))
        for i in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(3):
        assert_equal(found[index], expected)


def test_an_interrupted_run_leaves_nothing_on_the_backbone(backbone, sequence, expected):
    def stop(*_):
        raise KeyboardInterrupt

    before = settings()
    hook = backbone.dec_blocks[1].register_forward_hook(stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(backbone, sequence)
    finally:
        hook.remove()
    assert settings() == before
    assert_equal(run(backbone, sequence), expected)
