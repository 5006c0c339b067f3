"""Bundled scenes, scenes by seed, and what a rendered scene says about itself."""

import hashlib
import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from mut3r_analysis.errors import InvalidArgument, MissingFile
from mut3r_analysis.scenes import (
    HELD_OUT_SEEDS,
    Scene,
    contact_sheet,
    load_scene,
    open_scene,
    scene_names,
)
from mut3r_analysis.sequences import check_sequence


@pytest.mark.parametrize("name", scene_names())
def test_every_bundled_scene_is_whole(name):
    scene = load_scene(name)
    assert scene.name == name
    assert scene.description.endswith(".")
    assert scene.seed in HELD_OUT_SEEDS
    assert scene.size == (64, 48)
    assert scene.frames == 200 if name == "long-01" else 16 <= scene.frames <= 32
    assert Scene.from_yaml(scene.to_yaml()) == scene
    moves = scene.render((32, 24))["motion_mask"].values.any()
    assert moves == (name not in {"static-01", "static-02", "pan-02", "orbit-01", "dolly-01"})


def test_bundled_scenes_have_seeds_of_their_own():
    seeds = [load_scene(name).seed for name in scene_names()]
    assert len(seeds) == len(set(seeds)) >= 24


def test_a_rendered_scene_is_a_labelled_sequence():
    dataset = open_scene("scenes/orbit-03")
    check_sequence(dataset)
    assert isinstance(dataset, xr.Dataset)
    assert dataset.attrs["name"] == "orbit-03"
    for name, variable in dataset.data_vars.items():
        assert {"long_name", "units", "source"} <= variable.attrs.keys(), name
        assert variable.dims[0] == "frame"
    assert dataset["image"].dims == ("frame", "y", "x", "rgb")
    assert dataset["image"].dtype == np.uint8
    assert dataset["flow"].dims == ("frame", "y", "x", "uv")
    assert dataset["scene_flow"].dims == dataset["normal"].dims == ("frame", "y", "x", "xyz")
    np.testing.assert_allclose(np.linalg.norm(dataset["normal"], axis=-1), 1, atol=1e-6)


def test_a_rendered_scene_holds_the_scene_that_made_it():
    dataset = open_scene("orbit-03")
    scene = Scene.from_dict(json.loads(dataset.attrs["scene"]))
    assert scene == load_scene("orbit-03")
    expected = hashlib.sha256(dataset.attrs["scene"].encode()).hexdigest()
    assert dataset.attrs["scene_sha256"] == expected == scene.digest
    xr.testing.assert_identical(scene.render(), dataset)


def test_a_larger_rendering_has_the_same_field_of_view():
    scene = load_scene("orbit-03")
    small, large = scene.render(), scene.render((192, 144))
    assert large["intrinsics"].values[0, 0, 0] == pytest.approx(3 * small["intrinsics"][0, 0, 0])
    np.testing.assert_allclose(large["depth"][:, 1::3, 1::3], small["depth"], rtol=1e-5)


def test_a_scene_by_seed_takes_options():
    dataset = open_scene("scenes:seed=7,frames=3,movers=1,size=32x24")
    assert dataset.sizes["frame"] == 3
    assert dataset["image"].shape == (3, 24, 32, 3)
    assert load_scene("seed=7,frames=3,movers=0-2,fog=5.0") == Scene.random(
        7, 3, movers=(0, 2), fog=5.0
    )
    assert load_scene("seed=7,camera=static").camera.position.swing == (0, 0, 0)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("scenes/orbit-3", MissingFile, "did you mean 'orbit-0"),
        ("scenes/nothing", MissingFile, "there are clear-01, .*'scenes:seed=7' draws"),
        ("scenes:frames=3", InvalidArgument, "needs a seed"),
        ("scenes:seed=7,frames", InvalidArgument, "'frames' is no option"),
        ("scenes:seed=7,seed=8", InvalidArgument, "twice"),
        ("scenes:seed=x", InvalidArgument, "seed must be a whole number"),
        ("scenes:seed=7,size=32", InvalidArgument, "64x48"),
        ("scenes:seed=7,colour=1", InvalidArgument, "choose among objects"),
    ],
)
def test_names_that_mean_nothing_are_refused_in_words(spec, error, message):
    with pytest.raises(error, match=message):
        open_scene(spec)


def test_a_contact_sheet_shows_every_scene_and_outlines_what_moves():
    figure = contact_sheet(["orbit-03", "static-01", Scene.random(3, 4)], moments=2, columns=2)
    assert len(figure.axes) == 3
    assert [axis.get_title(loc="left") for axis in figure.axes] == [
        "orbit-03", "static-01", "seed-3",
    ]  # fmt: skip
    assert figure.axes[0].images[0].get_array().shape == (72, 192, 3)
    outlined = [bool(axis.collections) for axis in figure.axes]
    assert outlined[:2] == [True, False]
    figure.canvas.draw()
    plt.close("all")


def test_an_empty_contact_sheet_is_refused():
    with pytest.raises(InvalidArgument, match="at least one"):
        contact_sheet([])
