"""Figures of studies show the estimates they are given, all of them, and say what they mean."""

import warnings
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from mut3r_analysis import figures
from mut3r_analysis.errors import InvalidArgument

TEXTS = {"title": "Change under gates", "subtitle": "8 sequences", "source": "Source: made up"}


def estimates(**sizes: int) -> xr.Dataset:
    """Made-up estimates whose numbers are all different, with intervals around them."""
    value = np.random.default_rng(3).normal(0, 5, tuple(sizes.values()))
    names = {dim: [f"{dim} {index}" for index in range(size)] for dim, size in sizes.items()}
    dataset = xr.Dataset(
        {"value": (tuple(sizes), value), "lower": (tuple(sizes), value - 1.5),
         "upper": (tuple(sizes), value + 2.5)}, coords=names,
    )  # fmt: skip
    for name in dataset:
        dataset[name].attrs = {"long_name": "change of the error", "units": "%"}
    return dataset


def words(figure: Figure) -> str:
    """All text of a figure that is not a tick label."""
    found = [text.get_text() for text in figure.texts]
    for axis in figure.axes:
        found += [axis.get_title(loc="left"), axis.get_xlabel(), axis.get_ylabel()]
    for legend in figure.legends:
        found += [legend.get_title().get_text(), *(t.get_text() for t in legend.get_texts())]
    return " ".join(part.replace("\n", " ") for part in found if part.strip())


def rows_of(figure: Figure) -> list[str]:
    return [label.get_text().replace("\n", " ") for label in figure.axes[0].get_yticklabels()]


def intervals_of(axis) -> np.ndarray:
    """Ends of the horizontal bars of an axis."""
    bars = [line for line in axis.lines if line.get_marker() == "None" and line.get_zorder() == 2]
    return np.array([bar.get_xdata() for bar in bars])


