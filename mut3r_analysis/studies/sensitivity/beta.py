"""Sensitivity to beta: where suppression turns into harm, by normaliser and by speed of motion."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion.cue import Cue
from mut3r_analysis.motion.gate import Gate
from mut3r_analysis.studies.ablation import SHUFFLED, Ablation, against
from mut3r_analysis.studies.finding import FEWEST, Finding, Row, row
from mut3r_analysis.studies.measures import leading
from mut3r_analysis.studies.sensitivity.motion_speed import FAST, SLOW, STATIC, UNMEASURED
from mut3r_analysis.studies.sensitivity.transfer import (
    cost_of_transfer,
    enough,
    transfer,
    transferred,
)

ORACLE = "oracle"
GROUPS = (STATIC, SLOW, FAST, UNMEASURED)
ROUNDING = 0.01
"""Changes up to this, in percent, can come from float32 sums in another order alone."""

QUESTION = "How much suppression is too much?"


def cues(normalisers: Sequence[str], oracle: bool = True) -> dict[str, Cue]:
    """Return MUT3R's cue under each normaliser, and the true mask with its shuffled control.

    Raises
    ------
    InvalidArgument
        For a normaliser that a cue does not have, or none at all.
    """
    if not normalisers:
        raise InvalidArgument("no normaliser was given; name at least one, such as 'zscore'")
    own = {f"own, {name}": Cue.mut3r(normaliser=name) for name in normalisers}
    perfect = {ORACLE: Cue.oracle(), ORACLE + SHUFFLED: Cue.oracle(control="shuffle")}
    return own | (perfect if oracle else {})


def ablation(chosen: Mapping[str, Cue], betas: Sequence[float]) -> Ablation:
    """Cross every cue with MUT3R's gates at every beta.

    Raises
    ------
    InvalidArgument
        For no beta, or one that is not above 0: beta 0 is the plain run, which is there anyway.
    """
    if not betas or min(betas) <= 0:
        raise InvalidArgument(f"betas={list(betas)}; give values above 0, 0 is the plain run")

    def configure(cue: str, beta: float) -> dict[str, Any]:
        return {"cue": chosen[cue], "gate": Gate.mut3r(beta=beta)}

    factors: dict[str, list[Any]] = {
        "cue": list(chosen),
        "beta": [float(beta) for beta in sorted(betas)],
    }
    return Ablation(factors, configure, "{}, beta {:g}")


def with_plain(errors: xr.DataArray, plain: xr.DataArray) -> xr.DataArray:
    """Put the plain run's errors in front as beta 0, which it is for every cue."""
    zero = plain.expand_dims(cue=errors["cue"].values, beta=[0.0])
    joined = xr.concat(
        [zero.transpose(*errors.dims), errors], dim="beta", coords="minimal", compat="override"
    )
    joined["beta"].attrs = {"long_name": "sharpness β", "units": "1"}
    return joined.assign_attrs(errors.attrs)


def by_speed(
    values: xr.DataArray, speeds: xr.Dataset, groups: Sequence[str] | None = None
) -> xr.DataArray:
    """Average sequences of one family and one speed, so that families are what is resampled.

    Parameters
    ----------
    values : DataArray
        (..., sequence).
    speeds : Dataset
        ``group`` and ``family`` along ``sequence``, from :func:`motion_speed.speeds_of`.
    groups : sequence of str, optional
        Which of its groups; by default those that it has.

    Returns
    -------
    DataArray
        (..., speed, family), NaN where a family has no sequence of a speed.
    """
    speeds = speeds.sel(sequence=values["sequence"].values)
    if groups is None:
        groups = [group for group in GROUPS if group in speeds["group"].values]
    names = list(dict.fromkeys(speeds["family"].values.tolist()))
    rows = []
    for group in groups:
        cells = []
        for family in names:
            member = ((speeds["group"] == group) & (speeds["family"] == family)).values
            cells.append(values.isel(sequence=np.flatnonzero(member)).mean("sequence"))
        rows.append(xr.concat(cells, dim="family", coords="minimal", compat="override"))
    found = xr.concat(rows, dim="speed", coords="minimal", compat="override")
    found = found.assign_coords(
        speed=np.array(groups, dtype=object), family=np.array(names, dtype=object)
    )
    boundary = speeds.attrs.get("boundary", float("nan"))
    found["speed"].attrs = {"long_name": "motion", "units": "1", "boundary": boundary}
    return found.transpose(..., "speed", "family").assign_attrs(values.attrs)


