"""Each figure shows what it says: panels, units, reductions, source, and the very numbers."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from mut3r_analysis import figures
from mut3r_analysis.errors import InvalidArgument


def words(figure: Figure) -> str:
    """All text of a figure that is not a tick label."""
    found = [text.get_text() for text in figure.texts]
    for axis in figure.axes:
        found += [axis.get_title(), axis.get_title(loc="center"), axis.get_xlabel()]
        found.append(axis.get_ylabel())
    return " ".join(part.replace("\n", " ") for part in found if part)


def pictures(figure: Figure) -> list[list[np.ndarray]]:
    """Arrays drawn on each axes, in order."""
    return [[np.asarray(image.get_array()) for image in axis.images] for axis in figure.axes]


def test_every_figure_says_which_run_it_shows_and_that_random_weights_mean_nothing(
    squares_run: xr.DataTree, squares: xr.Dataset
) -> None:
    for figure in (
        figures.overlay(squares_run, squares, "image_self/entropy"),
        figures.layer_heads(squares_run, "image_self/entropy"),
        figures.depth_maps(squares_run, squares),
        figures.camera_path(squares_run),
        figures.state_updates(squares_run),
        figures.timing(squares_run),
    ):
        assert isinstance(figure, Figure)
        text = words(figure).replace("\N{NO-BREAK SPACE}", " ")
        assert "Source: squares" in text
        assert "random:small" in text
        assert "random weights: values carry no meaning" in text


def test_overlay_has_a_row_of_frames_and_one_per_layer_with_its_values_on_the_patches(
    squares_run: xr.DataTree, squares: xr.Dataset
) -> None:
    figure = figures.overlay(squares_run, squares, "image_self/entropy", frames=[1, 4], layers=[2])
    text = words(figure)
    assert "entropy of the attention weights (nat)" in text
    assert "mean of 4 heads" in text
    assert "frame 1" in text
    assert "frame 4" in text
    assert "layer 2" in text
    expected = squares_run["attention/image_self/entropy"].sel(layer=2, token="patch").mean("head")
    drawn = [images[-1] for images in pictures(figure) if len(images) == 2]
    assert len(drawn) == 2
    for picture, frame in zip(drawn, (1, 4), strict=True):
        assert picture.shape == (6, 8)
        np.testing.assert_allclose(picture.ravel(), expected.sel(frame=frame), rtol=1e-6)


def test_overlay_puts_the_keys_of_state_to_image_on_the_frame(
    squares_run: xr.DataTree, squares: xr.Dataset
) -> None:
    figure = figures.overlay(
        squares_run, squares, "state_to_image/received", frames=0, layers=1, head=2
    )
    expected = squares_run["attention/state_to_image/received"].sel(
        frame=0, layer=1, head=2, key_token="patch"
    )
    (drawn,) = [images[-1] for images in pictures(figure) if len(images) == 2]
    np.testing.assert_allclose(drawn.ravel(), expected, rtol=1e-6)
    assert "head 2" in words(figure)


def test_overlay_takes_arrays_computed_from_the_run(
    squares_run: xr.DataTree, squares: xr.Dataset
) -> None:
    entropy = squares_run["attention/image_self/entropy"]
    change = (entropy - entropy.sel(frame=0)).assign_attrs(long_name="change", units="nat")
    assert "change (nat)" in words(figures.overlay(squares_run, squares, change))
    motion = xr.DataArray(
        np.zeros((2, 6, 8)), dims=("frame", "patch_row", "patch_col"), coords={"frame": [0, 3]}
    ).assign_attrs(long_name="motion score")
    assert "motion score" in words(figures.overlay(squares_run, squares, motion))


def test_overlay_shows_the_cue_by_its_name(squares_run: xr.DataTree, squares: xr.Dataset) -> None:
    run, motion = squares_run.copy(), np.random.default_rng(0).random((5, 6, 8))
    dims = ("frame", "patch_row", "patch_col")
    run["cue"] = xr.DataTree(xr.Dataset({"motion": (dims, motion)}, {"frame": range(5)}))
    figure = figures.overlay(run, squares, "cue/motion", frames=[2])
    (drawn,) = [images[-1] for images in pictures(figure) if len(images) == 2]
    np.testing.assert_array_equal(drawn, motion[2])


def test_overlay_outlines_what_truly_moves(squares_run: xr.DataTree, squares: xr.Dataset) -> None:
    tree = squares_run.copy()
    mask = np.zeros((5, 48, 64), bool)
    mask[:, 8:16, 8:24] = True
    tree["truth"] = xr.DataTree(
        xr.Dataset({"motion_mask": (("frame", "y", "x"), mask)}, {"frame": range(5)})
    )
    figure = figures.overlay(tree, squares, "image_self/entropy", layers=[1], title="Own words")
    drawn = [axis for axis in figure.axes if axis.collections and axis.images]
    assert len(drawn) == 2 * 5
    corners = np.concatenate(drawn[-1].collections[0].get_segments())
    assert (corners.min(axis=0), corners.max(axis=0)) == (
        pytest.approx([7.5, 7.5]),
        pytest.approx([23.5, 15.5]),
    )
    text = words(figure)
    assert "outlined: what truly moves" in text
    assert "Own words" in text
    assert "colour limits: 2nd" in text
    assert "outlined" not in words(figures.overlay(squares_run, squares, "image_self/entropy"))


def test_layer_heads_is_the_named_mean_over_frames_and_patches(squares_run: xr.DataTree) -> None:
    figure = figures.layer_heads(squares_run, "image_self/max_weight")
    values = squares_run["attention/image_self/max_weight"].sel(token="patch")
    np.testing.assert_allclose(
        figure.axes[0].collections[0].get_array(), values.mean(["frame", "query"]), rtol=1e-5
    )
    text = words(figure)
    assert "mean over frames 0–4 and 48 patches" in text
    assert "layer" in text
    assert "head" in text
    assert "largest attention weight" in text


@pytest.mark.parametrize(
    ("statistic", "token", "said"),
    [
        ("image_self/entropy", "pose", "the pose token"),
        ("state_self/entropy", None, "48 state tokens"),
        ("state_to_image/received", "pose", "the pose token"),
    ],
)
def test_layer_heads_says_whose_values_it_reduces(
    squares_run: xr.DataTree, statistic: str, token: str | None, said: str
) -> None:
    figure = figures.layer_heads(squares_run, statistic, token=token, reduction="max")
    assert f"max over frames 0–4 and {said}" in words(figure)


def test_layer_heads_of_several_runs_stand_beside_each_other(squares_run: xr.DataTree) -> None:
    site = squares_run["attention/image_self"].to_dataset()
    doubled = site.assign(entropy=2 * site["entropy"].variable)
    other = squares_run.assign({"attention": xr.DataTree.from_dict({"image_self": doubled})})
    figure = figures.layer_heads({"plain": squares_run, "gated": other}, "image_self/entropy")
    plain, gated = figure.axes[:2]
    assert [axis.get_title(loc="left") for axis in (plain, gated)] == ["plain", "gated"]
    one, two = (axis.collections[0] for axis in (plain, gated))
    np.testing.assert_allclose(two.get_array(), 2 * one.get_array(), rtol=1e-5)
    assert one.get_clim() == two.get_clim()


def test_depth_is_in_metres_and_shares_its_colours_with_the_truth(
    squares_with_truth: xr.DataTree, squares: xr.Dataset
) -> None:
    figure = figures.depth_maps(squares_with_truth, squares, frames=[0, 2])
    text = words(figure)
    assert "depth along the optical axis (m)" in text
    assert "confidence of points_self" in text
    assert "no alignment" in text
    frames, depth, truth, confidence = np.array(figure.axes[:8]).reshape(4, 2)
    assert depth[0].images[0].get_clim() == truth[1].images[0].get_clim()
    assert depth[0].images[0].get_clim() != confidence[0].images[0].get_clim()
    np.testing.assert_array_equal(frames[1].images[0].get_array(), squares["image"][2])


def test_camera_path_is_in_metres_and_lays_the_truth_over_the_first_pose(
    squares_with_truth: xr.DataTree,
) -> None:
    figure = figures.camera_path(squares_with_truth)
    above, side = figure.axes[:2]
    assert (above.get_xlabel(), above.get_ylabel()) == ("x, right (m)", "z, forward (m)")
    assert (side.get_xlabel(), side.get_ylabel()) == ("z, forward (m)", "−y, up (m)")
    centres = squares_with_truth["prediction/pose"].values[:, :3, 3]
    for axis, expected in ((above, centres[:, [0, 2]]), (side, centres[:, [2, 1]] * [1, -1])):
        lines = {line.get_label(): line.get_xydata() for line in axis.lines}
        np.testing.assert_allclose(lines["predicted"], expected, atol=1e-6)
        # This truth is the prediction in another world, so moved onto it it must be the same.
        np.testing.assert_allclose(lines["truth"], expected, atol=1e-5)
        np.testing.assert_allclose(lines["first pose"], expected[:1], atol=1e-6)
    assert "not scaled" in words(figure)


def test_state_updates_and_timing_show_the_stored_numbers(squares_run: xr.DataTree) -> None:
    curve, strip = figures.state_updates(squares_run).axes[:2]
    updates = squares_run["state/update_size"]
    np.testing.assert_allclose(curve.lines[0].get_ydata(), updates.median("state_token"))
    np.testing.assert_allclose(strip.collections[0].get_array(), updates.T)
    time, space = figures.timing(squares_run).axes
    assert time.get_ylabel() == "wall time (ms)"
    assert space.get_ylabel() == "peak memory so far (MiB)"
    np.testing.assert_allclose(
        time.lines[0].get_ydata(), 1e3 * squares_run["timing/seconds"].values[:, 0]
    )


@pytest.mark.parametrize(("size", "width"), [("column", 3.4), ("page", 7.0), ("slide", 12.0)])
def test_sizes_are_those_of_a_column_a_page_and_a_slide(
    squares_run: xr.DataTree, squares: xr.Dataset, size: str, width: float
) -> None:
    for figure in (
        figures.overlay(squares_run, squares, "image_self/entropy", size=size),
        figures.camera_path(squares_run, size=size),
        figures.timing(squares_run, size=size),
    ):
        assert figure.get_size_inches()[0] == width


def test_a_run_of_one_frame_can_be_drawn(squares: xr.Dataset) -> None:
    import mut3r_analysis as m3

    first = m3.open_sequence(squares["image"].values[:1], name="one")
    model = m3.load_backbone("random:small", device="cpu")
    run = m3.run(model, first, capture=m3.Capture(), progress=False)
    for figure in (
        figures.overlay(run, first, "image_self/entropy"),
        figures.depth_maps(run, first),
        figures.camera_path(run),
        figures.state_updates(run),
        figures.timing(run),
    ):
        figure.canvas.draw()


@pytest.fixture
def two_runs(squares_with_truth: xr.DataTree) -> dict[str, xr.DataTree]:
    """The run with its truth, and one whose numbers are twice as large."""

    def doubled(group: str, *names: str) -> xr.DataTree:
        found = squares_with_truth[group].to_dataset()
        return xr.DataTree(found.assign({name: 2 * found[name] for name in names}))

    other = squares_with_truth.copy()
    pose = squares_with_truth["prediction/pose"].copy()
    pose[:, :3, 3] *= 2
    prediction = doubled("prediction", "depth", "confidence_self").to_dataset()
    other["prediction"] = xr.DataTree(prediction.assign(pose=pose))
    other["timing"] = doubled("timing", "seconds", "peak_memory")
    other["state"] = doubled("state", "update_size")
    other["attention/image_self"] = doubled("attention/image_self", "entropy")
    return {"plain": squares_with_truth, "gated": other}


def test_several_runs_have_rows_each_and_share_their_colours(
    two_runs: dict[str, xr.DataTree], squares: xr.Dataset
) -> None:
    for figure, labels in (
        (figures.depth_maps(two_runs, squares, frames=[1]),
         ["plain", "gated", "true depth", "plain", "gated"]),
        (figures.overlay(two_runs, squares, "image_self/entropy", frames=[1], layers=[2]),
         ["plain, layer 2", "gated, layer 2"]),
    ):  # fmt: skip
        rows = [axis for axis in figure.axes if axis.get_ylabel() in labels]
        assert [axis.get_ylabel() for axis in rows] == labels
        plain, gated = (axis.images[-1] for axis in rows[:2])
        np.testing.assert_allclose(gated.get_array(), 2 * plain.get_array(), rtol=1e-6)
        assert plain.get_clim() == gated.get_clim()
    assert rows[0].images[-1].get_clim() != rows[0].images[0].get_clim()


def test_paths_of_several_runs_begin_at_one_pose_and_are_named(
    two_runs: dict[str, xr.DataTree],
) -> None:
    figure = figures.camera_path(two_runs)
    above = figure.axes[0]
    names = [text.get_text() for text in above.get_legend().get_texts()]
    assert names == ["plain", "gated", "truth", "first pose"]
    lines = {line.get_label(): line.get_xydata() for line in above.lines}
    plain, gated = (lines[name] - lines[name][0] for name in ("plain", "gated"))
    np.testing.assert_allclose(gated, 2 * plain, atol=1e-6)
    np.testing.assert_allclose(lines["plain"][0], lines["gated"][0], atol=1e-9)
    assert len({line.get_color() for line in above.lines if line.get_label() in names[:2]}) == 2


def test_time_and_state_of_several_runs_share_their_axes(two_runs: dict[str, xr.DataTree]) -> None:
    time, space = figures.timing(two_runs).axes
    plain, gated = time.lines[:2]
    np.testing.assert_allclose(gated.get_ydata(), 2 * plain.get_ydata())
    assert [text.get_text() for text in space.get_legend().get_texts()] == ["plain", "gated"]
    assert time.get_legend() is None
    medians = [line.get_ydata()[0] for line in time.lines[2:]]
    assert max(medians) < time.get_ylim()[1]
    figure = figures.state_updates(two_runs)
    curve, first, second = figure.axes[:3]
    np.testing.assert_allclose(curve.lines[1].get_ydata(), 2 * curve.lines[0].get_ydata())
    assert first.collections[0].norm is second.collections[0].norm
    assert second.get_ylabel() == "gated, state token"
    assert second.get_xlabel() == "frame"


def test_figures_of_runs_are_drawn_on_subfigures(
    two_runs: dict[str, xr.DataTree], squares: xr.Dataset
) -> None:
    run = two_runs["plain"]
    own = Figure(figsize=(14, 9), layout="constrained")
    parts = own.subfigures(3, 2).ravel()
    assert figures.camera_path(run, on=parts[0]) is own
    figures.timing(run, on=parts[1])
    figures.state_updates(run, on=parts[2])
    figures.depth_maps(run, squares, on=parts[3])
    figures.overlay(run, squares, "image_self/entropy", on=parts[4])
    figures.layer_heads(run, "image_self/entropy", on=parts[5])
    own.draw_without_rendering()
    for part, title in zip(parts, ("Camera", "Time", "State", "Depth", "Entropy", "Entropy"),
                           strict=True):  # fmt: skip
        inside = part.bbox
        said = " ".join([part.get_suptitle(), *(text.get_text() for text in part.texts)])
        assert title in said
        assert part.axes
        for axis in part.axes:
            box = axis.get_window_extent()
            assert box.width > 0
            assert box.height > 0
            assert inside.x0 <= box.x0 <= box.x1 <= inside.x1
            assert inside.y0 <= box.y0 <= box.y1 <= inside.y1


def test_runs_that_do_not_fit_into_one_figure_are_refused(
    two_runs: dict[str, xr.DataTree], squares: xr.Dataset
) -> None:
    plain = two_runs["plain"]
    other = plain.copy()
    other.attrs = plain.attrs | {"sequence": {"name": "circles", "sha256": "0"}}
    with pytest.raises(InvalidArgument, match=r"different sequences \(a: squares, b: circles\)"):
        figures.camera_path({"a": plain, "b": other})
    with pytest.raises(InvalidArgument, match="an array is of one run"):
        figures.overlay(two_runs, squares, plain["attention/image_self/entropy"])
    with pytest.raises(InvalidArgument, match="hand in a SubFigure"):
        figures.timing(plain, on=Figure().subplots())
    with pytest.raises(InvalidArgument, match="'b' is not a run but a str"):
        figures.timing({"a": plain, "b": "runs/b.zarr"})
