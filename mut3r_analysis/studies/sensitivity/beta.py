"""Sensitivity to beta: where suppression turns into harm, by normaliser and by speed of motion."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.metrics.bootstrap import sequences_needed
from mut3r_analysis.motion.cue import Cue
from mut3r_analysis.motion.gate import Gate
from mut3r_analysis.studies.answers import Finding
from mut3r_analysis.studies.choice import most_chosen
from mut3r_analysis.studies.estimates import LEVEL, change, estimate, spelled, verdict
from mut3r_analysis.studies.measures import NO_TRUTH, leading
from mut3r_analysis.studies.sensitivity.motion_speed import FAST, SLOW, STATIC, UNMEASURED
from mut3r_analysis.studies.sensitivity.transfer import (
    cost_of_transfer,
    transfer,
    transferred,
)

PLAIN = "plain"
ORACLE = "oracle"
SHUFFLED = "oracle, shuffled"
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
    perfect = {ORACLE: Cue.oracle(), SHUFFLED: Cue.oracle(control="shuffle")}
    return own | (perfect if oracle else {})


def design(chosen: Iterable[str], betas: Sequence[float]) -> dict[str, dict[str, object]]:
    """Return which cue and which beta each configuration stands for; plain is not among them."""
    return {
        label: {"cue": name, "beta": beta} for label, (name, beta) in _cells(chosen, betas).items()
    }


def configurations(chosen: Mapping[str, Cue], betas: Sequence[float]) -> dict[str, dict[str, Any]]:
    """Return the configurations of a sweep: plain, and MUT3R's gates at every beta with every cue.

    Raises
    ------
    InvalidArgument
        For no beta, or one that is not above 0: beta 0 is the plain run, which is there anyway.
    """
    if not betas or min(betas) <= 0:
        raise InvalidArgument(f"betas={list(betas)}; give values above 0, 0 is the plain run")
    gates = {float(beta): Gate.mut3r(beta=beta) for beta in betas}
    gated = {
        label: {"cue": chosen[name], "gate": gates[beta]}
        for label, (name, beta) in _cells(chosen, betas).items()
    }
    return {PLAIN: {}, **gated}


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
    """Change of each error against beta 0, percent.

    Parameters
    ----------
    errors : DataArray
        (measure, cue, beta, speed, family), with beta 0.

    Returns
    -------
    Dataset
        As of `estimates.change`; 0 at beta 0.
    """
    found = change(errors, errors.sel(beta=0.0, drop=True), over="family")
    found["value"].attrs["long_name"] = "change of the error against the plain run"
    return found


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
    known = (tested["n"] >= sequences_needed(LEVEL)).all("beta")
    return found.where(known).assign_attrs(long_name="β from which on it harms", units="1")


def finding(errors: xr.DataArray, cue: str) -> Finding:
    """Say from which beta on each measure gets worse, what rest suffers, and what transfers.

    Parameters
    ----------
    errors : DataArray
        (measure, cue, beta, speed, family), with beta 0, from :func:`by_speed`.
    cue : str
        Whose numbers are told.
    """
    changes = against_plain(errors)
    onsets, changes = onset(changes).sel(cue=cue), changes.sel(cue=cue)
    betas = [beta for beta in errors["beta"].values.tolist() if beta > 0]
    measures = leading(errors)
    values: dict[str, Any] = {"cue": cue, "betas": betas}
    for measure in errors["measure"].values.tolist():
        told = onsets.sel(measure=measure)
        values[measure] = {
            "onset": {
                str(name): _json(float(told.sel(speed=name))) for name in told["speed"].values
            }
        }
    texts = [
        f"With the cue '{cue}' and β from {betas[0]:g} to {betas[-1]:g},",
        _onset_words(onsets, betas),
    ]
    texts.append(_harm(changes, measures, betas, values))
    if errors.sizes["family"] > 1 and {SLOW, FAST} <= set(errors["speed"].values.tolist()):
        texts.append(_transfer_words(errors.sel(cue=[cue]), measures, values))
    boundary = errors["speed"].attrs.get("boundary", float("nan"))
    if np.isfinite(boundary):
        values["slow up to, px/frame"] = float(boundary)
        texts.append(f"Slow is a residual motion of up to {boundary:.2g} px per frame.")
    return Finding(QUESTION, " ".join(text for text in texts if text), values)


def departure_finding(departed: xr.DataArray, cue: str) -> Finding:
    """Say how the outputs move with beta, where nothing can be scored.

    Parameters
    ----------
    departed : DataArray
        (measure, sequence, cue, beta), as :func:`measures.departures` unfolded.
    cue : str
        Whose numbers are told.
    """
    found = estimate(departed).sel(cue=cue)
    low, high = (float(found["beta"][place]) for place in (0, -1))
    texts, values = [], {}
    for measure in departed["measure"].values.tolist():
        cells = found.sel(measure=measure)
        texts.append(
            f"{measure} goes from {spelled(cells.sel(beta=low))} at β = {low:g} to "
            f"{spelled(cells.sel(beta=high))} at β = {high:g}"
        )
        values[measure] = {
            f"{beta:g}": float(cells["value"].sel(beta=beta)) for beta in (low, high)
        }
    answer = f"{NO_TRUTH} With the cue '{cue}', {'; '.join(texts)}."
    return Finding(QUESTION, answer, values)


def _cells(chosen: Iterable[str], betas: Sequence[float]) -> dict[str, tuple[str, float]]:
    return {
        f"{name}, beta {beta:g}": (name, float(beta)) for name in chosen for beta in sorted(betas)
    }


def _onset_words(onsets: xr.DataArray, betas: Sequence[float]) -> str:
    if bool(onsets.isnull().all()):
        needed = sequences_needed(LEVEL)
        return (
            "there are too few scenes to tell from which β on errors rise; "
            f"{needed} of each speed are needed."
        )
    never, worse = [], []
    for measure in onsets["measure"].values.tolist():
        found = onsets.sel(measure=measure)
        groups: dict[str, list[str]] = {}
        for group in onsets["speed"].values.tolist():
            groups.setdefault(_from(float(found.sel(speed=group)), betas), []).append(group)
        parts = [f"{said} on {' and '.join(named)} scenes" for said, named in groups.items()]
        if len(groups) == 1:
            parts = [f"{next(iter(groups))} at any speed"]
        if bool(np.isinf(found).all()):
            never.append(measure)
        else:
            worse.append(f"{measure} {', '.join(parts)}")
    texts = [f"worse than plain: {'; '.join(worse)}"] if worse else []
    texts += (
        [f"not shown to be worse from any tested β upward: {'; '.join(never)}"] if never else []
    )
    return f"{' – '.join(texts)}."


def _from(beta: float, betas: Sequence[float]) -> str:
    if np.isnan(beta):
        return "from a β that cannot be told from so few"
    if np.isinf(beta):
        return "not shown from any tested β upward"
    return f"from β = {beta:g} upward" if beta > betas[0] else "at every tested β"


def _harm(
    changes: xr.Dataset, measures: Sequence[str], betas: Sequence[float], values: dict[str, Any]
) -> str:
    """Tell what gating does where nothing moves, at the tested beta nearest to 1."""
    if STATIC not in changes["speed"].values:
        return "There is no static scene to test harm on."
    beta = min(betas, key=lambda each: abs(np.log(each)))
    parts = []
    for measure in measures:
        cell = changes.sel(measure=measure, beta=beta, speed=STATIC)
        if not int(cell["n"]):
            continue
        said = verdict(cell)
        judged = {"higher": "harm", "lower": "a gain"}.get(said, said)
        parts.append(f"{measure} changes by {spelled(cell)}, {judged}")
        values[measure]["static"] = {"beta": beta, "change": float(cell["value"]), "is": judged}
    return f"Where nothing moves, at β = {beta:g}, {'; '.join(parts)}." if parts else ""


def _transfer_words(errors: xr.DataArray, measures: Sequence[str], values: dict[str, Any]) -> str:
    moved = transfer(errors)
    cost, against = (
        each.isel(cue=0) for each in (cost_of_transfer(moved), transferred(moved, errors))
    )
    speeds = (SLOW, FAST)
    parts = []
    for measure in measures:
        cells = {name: cost.sel(measure=measure, tested=name) for name in speeds}
        if not all(int(cell["n"]) for cell in cells.values()):
            continue
        folds = moved["beta"].isel(cue=0).sel(measure=measure)
        used = {name: folds.sel(learned=name, tested=name).values.tolist() for name in speeds}
        often = {name: most_chosen(folds.sel(learned=name, tested=name)) for name in speeds}
        counts = [
            f"{often[name]:g} in {used[name].count(often[name])} of {len(used[name])} folds on "
            f"{name} scenes"
            for name in speeds
        ]
        changes = against.sel(measure=measure)
        paid = [
            f"on {tested} scenes a choice on {tested} ones changes it by "
            f"{spelled(changes.sel(learned=tested, tested=tested))}, one on {other} ones by "
            f"{spelled(changes.sel(learned=other, tested=tested))}"
            for tested, other in (speeds, speeds[::-1])
        ]
        parts.append(
            f"Chosen for {measure} on the other scenes, 0 (plain) among the choices, β is "
            f"{' and '.join(counts)}; {'; '.join(paid)}: {_carries(cells.values())}."
        )
        values[measure]["chosen beta"] = often
        values[measure]["choosing on the other speed"] = {
            name: float(cell["value"]) for name, cell in cells.items()
        }
    return " ".join(parts)


def _carries(cells: Iterable[xr.Dataset]) -> str:
    said = [verdict(cell) for cell in cells]
    if "higher" in said:
        return "the choice does not transfer"
    if "too few sequences to tell" in said:
        return "too few scenes to tell"
    return "no loss by choosing at the other speed that these scenes could show"


def _json(number: float) -> float | str:
    """Return a number that JSON can hold, or what it means."""
    if np.isnan(number):
        return "too few sequences to tell"
    return "none tested" if np.isinf(number) else number
