"""Every benchmark runs, leaves finite ratios, and the page of results says what they hold."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import measure  # noqa: E402

REHEARSALS = {
    "capture": ["--size", "small", "--repetitions", "1"],
    "gating": ["--size", "small", "--repetitions", "1"],
    "gating-across": ["--size", "small", "--repetitions", "1", "--across"],
    "gating-batch": ["--size", "small", "--repetitions", "1", "--batch", "2"],
    "load": ["--quick"],
    "rendering": ["--quick"],
    "scaling": ["--quick"],
    "storage": ["--quick"],
    "sweeps": ["--quick"],
}


def start(script: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, BENCHMARKS / f"{script}.py", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def value(ratio: Any) -> float:
    return ratio["ratio"] if isinstance(ratio, dict) else ratio


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmarks")


@pytest.mark.slow
@pytest.mark.parametrize("name", REHEARSALS)
def test_a_rehearsal_leaves_finite_ratios_with_date_and_machine(results: Path, name: str) -> None:
    out = results / f"{name}.json"
    start(name.split("-")[0], *REHEARSALS[name], "--out", str(out))
    found = json.loads(out.read_text())
    assert found["ratios"]
    assert all(math.isfinite(value(ratio)) for ratio in found["ratios"].values())
    assert {"processor", "cores", "device", "torch"} <= set(found["machine"])
    assert found["date"][:2] == "20"


def test_alternatives_hand_over_to_each_other_within_a_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measure, "SLICE", 0.0)
    layer, computed = torch.nn.Identity(), []

    def of(name: str, layers: int) -> Any:
        def call() -> None:
            for _ in range(layers):
                layer(torch.zeros(1))
                computed.append(name)

        return call

    seconds = measure.side_by_side({"short": of("short", 2), "long": of("long", 5)}, 3)
    assert computed[:20] == ["short", "long"] * 10
    assert computed.count("long") >= 15
    assert computed.count("short") >= 6
    assert seconds.keys() == {"short", "long"}
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_an_alternative_that_fails_is_raised_and_the_others_end() -> None:
    layer = torch.nn.Identity()
    with pytest.raises(ZeroDivisionError):
        measure.side_by_side({"whole": lambda: layer(1), "failing": lambda: 1 / 0}, 2)


@pytest.mark.slow
def test_batched_configurations_agree_with_single_ones(results: Path) -> None:
    out = results / "sweeps.json"
    if not out.exists():
        start("sweeps", "--quick", "--out", str(out))
    agreements = [
        ratio for name, ratio in json.loads(out.read_text())["ratios"].items()
        if "difference" in name
    ]  # fmt: skip
    assert len(agreements) == 2
    assert all(ratio["met"] for ratio in agreements)


def result(**ratios: Any) -> dict[str, Any]:
    machine = {"processor": "x86_64", "cores": 4, "threads": 1, "device": "cpu", "torch": "2.13"}
    return {
        "date": "2030-01-02", "machine": machine, "backbone": "made-up", "repetitions": 3,
        "ratios": ratios,
    }  # fmt: skip


def test_the_page_states_values_limits_and_whether_they_are_met(tmp_path: Path) -> None:
    held = {
        "first": result(
            bare=1.25,
            low={"ratio": 0.5, "limit": 0.7, "met": False, "at_least": True},
            high={"ratio": 1.01, "limit": 1.05, "met": True},
        ),
        "second": result(free={"ratio": 2e-6, "limit": None, "met": None}),
    }
    for name, content in held.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    start("report", str(tmp_path), "--page", str(tmp_path / "README.md"))
    page = (tmp_path / "README.md").read_text()
    assert "2030-01-02: made-up, cpu (x86_64, 4 cores, 1 thread), torch 2.13" in page
    assert "| bare | 1.25 |  |" in page
    assert "| low | 0.50 | at least 0.70, **not met** |" in page
    assert "| high | 1.01 | at most 1.05, met |" in page
    assert "| free | 2e-06 |  |" in page
    assert "(ratios.png)" in page
    assert (tmp_path / "ratios.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_says_what_never_ran_on_a_gpu_and_what_failed_there(tmp_path: Path) -> None:
    (tmp_path / "only.json").write_text(json.dumps(result(bare=1.0)))
    start("report", str(tmp_path), "--page", str(tmp_path / "README.md"))
    assert "Never run on a GPU" in (tmp_path / "README.md").read_text()
    on_gpu = result(bare=1.0) | {"failed": {"memory": "OutOfMemoryError: too large"}}
    (tmp_path / "gpu.json").write_text(json.dumps(on_gpu))
    start("report", str(tmp_path), "--page", str(tmp_path / "README.md"))
    page = (tmp_path / "README.md").read_text()
    assert "Never run on a GPU" not in page
    assert "| memory | OutOfMemoryError: too large |" in page


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_its_benchmark_says_so_and_does_nothing_when_told_to() -> None:
    with pytest.raises(AssertionError, match="no CUDA device"):
        start("gpu", "--quick")
    start("gpu", "--quick", "--where-there-is-one")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_benchmark_of_a_gpu_can_be_rehearsed(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    start("gpu", "--quick", "--out", str(out))
    assert json.loads(out.read_text())["failed"] == {}


def test_a_folder_that_is_not_the_released_code_is_told(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="not a checkout of CUT3R"):
        start("released", str(tmp_path), "--size", "linear")


def test_without_limits_there_is_no_figure_and_without_results_no_page(tmp_path: Path) -> None:
    (tmp_path / "only.json").write_text(json.dumps(result(bare=1.0)))
    start("report", str(tmp_path), "--page", str(tmp_path / "README.md"))
    assert "ratios.png" not in (tmp_path / "README.md").read_text()
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(AssertionError, match="run `make bench` first"):
        start("report", str(empty), "--page", str(empty / "README.md"))
