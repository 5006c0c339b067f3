"""What a run records of attention, declared before it starts."""

import json
import operator
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from mut3r_analysis.attention.catalogue import STATISTICS
from mut3r_analysis.attention.sites import CAPTURED_KINDS, DECODER_KINDS
from mut3r_analysis.errors import InvalidArgument

_FLOATS = ("float16", "float32", "float64")
_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@dataclass(frozen=True, kw_only=True)
class Capture:
    """What to record at attention sites; what is not asked for is neither computed nor stored.

    Parameters
    ----------
    statistics : "all" or collection of str
        Per query: ``logit_mean``, ``logit_variance``, ``logsumexp``, ``entropy``, ``max_weight``,
        ``pose_weight`` (where the keys hold a pose token); per key: ``received``,
        ``received_logit``. None of them forms the query x key map.
    sites : collection of str
        Site kinds; by default the four of the decoder. ``encoder_self`` and ``head_self`` may be
        added.
    layers, heads : collection of int, optional
        0-based; None is all. A head index must exist at every captured site.
    frames : collection of int, optional
        Positions in the sequence at which attention is recorded; None is every frame.
    maps : collection of str
        Site kinds whose whole logit maps are kept: ``(frame, layer, head, query, key)``. Weights
        are computed from them on reading.
    archive : bool or {"float16", "float32"}
        Keep rotated queries and keys, from which maps and statistics can be computed later.
        True means float16.
    state : bool
        Keep the state tokens and the pose memory after each frame.
    dtype : {"float16", "float32", "float64"}
        How statistics and maps are stored. They are always computed in float32.
    budget : int or str, optional
        Most bytes the run may store, for example ``"2 GiB"``; checked before anything runs.

    Raises
    ------
    InvalidArgument
        When the specification cannot mean anything; the message says what is allowed.
    """

    statistics: Any = "all"
    sites: Any = DECODER_KINDS
    layers: Any = None
    heads: Any = None
    frames: Any = None
    maps: Any = ()
    archive: Any = False
    state: bool = False
    dtype: str = "float32"
    budget: Any = None

    def __post_init__(self) -> None:
        settle = {
            "statistics": tuple(STATISTICS)
            if self.statistics == "all"
            else _names("statistics", self.statistics, tuple(STATISTICS)),
            "sites": _names("sites", self.sites, CAPTURED_KINDS),
            "maps": _names("maps", self.maps, CAPTURED_KINDS),
            "layers": _indices("layers", self.layers),
            "heads": _indices("heads", self.heads),
            "frames": _indices("frames", self.frames),
            "archive": "float16" if self.archive is True else self.archive,
            "budget": _bytes(self.budget),
        }
        for name, value in settle.items():
            object.__setattr__(self, name, value)
        if self.archive not in (False, "float16", "float32"):
            raise InvalidArgument(
                f"archive must be True, False, 'float16' or 'float32', got {self.archive!r}"
            )
        if self.dtype not in _FLOATS:
            raise InvalidArgument(f"dtype must be one of {', '.join(_FLOATS)}, got {self.dtype!r}")
        extra = [kind for kind in self.maps if kind not in self.sites]
        if extra:
            raise InvalidArgument(
                f"maps of {extra} are asked for, but sites = {list(self.sites)}; "
                "name the same kinds in sites"
            )

    @property
    def records_attention(self) -> bool:
        """Whether any attention site has to be probed."""
        return bool(self.sites and (self.statistics or self.maps or self.archive))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build from :meth:`to_dict`'s output.

        Raises
        ------
        InvalidArgument
            For a field that does not exist.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise InvalidArgument(f"unknown capture field(s) {unknown}; known: {known}")
        return cls(**values)

    def to_json(self) -> str:
        """Return the specification as one line of JSON."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Build from :meth:`to_json`'s output."""
        return cls.from_dict(json.loads(text))


def _names(field: str, given: Any, known: tuple[str, ...]) -> tuple[str, ...]:
    given = (given,) if isinstance(given, str) else tuple(given)
    unknown = [name for name in given if name not in known]
    if unknown:
        raise InvalidArgument(f"unknown {field} {unknown}; known: {', '.join(known)}")
    return tuple(name for name in known if name in given)


def _indices(field: str, given: Iterable[Any] | int | None) -> tuple[int, ...] | None:
    if given is None:
        return None
    try:
        values = (given,) if isinstance(given, int) else given
        indices = sorted({operator.index(value) for value in values})
    except TypeError:
        raise InvalidArgument(
            f"{field} must be None, an integer or a collection of integers, got {given!r}"
        ) from None
    if not indices or indices[0] < 0:
        raise InvalidArgument(f"{field} must name at least one index from 0 on, got {given!r}")
    return tuple(indices)


def _bytes(budget: int | str | None) -> int | None:
    if budget is None:
        return None
    if isinstance(budget, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", budget)
        if match is None or match[2] not in _UNITS:
            raise InvalidArgument(
                f"budget must be bytes or a text like '2 GiB' (units: {', '.join(_UNITS)}), "
                f"got {budget!r}"
            )
        return int(float(match[1]) * _UNITS[match[2]])
    if isinstance(budget, bool) or not isinstance(budget, int) or budget <= 0:
        raise InvalidArgument(f"budget must be a positive number of bytes, got {budget!r}")
    return budget
