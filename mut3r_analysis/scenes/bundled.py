"""Scenes by name: the bundled test scenes, and ``scenes:seed=...`` for new ones."""

import re

import xarray as xr

from mut3r_analysis.errors import InvalidArgument, MissingFile
from mut3r_analysis.foundation.bundled import data_path
from mut3r_analysis.foundation.fields import meant, whole
from mut3r_analysis.scenes.specification import Scene

_OPTION = re.compile(r"[a-z_]+=[^,=]+")


def scene_names() -> list[str]:
    """Names of the bundled scenes, such as ``"orbit-03"``.

    Examples
    --------
    >>> scene_names()[:3]
    ['clear-01', 'crowded-01', 'crowded-02']
    """
    return sorted(path.stem for path in data_path("scenes").glob("*.yaml"))


def load_scene(spec: str) -> Scene:
    """Find a bundled scene, or draw one.

    Parameters
    ----------
    spec : str
        ``"orbit-03"`` for a bundled one; ``"seed=7,frames=16,movers=1"`` for a random one with the
        options of `Scene.random`: a range from least to most as ``movers=0-2``, an image size as
        ``size=64x48``. A leading ``scenes/`` or ``scenes:`` is allowed.

    Returns
    -------
    Scene

    Raises
    ------
    MissingFile
        If no bundled scene has that name.
    InvalidArgument
        If an option cannot mean anything.

    Examples
    --------
    >>> load_scene("orbit-03").name
    'orbit-03'
    >>> load_scene("seed=7,movers=1").name
    'seed-7'
    """
    name = spec.removeprefix("scenes/").removeprefix("scenes:")
    if "=" in name:
        return _draw_from(name)
    names = scene_names()
    if name not in names:
        raise MissingFile(
            f"no bundled scene {name!r}{meant([name], names)}; there are {', '.join(names)}. "
            "'scenes:seed=7' draws a new one."
        )
    return Scene.from_yaml(data_path("scenes", f"{name}.yaml"))


def open_scene(spec: str) -> xr.Dataset:
    """Render the scene that `load_scene` finds, as a sequence.

    Examples
    --------
    >>> open_scene("orbit-03")["image"].dims
    ('frame', 'y', 'x', 'rgb')
    """
    return load_scene(spec).render()


def _draw_from(spec: str) -> Scene:
    options: dict[str, object] = {}
    for part in spec.split(","):
        if not _OPTION.fullmatch(part.strip()):
            raise InvalidArgument(
                f"{spec!r}: {part!r} is no option; write them as seed=7,frames=16,movers=1."
            )
        name, value = part.strip().split("=")
        if name in options:
            raise InvalidArgument(f"{spec!r}: {name} is given twice.")
        options[name] = _value(value)
    if "seed" not in options:
        raise InvalidArgument(f"{spec!r}: a random scene needs a seed, as in 'scenes:seed=7'.")
    seed = whole("seed", options.pop("seed"), 0, 2**53)
    frames = whole("frames", options.pop("frames", 16), 1, 100_000)
    size = options.pop("size", (64, 48))
    if not isinstance(size, tuple):
        raise InvalidArgument(f"{spec!r}: size={size}; write width and height as 64x48.")
    return Scene.random(seed, frames, size, **options)


def _value(text: str) -> object:
    for pattern, separator in ((r"[\d.]+-[\d.]+", "-"), (r"\d+x\d+", "x")):
        if re.fullmatch(pattern, text):
            return tuple(_number(each) for each in text.split(separator))
    return _number(text)


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
