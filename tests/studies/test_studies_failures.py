"""From the sweep to the worst frame, patch, layer and head; on data whose answer is known."""

import numpy as np
import pytest
import xarray as xr

import mut3r_analysis as m3
from mut3r_analysis.attention import DECODER_KINDS
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.evaluation import harms, patch_harm, worst_frames
from mut3r_analysis.explaining import attention_at
from mut3r_analysis.motion import attention_change
from mut3r_analysis.notebooks.execution import execute_notebook, find_notebook
from mut3r_analysis.studies.failures import finding, runs_of, worst_case
from mut3r_analysis.studies.finding import HIGHER, LOWER, NOT_SIGNIFICANT, findings_of
from mut3r_analysis.studies.model_card.tables import outside_training

STORY = {
    "sequence": "b",
    "frame": 2,
    "row": 1,
    "column": 3,
    "score": 0.9,
    "moving": 0.0,
    "site": "image_self",
    "layer": 4,
    "head": 1,
    "beta": 1.0,
    "outside": [],
}


def harms_of(table: xr.Dataset, metric: str | None = None) -> xr.Dataset:
    return harms(*(table.sel(configuration=name) for name in ("plain", "gated")), metric)


@pytest.fixture
def table():
    """Six sequences of three frames; gating hurts "b" most, at its last frame, and helps "a"."""
    names = list("abcdef")
    plain = np.full((6, 3), 0.2)
    gated = plain + np.array([-0.1, 0.3, 0.01, 0.02, 0.03, 0.04])[:, None]
    gated[1] += [0.0, -0.1, 0.1]
    frames = np.stack([plain, gated])
    dims = ("configuration", "sequence")
    attrs = {"long_name": "mean of |p - g| / g", "units": "1"}
    attrs["protocol"] = "default:depth:scale_median"
    return xr.Dataset(
        {
            "abs_rel": (dims, frames.mean(-1), attrs),
            "frame_abs_rel": ((*dims, "frame"), frames, attrs),
            "run": (dims, np.full((2, 6), "", dtype=str)),
        },
        coords={"configuration": ["plain", "gated"], "sequence": names, "frame": [0, 1, 2]},
    )


def test_sequences_and_frames_are_ranked_by_harm(table):
    found = harms_of(table)
    assert found.attrs["metric"] == "abs_rel"
    assert found["sequence"].values.tolist() == ["b", "f", "e", "d", "c", "a"]
    assert float(found["harm"][0]) == pytest.approx(0.3)
    worst = worst_frames(found, 2)
    assert worst["sequence"].tolist() == ["b", "b"]
    assert worst["frame"].tolist() == [2, 0]
    assert worst["harm"].tolist() == pytest.approx([0.4, 0.3])
    assert worst_frames(found, 1, gain=True)["sequence"].tolist() == ["a"]


def test_the_finding_follows_the_data(table):
    def said(swept, **changes):
        return finding(harms_of(swept, "abs_rel"), STORY | changes)

    name = "depth AbsRel (median scale)"
    harm = said(table)
    assert harm.row(name).value == pytest.approx(25)
    assert harm.row("sequences whose error is raised").value == 5
    assert harm.row("most raised: b").value == pytest.approx(0.3)
    assert harm.row(name).verdict == NOT_SIGNIFICANT
    assert "training" not in harm.answer
    worse = table.copy(deep=True)
    worse["abs_rel"][1] = worse["abs_rel"][0] * 1.5
    assert said(worse).row(name).verdict == HIGHER
    swapped = said(worse.assign_coords(configuration=["gated", "plain"]))
    assert swapped.row(name).verdict == LOWER
    assert swapped.row("sequences whose error is raised").value == 0
    strange = said(table, outside=["clear air (trained with fog of 6 m)"])
    assert strange.answer.endswith("clear air (trained with fog of 6 m).")


def test_patches_are_ranked_by_the_error_that_their_frame_was_scored_with(tmp_path):
    """The harm of a frame is the mean over its patches, so the worst of both belong together."""
    table = m3.sweep(
        "tiny",
        "scenes/orbit-03",
        configurations={"plain": {}, "gated": {"cue": m3.Cue.mut3r(), "gate": m3.Gate.mut3r()}},
        frames="0:2",
        outputs=("depth",),
        out=tmp_path,
        progress=False,
    )
    frames = harms_of(table)["frame_harm"].sel(sequence="orbit-03")
    runs = runs_of(table, "orbit-03")
    found = patch_harm(runs["plain"], runs["gated"])
    assert found.sizes == {"frame": 2, "patch_row": 6, "patch_col": 8}
    for frame in (0, 1):
        mean = float(found.sel(frame=frame).mean())
        assert mean == pytest.approx(100 * float(frames.sel(frame=frame)), rel=1e-3)
    assert "aligned as in its score" in found.attrs["comment"]


