"""Choosing a setting fairly: on some sequences, with the price paid on others."""

import numpy as np
import xarray as xr

from mut3r_analysis.errors import InvalidArgument


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
    for dim in (option, over):
        if dim not in tested.dims or dim not in learned.dims:
            raise InvalidArgument(
                f"errors need the dimensions {option!r} and {over!r} to choose; "
                f"got {tested.dims} and {learned.dims}"
            )
    if tested.sizes[over] < 2:
        raise InvalidArgument(f"choosing on the others needs at least two along {over!r}")
    if option in tested.coords:
        learned = learned.sel({option: tested[option].values})
    learned, tested = xr.align(learned, tested, join="exact")
    count = learned.sizes[over]
    found, chosen = [], []
    for place in range(count):
        others = learned.isel({over: [index for index in range(count) if index != place]})
        best, known = _best(others.mean(over), option)
        found.append(tested.isel({over: place}).isel({option: best}).where(known))
        chosen.append(tested[option].isel({option: best}))
    rows = [part.drop_vars([option, over], errors="ignore") for part in found]
    names = [part.drop_vars([option], errors="ignore") for part in chosen]
    error = xr.concat(rows, dim=over, coords="minimal", compat="override")
    picks = xr.concat(names, dim=over, coords="minimal", compat="override")
    held = {over: tested[over]} if over in tested.coords else {}
    result = xr.Dataset({"error": error, "chosen": picks}).assign_coords(held)
    result["error"].attrs = tested.attrs
    return result.transpose(..., over)


def best(errors: xr.DataArray, option: str, over: str = "sequence") -> xr.DataArray:
    """Return the entry of `option` with the lowest mean error ``(...)``."""
    place, _ = _best(errors.mean(over), option)
    return errors[option].isel({option: place}).drop_vars(option, errors="ignore")


def most_chosen(chosen: xr.DataArray) -> object:
    """Return the entry chosen most often; of equals, the first in sorted order."""
    values, counts = np.unique(chosen.values, return_counts=True)
    return values[counts.argmax()].item()


def _best(means: xr.DataArray, option: str) -> tuple[xr.DataArray, xr.DataArray]:
    known = means.notnull().any(option)
    return means.fillna(np.inf).argmin(option), known
