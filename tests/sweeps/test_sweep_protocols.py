"""A sweep under a protocol of a data set: its frames, its preparation, or nothing at all."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from PIL import Image

import mut3r_analysis as m3
from mut3r_analysis.backbones import CUT3RConfig
from mut3r_analysis.backbones.random_weights import NAMED_CONFIGS, random_backbone
from mut3r_analysis.cli import main
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.metrics import protocol as find
from mut3r_analysis.sweeps.sources import sequence_sources

POSE = "pose:tum8-stride3-90:sim3"
QUIET = {"configurations": [{}], "progress": False}


@pytest.fixture(scope="module")
def model():
    """A small model with the input of the released ones."""
    small = NAMED_CONFIGS["small"]
    assert isinstance(small, CUT3RConfig)
    return random_backbone(replace(small, img_size=(512, 512), patch_size=16))


@pytest.fixture(scope="module")
def tum(tmp_path_factory):
    """Two sequences in the layout of TUM: one of the protocol's, and one of another list."""
    root = tmp_path_factory.mktemp("tum")
    for name, stop in (("freiburg3_walking_xyz", 8), ("freiburg1_desk", 2)):
        m3.export_sequence(m3.open_sequence("scenes/orbit-03", stop=stop), root, "tum", name=name)
    return f"tum:{root}"


def test_the_protocol_sets_sequences_frames_and_preparation(model, tum, tmp_path):
    table = m3.sweep(model, f"{tum}#*", protocol=POSE, outputs=["pose"], out=tmp_path, **QUIET)
    assert table["sequence"].values.tolist() == ["freiburg3_walking_xyz"]
    assert table["skipped"].values.ravel().tolist() == [""]
    run = m3.open_run(table["run"].values.ravel()[0])
    assert run["prediction/frame"].values.tolist() == [0, 3, 6]
    assert run.attrs["backbone"]["preparation"]["rule"] == "crop"
    sequence = m3.open_sequence(f"{tum}#freiburg3_walking_xyz")
    alone = m3.run(model, sequence, protocol=POSE, outputs=["pose"], progress=False)
    expected = m3.evaluate(alone, POSE)
    xr.testing.assert_allclose(table["ate"].isel(configuration=0, drop=True), expected["ate"])
    assert float(table["n_frames"].sum()) == 3


def test_the_depth_protocol_resizes_the_same_frames(model, tmp_path):
    scene = m3.open_sequence("scenes/orbit-03", stop=2)
    m3.export_sequence(scene, tmp_path / "sintel", "sintel", name="alley_2")
    table = m3.sweep(
        model, f"sintel:{tmp_path / 'sintel'}#*", protocol="video-depth:sintel23:scale_irls",
        out=tmp_path / "out", outputs=["depth"], **QUIET,
    )  # fmt: skip
    run = m3.open_run(table["run"].values.ravel()[0])
    assert run.attrs["backbone"]["preparation"]["rule"] == "resize"
    assert np.isfinite(table["abs_rel"]).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backbone": "tiny"}, "long edge of 512 px"),
        ({"sequences": "#freiburg1_desk"}, "'freiburg1_desk' is not among the sequences"),
        ({"sequences": "scenes/orbit-03"}, "is of 'scenes', .* is of 'tum'"),
        ({"frames": "0:2"}, "says which frames"),
        ({"preparation": "resize"}, "says how frames are prepared"),
        ({"outputs": ["depth"]}, "scores pose"),
        ({"protocol": "video-depth:bonn5:metric"}, "is of 'tum', .* is of 'bonn'"),
    ],
)
def test_what_cannot_fit_is_refused_before_the_first_run(model, tum, tmp_path, changes, words):
    given = {"backbone": model, "sequences": "#freiburg3_walking_xyz", "protocol": POSE} | changes
    if given["sequences"].startswith("#"):
        given["sequences"] = tum + given["sequences"]
    with pytest.raises(InvalidArgument, match=words):
        m3.sweep(out=tmp_path / "out", **(QUIET | given))
    assert not (tmp_path / "out").exists()


def test_truth_that_a_protocol_needs_is_asked_for_before_the_first_run(tum):
    sequence = m3.open_sequence(f"{tum}#freiburg3_walking_xyz").drop_vars("pose")
    with pytest.raises(InvalidArgument, match=r"has no pose, which .* is scored against"):
        sequence_sources(sequence, protocol=find(POSE))


def test_preparation_alone_is_taken_too(tmp_path):
    table = m3.sweep(
        "tiny", "scenes/orbit-03", frames="0:1", preparation="resize", out=tmp_path, **QUIET
    )
    run = m3.open_run(table["run"].values.ravel()[0])
    assert run.attrs["backbone"]["preparation"]["rule"] == "resize"


def test_a_plan_prices_the_frames_of_the_protocol(model, tum):
    sequence = m3.open_sequence(f"{tum}#freiburg3_walking_xyz")
    priced = m3.plan(model, sequence, protocol=POSE, outputs=["pose"])
    expected = m3.plan(model, sequence.isel(frame=[0, 3, 6]), outputs=["pose"])
    # Metadata counts the digits of some numbers.
    assert priced.stored_bytes == pytest.approx(expected.stored_bytes, rel=1e-4)
    swept = m3.plan(model, f"{tum}#*", protocol=POSE, outputs=["pose"], configurations=[{}])
    assert swept.frames_left == 3


def test_the_exit_status_is_0_only_when_runs_were_scored(tmp_path, capsys):
    folder = tmp_path / "without truth"
    folder.mkdir()
    for index in range(2):
        Image.new("RGB", (64, 48), (90 * index, 9, 9)).save(folder / f"{index}.png")
    text = f"backbone: tiny\nsequences: [{folder}]\noutputs: [pose]\n"
    (tmp_path / "sweep.yaml").write_text(text)
    words = ["sweep", str(tmp_path / "sweep.yaml"), "--out", str(tmp_path / "out"), "--quiet"]
    # The default scores what can be; a protocol that is named asks for a score.
    assert main(words) == 0
    assert "not scored: nothing could be scored" in capsys.readouterr().out
    assert main([*words, "--protocol", "default:pose:sim3"]) == 1
    assert "'without truth' has no pose" in capsys.readouterr().err
    assert main(["sweep", "--status", "--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    # What cannot fit ends before the first run.
    assert main([*words, "--protocol", "pose:sintel14:sim3"]) == 1
    assert "long edge of 512 px" in capsys.readouterr().err
    (tmp_path / "sweep.yaml").write_text(text.replace(str(folder), "scenes/orbit-03"))
    assert main([*words, "--preparation", "resize", "--protocol", "default:depth:metric"]) == 1
    assert "scores depth, which is not among the outputs" in capsys.readouterr().err