def test_a_scene_unlike_those_of_training_is_told_by_what_differs():
    said = {
        name: outside_training("tiny", m3.open_sequence(f"scenes/{name}", stop=1))
        for name in ("clear-01", "crowded-01", "textureless-01", "orbit-03")
    }
    assert said["clear-01"] == ["clear air (trained with fog of 6 m)"]
    assert said["crowded-01"] == [
        "9 objects (trained with at most 4)",
        "3 moving objects (trained with 0 to 2)",
    ]
    assert said["textureless-01"] == ["textures of contrast 0 (trained with 0.6 to 1.2)"]
    assert said["orbit-03"] == []
    still = m3.open_sequence(np.zeros((1, 48, 64, 3), np.uint8), name="clear-01")
    assert outside_training("tiny", still) == []


def test_attention_cannot_change_before_a_gate_has_acted():
    backbone = m3.load_backbone("tiny", device="cpu")
    sequence = m3.open_sequence("scenes/orbit-03", stop=2)
    gated = m3.Configuration(cue=m3.Cue.mut3r(), gate=m3.Gate.mut3r(layers=(2, 4)))
    configurations = {"plain": m3.Configuration(), "gated": gated}
    runs = attention_at(backbone, sequence, configurations, 0)
    change = attention_change(runs["plain"], runs["gated"], 0, 2, 3)
    assert set(change["site"].values) == set(DECODER_KINDS)
    reads, writes = change["reads"], change["writes"]
    assert float(reads.sel(layer=[0, 1], site="image_self").max()) < 1e-3
    assert float(writes.sel(layer=[0, 1]).max()) < 1e-5
    # A gate acts on what is written before anything is read otherwise.
    assert float(writes.sel(layer=2, site="image_self").max()) > 1e-2
    assert float(reads.sel(layer=[4, 5]).max()) > 1e-2
    worst = worst_case(runs, change, 0, 2, 3)
    place = reads.mean("statistic").argmax(...)
    assert worst["site"] == str(change["site"].values[int(place["site"])])
    assert (worst["layer"], worst["head"]) == (int(place["layer"]), int(place["head"]))
    with pytest.raises(InvalidArgument, match="frame must be one of 0, 1; got 9"):
        attention_at(backbone, sequence, configurations, 9)
    with pytest.raises(InvalidArgument, match="no site of both runs has attention of frame 1"):
        attention_change(runs["plain"], runs["gated"], 1, 2, 3)


def test_a_metric_that_was_not_scored_is_refused(table):
    with pytest.raises(InvalidArgument, match="metric must be abs_rel; got 'ate'"):
        harms_of(table, "ate")


@pytest.mark.slow
def test_the_notebook_walks_from_the_number_to_the_head(tmp_path):
    done = execute_notebook(
        find_notebook("10_failure_cases"),
        {
            "sequences": ["scenes/orbit-0[13]"],
            "frames": 3,
            "out": str(tmp_path),
            "progress": False,
        },
        out_html=tmp_path / "page.html",
    )
    (said,) = findings_of(done)
    # Four figures of statistics, the patch, and the explorer, which a page cannot run.
    page = (tmp_path / "page.html").read_text()
    assert page.count('src="data:image/png') == 6
    assert 'href="explorer.html"' in page
    table = m3.open_sweep(tmp_path)
    worst = worst_frames(harms_of(table), 1).iloc[0]
    assert f"Worst: frame {worst['frame']} of {worst['sequence']}, patch" in said.answer
    assert said.row("sequences whose error is raised").n == 2


@pytest.mark.slow
def test_the_notebook_says_what_is_missing_without_ground_truth(shared, tmp_path):
    folder = sorted(path for path in (shared / "frames").iterdir() if path.is_dir())[0]
    done = execute_notebook(
        find_notebook("10_failure_cases"),
        {
            "backbone": "random:small",
            "sequences": [str(folder)],
            "frames": 3,
            "out": str(tmp_path),
            "progress": False,
        },
    )
    (said,) = findings_of(done)
    assert "No ground truth" in said.answer
    assert not any("moving share" in each.effect for each in said.rows)


def test_without_truth_what_is_ranked_is_the_difference(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (3, 48, 64, 3), np.uint8)
    table = m3.sweep(
        "tiny",
        m3.open_sequence(frames),
        configurations={"plain": {}, "gated": {"cue": m3.Cue.mut3r(), "gate": m3.Gate.mut3r()}},
        outputs=("depth",),
        out=tmp_path,
        progress=False,
    )
    found = harms_of(table)
    assert found.attrs["metric"] == "depth_difference"
    assert float(found["harm"][0]) > 0
    assert found["frame_harm"].sizes == {"sequence": 1, "frame": 3}
