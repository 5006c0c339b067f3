"""Twins: two scenes that differ in one thing only."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.scenes.arrays import ROOM_SURFACES
from mut3r_analysis.scenes.parts import Texture, read_mapping, to_integer
from mut3r_analysis.scenes.specification import Scene


def make_twin(
    scene: Scene,
    *,
    freeze: str | None,
    at: int | None,
    texture: Mapping[str, Any] | None,
    camera: str | None,
) -> Scene:
    """Make a twin; see `Scene.twin`."""
    asked = [name for name, value in (("freeze", freeze), ("texture", texture), ("camera", camera))
             if value is not None]  # fmt: skip
    if len(asked) != 1:
        given = " and ".join(asked) or "nothing"
        raise InvalidArgument(
            f"a twin differs in exactly one of freeze, texture and camera; {given} was given."
        )
    if texture is not None:
        if at is not None:
            raise InvalidArgument("at is a frame to freeze; it means nothing for a texture.")
        return _retextured(scene, texture)
    frame = to_integer("at", 0 if at is None else at, 0, scene.frames - 1)
    if camera is not None:
        if camera != "static":
            raise InvalidArgument(f"camera={camera!r}; only 'static' makes a twin.")
        rested = dataclasses.replace(
            scene.camera,
            position=scene.camera.position.resting(frame),
            angles=scene.camera.angles.resting(frame),
        )
        return dataclasses.replace(scene, name=f"{scene.name}+camera-static@{frame}", camera=rested)
    assert freeze is not None
    index = scene.object_index(freeze)
    thing = scene.objects[index]
    rested_thing = dataclasses.replace(
        thing, position=thing.position.resting(frame), angles=thing.angles.resting(frame)
    )
    objects = (*scene.objects[:index], rested_thing, *scene.objects[index + 1 :])
    return dataclasses.replace(scene, name=f"{scene.name}+{freeze}@{frame}", objects=objects)


def _retextured(scene: Scene, changes: Mapping[str, Any]) -> Scene:
    if not isinstance(changes, Mapping) or not changes:
        raise InvalidArgument(
            f"texture={changes!r}; give changed fields by surface, such as "
            "{'object-1': {'contrast': 0}}."
        )
    surfaces: dict[str, Any] = {}
    objects = list(scene.objects)
    for surface, change in changes.items():
        of_room = surface in ROOM_SURFACES
        index = -1 if of_room else scene.object_index(surface)
        old = getattr(scene.room, surface) if of_room else objects[index].texture
        if isinstance(change, Texture):
            new = change
        elif isinstance(change, Mapping):
            fields = {each.name: getattr(old, each.name) for each in dataclasses.fields(old)}
            new = read_mapping(Texture, f"texture of {surface}", {**fields, **change})
        else:
            raise InvalidArgument(
                f"texture of {surface}: {change!r}; give a Texture or a mapping of changed fields."
            )
        if of_room:
            surfaces[surface] = new
        else:
            objects[index] = dataclasses.replace(objects[index], texture=new)
    name = f"{scene.name}+texture-{'-'.join(changes)}"
    room = dataclasses.replace(scene.room, **surfaces)
    return dataclasses.replace(scene, name=name, room=room, objects=tuple(objects))
