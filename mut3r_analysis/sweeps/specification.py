"""The file that declares a sweep for ``mut3r sweep``."""

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.errors import InvalidArgument, MissingFile
from mut3r_analysis.foundation.fields import meant
from mut3r_analysis.foundation.paths import user_path
from mut3r_analysis.foundation.text_files import read_yaml
from mut3r_analysis.motion.cue import Cue
from mut3r_analysis.motion.gate import Gate
from mut3r_analysis.sweeps.sweeping import sweep

_NAMES = tuple(
    name for name in signature(sweep).parameters if name not in ("workers", "client", "progress")
)
_PARTS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "cue": (Cue, ("mut3r",)), "gate": (Gate, ("mut3r", "easi3r")),
}  # fmt: skip
"""What is declared by its fields, and which of its makers by their names."""


def read_specification(path: str | Path) -> dict[str, Any]:
    """Read a sweep from YAML.

    Parameters
    ----------
    path : str or Path
        A mapping with the names of `sweep`'s arguments. Cues and gates are ``mut3r`` (gates also
        ``easi3r``), a mapping of their fields, or null; a capture is a mapping of its fields.

    Returns
    -------
    dict
        Arguments of `sweep`.

    Raises
    ------
    MissingFile, UnreadableFile
        When there is no such file, or it is not YAML.
    InvalidArgument
        For an unknown name, a missing one, or a value that cannot mean anything.
    """
    path = user_path(path)
    if not path.is_file():
        raise MissingFile(f"no specification of a sweep at {path}")
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise InvalidArgument(f"{path} holds {type(values).__name__}, not named values")
    unknown = sorted(map(str, set(values) - set(_NAMES)))
    if unknown:
        raise InvalidArgument(
            f"{path} has {', '.join(unknown)}{meant(unknown, _NAMES)}; a sweep has "
            f"{', '.join(_NAMES)}"
        )
    missing = [name for name in ("backbone", "sequences") if name not in values]
    if missing:
        raise InvalidArgument(f"{path} does not say {' and '.join(missing)}")
    return {name: _read(name, value) for name, value in values.items()}


def _read(name: str, value: Any) -> Any:
    if name in _PARTS:
        return _part(name, value)
    if name == "capture":
        return None if value is None else Capture.from_dict(_mapping(name, value))
    if name == "grid" and value is not None:
        return {str(key): _axis(str(key), values) for key, values in _mapping(name, value).items()}
    if name == "configurations":
        if isinstance(value, list):
            return [_configuration(item) for item in value]
        return {label: _configuration(item) for label, item in _mapping(name, value).items()}
    if name == "frames" and not isinstance(value, str):
        raise InvalidArgument(
            f"frames takes START:STOP:STRIDE in quotes, as '0:8:2', got {value!r}; unquoted, YAML "
            "reads it as one number"
        )
    return value


def _axis(key: str, values: Any) -> Any:
    if key not in _PARTS:
        return values
    if isinstance(values, Mapping):
        return {label: _read(key, value) for label, value in values.items()}
    return [_read(key, value) for value in values]


def _configuration(item: Any) -> dict[str, Any]:
    return {name: _read(name, value) for name, value in _mapping("configurations", item).items()}


def _mapping(name: str, value: Any) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise InvalidArgument(f"{name} takes named values, got {value!r}")
    return dict(value)


def _part(name: str, value: Any) -> Any:
    kind, makers = _PARTS[name]
    if value is None:
        return None
    if isinstance(value, Mapping):
        return kind.from_dict(dict(value))
    if value in makers:
        return getattr(kind, value)()
    raise InvalidArgument(
        f"a {name} is {' or '.join(makers)}, a mapping of its fields, or null; got {value!r}"
    )
