"""Known ways in which gating fails, each told by a signature of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.evaluation.error_maps import errors_of, over_patches
from mut3r_analysis.explaining.measuring import Measure, error_measure, source_truth
from mut3r_analysis.foundation.labelling import held
from mut3r_analysis.metrics.protocols import Protocol
from mut3r_analysis.metrics.ranking import weighted_auc
from mut3r_analysis.running import Configuration
from mut3r_analysis.sequences.layouts.ego_motion import moving_speeds

LEAST_FALL = 0.01
"""Of the share of pixels at rest within 1.25 of their depth, below which nothing is suppressed."""

LEAST_RISE = 0.05
"""Share by which a rotation or a temporal alignment error has to rise."""

LEAST_UNDONE = 0.5
"""Share of a rise that has to go when what it is ascribed to is taken away."""

LEAST_SOFTENED = 0.25
"""Share of a rise that has to go at half the sharpness."""

LEAST_AUC = 0.75
"""Chance, from which on, that a patch of a kind is brighter than one that is not."""

SINK = 3.0
"""A patch that receives so many times an even share of attention is a sink."""

SOFTER, PROBE_WRITE, STATE_QUERIES = (
    "at half the sharpness",
    "with the state written by the probe pass",
    "with state queries left alone",
)
"""How a suspected run can be run again."""


class Sign(NamedTuple):
    """Whether a signature is there, and the numbers that say so."""

    shown: bool
    evidence: str


@dataclass(frozen=True)
class Case:
    """Two runs of one sequence, the second of which is suspected.

    Parameters
    ----------
    plain, gated : DataTree
    sequence : Dataset
    protocol : str or Protocol
        Of the depth error.
    measure : callable, optional
        From a run to what is compared per frame.
    worst : int, optional
        Label of the frame that got worse most.
    again : callable
        Runs the second one again as one of the ways above says; None where that cannot be.
    looked : DataTree, optional
        The plain run with its attention.
    """

    plain: xr.DataTree
    gated: xr.DataTree
    sequence: xr.Dataset
    protocol: str | Protocol = "default"
    measure: Measure | None = None
    worst: int | None = None
    again: Callable[[str], xr.DataTree | None] = lambda _: None
    looked: xr.DataTree | None = None

    @property
    def runs(self) -> tuple[xr.DataTree, xr.DataTree]:
        """The plain run and the other one."""
        return self.plain, self.gated


def over_suppression(case: Case) -> Sign | None:
    """Tell whether depth of what rests gets wrong: δ < 1.25 falls there."""
    mask = held(case.plain, "truth/motion_mask")
    if mask is None:
        return None
    truth = source_truth(case.protocol, case.sequence)
    try:
        ratios = [errors_of(run, case.protocol, truth=truth)["ratio"] for run in case.runs]
    except InvalidArgument:
        return None
    if mask.sizes["y"] != ratios[0].sizes["y"] or mask.sizes["x"] != ratios[0].sizes["x"]:
        return None
    moves = mask.sel(frame=ratios[0]["frame"]).values.astype(bool)
    rest, moving = (
        [_within(ratio.values[chosen]) for ratio in ratios] for chosen in (~moves, moves)
    )
    evidence = f"δ < 1.25 of what rests {_change(rest)}"
    if not np.isnan(moving).any():
        evidence += f", of what moves {_change(moving)}"
    return Sign(rest[0] - rest[1] > LEAST_FALL, evidence)


def sharpness_too_high(case: Case) -> Sign | None:
    """Tell whether rotation gets worse where things move slowly, and less so at half the sharpness.

    Slow frames are those up to the median speed of the frames in which something moves.
    """
    scored = error_measure("default:pose:sim3", case.sequence, case.runs, ("rpe_rotation",))
    needed = ("flow", "depth", "pose", "intrinsics", "motion_mask")
    if scored is None or any(name not in case.sequence for name in needed):
        return None
    speeds = [moving_speeds(case.sequence, at) for at in range(case.sequence.sizes["frame"] - 1)]
    moving = [float(each.mean()) if each.size else 0.0 for each in speeds]
    if not any(moving):
        return None
    bound = float(np.median([speed for speed in moving if speed > 0]))
    slow = [0 < speed <= bound for speed in moving]

    def rotation(run: xr.DataTree) -> float:
        return float(scored[1](run).values[:-1][slow].mean())

    rise = [rotation(run) for run in case.runs]
    evidence = f"rotation error in frames that move by up to {bound:.3g} px {_change(rise)}°"
    if not rise[1] > (1 + LEAST_RISE) * rise[0]:
        return Sign(False, evidence)
    return _undone(case, rotation, rise, (SOFTER,), LEAST_SOFTENED, evidence)


def corrupted_state(case: Case) -> Sign | None:
    """Tell whether depth agrees less with itself over time, because of what is written."""
    scored = error_measure(
        "default:temporal-depth:scale_median", case.sequence, case.runs, ("tae",)
    )
    if scored is None:
        return None

    def inconsistency(run: xr.DataTree) -> float:
        return float(scored[1](run).mean())

    rise = [inconsistency(run) for run in case.runs]
    evidence = f"temporal alignment error {_change(rise)}"
    if not rise[1] > (1 + LEAST_RISE) * rise[0]:
        return Sign(False, evidence)
    ways = (PROBE_WRITE, STATE_QUERIES)
    return _undone(case, inconsistency, rise, ways, LEAST_UNDONE, evidence)


def scale_or_shift(case: Case) -> Sign | None:
    """Tell whether the harm in the worst frame goes when scale and shift of depth are put back."""
    if case.measure is None or case.worst is None:
        return None
    depths = [run["prediction"].to_dataset()["depth"] for run in case.runs]
    one, other = (depth.sel(frame=case.worst).values for depth in depths)
    scale, shift = np.polyfit(other.ravel(), one.ravel(), 1)
    fitted = depths[1].load().copy()
    fitted.loc[{"frame": case.worst}] = scale * other + shift
    back = case.gated.copy()
    back["prediction"] = xr.DataTree(back["prediction"].to_dataset().assign(depth=fitted))
    before, after, without = (
        float(case.measure(run).sel(frame=case.worst)) for run in (*case.runs, back)
    )
    share = (after - without) / (after - before)
    return Sign(
        share >= LEAST_UNDONE,
        f"with the depth of frame {case.worst} scaled by {scale:.3g} and shifted by {shift:+.3g}, "
        f"{share:.0%} of the rise there goes",
    )


def cue_at_borders(case: Case) -> Sign | None:
    """Tell whether the cue lights the border of frames, of patches at rest where that is known."""
    if (scores := _scores_at_rest(case)) is None:
        return None
    border = np.ones(scores.shape, bool)
    border[:, 1:-1, 1:-1] = False
    return _lit(scores.values, border, "the border")


def cue_at_sinks(case: Case) -> Sign | None:
    """Tell whether the cue lights patches that much attention goes to whatever is seen.

    Attention is what patches receive in the plain run at the site that the cue reads, mean over
    layers and heads.
    """
    scores, cue = _scores_at_rest(case), Configuration.of_run(case.gated.attrs).cue
    if scores is None or cue is None or case.looked is None or not cue.measured:
        return None
    group = case.looked["attention"].children.get(cue.site)
    if group is None or "received" not in group:
        return None
    received = group.to_dataset()["received"].mean(["layer", "head"]).transpose("frame", "key")
    known = scores.sel(frame=received["frame"].values)
    shares = received.sizes["key"] * received.values[:, received["key_token"].values == "patch"]
    sinks = (shares > SINK).reshape(known.shape)
    if not sinks.any():
        return Sign(False, f"no patch receives {SINK:g} times an even share of attention")
    return _lit(known.values, sinks, "sinks")


SIGNATURES = {
    "over-suppression": (over_suppression, "true depth and motion masks"),
    "sharpness too high": (sharpness_too_high, "true poses, flow, and something that moves"),
    "corrupted state": (corrupted_state, "true depth and poses"),
    "scale or shift, not shape": (scale_or_shift, "a frame that got worse"),
    "cue at borders": (cue_at_borders, "a cue"),
    "cue at sinks": (cue_at_sinks, "a cue that reads attention, and a frame that got worse"),
}
"""Name to what tells it, and what that needs."""


def signatures(case: Case) -> xr.Dataset:
    """Try every signature.

    Parameters
    ----------
    case : Case

    Returns
    -------
    Dataset
        Along ``signature``, the names of `SIGNATURES`: ``signature_shown`` (bool) and
        ``signature_evidence``, in words; what lacks what it needs says so.
    """
    found = {
        name: tell(case) or Sign(False, f"not tested: it needs {needs}")
        for name, (tell, needs) in SIGNATURES.items()
    }
    shown, evidence = zip(*found.values(), strict=True)
    return xr.Dataset(
        {
            "signature_shown": ("signature", np.array(shown, bool)),
            "signature_evidence": ("signature", np.array(evidence, dtype=object)),
        },
        {"signature": list(found)},
    )


def _within(ratio: np.ndarray) -> float:
    """Return the share of known ratios of depth within 1.25."""
    known = ratio[np.isfinite(ratio)].clip(1e-6)
    return float((np.maximum(known, 1 / known) < 1.25).mean()) if known.size else np.nan


def _change(pair: list[float]) -> str:
    return " → ".join(f"{value:.3g}" for value in pair)


def _undone(
    case: Case,
    measure: Callable[[xr.DataTree], float],
    rise: list[float],
    ways: tuple[str, ...],
    least: float,
    evidence: str,
) -> Sign:
    """Tell whether enough of a rise goes when the run is run again in one of some ways."""
    again = {way: run for way in ways if (run := case.again(way)) is not None}
    if not again:
        return Sign(False, f"{evidence}; what that comes from could not be tried")
    shares = {way: (rise[1] - measure(run)) / (rise[1] - rise[0]) for way, run in again.items()}
    way = max(shares, key=lambda each: shares[each])
    return Sign(shares[way] >= least, f"{evidence}; {way}, {shares[way]:.0%} of that goes")


def _scores_at_rest(case: Case) -> xr.DataArray | None:
    """Return motion scores (frame, patch_row, patch_col), NaN where something moves."""
    if (scores := held(case.gated, "cue/motion")) is None:
        return None
    scores = scores.transpose("frame", "patch_row", "patch_col")
    if (mask := held(case.plain, "truth/motion_mask")) is None:
        return scores
    grid = scores.sizes["patch_row"], scores.sizes["patch_col"]
    return scores.where(over_patches(mask, grid).values == 0)


def _lit(scores: np.ndarray, kind: np.ndarray, words: str) -> Sign | None:
    """Tell whether patches of a kind have higher scores than the others."""
    known = np.isfinite(scores)
    (area,) = weighted_auc(scores[known], kind[known])
    if np.isnan(area):
        return None
    means = [float(scores[known & chosen].mean()) for chosen in (kind, ~kind)]
    return Sign(
        area >= LEAST_AUC,
        f"motion score of {words} {means[0]:.2f}, of other patches {means[1]:.2f} (AUC {area:.2f})",
    )
