"""Twins differ in one thing only."""

import numpy as np
import pytest

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.scenes import Scene, Texture, load_scene

SCENE = Scene.random(31, frames=6, movers=2, objects=4)
RENDERED = SCENE.render()


def mover(scene=SCENE):
    for index, each in enumerate(scene.objects):
        if any(each.position.swing) or any(each.angles.rate):
            seen = (RENDERED["instance"] == index + 1).sum(("y", "x"))
            if (seen > 20).all():
                return f"object-{index + 1}", index + 1
    raise AssertionError("the scene has no mover in view")


def covered(*datasets, index):
    return np.any([each["instance"].values == index for each in datasets], axis=0)


def unequal(a, b):
    return (a["image"].values != b["image"].values).any(axis=-1)


@pytest.mark.parametrize("at", [0, 3, 5])
def test_a_frozen_object_leaves_its_frame_untouched_to_the_last_bit(at):
    name, index = mover()
    twin = SCENE.twin(freeze=name, at=at).render()
    for variable in ("image", "depth", "instance", "normal", "pose", "intrinsics"):
        np.testing.assert_array_equal(RENDERED[variable][at], twin[variable][at])
    changed = unequal(RENDERED, twin)
    assert changed.any()
    assert not (changed & ~covered(RENDERED, twin, index=index)).any()
    assert not twin["motion_mask"].values[twin["instance"].values == index].any()
    still = twin["scene_flow"].values[:-1][twin["instance"].values[:-1] == index]
    assert (still == 0).all()


def test_supersampled_twins_differ_at_most_one_pixel_around_the_object():
    name, index = mover()
    twin = SCENE.twin(freeze=name, at=2)
    a, b = SCENE.render(supersample=3), twin.render(supersample=3)
    np.testing.assert_array_equal(a["image"][2], b["image"][2])
    near = covered(a, b, index=index)
    for axis in (1, 2):
        near = near | np.roll(near, 1, axis) | np.roll(near, -1, axis)
    assert not (unequal(a, b) & ~near).any()


@pytest.mark.parametrize("surface", ["object-1", "walls", "floor"])
def test_a_new_texture_changes_colours_there_and_nothing_else(surface):
    scene = load_scene("static-01")
    original = scene.render()
    twin = scene.twin(texture={surface: {"pattern": "checker", "scale": 0.3, "seed": 99}}).render()
    for variable in ("depth", "instance", "pose", "flow", "scene_flow", "motion_mask", "normal"):
        np.testing.assert_array_equal(original[variable], twin[variable])
    changed = unequal(original, twin)
    assert changed.any()
    index = 1 if surface == "object-1" else 0
    assert (original["instance"].values[changed] == index).all()


def test_a_whole_texture_may_be_given():
    twin = SCENE.twin(texture={"object-1": Texture(contrast=0)})
    assert twin.objects[0].texture == Texture(contrast=0)
    assert twin.objects[1:] == SCENE.objects[1:]


@pytest.mark.parametrize("name", ["orbit-03", "slide-01"])
def test_a_static_camera_keeps_its_frame_and_the_world(name):
    scene = load_scene(name)
    original, twin = scene.render(), scene.twin(camera="static", at=4).render()
    for variable in ("image", "depth", "instance"):
        np.testing.assert_array_equal(original[variable][4], twin[variable][4])
    assert (twin["pose"].values == twin["pose"].values[4]).all()
    np.testing.assert_array_equal(
        scene.arrays().object_poses(8), scene.twin(camera="static").arrays().object_poses(8)
    )


def test_a_twin_has_its_own_name_and_digest():
    name, _ = mover()
    twin = SCENE.twin(freeze=name, at=2)
    assert twin.name == f"seed-31+{name}@2"
    assert twin.digest != SCENE.digest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "nothing was given"),
        ({"freeze": "object-1", "camera": "static"}, "freeze and camera was given"),
        ({"freeze": "object-9"}, "its objects are object-1"),
        ({"freeze": "object-1", "at": 6}, "from 0 to 5"),
        ({"camera": "moving"}, "only 'static'"),
        ({"texture": {"object-1": {"colour": 1}}}, "choose among pattern"),
        ({"texture": {"object-1": 3}}, "give a mapping of named values"),
        ({"texture": {}}, "changed fields by surface"),
        ({"texture": {"object-1": {"seed": 1}}, "at": 2}, "leave it out with texture="),
    ],
)
def test_a_twin_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(InvalidArgument, match=message):
        SCENE.twin(**arguments)
