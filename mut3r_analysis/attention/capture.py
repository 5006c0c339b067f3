"""What a run records of attention, declared before it starts."""

import operator
import re
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

from mut3r_analysis.attention.sites import SITE_KINDS, Sites, check_kinds
from mut3r_analysis.attention.statistics import check_statistics
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.specification import Specification, flag, names

_FLOATS = ("float16", "float32", "float64")
_ARCHIVES = ("float16", "float32")
_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@dataclass(frozen=True, kw_only=True)
class Capture(Specification):
    """What to record at attention sites; what is not asked for is neither computed nor stored.

    Parameters
    ----------
    statistics : "all" or collection of str
        Per query: ``logit_mean``, ``logit_variance``, ``logsumexp``, ``entropy``, ``max_weight``,
        ``pose_weight`` (where the keys hold a pose token); per key: ``received``,
        ``received_logit``. None of them forms the query x key map. None or ``()`` takes none.
    sites : "decoder", "all" or collection of str
        Site kinds; by default those of the model's decoder. ``encoder_self`` and ``head_self`` may
        be added; the latter runs for the output ``points_world`` alone.
    layers, heads : collection of int, optional
        0-based; None is all. A pair names two layers here; ``range(0, 6)`` is the first six. A head
        index must exist at every captured site.
    frames : collection of int, optional
        Positions in the sequence at which attention is recorded; None is every frame.
    maps : "all" or collection of str
        Site kinds, of those captured, whose whole logit maps are kept: ``(frame, layer, head,
        query, key)``. Weights are computed from them on reading.
    archive : bool or {"float16", "float32"}
        Keep rotated queries and keys, from which maps and statistics can be computed later.
        True means float16.
    head_outputs : "all" or collection of str
        Site kinds, of those captured, whose heads' outputs are kept: what a head writes, before
        the site's projection. A name keeps norms ``(frame, layer, head, query)``, a name followed
        by ``:values`` the outputs themselves ``(..., channel)`` as well.
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
    sites: Any = "decoder"
    layers: Any = None
    heads: Any = None
    frames: Any = None
    maps: Any = ()
    archive: Any = False
    head_outputs: Any = ()
    state: bool = False
    dtype: str = "float32"
    budget: Any = None

    def __post_init__(self) -> None:
        known = tuple(kind.name for kind in SITE_KINDS.values() if kind.captured)
        outputs = (*known, *(f"{kind}:values" for kind in known))
        checked = {
            "statistics": check_statistics(self.statistics),
            "sites": _kinds("sites", self.sites, known, ("decoder", "all")),
            "maps": _kinds("maps", self.maps, known, ("all",)),
            "head_outputs": _kinds("head_outputs", self.head_outputs, outputs, ("all",)),
            "layers": _indices("layers", self.layers),
            "heads": _indices("heads", self.heads),
            "frames": _indices("frames", self.frames),
            "archive": _archive(self.archive),
            "state": flag("state", self.state),
            "dtype": _float_name("dtype", self.dtype, _FLOATS),
            "budget": _bytes(self.budget),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        rows = SITE_KINDS.values()
        group = tuple(row.name for row in rows if self.sites in ("all", row.part))
        for field in ("maps", "head_outputs"):
            self._check_captured(field, self.sites if isinstance(self.sites, tuple) else group)

    @property
    def records_attention(self) -> bool:
        """Whether any attention site has to be probed."""
        kept = (self.statistics, self.maps, self.archive, self.head_outputs)
        return bool(self.sites and any(kept))

    def kinds(self, sites: Sites) -> tuple[str, ...]:
        """Return the kinds of site that are recorded in a backbone with these sites.

        Raises
        ------
        InvalidArgument
            When the capture names a kind that the backbone lacks.
        """
        if isinstance(self.sites, tuple):
            check_kinds("capture", self.sites, sites)
            return self.sites
        rows = [SITE_KINDS[name] for name in sites if SITE_KINDS[name].captured]
        kinds = tuple(row.name for row in rows if self.sites in ("all", row.part))
        for field in ("maps", "head_outputs"):
            self._check_captured(field, kinds)
        return kinds

    def keeps_map(self, kind: str) -> bool:
        """Whether the whole logit maps of a recorded kind are kept."""
        return self.maps == "all" or kind in self.maps

    def keeps_outputs(self, kind: str) -> str | None:
        """Say what of the head outputs of a recorded kind is kept: "norms", "values" or None."""
        if f"{kind}:values" in self.head_outputs:
            return "values"
        return "norms" if self.head_outputs == "all" or kind in self.head_outputs else None

    def _check_captured(self, field: str, sites: tuple[str, ...]) -> None:
        given = getattr(self, field)
        extra = [name for name in given if name.removesuffix(":values") not in sites]
        if given != "all" and extra:
            raise InvalidArgument(
                f"{field} of {extra} are asked for, but sites = {list(sites)}; "
                "name the same kinds in sites"
            )


def _kinds(field: str, given: Any, known: tuple[str, ...], groups: tuple[str, ...]) -> Any:
    """Return a group's name as it is, and other names checked and in their own order."""
    if isinstance(given, list | tuple) and len(given) == 1 and given[0] in groups:
        (given,) = given
    return given if isinstance(given, str) and given in groups else names(field, given, known)


def _archive(given: Any) -> str | bool:
    if isinstance(given, bool | np.bool_):
        return "float16" if given else False
    return _float_name("archive", given, _ARCHIVES, "True, False, ")


def _float_name(field: str, given: Any, known: tuple[str, ...], before: str = "") -> str:
    """Return the name of a float type given by name, or as NumPy's or torch's type."""
    if isinstance(given, type) and issubclass(given, np.generic):
        given = np.dtype(given)
    name = str(given).removeprefix("torch.")
    if name not in known:
        raise InvalidArgument(f"{field} must be one of {before}{', '.join(known)}; got {given!r}")
    return name


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
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", budget)
        units = _UNITS | {"": 1}
        if match is None or match[2] not in units:
            raise InvalidArgument(
                f"budget must be bytes or a text like '2 GiB' (units: {', '.join(_UNITS)}), "
                f"got {budget!r}"
            )
        budget = int(float(match[1]) * units[match[2]])
    if isinstance(budget, bool) or not isinstance(budget, Integral) or budget <= 0:
        raise InvalidArgument(f"budget must be a positive number of bytes, got {budget!r}")
    return int(budget)
