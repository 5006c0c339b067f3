"""What choosing the depth per frame is worth, in tables and in a sentence."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy.stats import spearmanr

from mut3r_analysis.studies.adaptive_depth.choice import BEST, BOUND, NONE, RANDOM, RULE
from mut3r_analysis.studies.adaptive_depth.policies import CRITERIA
from mut3r_analysis.studies.answers import Finding
from mut3r_analysis.studies.estimates import change, estimate, spelled, verdict

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
    found = change(error, error.sel(option=reference, drop=True))
    found["value"].attrs["long_name"] = f"change of the error against “{reference}”"
    return found


def fixed_curve(surveyed: xr.Dataset, criteria: Sequence[str]) -> xr.Dataset:
    """Change of the error at every fixed depth against no gate, percent, (criterion, depth)."""
    parts = []
    for name in criteria:
        error = surveyed[f"{name}_error"].mean("frame")
        parts.append(change(error, error.sel(depth=0, drop=True)))
    order = xr.Variable("criterion", [CRITERIA[name][0] for name in criteria])
    found = xr.concat(parts, dim=order, combine_attrs="override")
    found["value"].attrs["long_name"] = "change of the error against no gate"
    return found


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
    """Say per criterion what the rule does against the best fixed depth, and what could be had.

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
    sentences, values = [], {}
    for name in (str(each) for each in tested["criterion"].values):
        cells = {
            "rule against best fixed": from_best.sel(option=RULE, criterion=name),
            "rule against its depths at random": from_random.sel(option=RULE, criterion=name),
            "no gate against best fixed": from_best.sel(option=NONE, criterion=name),
            "oracle against best fixed": from_best.sel(option=BOUND, criterion=name),
        }
        ruled, timed, ungated, bound = cells.values()
        sentences.append(
            f"By the {CRITERIA[name][0]}, {_verdict(ruled, timed)}: against the best fixed depth "
            f"the rule changes it by {spelled(ruled)} and an oracle that sees each frame's error "
            f"by {spelled(bound)}"
        )
        own = chosen.sel(criterion=name)
        depths = [int(depth) for depth in own["depth"].values]
        if any(depths):
            sentences[-1] += f"; no gate at all changes it by {spelled(ungated)}"
        sentences.append(_best_depth(depths))
        picked = own["quantile"].sel(direction=RULE).values.tolist()
        sentences.append(_edge(picked, quantiles))
        values[name] = {
            label: {part: float(cell[part]) for part in ("value", "lower", "upper", "n")}
            for label, cell in cells.items()
        } | {"best fixed depths": depths, "quantiles of the rule": picked}
    return Finding(QUESTION, ". ".join(filter(None, sentences)) + ".", values)


def without_truth(walked: xr.Dataset) -> Finding:
    """Say which depths the rule chooses and how far the outputs move, where nothing can be scored.

    Parameters
    ----------
    walked : Dataset
        (sequence, policy, frame) of `by_median`.
    """
    depths = walked["chosen"].sel(policy=RULE)
    shown = depths.values[np.isfinite(depths.values)]
    apart = estimate(walked["depth_apart"].sel(policy=RULE).mean("frame"))
    return Finding(
        QUESTION,
        "No ground truth: only differences between runs are shown. With thresholds at the median "
        f"of these frames the rule gates {shown.min():.0f} to {shown.max():.0f} layers, "
        f"{shown.mean():.1f} on average over {len(shown)} frames; depth then lies "
        f"{spelled(apart)} from that of no gate.",
        {"depths": shown.tolist(), "apart": float(apart["value"])},
    )


def _best_depth(depths: Sequence[int]) -> str:
    """Say which depth each half chose."""
    if not any(depths):
        return "The best fixed depth was 0 layers in both halves, which is no gate"
    if len(set(depths)) == 1:
        return f"The best fixed depth was {_layers(depths[0])} in both halves"
    one, other = depths
    return f"The best fixed depth was {_layers(one)} in one half and {_layers(other)} in the other"


def _layers(count: int) -> str:
    return f"{count} layer" + ("" if count == 1 else "s")


def _edge(picked: Sequence[float], quantiles: Sequence[float]) -> str:
    """Warn of thresholds at an end of what was tried, unless there is nothing beyond it."""
    ends = {min(quantiles), max(quantiles)} - {0.0, 1.0}
    found = sorted(ends.intersection(picked))
    if not found:
        return ""
    told = " and ".join(f"{each:g}" for each in found)
    return (
        f"The rule's threshold was chosen at the edge of the quantiles tried, {told}: a better one "
        "may lie beyond"
    )


def _verdict(ruled: xr.Dataset, timed: xr.Dataset) -> str:
    words = verdict(ruled)
    if words == "higher":
        return "no, the rule is worse"
    if words != "lower":
        return words
    if verdict(timed) == "lower":
        return "yes, and its timing matters"
    return "the rule is better, but its depths drawn at random are not shown to be worse"