def test_interval_dots_draw_every_value_on_its_interval_first_row_on_top() -> None:
    given = estimates(gate=4)
    figure = figures.interval_dots(given, rows="gate", **TEXTS)
    (axis,) = figure.axes
    (dots,) = [line for line in axis.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(dots.get_xdata(), given["value"])
    np.testing.assert_allclose(dots.get_ydata(), np.arange(4))
    assert axis.get_ylim()[0] > axis.get_ylim()[1]
    expected = np.stack([given["lower"], given["upper"]], axis=-1)
    np.testing.assert_allclose(intervals_of(axis), expected)
    assert rows_of(figure) == ["gate 0", "gate 1", "gate 2", "gate 3"]
    for text in ("Change under gates", "8 sequences", "Source: made up", "change of the error (%)"):
        assert text in words(figure)


def test_panels_and_colours_of_dots_are_named_and_hold_their_own_values() -> None:
    given = estimates(metric=3, beta=2, gate=5).assign_coords(beta=[0.5, 2.0])
    given["beta"].attrs["long_name"] = "sharpness"
    figure = figures.interval_dots(
        given.transpose("gate", "metric", "beta"), rows="gate", panels="metric", colors="beta",
        **TEXTS,
    )  # fmt: skip
    assert len(figure.axes) == 3
    for index, axis in enumerate(figure.axes):
        assert axis.get_title(loc="left") == f"metric {index}"
        dots = [line for line in axis.lines if line.get_marker() in "os"]
        for series, line in enumerate(dots):
            np.testing.assert_allclose(line.get_xdata(), given["value"][index, series])
        # The two series of a row do not lie on each other.
        assert (np.abs(dots[0].get_ydata() - dots[1].get_ydata()) > 0.2).all()
    assert "sharpness 0.5 2" in words(figure)
    assert words(figure).count("change of the error (%)") == 1


def test_panels_of_dots_can_have_axes_of_their_own_with_ticks() -> None:
    given = estimates(metric=5, gate=3)
    given = given * xr.DataArray(10.0 ** np.arange(5), dims="metric")
    shared = figures.interval_dots(given, rows="gate", panels="metric", **TEXTS)
    assert len({axis.get_xlim() for axis in shared.axes}) == 1
    figure = figures.interval_dots(given, rows="gate", panels="metric", share_x=False, **TEXTS)
    assert len({axis.get_xlim() for axis in figure.axes}) == 5
    assert all(any(t.get_text() for t in axis.get_xticklabels()) for axis in figure.axes)


def test_curves_on_a_logarithmic_axis_have_plain_numbers() -> None:
    given = abs(estimates(layer=6)["value"]).assign_coords(layer=range(6)) + 0.1
    (axis,) = figures.curves(given, x="layer", log=True, **TEXTS).axes
    assert axis.get_yscale() == "log"
    low, high = axis.get_ylim()
    shown = [t.get_text() for t in axis.get_yticklabels() if low <= t.get_position()[1] <= high]
    assert shown
    assert all(str(float(text)).lstrip("0.").startswith(("1", "2", "5")) for text in shown)


def test_a_value_without_interval_is_a_bare_dot_and_a_missing_value_says_so() -> None:
    given = estimates(gate=3)
    given["lower"][1] = given["upper"][1] = np.nan
    given["value"][2] = np.nan
    figure = figures.interval_dots(given, rows="gate", **TEXTS)
    (axis,) = figure.axes
    assert np.isfinite(intervals_of(axis)).all(axis=-1).tolist() == [True, False, False]
    assert [text.get_text() for text in axis.texts] == ["no value"]


def test_a_reference_is_drawn_where_asked_and_left_out_for_none() -> None:
    given = estimates(gate=3)

    def references(**how: float | None) -> list[float]:
        axis = figures.interval_dots(given, rows="gate", **TEXTS, **how).axes[0]
        return [line.get_xdata()[0] for line in axis.lines if line.get_zorder() == 1]

    assert references() == [0.0]
    assert references(reference=0.5) == [0.5]
    assert references(reference=None) == []


@pytest.mark.parametrize("size", ["column", "page", "slide"])
@pytest.mark.parametrize("count", [2, 30])
def test_rows_do_not_overlap_and_no_label_leaves_the_page(size: str, count: int) -> None:
    given = estimates(gate=count)
    long = [f"true mask, state_to_image keys only, layers [0, {index})" for index in range(count)]
    figure = figures.interval_dots(given.assign_coords(gate=long), rows="gate", size=size, **TEXTS)
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    boxes = [label.get_window_extent(renderer) for label in figure.axes[0].get_yticklabels()]
    assert [text.replace("\N{NO-BREAK SPACE}", " ") for text in rows_of(figure)] == long
    assert min(box.x0 for box in boxes) >= 0
    tops = sorted((box.y0, box.y1) for box in boxes)
    assert all(below[1] <= above[0] + 0.5 for below, above in pairwise(tops))


def test_curves_keep_numbers_apart_and_shade_their_intervals() -> None:
    given = estimates(layer=6, site=2).assign_coords(layer=[0, 1, 2, 4, 6, 11])
    figure = figures.curves(given, x="layer", colors="site", reference=1.0, **TEXTS)
    (axis,) = figure.axes
    lines = [line for line in axis.lines if line.get_marker() in ("o", "s")]
    for index, line in enumerate(lines):
        np.testing.assert_allclose(line.get_xdata(), [0, 1, 2, 4, 6, 11])
        np.testing.assert_allclose(line.get_ydata(), given["value"][:, index])
    bands = [part for part in axis.collections if isinstance(part, PolyCollection)]
    for index, band in enumerate(bands):
        corners = band.get_paths()[0].vertices[:, 1]
        assert corners.min() == pytest.approx(float(given["lower"][:, index].min()))
        assert corners.max() == pytest.approx(float(given["upper"][:, index].max()))
    assert axis.get_xlabel() == "layer"
    assert axis.get_ylabel() == "change of the error (%)"
    assert "site site 0 site 1" in words(figure)
    assert len({(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}) == 2


def test_curves_take_bare_values_and_leave_gaps_where_there_are_none() -> None:
    values = xr.DataArray(
        [1.0, 2.0, np.nan, 3.0], dims="stride", coords={"stride": [1, 2, 4, 8]}, name="ate_rmse"
    )
    values["stride"].attrs["units"] = "frame"
    (axis,) = figures.curves(values, x="stride", **TEXTS).axes
    assert axis.get_xscale() == "log"
    assert [label.get_text() for label in axis.get_xticklabels()] == ["1", "2", "4", "8"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("stride (frame)", "ate rmse")
    assert [line.get_xydata().tolist() for line in axis.lines] == [[[1, 1], [2, 2]], [[8, 3]]]


def test_a_value_alone_between_gaps_of_a_long_curve_is_marked() -> None:
    values = xr.DataArray(np.full(60, np.nan), dims="frame", name="error")
    values[13], values[40:60] = 1.0, 2.0
    (axis,) = figures.curves(values, x="frame", **TEXTS).axes
    assert [line.get_markevery() for line in axis.lines] == [[0], []]
    np.testing.assert_array_equal(axis.lines[0].get_xydata(), [[13, 1]])


def test_curves_over_names_are_evenly_spaced_and_panels_are_titled() -> None:
    given = estimates(site=4, backbone=3)
    figure = figures.curves(given, x="site", panels="backbone", **TEXTS)
    for index, axis in enumerate(figure.axes):
        assert axis.get_title(loc="left") == f"backbone {index}"
        np.testing.assert_allclose(axis.lines[-1].get_xdata(), np.arange(4))
        np.testing.assert_allclose(axis.lines[-1].get_ydata(), given["value"][:, index])


def test_a_matrix_holds_the_values_and_says_them_with_equal_decimals() -> None:
    values = estimates(gate=3, layer=4)["value"].assign_coords(layer=range(4))
    values[0, 0], values[1, 1] = -0.004, 12.345
    figure = figures.matrix(values, rows="gate", columns="layer", center=0.0, **TEXTS)
    axis, bar = figure.axes
    np.testing.assert_allclose(axis.collections[0].get_array(), values)
    texts = [text.get_text() for text in axis.texts]
    assert texts[0] == "0.0"
    assert texts[5] == "12.3"
    assert len(texts) == 12
    low, high = axis.collections[0].get_clim()
    assert low == -high
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("layer", "gate")
    assert bar.get_ylabel().replace("\n", " ") == "change of the error (%)"
    assert "hatched" not in words(figure)


def test_missing_cells_of_a_matrix_are_hatched_and_explained() -> None:
    values = estimates(gate=3, layer=4)["value"]
    values[2, 1] = np.nan
    figure = figures.matrix(values, rows="gate", columns="layer", **TEXTS)
    axis = figure.axes[0]
    # The background of the cells is hatched, and a missing one lets it through.
    assert axis.patch.get_hatch()
    drawn = axis.collections[0].get_array()
    assert np.argwhere(np.ma.getmaskarray(drawn)).tolist() == [[2, 1]]
    assert "8 sequences; hatched: no value" in words(figure)
    assert len(axis.texts) == 11


def test_panels_of_a_matrix_share_their_colours_and_numbers_can_be_left_out() -> None:
    values = estimates(metric=2, gate=3, layer=4)["value"]
    figure = figures.matrix(
        values, rows="gate", columns="layer", panels="metric", annotate=False, **TEXTS
    )
    first, second = figure.axes[:2]
    assert first.collections[0].get_clim() == second.collections[0].get_clim()
    np.testing.assert_allclose(second.collections[0].get_array(), values[1])
    assert [axis.get_title(loc="left") for axis in (first, second)] == ["metric 0", "metric 1"]
    assert not first.texts


def test_a_matrix_of_nothing_but_missing_values_can_be_drawn() -> None:
    values = xr.full_like(estimates(gate=2, layer=2)["value"], np.nan)
    figure = figures.matrix(values, rows="gate", columns="layer", center=0.0, **TEXTS)
    assert np.ma.getmaskarray(figure.axes[0].collections[0].get_array()).all()


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda d: figures.interval_dots(d, rows="gte", **TEXTS),
         r"rows='gte' is no dimension of these values \(did you mean 'gate'\?\)"),
        (lambda d: figures.interval_dots(d, rows="layer", **TEXTS),
         r"rows='layer' is no dimension of these values; dimensions are gate \(3\), site \(4\)"),
        (lambda d: figures.interval_dots(d, rows="gate", **TEXTS),
         r"'site' has no place in this figure; give it as panels or colors"),
        (lambda d: figures.curves(d, x="gate", colors="gate", **TEXTS), "one place"),
        (lambda d: figures.matrix(d["n"], rows="gate", columns="site", panels="beta", **TEXTS),
         "panels='beta' is no dimension"),
        (lambda d: figures.curves(d[["n"]], x="gate", **TEXTS), r"hold n and no 'value'"),
        (lambda d: figures.curves(d["n"].values, x="gate", **TEXTS), "got ndarray"),
        (lambda d: figures.curves(d.isel(gate=slice(0)), x="gate", colors="site", **TEXTS),
         "nothing was left to draw"),
        (lambda d: figures.curves(d.isel(gate=0), x="site", size="poster", **TEXTS), "of column"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_the_dimensions_there_are(
    draw: Callable[[xr.Dataset], Figure], message: str
) -> None:
    given = estimates(gate=3, site=4)
    given["n"] = given["value"]
    with pytest.raises(InvalidArgument, match=message):
        draw(given)


def test_more_lines_than_can_be_told_apart_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="17 entries, of which 16 can be told apart"):
        figures.curves(estimates(layer=2, gate=17), x="layer", colors="gate", **TEXTS)


def test_dimensions_of_length_one_need_no_place() -> None:
    given = estimates(gate=3, backbone=1)
    figure = figures.interval_dots(given, rows="gate", **TEXTS)
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    np.testing.assert_allclose(dots[0].get_xdata(), given["value"][:, 0])


def test_the_figures_draw_without_warnings_at_every_size() -> None:
    given = estimates(metric=6, gate=8, site=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for size, width in (("column", 3.4), ("page", 7.0), ("slide", 12.0)):
            for figure in (
                figures.interval_dots(given, rows="gate", panels="metric", colors="site",
                                      size=size, **TEXTS),
                figures.curves(given, x="gate", panels="metric", colors="site", size=size, **TEXTS),
                figures.matrix(given, rows="gate", columns="site", panels="metric", size=size,
                               **TEXTS),
            ):  # fmt: skip
                assert figure.get_size_inches()[0] == width
                figure.canvas.draw()


@pytest.mark.parametrize("size", ["column", "page", "slide"])
@pytest.mark.parametrize("panels", [1, 5])
def test_long_names_along_curves_stay_on_the_page_and_leave_room_for_them(
    size: str, panels: int
) -> None:
    names = [f"true mask, state_to_image keys only, layers [0, {end})" for end in range(6)]
    given = estimates(metric=panels, gate=6).assign_coords(gate=names)
    figure = figures.curves(given, x="gate", panels="metric", size=size, **TEXTS)
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    for axis in figure.axes:
        box = axis.get_window_extent(renderer)
        assert box.width > 0.12 * figure.bbox.width
        assert box.height > 0.04 * figure.bbox.height
        labels = [label for label in axis.get_xticklabels() if label.get_visible()]
        boxes = [label.get_window_extent(renderer) for label in labels if label.get_text()]
        if axis is figure.axes[-1]:
            assert len(boxes) == 6
            assert min(box.x0 for box in boxes) >= 0
            assert max(box.x1 for box in boxes) <= figure.bbox.width
            assert min(box.y0 for box in boxes) >= 0
            assert all(left.x1 <= right.x0 + 1 for left, right in pairwise(boxes))


def test_figures_are_drawn_on_subfigures_and_axes_that_are_handed_in() -> None:
    own = Figure(figsize=(8, 3), layout="constrained")
    left, right = own.subfigures(1, 2)
    given = estimates(gate=3, site=2)
    assert figures.curves(given, x="gate", colors="site", on=left, **TEXTS) is own
    above, below = right.subplots(2, 1)
    figures.interval_dots(given.isel(site=0), rows="gate", on=above, **TEXTS)
    figures.matrix(given, rows="site", columns="gate", on=below, **TEXTS)
    own.draw_without_rendering()
    assert "Change under gates. 8 sequences" in left.get_suptitle()
    assert left.get_supxlabel() == "Source: made up"
    (lines,) = left.axes
    assert [text.get_text() for text in lines.get_legend().get_texts()] == ["site 0", "site 1"]
    np.testing.assert_allclose(lines.lines[-1].get_ydata(), given["value"][:, 1])
    assert above.get_title(loc="left") == below.get_title(loc="left") == "Change under gates"
    np.testing.assert_allclose(below.collections[0].get_array(), given["value"].T)
    assert len(own.axes) == 4  # those three, and the colour bar of the matrix


def test_what_cannot_be_drawn_on_is_refused() -> None:
    given = estimates(gate=3, site=2)
    axis = Figure().subplots()
    with pytest.raises(InvalidArgument, match="2 panels do not fit on one Axes; hand in a SubF"):
        figures.curves(given, x="gate", panels="site", on=axis, **TEXTS)
    with pytest.raises(InvalidArgument, match="must be a matplotlib Axes or SubFigure, got 'ax'"):
        figures.curves(given, x="gate", colors="site", on="ax", **TEXTS)
