"""The two renderers agree, and both are deterministic."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.scenes import SceneDistribution, draw, load_scene, random_batch, render_arrays
from mut3r_analysis.scenes.raycast_torch import render_arrays_torch

EVERYTHING = ("flow", "flow_previous", "normal")


def test_the_torch_renderer_agrees_with_the_compiled_one():
    scenes = draw(5, 3, 2, SceneDistribution(objects=5, movers=(1, 3), fog=6.0))
    compiled, batched = render_arrays(scenes, 2), render_arrays_torch(scenes, 2)
    assert compiled.keys() == batched.keys()
    for name, array in compiled.items():
        other = batched[name].numpy()
        assert other.shape == array.shape, name
        if array.dtype.kind == "f":
            np.testing.assert_allclose(other, array, rtol=1e-5, atol=1e-4, err_msg=name)
        else:
            assert (other != array).mean() < 1e-3, name
            assert np.abs(other.astype(int) - array.astype(int))[other != array].max(initial=0) <= 1


def test_the_renderers_agree_on_scenes_with_a_target_and_with_plain_surfaces():
    for name in ("orbit-03", "textureless-01"):
        arrays = load_scene(name).arrays()
        compiled, batched = render_arrays(arrays, 2), render_arrays_torch(arrays, 2)
        difference = np.abs(compiled["image"].astype(int) - batched["image"].numpy().astype(int))
        assert difference.max() <= 1
        np.testing.assert_allclose(batched["depth"], compiled["depth"], atol=1e-5)


@pytest.mark.gpu
def test_the_torch_renderer_agrees_on_a_cuda_device():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    scenes = draw(5, 3, 2)
    here = render_arrays_torch(scenes, 2)
    there = render_arrays_torch(scenes, 2, device="cuda")
    for name in here:
        np.testing.assert_allclose(
            there[name].cpu().double(), here[name].double(), rtol=1e-6, atol=1e-3, err_msg=name
        )


def digest(batch):
    total = hashlib.sha256()
    for name in sorted(batch):
        total.update(name.encode() + batch[name].tobytes())
    return total.hexdigest()


def test_a_seed_gives_the_same_bits_every_time_in_every_process_and_with_any_threads():
    first = random_batch(17, 4, 2, outputs=EVERYTHING)
    assert digest(random_batch(17, 4, 2, outputs=EVERYTHING)) == digest(first)
    assert digest(random_batch(17, 4, 2, outputs=EVERYTHING, threads=3)) == digest(first)
    assert digest(random_batch(18, 4, 2, outputs=EVERYTHING)) != digest(first)
    code = (
        "import hashlib; from mut3r_analysis.scenes import random_batch\n"
        f"b = random_batch(17, 4, 2, outputs={EVERYTHING!r}); t = hashlib.sha256()\n"
        "[t.update(n.encode() + b[n].tobytes()) for n in sorted(b)]; print(t.hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest(first)


def test_a_batch_holds_what_was_asked_for():
    batch = random_batch(1, 3, 4, size=(32, 24), outputs=())
    assert set(batch) == {"image", "depth", "pose", "intrinsics", "instance", "motion_mask"}
    assert batch["image"].shape == (3, 4, 24, 32, 3)
    assert batch["image"].dtype == np.uint8
    assert batch["motion_mask"].dtype == bool
    assert batch["pose"].shape == (3, 4, 4, 4)
    assert batch["intrinsics"].shape == (3, 4, 3, 3)
    assert set(random_batch(1, 1, 2)) - set(batch) == {"flow_previous", "visible_previous"}


def test_a_single_frame_has_no_motion_and_no_flow():
    batch = random_batch(1, 3, 1, outputs=EVERYTHING)
    assert not batch["motion_mask"].any()
    assert np.isnan(batch["flow"]).all()
    assert np.isnan(batch["flow_previous"]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (64, 0)}, "width, height"),
        ({"size": "64x48"}, "width, height"),
        ({"supersample": 0}, "from 1 to 16"),
        ({"outputs": ("flows",)}, "output must be one of"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(InvalidArgument, match=message):
        render_arrays(draw(1, 1, 1), 1, **options)
