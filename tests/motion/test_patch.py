"""Patching: what is replaced, by what; and that a run patched with its own outputs is that run."""

import json

import numpy as np
import pytest

import mut3r_analysis as m3
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion import Patch

KINDS = ("image_self", "image_to_state", "state_self", "state_to_image")
KEEP = m3.Capture(statistics=None, head_outputs=[f"{kind}:values" for kind in KINDS])
GATED = {"cue": m3.Cue.mut3r(), "gate": m3.Gate.mut3r()}


@pytest.fixture(scope="module")
def backbone():
    return m3.load_backbone("tiny", device="cpu")


@pytest.fixture(scope="module")
def sequence():
    return m3.open_sequence("scenes/orbit-03", stop=3)


def ran(backbone, sequence, **more):
    more = {"capture": KEEP, "outputs": ("pose", "depth"), "progress": False} | more
    return m3.run(backbone, sequence, **more)


@pytest.fixture(scope="module")
def plain(backbone, sequence):
    return ran(backbone, sequence)


@pytest.fixture(scope="module")
def gated(backbone, sequence):
    return ran(backbone, sequence, **GATED)


def same(one, other, group="prediction"):
    first, second = (run[group].to_dataset() for run in (one, other))
    return all(np.array_equal(first[name], second[name], equal_nan=True) for name in first)


@pytest.mark.parametrize(
    "more", [{}, GATED, GATED | {"commit": "rw.gp"}, GATED | {"commit": "rw.pg"}]
)
def test_a_run_patched_with_its_own_outputs_is_that_run_bit_for_bit(backbone, sequence, more):
    own = ran(backbone, sequence, **more)
    patched = ran(backbone, sequence, intervene=Patch(sites=KINDS).of(own), **more)
    for group in ("prediction", "state", *(f"attention/{kind}" for kind in KINDS)):
        assert same(own, patched, group), group
    if "cue" in more:
        assert same(own, patched, "cue")


def outputs(run, kind):
    return run[f"attention/{kind}"].to_dataset()["output"]


def test_only_what_is_named_is_replaced(backbone, sequence, plain, gated):
    patch = Patch(sites="image_self", layers=[2], heads=[3], tokens=[(4, 5)], frames=[0])
    found = outputs(ran(backbone, sequence, intervene=patch.of(gated)), "image_self")
    before, taken = outputs(plain, "image_self"), outputs(gated, "image_self")
    place = {"frame": 0, "layer": 2, "head": 3}
    here = (found["patch_row"] == 4) & (found["patch_col"] == 5)
    new, old, source = (each.sel(place) for each in (found, before, taken))
    np.testing.assert_array_equal(new[here.values], source[here.values])
    np.testing.assert_array_equal(new[~here.values], old[~here.values])
    assert not np.array_equal(new[here.values], old[here.values])
    np.testing.assert_array_equal(
        found.sel(frame=0, layer=[0, 1]), before.sel(frame=0, layer=[0, 1])
    )
    other = {"frame": 0, "layer": 2, "head": [0, 1, 2]}
    np.testing.assert_array_equal(found.sel(other), before.sel(other))


@pytest.mark.parametrize("source", ["mean", 2])
def test_outputs_come_from_another_frame_or_the_mean_over_frames(backbone, sequence, plain, source):
    patch = Patch(sites="state_to_image", layers=[1], frames=[1], source_frame=source)
    found = outputs(ran(backbone, sequence, intervene=patch.of(plain)), "state_to_image")
    kept = outputs(plain, "state_to_image").sel(layer=1)
    expected = kept.mean("frame") if source == "mean" else kept.sel(frame=2)
    np.testing.assert_array_equal(found.sel(frame=1, layer=1), expected)


def test_tokens_are_named_by_role(backbone, sequence, plain, gated):
    patch = Patch(sites="image_self", layers=[0], tokens="pose", frames=[0])
    found = outputs(ran(backbone, sequence, intervene=patch.of(gated)), "image_self")
    changed = (
        (found != outputs(plain, "image_self"))
        .sel(frame=0, layer=0)
        .any(["head", "output_channel"])
    )
    assert changed["token"].values[changed.values].tolist() == ["pose"]


def test_all_of_a_twin_makes_the_twin_of_a_frame(backbone, sequence, plain, gated):
    # On the first frame states are equal: with every head's output of the twin it is the twin.
    patched = ran(backbone, sequence, intervene=Patch(sites=KINDS, frames=[0]).of(gated))
    depths = [run["prediction/depth"].sel(frame=0) for run in (patched, gated, plain)]
    np.testing.assert_array_equal(depths[0], depths[1])
    assert not np.array_equal(depths[0], depths[2])


def test_the_run_says_what_was_patched_from_where(backbone, sequence, plain, gated):
    patch = Patch(sites="image_self", heads=[1], tokens=[(0, 1)])
    text = ran(backbone, sequence, intervene=patch.of(gated)).attrs["intervene"]
    recorded = json.loads(text)
    assert Patch.from_dict(recorded["patch"]) == patch
    assert recorded["from"]["gate"] == GATED["gate"].to_json()
    assert recorded["from"]["sequence"]["frames_sha256"] == plain.attrs["sequence"]["frames_sha256"]


def test_what_cannot_be_patched_is_refused(backbone, sequence, plain):
    with pytest.raises(InvalidArgument, match="unknown sites"):
        Patch(sites="encoder_self")
    with pytest.raises(InvalidArgument, match="pairs \\(row, column\\)"):
        Patch(sites="image_self", tokens=[3])
    bare = ran(backbone, sequence, capture=None)
    with pytest.raises(InvalidArgument, match="head_outputs='image_self:values'"):
        Patch(sites="image_self").of(bare)
    coarse = m3.Capture(statistics=None, head_outputs="image_self:values", dtype="float16")
    with pytest.raises(InvalidArgument, match="float16"):
        Patch(sites="image_self").of(ran(backbone, sequence, capture=coarse))
    with pytest.raises(InvalidArgument, match=r"no layer \[9\]"):
        Patch(sites="image_self", layers=[9]).of(plain)
    with pytest.raises(InvalidArgument, match="did not keep those of frame 7"):
        Patch(sites="image_self", source_frame=7).of(plain)
    few = m3.Capture(statistics=None, head_outputs="image_self:values", frames=[0])
    some = Patch(sites="image_self").of(ran(backbone, sequence, capture=few))
    with pytest.raises(InvalidArgument, match="did not keep those of frame 1"):
        ran(backbone, sequence, intervene=some)
    outside = Patch(sites="image_self", tokens=[(50, 1)]).of(plain)
    with pytest.raises(InvalidArgument, match="no query of image_self"):
        ran(backbone, sequence, intervene=outside)
    reads = [{**GATED, "commit": commit} for commit in ("rw.gg", "rw.pg")]
    with pytest.raises(InvalidArgument, match="read different ones"):
        m3.run_batch(backbone, sequence, reads, intervene=Patch(sites="image_self").of(plain))
