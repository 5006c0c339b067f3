"""Sensitivity to beta: where suppression turns into harm, by normaliser and by speed of motion."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.labelling import beside
from mut3r_analysis.motion import Cue, Gate
from mut3r_analysis.motion.site_gates import LARGEST_SCORE
from mut3r_analysis.running.opening import open_run
from mut3r_analysis.studies.ablation import (
    Ablation,
    against,
    chosen_elsewhere,
    in_words,
    with_controls,
)
from mut3r_analysis.studies.finding import FEWEST, Finding, Row, rows
from mut3r_analysis.studies.measures import leading
from mut3r_analysis.studies.sensitivity.motion_speed import FAST, SLOW, STATIC, UNMEASURED

ORACLE = "oracle"
GROUPS = (STATIC, SLOW, FAST, UNMEASURED)
ROUNDING = 0.01
"""Changes up to this, in percent, can come from float32 sums in another order alone."""

QUESTION = "How much suppression is too much?"


def cues(normalisers: Sequence[str], oracle: bool = True, edition: int = 2) -> dict[str, Cue]:
    """Return MUT3R's cue under each normaliser, and the true mask with its shuffled control.

    Raises
    ------
    InvalidArgument
        For a normaliser that a cue does not have, or none at all.
    """
    if not normalisers:
        raise InvalidArgument("no normaliser was given; name at least one, such as 'zscore'")
    own = {f"own, {name}": Cue.mut3r(edition=edition, normaliser=name) for name in normalisers}
    return own | (with_controls({ORACLE: Cue.oracle()}) if oracle else {})


def ablation(chosen: Mapping[str, Cue], betas: Sequence[float], *, edition: int = 2) -> Ablation:
    """Cross every cue with MUT3R's gates at every beta.

    Raises
    ------
    InvalidArgument
        For no beta, or one that is not above 0: beta 0 is the plain run, which is there anyway.
    """
    if not betas or min(betas) <= 0:
        raise InvalidArgument(f"betas={list(betas)}; give values above 0, 0 is the plain run")

    def configure(cue: str, beta: float) -> dict[str, Any]:
        return {"cue": chosen[cue], "gate": Gate.mut3r(beta=beta, edition=edition)}

    factors: dict[str, list[Any]] = {"cue": list(chosen), "beta": sorted(map(float, betas))}
    return Ablation(factors, configure, "{}, beta {:g}")


def with_plain(errors: xr.DataArray, plain: xr.DataArray) -> xr.DataArray:
    """Put the plain run's errors in front as beta 0, which it is for every cue."""
    zero = plain.expand_dims(cue=errors["cue"].values, beta=[0.0])
    joined = xr.concat(
        [zero.transpose(*errors.dims), errors], dim="beta", coords="minimal", compat="override"
    )
    joined["beta"].attrs = {"long_name": "sharpness β", "units": "1"}
    return joined.assign_attrs(errors.attrs)


def by_speed(values: xr.DataArray, speeds: xr.Dataset) -> xr.DataArray:
    """Average sequences of one family and one speed, so that families are what is resampled.

    Parameters
    ----------
    values : DataArray
        (..., sequence).
    speeds : Dataset
        ``group`` and ``family`` along ``sequence``, from :func:`motion_speed.speeds_of`.

    Returns
    -------
    DataArray
        (..., speed, family), NaN where a family has no sequence of a speed.
    """
    speeds = speeds.sel(sequence=values["sequence"].values)
    groups = [group for group in GROUPS if group in speeds["group"].values]
    names = list(dict.fromkeys(speeds["family"].values.tolist()))
    labels = {"speed": speeds["group"].variable, "family": speeds["family"].variable}
    means = values.assign_coords(labels).groupby(list(labels)).mean("sequence")
    found = means.reindex(speed=groups, family=names)
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
    measures = leading(errors)
    changes = against_plain(errors.sel(cue=cue, drop=True))
    onsets = onset(changes)
    beta = min(errors["beta"].values[errors["beta"].values > 0], key=lambda each: abs(np.log(each)))
    shown = changes.sel(measure=measures, beta=beta).transpose("measure", "speed")
    table = rows(shown, "{measure} of {speed} scenes")
    lead = len(table)
    starts: Any = onsets.transpose("measure", "speed").to_series()
    for (measure, speed), start in starts.items():
        if np.isfinite(start):
            effect = f"smallest β from which on {measure} of {speed} scenes is higher"
            table.append(Row(effect, start, reference=None))
    if enough(errors):
        table += _transferred(errors.sel(cue=cue, measure=measures, drop=True))
    boundary = errors["speed"].attrs.get("boundary", np.nan)
    if np.isfinite(boundary):
        table.append(Row("motion up to which a scene is slow", float(boundary), unit="px/frame",
                         reference=None))  # fmt: skip
    about = f"Gating by the {in_words(cue)} at β = {beta:g}"
    return Finding(QUESTION, table, about, lead=lead)