def against_plain(errors: xr.DataArray) -> xr.Dataset:
    """Change of each error (measure, cue, beta, speed, family) against beta 0, percent."""
    return against(errors, errors.sel(beta=0.0, drop=True), over="family")


def onset(changes: xr.Dataset) -> xr.DataArray:
    """Find the smallest tested beta from which on the error is higher than the plain run's.

    Parameters
    ----------
    changes : Dataset
        From :func:`against_plain`.

    Returns
    -------
    DataArray
        (measure, cue, speed): a beta at which, and at all larger ones tested, the interval of
        the change lies above `ROUNDING`. Infinite where there is none, NaN where there are too
        few families to tell.
    """
    tested = changes.sel(beta=changes["beta"] > 0)
    harmful = (tested["lower"] > ROUNDING).sortby("beta", ascending=False)
    lasting = harmful.astype(int).cumprod("beta").sortby("beta").astype(bool)
    found = tested["beta"].where(lasting).min("beta").fillna(np.inf)
    known = (tested["n"] >= FEWEST).all("beta")
    return found.where(known).assign_attrs(long_name="β from which on it harms", units="1")


def finding(errors: xr.DataArray, cue: str) -> Finding:
    """Tell what gating changes at each speed, from which beta on it harms, and what transfers.

    Parameters
    ----------
    errors : DataArray
        (measure, cue, beta, speed, family), with beta 0, from :func:`by_speed`.
    cue : str
        Whose numbers are told.
    """
    measures, speeds = leading(errors), errors["speed"].values.tolist()
    changes = against_plain(errors).sel(cue=cue)
    onsets = onset(against_plain(errors)).sel(cue=cue)
    beta = min(errors["beta"].values[errors["beta"].values > 0], key=lambda each: abs(np.log(each)))
    table = [
        row(f"{measure}, {speed}", changes.sel(measure=measure, speed=speed, beta=beta))
        for measure, speed in product(measures, speeds)
    ]
    lead = len(table)
    for measure, speed in product(errors["measure"].values.tolist(), speeds):
        start = onsets.sel(measure=measure, speed=speed)
        if np.isfinite(start):
            effect = f"smallest β from which on {measure} is higher, {speed}"
            table.append(Row(effect, float(start), reference=None))
    if enough(errors):
        table += _transferred(errors.sel(cue=[cue], measure=measures))
    boundary = errors["speed"].attrs.get("boundary", np.nan)
    if np.isfinite(boundary):
        table.append(Row("motion up to which a scene is slow", float(boundary), unit="px/frame",
                         reference=None))  # fmt: skip
    about = f"Against the plain run, with the cue '{cue}' at β = {beta:g}, the error is"
    return Finding(QUESTION, table, about, lead=lead)


def _transferred(errors: xr.DataArray) -> list[Row]:
    """Errors with beta chosen on other scenes, at the same speed and at the other."""
    moved = transfer(errors)
    gains, costs = transferred(moved, errors).isel(cue=0), cost_of_transfer(moved).isel(cue=0)
    found = []
    for measure in errors["measure"].values.tolist():
        for learned, tested in product((SLOW, FAST), repeat=2):
            cell = gains.sel(measure=measure, learned=learned, tested=tested)
            found.append(row(f"{measure}, {tested}, β chosen on other {learned} scenes", cell))
        for tested in (SLOW, FAST):
            effect = f"{measure}, {tested}, β chosen at the other speed instead of this one"
            found.append(row(effect, costs.sel(measure=measure, tested=tested)))
    return found
