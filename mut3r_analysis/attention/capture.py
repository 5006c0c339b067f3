"""What a run records of attention, declared before it starts."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Any, Literal

import numpy as np

from mut3r_analysis.attention.sites import SITE_KINDS, Sites, check_kinds
from mut3r_analysis.attention.statistics import check_statistics
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import Checked, Indices, flag, indices, names, one_of, shown
from mut3r_analysis.foundation.layers import Chosen, chosen_layers
from mut3r_analysis.foundation.specification import Specification

_FLOATS = ("float16", "float32", "float64")
_ARCHIVES = (True, False, "float16", "float32")
_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_Names = Checked[str | Iterable[str] | None, tuple[str, ...]]
_Kinds = Checked[str | Iterable[str] | None, str | tuple[str, ...]]


def _archive(field: str, given: bool | str) -> Literal[False] | str:
    if isinstance(given, bool | np.bool_):
        return "float16" if given else False
    return _float_name(field, given, _ARCHIVES)


def _float_name(field: str, given: Any, known: tuple[Any, ...]) -> str:
    """Return the name of a float type given by name, or as NumPy's or torch's type."""
    if isinstance(given, type) and issubclass(given, np.generic):
        given = np.dtype(given)
    name = given if isinstance(given, int) else str(given).removeprefix("torch.")
    return str(one_of(field, name, known))


def _captured() -> tuple[str, ...]:
    return tuple(kind.name for kind in SITE_KINDS.values() if kind.captured)


def _kinds(
    field: str, given: str | Iterable[str] | None, groups: tuple[str, ...]
) -> str | tuple[str, ...]:
    """Return a group's name as it is, and names of site kinds in their own order."""
    if isinstance(given, list | tuple) and len(given) == 1:
        (given,) = given
    return given if isinstance(given, str) and given in groups else names(field, given, _captured())


def _head_outputs(field: str, given: str | Iterable[str] | None) -> str | tuple[str, ...]:
    if given in ("all", ("all",), ["all"]):
        return "all"
    kinds = _captured()
    return names(field, given, (*kinds, *(f"{kind}:values" for kind in kinds)))


def _bytes(field: str, budget: int | str | None) -> int | None:
    if budget is None:
        return None
    if isinstance(budget, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", budget)
        units = _UNITS | {"": 1}
        if match is None or match[2] not in units:
            raise InvalidArgument(
                f"{field} must be bytes or a text like '2 GiB' (units: {', '.join(_UNITS)}), "
                f"got {shown(budget)}"
            )
        budget = int(float(match[1]) * units[match[2]])
    if isinstance(budget, bool) or not isinstance(budget, Integral) or budget <= 0:
        raise InvalidArgument(f"{field} must be a positive number of bytes, got {shown(budget)}")
    return int(budget)


@dataclass(frozen=True, kw_only=True)
class Capture(Specification):
    """What to record at attention sites; what is not asked for is neither computed nor stored.

    Parameters
    ----------
    statistics : "all" or collection of str
        Per query: ``logit_mean``, ``logit_variance``, ``logsumexp``, ``entropy``, ``max_weight``,
        ``argmax_key`` (an index, which float16 rounds above 2,048), ``pose_weight`` (where the
        keys hold a pose token); per key: ``received``, ``received_logit``. None of them forms the
        query x key map. None or ``()`` takes none.
    sites : "decoder", "all" or collection of str
        Site kinds; by default those of the model's decoder. ``encoder_self`` and ``head_self`` may
        be added; the latter runs for the output ``points_world`` alone.
    layers : range, list or set of int, optional
        0-based; None is all. ``[0, 3]`` are two layers, ``range(0, 6)`` the first six; the pair
        ``(0, 3)``, which is a range in cues and gates, is refused.
    heads : collection of int, optional
        0-based; None is all. An index must exist at every captured site.
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

    Examples
    --------
    >>> capture = Capture(statistics="entropy", layers=range(0, 2))
    >>> capture == Capture.from_json(capture.to_json())
    True
    >>> list(capture.statistics)
    ['entropy']
    """

    statistics: _Names = Checked(lambda _, given: check_statistics(given), "all")
    sites: _Kinds = Checked(partial(_kinds, groups=("decoder", "all")), "decoder")
    layers: Chosen = Checked(chosen_layers, None)
    heads: Indices = Checked(indices, None)
    frames: Indices = Checked(indices, None)
    maps: _Kinds = Checked(partial(_kinds, groups=("all",)), ())
    archive: Checked[bool | str, Literal[False] | str] = Checked(_archive, False)
    head_outputs: _Kinds = Checked(_head_outputs, ())
    state: Checked[bool, bool] = Checked(flag, False)
    dtype: Checked[str, str] = Checked(partial(_float_name, known=_FLOATS), "float32")
    budget: Checked[int | str | None, int | None] = Checked(_bytes, None)

    def __post_init__(self) -> None:
        rows = SITE_KINDS.values()
        group = tuple(row.name for row in rows if self.sites in ("all", row.part))
        self._check_captured(self.sites if isinstance(self.sites, tuple) else group)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, without `head_outputs` where none are kept, as in older stores."""
        values = super().to_dict()
        if not values["head_outputs"]:
            del values["head_outputs"]
        return values

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
        self._check_captured(kinds)
        return kinds

    def keeps_map(self, kind: str) -> bool:
        """Whether the whole logit maps of a recorded kind are kept."""
        return self.maps == "all" or kind in self.maps

    def keeps_outputs(self, kind: str) -> str | None:
        """Say what of the head outputs of a recorded kind is kept: "norms", "values" or None."""
        if f"{kind}:values" in self.head_outputs:
            return "values"
        return "norms" if self.head_outputs == "all" or kind in self.head_outputs else None

    def _check_captured(self, sites: tuple[str, ...]) -> None:
        for field in ("maps", "head_outputs"):
            given = getattr(self, field)
            extra = [name for name in given if name.removesuffix(":values") not in sites]
            if given != "all" and extra:
                raise InvalidArgument(
                    f"{field} of {extra} are asked for, but sites = {list(sites)}; "
                    "name the same kinds in sites"
                )