def _transferred(errors: xr.DataArray) -> list[Row]:
    """Errors with beta chosen on other scenes, at the same speed and at the other."""
    moved = transfer(errors)
    gains, costs = transferred(moved, errors), cost_of_transfer(moved)
    found = []
    for measure in errors["measure"].values.tolist():
        effect = f"{measure}, {{tested}}, β chosen on other {{learned}} scenes"
        found += rows(gains.sel(measure=measure).transpose("learned", "tested"), effect)
        effect = f"{measure}, {{}}, β chosen at the other speed instead of this one"
        found += rows(costs.sel(measure=measure), effect)
    return found


def enough(errors: xr.DataArray) -> bool:
    """Whether at least two families have errors at each speed, slow and fast."""
    if not errors.sizes["measure"] or not {SLOW, FAST} <= set(errors["speed"].values.tolist()):
        return False
    present = errors.notnull().any([dim for dim in errors.dims if dim not in ("speed", "family")])
    return bool((present.sel(speed=[SLOW, FAST]).sum("family") > 1).all())


def transfer(errors: xr.DataArray) -> xr.Dataset:
    """Choose beta at one speed, slow or fast, and pay for it at the other.

    For every family beta is chosen, 0 among the choices, on the other families only, so no scene
    is tested with a beta that any rendering of it had a say in.

    Parameters
    ----------
    errors : DataArray
        (measure, cue, beta, speed, family), with beta 0.

    Returns
    -------
    Dataset
        ``error`` and ``beta`` (measure, cue, learned, tested, family).

    Raises
    ------
    InvalidArgument
        With fewer than two families.
    """

    def paid(learned: str, tested: str) -> xr.Dataset:
        at, by = (errors.sel(speed=speed, drop=True) for speed in (tested, learned))
        return chosen_elsewhere(at, "beta", "family", learned=by).rename(chosen="beta")

    rows = {
        learned: beside({tested: paid(learned, tested) for tested in (SLOW, FAST)}, "tested")
        for learned in (SLOW, FAST)
    }
    found = beside(rows, "learned")
    found["learned"].attrs = {"long_name": "β chosen on", "units": "1"}
    found["tested"].attrs = {"long_name": "tested on", "units": "1"}
    found["error"].attrs = errors.attrs
    return found.transpose(..., "learned", "tested", "family")


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
    error = moved["error"]
    same = error["learned"] == error["tested"]
    there, here = (error.where(kept).mean("learned") for kept in (~same, same))
    return against(there, here, "family", "change of the error by choosing on the other speed")


_TAILS = (0.05, 0.95)
"""Patches whose weights are compared: nearly the least and nearly the most dynamic of a frame."""


def contrast(table: xr.Dataset, layout: Mapping[str, Mapping[str, Any]]) -> xr.DataArray:
    """Measure how strongly weights are set apart, which makes betas of normalisers comparable.

    A softmax gate ignores a factor common to all keys, so only the contrast acts: the ratio of
    the weights ``(1 - g)^beta`` of a patch scored low and of one scored high, here at the 5th and
    the 95th percentile of a frame. Scores are those of the runs whose beta is nearest to 1.

    Parameters
    ----------
    table : Dataset
        Result of a sweep, with the stores in ``run``.
    layout : mapping
        Configuration to its ``cue`` and ``beta``, from `sensitivity.design`.

    Returns
    -------
    DataArray
        (cue, beta), the logarithm of the ratio to base 10, averaged over frames and sequences;
        NaN where no run is there.
    """
    betas = sorted({float(row["beta"]) for row in layout.values()})
    near = min(betas, key=lambda beta: abs(np.log(beta)))
    labels = {str(row["cue"]): label for label, row in layout.items() if row["beta"] == near}
    stores = table["run"].sel(configuration=list(labels.values())).transpose("configuration", ...)
    spreads = xr.apply_ufunc(_spread, stores, vectorize=True).mean("sequence")
    return xr.DataArray(
        np.outer(spreads, betas),
        dims=("cue", "beta"),
        coords={"cue": list(labels), "beta": betas},
        attrs={"long_name": "contrast of weights, 95th to 5th percentile", "units": "decades"},
    )


def _spread(path: str) -> float:
    """Mean over frames of log10 of how much more a patch scored low weighs than one scored high."""
    if not path:
        return np.nan
    motion = np.asarray(open_run(path)["cue/motion"], np.float64)
    kept = np.log10(1 - np.clip(motion.reshape(len(motion), -1), 0, LARGEST_SCORE))
    low, high = np.quantile(kept, _TAILS, axis=1)
    return float(np.mean(high - low))
