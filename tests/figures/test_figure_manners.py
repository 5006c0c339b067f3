"""Figures leave matplotlib as they found it, refuse in clear words, and save reproducibly."""

import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import xarray as xr

import mut3r_analysis as m3
from mut3r_analysis import figures
from mut3r_analysis.errors import InvalidArgument


def test_drawing_and_saving_change_no_global_state(
    squares_run: xr.DataTree, squares: xr.Dataset, tmp_path: Path
) -> None:
    before = dict(matplotlib.rcParams)
    drawn = [
        figures.overlay(squares_run, squares, "image_self/entropy"),
        figures.layer_heads(squares_run, "image_self/entropy", size="slide"),
        figures.depth_maps(squares_run, squares),
        figures.camera_path(squares_run),
        figures.state_updates(squares_run),
        figures.timing(squares_run),
    ]
    for figure in drawn:
        figure._repr_png_()
    figures.save(drawn[1], tmp_path / "layers.pdf")
    assert dict(matplotlib.rcParams) == before


def test_neither_the_package_nor_a_contact_sheet_imports_pyplot(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np, mut3r_analysis as m3\n"
        "assert 'matplotlib' not in sys.modules and 'torch' not in sys.modules\n"
        "video = m3.open_sequence(np.zeros((2, 48, 64, 3), np.uint8))\n"
        "model = m3.load_backbone('random:small', device='cpu')\n"
        "run = m3.run(model, video, progress=False)\n"
        "m3.figures.depth_maps(run, video).savefig(sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "depth.png")], check=True)


def test_no_figure_stays_open_in_pyplot(squares_run: xr.DataTree) -> None:
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    figures.layer_heads(squares_run, "image_self/entropy")
    figures.timing(squares_run)
    assert plt.get_fignums() == before


def test_a_figure_does_not_depend_on_the_readers_settings(squares_run: xr.DataTree) -> None:
    plain = figures.layer_heads(squares_run, "image_self/entropy")._repr_png_()
    with matplotlib.rc_context({"font.size": 20, "axes.grid": True, "image.cmap": "jet"}):
        assert figures.layer_heads(squares_run, "image_self/entropy")._repr_png_() == plain


def test_style_is_undone_even_after_an_error() -> None:
    before = dict(matplotlib.rcParams)

    def fail() -> None:
        with figures.style("slide"):
            assert matplotlib.rcParams["font.size"] > 10
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert dict(matplotlib.rcParams) == before


def test_saving_twice_gives_the_same_bytes_with_the_source_inside(
    squares_run: xr.DataTree, tmp_path: Path
) -> None:
    figure = figures.layer_heads(squares_run, "image_self/entropy")
    first = figures.save(figure, tmp_path / "a" / "map", formats=["png", "pdf", "svg"])
    second = figures.save(figure, tmp_path / "b" / "map", formats=["png", "pdf", "svg"])
    assert [path.name for path in first] == ["map.png", "map.pdf", "map.svg"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert b"Source: squares" in first[0].read_bytes()
    assert "Source: squares" in first[2].read_text()


def test_a_notebook_shows_a_figure_at_its_natural_size(squares_run: xr.DataTree) -> None:
    figure = figures.timing(squares_run)
    png, shown = figure._repr_png_()
    assert png.startswith(b"\x89PNG")
    assert shown["width"] == 700


@pytest.mark.parametrize(
    ("statistic", "message"),
    [
        ("entropy", "site/statistic"),
        ("encoder_self/entropy", r"capture=m3.Capture\(sites=\['encoder_self'\]"),
        ("image_self/entrpy", r"no /attention/image_self/entrpy \(did you mean 'entropy'\?\)"),
        ("image_slf/entropy", r"nothing of 'image_slf' \(did you mean 'image_self'\?\)"),
        ("cue/motion", r"no /cue/motion.*cue=m3.Cue.mut3r\(\)"),
        ("image_self/sharpness", r"holds .*entropy.*statistics=\['sharpness'\]"),
        ("state_self/entropy", "per state token"),
        ("state_to_image/entropy", "received / received_logit of state_to_image"),
    ],
)
def test_overlay_says_what_to_capture_or_ask_instead(
    squares_run: xr.DataTree, squares: xr.Dataset, statistic: str, message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        figures.overlay(squares_run, squares, statistic)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"frames": [0, 99]}, r"frame \[99\].*0–4"),
        ({"layers": [7]}, r"layer \[7\].*0–3"),
        ({"head": "median"}, "'mean', 'max'"),
        ({"head": 9}, r"captured head \(\[0, 1, 2, 3\]\)"),
        ({"opacity": 0}, "opacity"),
        ({"size": "poster"}, "one of column, page, slide"),
    ],
)
def test_a_wrong_choice_lists_the_right_ones(
    squares_run: xr.DataTree, squares: xr.Dataset, wrong: dict, message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        figures.overlay(squares_run, squares, "image_self/entropy", **wrong)


def test_the_sequence_must_be_the_one_that_was_run(squares_run: xr.DataTree) -> None:
    other = m3.open_sequence(np.zeros((5, 48, 64, 3), np.uint8), name="black")
    with pytest.raises(InvalidArgument, match=r"of sequence 'squares'.*'black'"):
        figures.depth_maps(squares_run, other)


def test_a_run_without_depth_attention_or_pose_says_how_to_get_them(squares: xr.Dataset) -> None:
    model = m3.load_backbone("random:small", device="cpu")
    pose_only = m3.run(model, squares, outputs=("pose",), progress=False)
    with pytest.raises(InvalidArgument, match=r"no /prediction/depth.*outputs="):
        figures.depth_maps(pose_only, squares)
    with pytest.raises(InvalidArgument, match="it has no attention"):
        figures.layer_heads(pose_only, "image_self/entropy")
    assert "viewing direction" in figures.camera_path(pose_only).texts[1].get_text()


def test_whole_maps_and_plain_datasets_are_refused(
    squares_run: xr.DataTree, squares: xr.Dataset
) -> None:
    site = squares_run["attention/image_self"]
    outer = site["entropy"] * xr.DataArray(np.ones(3), dims="key")
    with pytest.raises(InvalidArgument, match="either query or key"):
        figures.layer_heads(squares_run, outer)
    with pytest.raises(InvalidArgument, match="DataTree"):
        figures.camera_path(squares)


def test_saving_as_something_unknown_names_the_formats(
    squares_run: xr.DataTree, tmp_path: Path
) -> None:
    with pytest.raises(InvalidArgument, match="png, pdf, svg"):
        figures.save(figures.timing(squares_run), tmp_path / "timing.docx")
