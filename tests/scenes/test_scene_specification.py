"""Scenes as values: YAML that people write, round trips, and refusals in words."""

import contextlib
import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mut3r_analysis.errors import InvalidArgument, MissingFile, Mut3rError, UnreadableFile
from mut3r_analysis.scenes import Camera, Path, Room, Scene, SceneDistribution, Texture, draw

SMALL = """
name: small
seed: 4
camera: {position: [0, 0, -2]}
objects:
  - {shape: sphere, size: 0.8, position: {start: [0, 0, 1], rate: [0.1, 0, 0]}}
  - {shape: box, size: [1, 1, 0.5], position: [1, 1, 1], texture: {pattern: checker}}
"""


def test_a_small_yaml_is_enough():
    scene = Scene.from_yaml(SMALL)
    sphere, box = scene.objects
    assert sphere.size == (0.8, 0.8, 0.8)
    assert sphere.position.rate == (0.1, 0.0, 0.0)
    assert box.position == Path((1, 1, 1))
    assert box.texture.pattern == "checker"
    assert box.texture.seed == Texture.random(4, surface=4).seed
    assert scene.room.walls == Texture.random(4, surface=0)


def test_undescribed_textures_follow_the_seed():
    one, other = Scene.from_yaml(SMALL), Scene.from_yaml(SMALL.replace("seed: 4", "seed: 5"))
    assert one == Scene.from_yaml(SMALL)
    assert hash(one) == hash(Scene.from_yaml(SMALL))
    assert one.room.floor != other.room.floor
    assert one.objects[0].texture != other.objects[0].texture


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**40),
    fog=st.none() | st.floats(1, 20),
    camera=st.sampled_from(["free", "static", "rotation", "translation", "straight"]),
    objects=st.integers(2, 6),
)
def test_random_scenes_survive_yaml_and_json_exactly(seed, fog, camera, objects):
    scene = Scene.random(seed, frames=5, fog=fog, camera=camera, objects=objects)
    assert Scene.from_yaml(scene.to_yaml()) == scene
    assert Scene.from_dict(json.loads(json.dumps(scene.to_dict()))) == scene
    assert Scene.from_yaml(scene.to_yaml()).digest == scene.digest


def test_a_file_is_read_by_its_path(tmp_path):
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    assert Scene.from_yaml(file) == Scene.from_yaml(SMALL)
    with pytest.raises(MissingFile, match=r"none\.yaml"):
        Scene.from_yaml(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nme: x", "choose among name, description"),
        ("- 1", "a scene is a mapping"),
        ("frames: 0", "from 1 to"),
        ("frames: 2.5", "whole number"),
        ("frames: many", "frames must be a whole number"),
        ("fov: 200", r"a number in \[5, 150\]"),
        ("seed: -1", "from 0"),
        ("size: 64", "width, height"),
        ("room: {size: [1, 2]}", "three numbers"),
        ("room: {wall: {}}", "choose among size, walls"),
        ("room: {walls: {pattern: dots}}", "noise, checker, stripes"),
        ("room: {walls: 3}", "give a mapping"),
        ("light: {ambient: 2}", r"ambient must be a number in \[0, 1\]"),
        ("light: {fog: .nan}", "fog must be a number"),
        ("camera: {position: [0, 0]}", "three numbers"),
        ("camera: {position: {begin: [0, 0, 0]}}", "choose among start, rate"),
        ("camera: {position: {period: 0}}", r"period must be a number in \[1, "),
        ("camera: {position: [0, 0, 9]}", "at frame 0 the camera leaves the room"),
        ("camera: {position: [0, 1, 0], look_at: [0, 0, 0]}", "straight above or below"),
        ("objects: {}\nobject: 1", "choose among"),
        ("objects: 3", "a list of objects"),
        ("objects: [{shape: sphere}]", "incomplete"),
        ("objects: [{shape: cone, size: 1, position: [0, 0, 2]}]", "sphere, box"),
        ("objects: [{shape: box, size: 0, position: [0, 0, 2]}]", r"in \[0.001, "),
        ("objects: [{shape: box, size: 1, position: [0, 0, 0.2]}]", "camera is inside object-1"),
    ],
)
def test_yaml_that_means_nothing_is_refused_in_words(text, message):
    with pytest.raises(InvalidArgument, match=message):
        Scene.from_yaml(text)


def test_text_that_is_no_yaml_is_refused():
    with pytest.raises(UnreadableFile, match="no valid YAML"):
        Scene.from_yaml("a: [1, 2")


@settings(max_examples=60, deadline=None)
@given(
    key=st.sampled_from([each.name for each in dataclasses.fields(Scene)]),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
        max_leaves=4,
    ),
)
def test_arbitrary_values_are_accepted_or_refused_on_purpose(key, value):
    with contextlib.suppress(Mut3rError):
        Scene.from_dict({"frames": 2, key: value})


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (Room, {"walls": "blue"}, "walls must be a Texture, got 'blue'"),
        (Scene, {"camera": 3}, "camera must be a Camera, got 3"),
        (Scene, {"objects": ("ball",)}, "objects must be a SceneObject, got 'ball'"),
        (Scene, {"description": 3}, "description must be a str, got 3"),
    ],
)
def test_parts_of_the_wrong_kind_are_refused(kind, values, message):
    with pytest.raises(InvalidArgument, match=message):
        kind(**values)


def test_a_scene_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Scene().frames = 3


def test_a_camera_that_leaves_later_is_noticed_at_its_frame():
    camera = Camera(Path((0, 0, 0), rate=(0, 0, 1.0)))
    with pytest.raises(InvalidArgument, match="at frame 3 the camera leaves the room"):
        Scene(camera=camera, room=Room((6, 3, 6)), frames=8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"movers": 9}, "more moving objects than objects"),
        ({"movers": (2, 1)}, "least, most"),
        ({"movers": 1.5}, "whole numbers"),
        ({"camera": "drone"}, "must be one of free"),
        ({"fog": 0}, "fog must be a number"),
        ({"fov": 0}, r"a number in \[5, 150\]"),
        ({"objects": -1}, "from 0 to"),
        ({"mover_speed": -1}, "not negative"),
        ({"speed": 1}, "scene distribution: unknown .*choose among objects, movers"),
    ],
)
def test_a_distribution_that_means_nothing_is_refused(options, message):
    with pytest.raises(InvalidArgument, match=message):
        Scene.random(1, **options)


def test_a_distribution_round_trips_through_plain_values():
    distribution = SceneDistribution(movers=(1, 3), fog=5.0, camera="rotation")
    assert SceneDistribution.from_dict(json.loads(json.dumps(distribution.to_dict()))) == (
        distribution
    )


@pytest.mark.parametrize("arguments", [(-1, 1, 1), (1, 0, 1), (1, 1, 0), (1.5, 1, 1)])
def test_drawing_nothing_is_refused(arguments):
    with pytest.raises(InvalidArgument, match="whole number"):
        draw(*arguments)
