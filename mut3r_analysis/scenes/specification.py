"""What a scene is: validated values that a person can write in a small YAML file."""

import dataclasses
import hashlib
import json
import math
import pathlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from mut3r_analysis.errors import InvalidArgument, MissingFile
from mut3r_analysis.foundation.fields import Checked, instance_of, made_of, number, whole
from mut3r_analysis.foundation.text_files import parse_yaml, read_text
from mut3r_analysis.scenes.arrays import (
    ABSENT,
    AMBIENT,
    FOG_COLOR,
    FOG_LENGTH,
    LIGHT,
    ROOM_SURFACES,
    SHAPES,
    SceneArrays,
    image_size,
)
from mut3r_analysis.scenes.distribution import SceneDistribution, draw
from mut3r_analysis.scenes.parts import (
    Camera,
    Light,
    Path,
    Room,
    SceneObject,
    Texture,
    resting,
)

if TYPE_CHECKING:
    import xarray as xr


def _objects(field: str, given: Iterable[SceneObject]) -> tuple[SceneObject, ...]:
    return tuple(instance_of(field, each, SceneObject) for each in given)


@dataclass(frozen=True)
class Scene:
    """A procedural scene; everything about its rendering follows from these values.

    Objects are named ``object-1``, ``object-2``, ... in their order, which is also their instance
    id. Textures that a YAML file leaves out, wholly or in part, are drawn from `seed`.

    Attributes
    ----------
    name, description : str
        What it is called and what it shows.
    frames : int
        How many frames.
    size : (int, int)
        Image width and height unless the rendering asks for another, px.
    fov : float
        Horizontal field of view, degrees.
    room, objects, camera, light
        What there is.
    seed : int
        Where undescribed textures come from.

    Raises
    ------
    InvalidArgument
        If a value cannot mean anything, or the camera leaves the room or enters an object.

    Examples
    --------
    >>> scene = Scene.random(seed=7, frames=8, movers=1)
    >>> dict(scene.render().sizes)["frame"]
    8
    """

    name: Checked[str, str] = Checked(partial(instance_of, kind=str), "scene")
    description: Checked[str, str] = Checked(partial(instance_of, kind=str), "")
    frames: Checked[int, int] = Checked(partial(whole, low=1, high=100_000), 16)
    size: Checked[Any, tuple[int, int]] = Checked(image_size, (64, 48))
    fov: Checked[float, float] = Checked(partial(number, low=5, high=150), 58.1)
    room: Checked[Room, Room] = Checked(partial(instance_of, kind=Room), Room())
    objects: Checked[Iterable[SceneObject], tuple[SceneObject, ...]] = Checked(_objects, ())
    camera: Checked[Camera, Camera] = Checked(partial(instance_of, kind=Camera), Camera())
    light: Checked[Light, Light] = Checked(partial(instance_of, kind=Light), Light())
    seed: Checked[int, int] = Checked(partial(whole, low=0, high=2**53), 0)

    def __post_init__(self) -> None:
        if not self.name:
            raise InvalidArgument("name=''; give a scene's name as text.")
        arrays = self.arrays()
        camera = arrays.camera_poses(self.frames)[0]
        if np.isnan(camera).any():
            frame = int(np.isnan(camera).any(axis=(1, 2)).argmax())
            raise InvalidArgument(
                f"scene {self.name!r}: at frame {frame} the camera is straight above or below "
                "look_at, where its orientation is undefined; move either, or give angles instead."
            )
        outside = (np.abs(camera[..., 3]) > arrays.room[0] - 0.02).any(axis=1)
        if outside.any():
            raise InvalidArgument(
                f"scene {self.name!r}: at frame {int(outside.argmax())} the camera leaves the room "
                f"of size {self.room.size}; enlarge the room or shorten the camera's path."
            )
        poses = arrays.object_poses(self.frames)[0]
        offset = camera[:, None, :, 3] - poses[..., 3]
        local = np.einsum("fkij,fki->fkj", poses[..., :3], offset) / arrays.half_size[0]
        reach = np.where(
            arrays.shape[0] == 0, np.linalg.norm(local, axis=-1), np.abs(local).max(axis=-1)
        )
        if (reach <= 1).any():
            frame, index = np.argwhere(reach <= 1)[0]
            raise InvalidArgument(
                f"scene {self.name!r}: at frame {frame} the camera is inside object-{index + 1}; "
                "move either."
            )

    def arrays(self) -> SceneArrays:
        """Return the scene as a batch of one."""
        count = len(self.objects)
        textures = [getattr(self.room, surface) for surface in ROOM_SURFACES]
        textures += [each.texture for each in self.objects]
        fog = math.inf if self.light.fog is None else self.light.fog
        light = [self.light.ambient, *self.light.position, fog, *self.light.fog_color]
        paths = np.array(
            [[each.position.array(), each.angles.array()] for each in self.objects]
        ).reshape(count, 2, 5, 3)
        return SceneArrays(
            room=np.array([self.room.size]) / 2,
            tangent=np.array([math.tan(math.radians(self.fov) / 2)]),
            camera_position=self.camera.position.array()[None],
            camera_angles=self.camera.angles.array()[None],
            camera_target=np.array([self.camera.look_at or (math.nan,) * 3]),
            shape=np.array([[SHAPES.index(o.shape) for o in self.objects]], dtype=np.int64),
            half_size=np.array([o.size for o in self.objects]).reshape(1, count, 3) / 2,
            object_position=paths[None, :, 0],
            object_angles=paths[None, :, 1],
            texture=np.stack([texture.row() for texture in textures])[None],
            texture_seed=np.array([[texture.seed for texture in textures]], dtype=np.int64),
            light=np.array([light]),
        )

    @classmethod
    def from_arrays(cls, arrays: SceneArrays, clip: int, **values: Any) -> "Scene":
        """One scene of a batch; `values` are the fields the arrays do not hold."""

        def path(parameters: np.ndarray) -> Path:
            return Path(*map(tuple, parameters.tolist()))

        textures = [
            Texture.from_row(row, int(seed))
            for row, seed in zip(arrays.texture[clip], arrays.texture_seed[clip], strict=True)
        ]
        target, light = arrays.camera_target[clip], arrays.light[clip].tolist()
        return cls(
            fov=math.degrees(2 * math.atan(arrays.tangent[clip])),
            room=Room(tuple((2 * arrays.room[clip]).tolist()), *textures[:3]),
            objects=tuple(
                SceneObject(
                    SHAPES[shape],
                    tuple((2 * arrays.half_size[clip, index]).tolist()),
                    path(arrays.object_position[clip, index]),
                    path(arrays.object_angles[clip, index]),
                    textures[3 + index],
                )
                for index, shape in enumerate(arrays.shape[clip])
                if shape != ABSENT
            ),
            camera=Camera(
                path(arrays.camera_position[clip]),
                path(arrays.camera_angles[clip]),
                None if np.isnan(target).any() else tuple(target.tolist()),
            ),
            light=Light(
                tuple(light[LIGHT]),
                light[AMBIENT],
                None if math.isinf(light[FOG_LENGTH]) else light[FOG_LENGTH],
                tuple(light[FOG_COLOR]),
            ),
            **values,
        )

    @classmethod
    def random(
        cls, seed: int, frames: int = 16, size: tuple[int, int] = (64, 48), **options: Any
    ) -> "Scene":
        """Draw a scene; `options` are those of `SceneDistribution`."""
        distribution = SceneDistribution.from_dict(options)
        drawn = draw(seed, 1, frames, distribution)
        return cls.from_arrays(
            drawn, 0, name=f"seed-{seed}", frames=frames, size=size, seed=seed,
            description=f"drawn at random with {distribution}",
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Plain values that :meth:`from_dict` reads back."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Scene":
        """Make a scene from plain values; unknown names are refused."""
        if not isinstance(values, Mapping):
            raise InvalidArgument(f"a scene is a mapping of names to values, not {values!r}.")
        values = dict(values)
        seed = whole("seed", values.get("seed", 0), 0, 2**53)

        def texture(where: str, given: Any, surface: int) -> Texture:
            return Texture.random(seed, surface=surface).changed(where, given or {})

        room = values.get("room") or {}
        if isinstance(room, Mapping):
            surfaces = {
                name: texture(f"room {name}", room.get(name), index)
                for index, name in enumerate(ROOM_SURFACES)
            }
            room = {**room, **surfaces}
        values["room"] = made_of("room", Room, room)
        objects = values.get("objects") or []
        if not isinstance(objects, list | tuple):
            raise InvalidArgument(f"objects={objects!r}; give a list of objects.")
        made = []
        for index, each in enumerate(objects):
            where = f"object-{index + 1}"
            if isinstance(each, Mapping):
                each = {**each, "texture": texture(where, each.get("texture"), 3 + index)}
            made.append(made_of(where, SceneObject, each))
        values["objects"] = tuple(made)
        values["camera"] = made_of("camera", Camera, values.get("camera") or {})
        values["light"] = made_of("light", Light, values.get("light") or {})
        return made_of("scene", cls, values)

    def to_yaml(self) -> str:
        """Write the scene as YAML, complete and exact."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None, width=100)

    @classmethod
    def from_yaml(cls, source: str | pathlib.Path) -> "Scene":
        """Read a scene from a file (a `pathlib.Path`) or from YAML text (a `str`)."""
        where = str(source) if isinstance(source, pathlib.Path) else "YAML text"
        if isinstance(source, pathlib.Path) and not source.is_file():
            raise MissingFile(f"no scene file {source}; give the path of an existing YAML file.")
        text = read_text(source) if isinstance(source, pathlib.Path) else source
        values = parse_yaml(text, where)
        try:
            return cls.from_dict(values)
        except InvalidArgument as error:
            raise InvalidArgument(f"{where}: {error}") from None

    @property
    def digest(self) -> str:
        """SHA-256 of the scene's values."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def object_index(self, name: str) -> int:
        """Position in `objects` of the object called `name`."""
        names = [f"object-{index + 1}" for index in range(len(self.objects))]
        if name not in names:
            known = f"its objects are {', '.join(names)}" if names else "it has no objects"
            raise InvalidArgument(f"scene {self.name!r} has no {name!r}; {known}.")
        return names.index(name)

    def render(self, size: tuple[int, int] | None = None, *, supersample: int = 1) -> "xr.Dataset":
        """Render the scene as a sequence, on the CPU.

        Parameters
        ----------
        size : (int, int), optional
            Width and height, px; the scene's own by default. The horizontal field of view stays.
        supersample : int
            Rays per pixel and axis for the image; the truth is always that of the pixel's centre.

        Returns
        -------
        xr.Dataset
            `image`, `depth`, `pose`, `intrinsics`, `motion_mask`, `instance`, `flow`, `scene_flow`
            and `normal`, each with `long_name`, `units` and `source`. The motion mask holds where
            the optical flow differs from that of a resting world by more than the attribute
            ``motion_threshold_px`` (a quarter pixel of a 64 px wide image), to the next frame, at
            the last frame to the previous one. Flows are NaN at the last frame.

        Raises
        ------
        InvalidArgument
            If the size or the supersampling cannot mean anything.
        """
        from mut3r_analysis.scenes.dataset import render_dataset

        about = {
            "name": self.name,
            "kind": "scenes",
            "source": f"procedural scene {self.name}, ray-cast in closed form",
            "description": self.description,
            "scene": json.dumps(self.to_dict(), sort_keys=True),
            "scene_sha256": self.digest,
        }
        size = self.size if size is None else size
        return render_dataset(self.arrays(), self.frames, size, supersample, about)

    def twin(
        self,
        *,
        freeze: str | None = None,
        at: int | None = None,
        texture: Mapping[str, Any] | None = None,
        camera: str | None = None,
    ) -> "Scene":
        """Change one thing and leave everything else alike, pixel for pixel.

        Parameters
        ----------
        freeze : str, optional
            An object's name: it rests throughout where it is at frame `at`. That frame is
            identical in both twins; only its history differs.
        at : int, optional
            The frame that `freeze` and `camera` keep; 0 by default.
        texture : mapping, optional
            Changed fields of textures by surface, such as
            ``{"object-1": {"contrast": 0}, "walls": {"seed": 5}}``.
        camera : str, optional
            ``"static"``: it stays where it is at frame `at`.

        Raises
        ------
        InvalidArgument
            If nothing or more than one thing changes, or a name or frame does not exist.
        """
        changes = {"freeze": freeze, "texture": texture, "camera": camera}
        asked = [name for name, value in changes.items() if value is not None]
        if len(asked) != 1:
            given = " and ".join(asked) or "nothing"
            raise InvalidArgument(
                f"a twin differs in exactly one of freeze, texture and camera; {given} was given."
            )
        if texture is not None:
            if at is not None:
                raise InvalidArgument("at= is the frame to freeze at; leave it out with texture=.")
            return self._retextured(texture)
        frame = whole("at", 0 if at is None else at, 0, self.frames - 1)
        if freeze is not None:
            objects = list(self.objects)
            index = self.object_index(freeze)
            objects[index] = resting(objects[index], frame)
            name = f"{self.name}+{freeze}@{frame}"
            return dataclasses.replace(self, name=name, objects=tuple(objects))
        if camera != "static":
            raise InvalidArgument(f"camera={camera!r}; only 'static' makes a twin.")
        name = f"{self.name}+camera-static@{frame}"
        return dataclasses.replace(self, name=name, camera=resting(self.camera, frame))

    def _retextured(self, changes: Mapping[str, Any]) -> "Scene":
        if not isinstance(changes, Mapping) or not changes:
            raise InvalidArgument(
                f"texture={changes!r}; give changed fields by surface, such as "
                "{'object-1': {'contrast': 0}}."
            )
        room, objects = self.room, list(self.objects)
        for surface, change in changes.items():
            if surface in ROOM_SURFACES:
                new = getattr(room, surface).changed(surface, change)
                room = dataclasses.replace(room, **{surface: new})
            else:
                index = self.object_index(surface)
                new = objects[index].texture.changed(surface, change)
                objects[index] = dataclasses.replace(objects[index], texture=new)
        name = f"{self.name}+texture-{'-'.join(changes)}"
        return dataclasses.replace(self, name=name, room=room, objects=tuple(objects))
