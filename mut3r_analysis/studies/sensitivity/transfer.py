"""Transfer of beta: chosen where things move at one speed, paid for where they move at another."""

from collections.abc import Sequence

import xarray as xr

from mut3r_analysis.studies.ablation import against, chosen_elsewhere
from mut3r_analysis.studies.sensitivity.motion_speed import FAST, SLOW


def enough(errors: xr.DataArray, groups: Sequence[str] = (SLOW, FAST)) -> bool:
    """Whether at least two families have errors at each of the speeds."""
    if not errors.sizes["measure"] or not set(groups) <= set(errors["speed"].values.tolist()):
        return False
    present = errors.notnull().any([dim for dim in errors.dims if dim not in ("speed", "family")])
    return all(int(present.sel(speed=group).sum()) > 1 for group in groups)


def transfer(errors: xr.DataArray, groups: Sequence[str] = (SLOW, FAST)) -> xr.Dataset:
    """Choose beta on one speed, and pay for it on another.

    For every family beta is chosen, 0 among the choices, on the other families only, so no scene
    is tested with a beta that any rendering of it had a say in.

    Parameters
    ----------
    errors : DataArray
        (measure, cue, beta, speed, family), with beta 0.
    groups : sequence of str
        Speeds to choose on and to test on.

    Returns
    -------
    Dataset
        ``error`` and ``beta`` (measure, cue, learned, tested, family).

    Raises
    ------
    InvalidArgument
        With fewer than two families.
    """
    rows = []
    for learned in groups:
        cells = []
        for tested in groups:
            found = chosen_elsewhere(
                errors.sel(speed=tested, drop=True),
                "beta",
                over="family",
                learned=errors.sel(speed=learned, drop=True),
            )
            cells.append(found.rename(chosen="beta"))
        rows.append(xr.concat(cells, dim="tested", coords="minimal", compat="override"))
    found = xr.concat(rows, dim="learned", coords="minimal", compat="override")
    found = found.assign_coords({name: list(groups) for name in ("learned", "tested")})
    found["learned"].attrs = {"long_name": "β chosen on", "units": "1"}
    found["tested"].attrs = {"long_name": "tested on", "units": "1"}
    found["error"].attrs = errors.attrs
    return found.transpose("measure", "cue", "learned", "tested", "family")


def transferred(moved: xr.Dataset, errors: xr.DataArray) -> xr.Dataset:
    """Change of the error with a chosen beta against the plain run on the tested speed, percent."""
    plain = errors.sel(beta=0.0, drop=True).rename(speed="tested")
    plain = plain.sel(tested=moved["tested"].values)
    return against(moved["error"], plain, over="family")


def cost_of_transfer(moved: xr.Dataset) -> xr.Dataset:
    """Change of the error when beta was chosen on the other speed instead of the tested one, %.

    Returns
    -------
    Dataset
        (measure, cue, tested); positive is worse.
    """
    groups = moved["tested"].values.tolist()
    same = [moved["error"].sel(learned=name, tested=name, drop=True) for name in groups]
    others = [
        moved["error"].sel(tested=name, drop=True).drop_sel(learned=name).mean("learned")
        for name in groups
    ]
    there, here = (xr.concat(each, dim=moved["tested"]) for each in (others, same))
    return against(there, here, "family", "change of the error by choosing on the other speed")
