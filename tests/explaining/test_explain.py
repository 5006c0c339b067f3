"""A planted fault is found down to its head, where the first difference is something else."""

import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import mut3r_analysis as m3
from mut3r_analysis.attention import Site
from mut3r_analysis.cli.main import main
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.explaining.undoing import Part, Undo

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from faults import Fault, Faulty

FRAMES, GRID = 5, (6, 8)
HARMFUL = Fault(4, 0, 0, "image_self", 2, 3, on_logits=True)
HARMLESS = [
    Fault(0, 2, 4, "image_self", 4, 1, on_logits=True),
    Fault(1, 4, 3, "image_to_state", 5, 1, on_logits=False),
    Fault(2, 2, 0, "image_self", 3, 3, on_logits=True),
    Fault(3, 0, 2, "image_to_state", 2, 2, on_logits=False),
]
"""They move what their heads write as far as the harmful one, and leave the error where it is."""


@pytest.fixture(scope="module")
def backbone():
    return m3.load_backbone("tiny", device="cpu")


@pytest.fixture(scope="module")
def sequence():
    return m3.open_sequence("scenes/orbit-03", stop=FRAMES)


def ran(backbone, sequence, beta, faults=None, **more) -> xr.DataTree:
    """A run gated with a sharpness, which so differs everywhere from one with another."""
    return m3.run(
        backbone,
        sequence,
        cue=m3.Cue.mut3r(),
        gate=None if beta is None else m3.Gate.mut3r(beta=beta),
        outputs=("pose", "depth"),
        intervene=faults,
        progress=False,
        **more,
    )


@pytest.fixture(scope="module")
def plain(backbone, sequence):
    return ran(backbone, sequence, 1.0)


def test_the_one_fault_that_does_harm_is_named(backbone, sequence, plain):
    faulty = Faulty([[*HARMLESS, HARMFUL]], FRAMES, GRID)
    gated = ran(backbone, sequence, 1.02, faulty)
    differs = abs(gated["prediction/depth"] - plain["prediction/depth"]).max(["y", "x"])
    assert int(differs["frame"][int((differs > 0).argmax("frame"))]) != HARMFUL.frame
    found = m3.explain(plain, gated, sequence, backbone=backbone, intervene=faulty)
    about = found.attrs
    place = ("frame", "patch_row", "patch_col", "site", "layer", "head")
    assert tuple(about[name] for name in place) == HARMFUL[:6]
    assert about["not_checked"] == ""
    # All of the intervention, 5 frames, 4 sites, 6 layers, 4 heads and 48 patches.
    assert about["checked"] == 1 + 5 + 4 + 6 + 4 + 48
    assert int(np.isfinite(found["patch_undone"]).sum()) == 48
    for name in ("frame_undone", "site_undone", "layer_undone", "head_undone", "patch_undone"):
        assert float(found[name].max()) > 0.8
    others = found["head_undone"].stack(cell=("site", "layer", "head")).dropna("cell")
    assert others.drop_sel(cell=("image_self", 2, 3)).max() < 0.2
    assert about["answer"].startswith("depth AbsRel (median scale) rises most in frame 4, by 0.0")
    assert "most at patch (0, 0). Without image_self, layer 2, head 3," in about["answer"]


def test_where_nothing_got_worse_nothing_is_named(backbone, sequence, plain):
    faulty = Faulty([HARMLESS], FRAMES, GRID)
    gated = ran(backbone, sequence, 1.02, faulty)
    found = m3.explain(plain, gated, sequence, backbone=backbone, intervene=faulty)
    assert found.attrs["answer"].startswith("Nothing got worse: by depth AbsRel (median scale)")
    assert "frame" not in found.attrs
    assert found.attrs["checked"] == 0
    assert not found["signature_shown"].any()


def test_a_gate_is_switched_off_part_by_part(backbone, sequence):
    plain = ran(backbone, sequence, None)
    gated = m3.run(
        backbone,
        sequence,
        cue=m3.Cue.mut3r(),
        gate=m3.Gate.at({"image_to_state": "output_scale"}, layers=(1, 2), heads=(2,)),
        outputs=("pose", "depth"),
        progress=False,
    )
    found = m3.explain(plain, gated, sequence, backbone=backbone, least=-1.0)
    assert (found.attrs["site"], found.attrs["layer"], found.attrs["head"]) == (
        "image_to_state", 1, 2,
    )  # fmt: skip
    head = found["head_undone"].sel(site="image_to_state", layer=1)
    # What is left without the one head that is gated is the plain run; and nothing else matters.
    assert head.values.tolist() == pytest.approx([0, 0, 1, 0], abs=1e-3)


