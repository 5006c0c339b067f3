"""What choosing the depth per frame is worth, in tables and as a finding."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy.stats import spearmanr

from mut3r_analysis.studies import ablation
from mut3r_analysis.studies.ablation import PLAIN
from mut3r_analysis.studies.adaptive_depth.choice import BEST, BOUND, RANDOM, RULE
from mut3r_analysis.studies.adaptive_depth.policies import CRITERIA
from mut3r_analysis.studies.estimates import estimate
from mut3r_analysis.studies.finding import NO_TRUTH, Finding, Row, row

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
    parts = []
    for name in criteria:
        error = surveyed[f"{name}_error"].mean("frame")
        parts.append(ablation.against(error, error.sel(depth=0, drop=True)))
    order = xr.Variable("criterion", [CRITERIA[name][0] for name in criteria])
    return xr.concat(parts, dim=order, combine_attrs="override")


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
    about = "Against the best fixed depth, with the depth chosen by the variance of attention, the"
    return Finding(QUESTION, table, f"{about} error is", note, lead=len(criteria))


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
    about = "With thresholds at the median of all frames, the rule gives"
    return Finding(QUESTION, table, about, NO_TRUTH)
