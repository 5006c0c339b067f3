"""An ablation: factors crossed into configurations, each against the plain run and its control."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.labelling import beside
from mut3r_analysis.motion.cue import Cue
from mut3r_analysis.studies.estimates import change

PLAIN = "plain"
"""The run without gates, in every study."""

SHUFFLED = ", shuffled"
"""Ending of the name of a control: the same scores at random places of the frame."""


def in_words(cue: str) -> str:
    """Name a cue as one says it: ``"shuffled true mask"`` for ``"true mask, shuffled"``."""
    name = cue.removesuffix(SHUFFLED)
    if name == "own" or name.startswith("own, "):
        name = name.replace("own", "own cue", 1)
    return f"shuffled {name}" if cue.endswith(SHUFFLED) else name


def with_controls(cues: Mapping[str, Cue]) -> dict[str, Cue]:
    """Put behind each cue its control, named with `SHUFFLED`."""
    return {
        name + ending: replace(cue, control=control)
        for name, cue in cues.items()
        for ending, control in (("", None), (SHUFFLED, "shuffle"))
    }


@dataclass(frozen=True)
class Ablation:
    """What is run: every combination of the levels of some factors, and the plain run.

    Parameters
    ----------
    factors : mapping of str to sequence
        Factor to its levels.
    configure : callable
        From one level of every factor, in order, to the configuration that a sweep runs; None
        where that is the plain run.
    label : str
        Name of a configuration, its levels filled in, such as ``"{} {}"``.
    """

    factors: Mapping[str, Sequence[Any]]
    configure: Callable[..., Any]
    label: str = "{}"

    @property
    def cells(self) -> list[tuple[str, dict[str, Any], Any]]:
        """Label, levels and configuration of every cell, in order; several may be plain."""
        found = []
        for levels in product(*self.factors.values()):
            made = self.configure(*levels)
            label = PLAIN if made is None else self.label.format(*levels)
            found.append((label, dict(zip(self.factors, levels, strict=True)), made))
        return found

    @property
    def design(self) -> dict[str, dict[str, Any]]:
        """The levels that each configuration stands for; plain is not among them."""
        return {label: levels for label, levels, _ in self.cells if label != PLAIN}

    @property
    def configurations(self) -> dict[str, Any]:
        """The configurations of a sweep, the plain one first."""
        return {PLAIN: {}} | {label: made for label, _, made in self.cells if label != PLAIN}

    def unfolded(self, values: Any) -> Any:
        """Put the factors in the place of the dimension ``configuration``.

        Parameters
        ----------
        values : DataArray or Dataset
            (..., configuration, ...), such as `measures.errors` of a sweep.

        Returns
        -------
        DataArray or Dataset
            (..., factor, factor, ...), in the order of their levels.
        """
        if isinstance(values, xr.Dataset):
            return values.map(self.unfolded, keep_attrs=True)
        if "configuration" not in values.dims:
            return values
        held = values.sel(configuration=[label for label, *_ in self.cells])
        levels = {name: list(each) for name, each in self.factors.items()}
        place = held.dims.index("configuration")
        sizes = list(held.sizes.items())
        sizes[place : place + 1] = [(name, len(each)) for name, each in levels.items()]
        dims, shape = zip(*sizes, strict=True)
        coords = {**held.isel(configuration=0, drop=True).coords, **levels}
        data = np.ascontiguousarray(held.values).reshape(shape)
        return xr.DataArray(data, coords, dims, attrs=values.attrs)


def against(
    values: xr.DataArray,
    reference: xr.DataArray,
    over: str = "sequence",
    named: str = "change of the error against the plain run",
) -> xr.Dataset:
    """Return the paired change of each error against a reference, percent, as `change`."""
    found = change(values, reference, over)
    found["value"].attrs["long_name"] = named
    return found


def against_control(
    values: xr.DataArray, factor: str = "cue", over: str = "sequence"
) -> xr.Dataset:
    """Return the change of each error against that of the same cue's shuffled scores, percent.

    Returns
    -------
    Dataset
        Along `factor` only levels whose control, named with `SHUFFLED`, is there.

    Raises
    ------
    InvalidArgument
        When no level has its control.
    """
    levels = values[factor].values.tolist()
    names = [name for name in levels if name + SHUFFLED in levels]
    if not names:
        raise InvalidArgument(f"none of {', '.join(map(str, levels))} has its control; run it too")
    control = values.sel({factor: [name + SHUFFLED for name in names]})
    return against(
        values.sel({factor: names}),
        control.assign_coords({factor: names}),
        over,
        "change of the error against shuffled scores",
    )


def chosen_elsewhere(
    tested: xr.DataArray,
    option: str,
    over: str = "sequence",
    learned: xr.DataArray | None = None,
) -> xr.Dataset:
    """Choose for each sequence the option that was best on all others, and take its error here.

    The best of several options looks better than it is on the sequences that made it the best.
    Here no sequence has a say in the choice that it is tested with.

    Parameters
    ----------
    tested : DataArray
        (..., option, over), errors.
    option : hashable
        The dimension whose entries are chosen among.
    over : hashable
        The dimension of what is left out in turn: sequences, or scenes that have several.
    learned : DataArray, optional
        Errors of other sequences of the same scenes, which the choice is made on, with the same
        entries of `over`; `tested` itself unless given.

    Returns
    -------
    Dataset
        ``error`` (..., over) with what was chosen, NaN where there is none or nothing to choose
        from, and ``chosen`` (..., over), the entry of `option`.

    Raises
    ------
    InvalidArgument
        When a dimension is missing or there is but one entry to leave out.
    """
    learned = tested if learned is None else learned
    if lacking := {option, over} - ({*tested.dims} & {*learned.dims}):
        raise InvalidArgument(f"errors need the dimension {', '.join(lacking)} to choose")
    if tested.sizes[over] < 2:
        raise InvalidArgument(f"choosing on the others needs at least two along {over!r}")
    if option in tested.coords:
        learned = learned.sel({option: tested[option].values})
    learned, tested = xr.align(learned, tested, join="exact")
    parts = {}
    for place, left_out in enumerate(tested[over].values.tolist()):
        others = learned.isel({over: np.arange(learned.sizes[over]) != place})
        lowest, known = _best(others.mean(over), option)
        here = tested.isel({over: place, option: lowest}, drop=True).where(known)
        chosen = tested[option].isel({option: lowest})
        found = {"error": here.drop_vars(option, errors="ignore"), "chosen": chosen.variable}
        parts[left_out] = xr.Dataset(found)
    result = beside(parts, over)
    result["error"].attrs = tested.attrs
    return result.transpose(..., over)


def best(errors: xr.DataArray, option: str, over: str = "sequence") -> xr.DataArray:
    """Return the entry of `option` with the lowest mean error ``(...)``."""
    place, _ = _best(errors.mean(over), option)
    return errors[option].isel({option: place}).drop_vars(option, errors="ignore")


def counted(chosen: xr.DataArray, rows: str, columns: str, order: Iterable[Any]) -> pd.DataFrame:
    """Count what was chosen how often: one row and column per label, ``"[0, 3): 4, [0, 6): 1"``."""
    options = list(order)

    def entry(row: Any, column: Any) -> str:
        picks = chosen.sel({rows: row, columns: column}).values.ravel().tolist()
        counts = {each: picks.count(each) for each in options if each in picks}
        return ", ".join(
            f"{each:g}: {count}" if isinstance(each, float) else f"{each}: {count}"
            for each, count in counts.items()
        )

    return pd.DataFrame(
        {
            column: {row: entry(row, column) for row in chosen[rows].values.tolist()}
            for column in chosen[columns].values.tolist()
        }
    )


def _best(means: xr.DataArray, option: str) -> tuple[xr.DataArray, xr.DataArray]:
    known = means.notnull().any(option)
    return means.fillna(np.inf).argmin(option), known