def test_two_runs_are_a_mapping_or_stores_and_the_sequence_is_found(backbone, tmp_path):
    scene = m3.open_sequence("scenes/orbit-03", start=2, stop=8, stride=3)
    stores = {"plain": tmp_path / "plain.zarr", "gated": tmp_path / "gated.zarr"}
    runs = {
        name: ran(backbone, scene, beta, out=stores[name])
        for name, beta in (("plain", None), ("gated", 1.0))
    }
    found = m3.explain(*runs.values(), scene, least=1e9)
    for same in (
        m3.explain(runs, least=1e9),
        m3.explain(stores, sequence="scenes/orbit-03", least=1e9),
        m3.explain(*stores.values(), least=1e9),
    ):
        xr.testing.assert_identical(same, found)
    with pytest.raises(InvalidArgument, match="explain compares two runs"):
        m3.explain({"plain": runs["plain"]})


def test_without_truth_runs_are_told_apart_and_it_is_said(backbone, sequence):
    blind = sequence[["image"]]
    runs = [ran(backbone, blind, beta) for beta in (None, 1.0)]
    found = m3.explain(*runs, blind, backbone=backbone, budget=0)
    assert found.attrs["answer"].startswith("No ground truth: the runs differ most in frame ")
    assert found.attrs["answer"].endswith("Not checked: the budget was spent.")
    assert found.attrs["metric"] == "depth_difference"
    assert found.attrs["checked"] == 0
    same = m3.explain(runs[0], runs[0], blind, backbone=backbone)
    assert same.attrs["answer"] == "The runs do not differ."


def test_what_cannot_be_switched_off_is_said(backbone, sequence, plain):
    other = ran(backbone, sequence, 3.0)
    found = m3.explain(plain, other, sequence, backbone=backbone, least=-1.0)
    assert "no gate can be switched off site by site" in found.attrs["not_checked"]
    assert found["frame_undone"].isnull().all()
    elsewhere = m3.open_sequence("scenes/orbit-01", stop=FRAMES)
    with pytest.raises(InvalidArgument, match="different sequences"):
        m3.explain(plain, ran(backbone, elsewhere, 1.0), sequence, backbone=backbone)


def test_a_patched_run_is_explained_by_what_changed(backbone, sequence):
    keep = m3.Capture(statistics=None, head_outputs="image_self:values", sites="image_self")
    plain, twin = (ran(backbone, sequence, beta, capture=keep) for beta in (None, 8.0))
    patch = m3.Patch(sites="image_self", layers=[3], heads=[2]).of(twin)
    patched = ran(backbone, sequence, None, patch)
    found = m3.explain(plain, patched, sequence, backbone=backbone, intervene=patch, least=-1.0)
    assert found.attrs["not_checked"].startswith("a patch is not switched off in part")
    assert found.attrs["checked"] == 0
    assert found["writes"].stack(cell=("site", "layer", "head")).idxmax("cell").item() == (
        "image_self", 3, 2,
    )  # fmt: skip


def test_only_the_part_is_switched_off():
    torch = pytest.importorskip("torch")
    q, k, v, out = torch.zeros(4, 2, 2, 3, 4)
    seen = Undo([Part(), Part(site="image_self", head=1)], lambda *_: out + 5, gate=False)
    seen(Site("encoder_self", 0), q[:1], k[:1], v[:1], out[:1])
    found = seen(Site("image_self", 3), q, k, v, out)
    assert found[:, :, 0, 0].tolist() == [[0, 0], [5, 0]]
    found = seen(Site("state_self", 3), q, k, v, out)
    assert found[:, :, 0, 0].tolist() == [[0, 0], [5, 5]]
    one = Undo([Part(head=1, query=2)], lambda *_: out[:1] + 5, gate=False)
    assert one(Site("image_self", 0), q[:1], k[:1], v[:1], out[:1])[0, :, :, 0].tolist() == [
        [5, 5, 5], [5, 5, 0],
    ]  # fmt: skip
    later = Undo([Part(frame=1)], lambda *_: out[:1] + 5, gate=False)
    for expected in (5, 0):
        later(Site("encoder_self", 0), q[:1], k[:1], v[:1], out[:1])
        found = later(Site("image_self", 0), q[:1], k[:1], v[:1], out[:1])
        np.testing.assert_array_equal(found, np.full((1, 2, 3, 4), expected))


def test_the_command_explains_two_stores(backbone, sequence, tmp_path, capsys):
    for name, beta in (("a", None), ("b", 2.0)):
        ran(backbone, sequence, beta, out=tmp_path / name)
    stores = [str(tmp_path / name) for name in ("a", "b")]
    assert main(["explain", *stores, "--budget", "3"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("depth AbsRel (median scale) rises most in frame")
    assert "Not checked: the budget was spent." in said
    assert "share of the worst frame's harm that goes without it" in said
    assert "signatures of known failures\nyes  over-suppression: δ < 1.25 of what rests" in said
    assert main(["explain", *stores, "--sequence", "scenes/orbit-01"]) == 1
    assert "open the sequence as it was run" in capsys.readouterr().err
