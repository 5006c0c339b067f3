"""Depth of gating chosen per frame from the variance of attention, against depths that stay."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy.stats import spearmanr

from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.foundation.fields import some_of
from mut3r_analysis.foundation.labelling import beside, described
from mut3r_analysis.motion import Cue, Gate
from mut3r_analysis.studies import ablation
from mut3r_analysis.studies.ablation import PLAIN, Ablation
from mut3r_analysis.studies.adaptive_depth.walk import (
    CRITERIA,
    Policy,
    drawn,
    fixed,
    leading,
    oracle,
    paper_depth,
    thresholds,
    walk,
)
from mut3r_analysis.studies.estimates import estimate
from mut3r_analysis.studies.finding import NO_TRUTH, Finding, Row, row

QUANTILES = (0.0, 0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9)
"""What the rule's threshold is chosen among: quantiles, over frames, of each layer's spread."""

PAPER, BEST = "MUT3R's depth", "best fixed depth"
RULE, OPPOSITE = "rule", "opposite rule"
RANDOM, BOUND = "rule's depths at random", "oracle per frame"
OPTIONS = {
    PLAIN: "the plain backbone",
    PAPER: "the first half of the decoder",
    BEST: "one depth for all frames, the best on the other half of the sequences",
    RULE: "the leading layers in which the cue's variance over patches reaches a threshold, which "
    "the other half chose",
    OPPOSITE: "the leading layers in which it does not exceed one: a control for the direction",
    RANDOM: "the rule's depths on the other half, drawn anew for every frame: a control for the "
    "timing",
    BOUND: "the depth with the lowest error on this very frame, by the truth: a bound, which takes "
    "every chance difference too",
}

Sequences = Mapping[str, xr.Dataset]


class Experiment(NamedTuple):
    """What every walk of the study shares."""

    backbone: Backbone
    cue: Cue
    gate: Gate
    depths: tuple[int, ...]
    progress: bool = True


def stream(
    experiment: Experiment, sequences: Sequences, policies_of: Callable[[str], Mapping[str, Policy]]
) -> xr.Dataset:
    """Walk every sequence with its policies.

    Returns
    -------
    Dataset
        (sequence, policy, frame) as of `walk`, without
        maps and poses. Where `PLAIN` is among the policies, ``depth_apart`` and
        ``camera_apart`` say how far each is from it, in percent of the mean depth.
    """
    from tqdm.auto import tqdm

    parts = {}
    for name, sequence in tqdm(sequences.items(), disable=not experiment.progress, unit="sequence"):
        policies = policies_of(name)
        found = walk(
            experiment.backbone, sequence, policies, cue=experiment.cue, gate=experiment.gate
        )
        if PLAIN in policies:
            found = found.merge(_apart(found))
        parts[name] = found.drop_vars(["depth_map", "pose"])
    return beside(parts, "sequence", "sequence").transpose("sequence", "policy", "frame", ...)


def survey(experiment: Experiment, sequences: Sequences) -> xr.Dataset:
    """Walk every sequence at every fixed depth: (sequence, depth, frame), as of :func:`stream`."""
    depths = list(experiment.depths)
    policies = {PLAIN if depth == 0 else str(depth): fixed(depth) for depth in depths}
    found = stream(experiment, sequences, lambda name: policies)
    attrs = {"long_name": "gated layers, from the first"}
    return found.rename(policy="depth").assign_coords(depth=("depth", depths, attrs))


def by_median(experiment: Experiment, sequences: Sequences, surveyed: xr.Dataset) -> xr.Dataset:
    """Walk with the rule at the median of the sequences' own spread: for want of a half to choose.

    Returns
    -------
    Dataset
        (sequence, policy, frame) as of :func:`stream`, with `PLAIN` and :data:`RULE`.
    """
    median = thresholds(surveyed["spread"].sel(depth=0), 0.5)
    policies = {PLAIN: fixed(0), RULE: leading(median, experiment.depths)}
    return stream(experiment, sequences, lambda name: policies)


def halves(surveyed: xr.Dataset, criteria: Sequence[str]) -> xr.DataArray:
    """Divide the sequences with truth in two, alternating in their order.

    Returns
    -------
    DataArray
        (sequence) 0 or 1, of the sequences that have a value for every criterion.
    """
    some_of("criteria", criteria, CRITERIA)
    known = [surveyed[f"{name}_error"].notnull().any(["depth", "frame"]) for name in criteria]
    scored = surveyed["sequence"].values[np.logical_and.reduce(known)]
    return xr.DataArray(np.arange(len(scored)) % 2, {"sequence": scored}, ("sequence",))


def fit(
    experiment: Experiment,
    sequences: Sequences,
    surveyed: xr.Dataset,
    half: xr.DataArray,
    quantiles: Sequence[float] = QUANTILES,
) -> xr.Dataset:
    """Walk each sequence with every rule whose thresholds come from its own half.

    Returns
    -------
    Dataset
        (sequence, direction, quantile, frame) as of :func:`stream`; ``direction`` is :data:`RULE`
        or :data:`OPPOSITE`.
    """
    factors: dict[str, Sequence[Any]] = {"direction": (RULE, OPPOSITE), "quantile": quantiles}
    study = Ablation(factors, lambda *levels: levels, "{} {}")

    def policies_of(name: str) -> dict[str, Policy]:
        own = _spread(surveyed, half, int(half.sel(sequence=name)))
        return {label: _rule(experiment, own, **levels) for label, levels in study.design.items()}

    chosen = {name: sequences[name] for name in half["sequence"].values.tolist()}
    found = study.unfolded(stream(experiment, chosen, policies_of).rename(policy="configuration"))
    found["quantile"].attrs = {"long_name": "quantile of the spread that is the threshold"}
    return found


def choices(
    surveyed: xr.Dataset, fitted: xr.Dataset, half: xr.DataArray, criteria: Sequence[str]
) -> xr.Dataset:
    """Choose fixed depth and thresholds on each half by the mean error there.

    Returns
    -------
    Dataset
        (half, criterion) ``depth``; (half, criterion, direction) ``quantile``.
    """

    def lowest(found: xr.Dataset, option: str) -> xr.DataArray:
        errors = beside({name: _mean_error(found, name) for name in criteria}, "criterion")
        known = errors.sel(sequence=half["sequence"].values)
        return known.groupby(half.rename("half")).mean("sequence").idxmin(option)

    depth, quantile = lowest(surveyed, "depth"), lowest(fitted, "quantile")
    return xr.Dataset({"depth": depth, "quantile": quantile})


def trial(
    experiment: Experiment,
    sequences: Sequences,
    surveyed: xr.Dataset,
    fitted: xr.Dataset,
    chosen: xr.Dataset,
    half: xr.DataArray,
    *,
    seed: int = 0,
) -> xr.Dataset:
    """Test on each half what the other chose; no sequence has a say in what it is tested with.

    Returns
    -------
    Dataset
        (option, criterion, sequence): ``error``, the mean over frames of the criterion's error;
        ``chosen`` (option, criterion, sequence, frame), gated layers.
    """
    criteria = chosen["criterion"].values.tolist()
    order = half["sequence"].values.tolist()
    moving = [RULE, OPPOSITE, RANDOM, BOUND]
    study = Ablation({"criterion": criteria, "option": moving}, lambda *levels: levels, "{}|{}")

    def policy(name: str, criterion: str, option: str) -> Policy:
        other = 1 - int(half.sel(sequence=name))
        its = chosen["quantile"].sel(half=other, criterion=criterion)
        if option == BOUND:
            return oracle(experiment.depths, criterion)
        if option == RANDOM:
            used = fitted["chosen"].sel(
                sequence=half["sequence"].values[half.values == other],
                direction=RULE,
                quantile=float(its.sel(direction=RULE)),
            )
            values = used.values[np.isfinite(used.values)].astype(int)
            return drawn(values.tolist(), (seed, order.index(name)))
        quantile = float(its.sel(direction=option))
        return _rule(experiment, _spread(surveyed, half, other), option, quantile)

    def policies_of(name: str) -> dict[str, Policy]:
        return {label: policy(name, **levels) for label, levels in study.design.items()}

    walked = stream(experiment, {name: sequences[name] for name in order}, policies_of)
    walked = study.unfolded(walked.rename(policy="configuration"))
    still = surveyed.sel(sequence=order)
    depths: dict[str, Any] = {PLAIN: 0, PAPER: paper_depth(experiment.backbone.decoder_layers)}
    cells = {}
    for criterion in criteria:
        depths[BEST] = chosen["depth"].sel(half=1 - half, criterion=criterion, drop=True)
        parts = {
            option: still.sel(depth=depth).drop_vars(["depth", "half"], errors="ignore")
            for option, depth in depths.items()
        }
        parts |= {each: walked.sel(option=each, criterion=criterion, drop=True) for each in moving}
        kept = {name: part[["chosen", f"{criterion}_error"]] for name, part in parts.items()}
        together = beside(kept, "option", "depth")
        error = _mean_error(together, criterion)
        cells[criterion] = xr.Dataset({"error": error, "chosen": together["chosen"]})
    found = beside(cells, "criterion")
    found["error"].attrs = {"long_name": "error of the criterion, mean over frames"}
    return found.transpose("option", "criterion", "sequence", ...)


def _rule(experiment: Experiment, spread: xr.DataArray, direction: str, quantile: float) -> Policy:
    wide = direction == RULE
    return leading(thresholds(spread, quantile, wide=wide), experiment.depths, wide=wide)


def _spread(surveyed: xr.Dataset, half: xr.DataArray, which: int) -> xr.DataArray:
    """Spread in the plain runs of one half: (sequence, frame, layer)."""
    own = half["sequence"].values[half.values == which]
    return surveyed["spread"].sel(sequence=own, depth=0)


def _mean_error(found: xr.Dataset, criterion: str) -> xr.DataArray:
    return found[f"{criterion}_error"].mean("frame")


def _apart(walked: xr.Dataset) -> xr.Dataset:
    plain = walked.sel(policy=PLAIN, drop=True)
    size = plain["depth_map"].mean()
    depth = abs(walked["depth_map"] - plain["depth_map"]).mean(("y", "x"))
    shift = (walked["pose"] - plain["pose"]).isel(col=3, row=slice(0, 3))
    camera = np.sqrt((shift**2).sum("row"))
    found = xr.Dataset({"depth_apart": 100 * depth / size, "camera_apart": 100 * camera / size})
    names = {"depth_apart": "depth apart from plain", "camera_apart": "camera apart from plain"}
    return described(found, {name: (text, "% of the mean depth") for name, text in names.items()})


QUESTION = "Does the variance of attention choose the depth of gating better than one fixed depth?"


def against(tested: xr.Dataset, reference: str = BEST) -> xr.Dataset:
    """Change of each option's error against another option, percent, paired over sequences.

    Parameters
    ----------
    tested : Dataset
        From `trial`.
    reference : str

    Returns
    -------
    Dataset
        ``value``, ``lower``, ``upper``, ``n`` over (option, criterion).
    """
    error = tested["error"]
    named = f"change of the error against “{reference}”"
    return ablation.against(error, error.sel(option=reference, drop=True), named=named)


def fixed_curve(surveyed: xr.Dataset, criteria: Sequence[str]) -> xr.Dataset:
    """Change of the error at every fixed depth against plain, percent, (criterion, depth)."""
    parts = {}
    for name in criteria:
        error = surveyed[f"{name}_error"].mean("frame")
        parts[CRITERIA[name][0]] = ablation.against(error, error.sel(depth=0, drop=True))
    return beside(parts, "criterion")


def agreement(tested: xr.Dataset) -> xr.Dataset:
    """Rank correlation over frames of the rule's depth with the oracle's, (criterion).

    Taken within each sequence in which both vary, and averaged over these.
    """
    rule, bound = (tested["chosen"].sel(option=option, drop=True) for option in (RULE, BOUND))

    def correlation(one: np.ndarray, other: np.ndarray) -> float:
        known = np.isfinite(one) & np.isfinite(other)
        if len({*one[known]}) < 2 or len({*other[known]}) < 2:
            return np.nan
        return float(spearmanr(one[known], other[known]).statistic)

    found = xr.apply_ufunc(
        correlation, rule, bound, input_core_dims=[["frame"], ["frame"]], vectorize=True
    )
    return estimate(found.assign_attrs(long_name="rank correlation of depths", units="1"))


def finding(tested: xr.Dataset, chosen: xr.Dataset, quantiles: Sequence[float]) -> Finding:
    """Tell per criterion what the rule changes against the best fixed depth, and what could be had.

    Parameters
    ----------
    tested : Dataset
        From `trial`.
    chosen : Dataset
        From `choices`.
    quantiles : sequence of float
        What the rule's threshold was chosen among.
    """
    from_best, from_random = against(tested), against(tested, RANDOM)
    criteria = tested["criterion"].values.tolist()
    table = [
        row(CRITERIA[name][0], from_best.sel(option=RULE, criterion=name)) for name in criteria
    ]
    picked = chosen["quantile"].sel(direction=RULE)
    for name in criteria:
        text = CRITERIA[name][0]
        timed = from_random.sel(option=RULE, criterion=name)
        table.append(row(f"{text}, against the rule's depths at random", timed))
        for option in (PLAIN, BOUND):
            table.append(row(f"{text}, {option}", from_best.sel(option=option, criterion=name)))
        for half in chosen["half"].values.tolist():
            own = {"half": half, "criterion": name}
            for what, value in (("best fixed depth", chosen["depth"]), ("quantile", picked)):
                effect = f"{text}, {what} chosen on half {half}"
                table.append(Row(effect, float(value.sel(own)), reference=None))
    # Beyond 0 and 1 there is no quantile.
    ends = {min(quantiles), max(quantiles)} - {0.0, 1.0}
    note = ""
    if ends & set(picked.values.ravel().tolist()):
        note = (
            "A threshold was chosen at an end of the quantiles tried: a better one may lie beyond."
        )
    about = "Choosing the depth by the variance of attention, not one for all frames,"
    return Finding(QUESTION, table, about, note, lead=len(criteria))


def without_truth(walked: xr.Dataset) -> Finding:
    """Tell which depths the rule chooses and how far the outputs move, where nothing is scored.

    Parameters
    ----------
    walked : Dataset
        (sequence, policy, frame) of `by_median`.
    """
    depths = walked["chosen"].sel(policy=RULE)
    shown = depths.values[np.isfinite(depths.values)]
    apart = estimate(walked["depth_apart"].sel(policy=RULE).mean("frame"))
    table = [
        Row(f"{word} layers gated", float(value), n=len(shown), reference=None)
        for word, value in (("mean", shown.mean()), ("least", shown.min()), ("most", shown.max()))
    ]
    table.append(row("change of depth", apart, reference=None))
    about = "With thresholds at the median of all frames"
    return Finding(QUESTION, table, about, NO_TRUTH)
