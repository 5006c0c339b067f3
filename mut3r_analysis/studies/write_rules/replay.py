"""Write rules under one protocol, each beside controls that write as much and know less."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from mut3r_analysis.backbones.batching import rows as taken
from mut3r_analysis.backbones.geometry import pose_matrix
from mut3r_analysis.backbones.precision import arithmetic
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.backbones.steps import Frame, FrameRead, Write
from mut3r_analysis.backbones.write_rules import WRITE_RULES, needs_cue, parse_rule
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.labelling import beside
from mut3r_analysis.metrics.depth import score_depth
from mut3r_analysis.metrics.trajectory import score_trajectory
from mut3r_analysis.running.inputs import frame_inputs
from mut3r_analysis.running.streaming import run_batch
from mut3r_analysis.studies.estimates import change
from mut3r_analysis.studies.finding import Finding, rows

OWN, CONSTANT = "own", "constant"
TOKENS, FRAMES = "shuffled over tokens", "shuffled over frames"
ARMS = (OWN, CONSTANT, TOKENS, FRAMES)
"""The rule itself; its mean rate throughout; its rates at random tokens, and in random frames."""
DEPTH, PATH = "depth AbsRel (median scale)", "ATE (Sim3)"
QUESTION = "Is a write rule worth more than the constant that writes as much?"
ORACLE = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Rates of a frame that hindsight chooses among."""


def known_rules() -> list[str]:
    """Return the registered rules that need no cue."""
    return [name for name in WRITE_RULES if not needs_cue(name)]


def replayed(backbone: Backbone, sequence: xr.Dataset, rates: Mapping[str, Tensor]) -> xr.Dataset:
    """Run a plain backbone whose state takes given rates, whatever rule they are from.

    Parameters
    ----------
    backbone : Backbone
        With the write rule ``cut3r``.
    sequence : Dataset
    rates : mapping of str to Tensor
        Arm -> ``(frame, state_token | 1)``.

    Returns
    -------
    Dataset
        ``depth`` (arm, frame, y, x), m, and ``pose`` (arm, frame, row, col).
    """
    if backbone.update != "cut3r" or not backbone.state_shares or backbone.state_grows:
        raise InvalidArgument(
            "rates are replayed on a state of fixed size with the rule 'cut3r', such as "
            "load_backbone('tiny')"
        )
    arms = list(rates)
    state, depths, poses = backbone.begin(len(arms)), [], []
    with torch.no_grad(), arithmetic(backbone.precision, backbone.device):
        for given in frame_inputs(backbone, sequence):
            tokens = state.tokens.shape[1]
            factor = torch.stack([rates[arm][given.position].expand(tokens) for arm in arms])
            depth, pose, state = _written(backbone, given.image, state, factor.to(backbone.device))
            depths.append(depth.cpu().numpy())
            poses.append(pose.cpu().numpy())
    coords = {"arm": arms, "frame": sequence["frame"].values}
    return xr.Dataset(
        {
            "depth": (("arm", "frame", "y", "x"), np.stack(depths, axis=1)),
            "pose": (("arm", "frame", "row", "col"), np.stack(poses, axis=1)),
        },
        coords,
    )


def _written(
    backbone: Backbone, image: Tensor, state: object, factor: Tensor
) -> tuple[Tensor, Tensor, Any]:
    """Read a frame with a batch of states, and write it at rates ``(batch, state_token | 1)``.

    Returns depth ``(batch, y, x)``, poses ``(batch, row, col)`` and the state to carry on.
    """
    frame = Frame(image)
    encoded = backbone.encode(frame)
    features = encoded.features.expand(len(factor), -1, -1)
    encoded = replace(encoded, features=features)
    decoded = backbone.decode(backbone.enter(encoded, state))
    prediction = backbone.predict(decoded, ("pose", "depth"))
    read = FrameRead(frame, encoded, decoded, prediction)
    assert prediction.points_self is not None
    assert prediction.pose is not None
    after, _ = backbone.commit(read, state, Write(factor=factor))
    return prediction.points_self[..., 2], pose_matrix(prediction.pose), after


def controls(rate: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Return rates that write as much as a rule's own and know less; the first frame stays.

    Parameters
    ----------
    rate : Tensor
        ``(frame, state_token)`` of the rule, of at least two frames.
    seed : int
        Of the permutations.
    """
    generator = torch.Generator().manual_seed(seed)
    first, later = rate[:1], rate[1:]
    tokens = torch.stack([row[torch.randperm(len(row), generator=generator)] for row in later])
    order = torch.randperm(len(later), generator=generator)
    return {
        CONSTANT: torch.cat([first, torch.full_like(later, float(later.mean()))]),
        TOKENS: torch.cat([first, tokens]),
        FRAMES: torch.cat([first, later[order]]),
    }


def errors(truth: xr.Dataset, depth: xr.DataArray, pose: xr.DataArray) -> xr.DataArray:
    """Score depth and camera path of one arm ``(measure)``."""
    found = {
        DEPTH: float(score_depth(truth["depth"], depth, "scale_median")["abs_rel"]),
        PATH: float(score_trajectory(truth["pose"], pose, "sim3")["ate"]),
    }
    return xr.DataArray(list(found.values()), {"measure": list(found)}, ("measure",))


def compared(
    backbone: Backbone, sequence: xr.Dataset, rules: Sequence[str], seed: int = 0
) -> xr.Dataset:
    """Run rules and their controls on a sequence with true depth and poses.

    Parameters
    ----------
    backbone : Backbone
        With the write rule ``cut3r``.
    sequence : Dataset
    rules : sequence of str
        In words. Those with a target of their own, or a rate of the pose memory, have no controls:
        rates alone do not say what they do.
    seed : int

    Returns
    -------
    Dataset
        ``error`` (rule, arm, measure), ``rate`` (rule, frame, state_token) and ``moving`` (frame),
        the true share of moving pixels.
    """
    runs = run_batch(
        backbone, sequence, [{"commit": f"rate.{rule}"} for rule in rules],
        outputs=("pose", "depth"), progress=False,
    )  # fmt: skip
    truth = runs[0]["truth"].to_dataset()
    rates = {
        rule: xr.DataArray(run["state/write_rate"].values, dims=("frame", "state_token"))
        for rule, run in zip(rules, runs, strict=True)
    }
    arms = {
        f"{rule}: {arm}": rate
        for rule in rules
        if not _beyond_rates(rule)
        for arm, rate in controls(torch.from_numpy(rates[rule].values), seed).items()
    }
    again = replayed(backbone, sequence, arms) if arms else xr.Dataset()
    found = {}
    for rule, run in zip(rules, runs, strict=True):
        own = run["prediction"].to_dataset()
        scored = {OWN: errors(truth, own["depth"], own["pose"])}
        for arm in ARMS[1:]:
            known = f"{rule}: {arm}" in arms
            held = again.sel(arm=f"{rule}: {arm}") if known else None
            scored[arm] = (
                xr.full_like(scored[OWN], np.nan)
                if held is None
                else errors(truth, held["depth"], held["pose"])
            )
        found[rule] = beside(scored, "arm")
    moving = np.full(sequence.sizes["frame"], np.nan)
    if "motion_mask" in truth:
        moving = truth["motion_mask"].mean(("y", "x")).values
    return xr.Dataset(
        {
            "error": beside(found, "rule"),
            "rate": beside(rates, "rule"),
            "moving": ("frame", moving),
        }
    )


def _beyond_rates(text: str) -> bool:
    for part in text.split("*"):
        rule = parse_rule(part, "rate")[0]
        if rule.directs or rule.name == "memgate":
            return True
    return False


def oracle(backbone: Backbone, sequence: xr.Dataset, window: int = 2) -> Tensor:
    """Return the rate of each frame that hindsight chooses: lowest depth error soon after.

    Every rate of :data:`ORACLE` is tried on a frame; what follows is written whole, and the mean
    AbsRel of the next frames, each at its median scale, decides.

    Parameters
    ----------
    backbone : Backbone
    sequence : Dataset
        With true depth.
    window : int
        How many frames are looked ahead.

    Returns
    -------
    Tensor
        ``(frame, 1)``; 1 in the first and in the last.
    """
    inputs = list(frame_inputs(backbone, sequence))
    depth = torch.from_numpy(_true_depth(backbone, sequence).values)
    choices = torch.tensor(ORACLE, device=backbone.device)[:, None]
    state, chosen = backbone.begin(1), [1.0]
    with torch.no_grad(), arithmetic(backbone.precision, backbone.device):
        *_, state = _written(backbone, inputs[0].image, state, choices[-1:])
        for t in range(1, len(inputs)):
            copies = taken(state, [0] * len(choices))
            *_, after = _written(backbone, inputs[t].image, copies, choices)
            tried, cost = after, torch.zeros(len(choices))
            for ahead in inputs[t + 1 : t + 1 + window]:
                found, _, tried = _written(backbone, ahead.image, tried, torch.ones_like(choices))
                cost += _abs_rel(depth[ahead.position], found.cpu())
            best = int(cost.argmin()) if t + 1 < len(inputs) else len(ORACLE) - 1
            chosen.append(ORACLE[best])
            state = taken(after, [best])
    return torch.tensor(chosen)[:, None]


def _true_depth(backbone: Backbone, sequence: xr.Dataset) -> xr.DataArray:
    """Return the true depth ``(frame, y, x)`` on the prediction grid, m."""
    if "depth" not in sequence or "pose" not in sequence:
        raise InvalidArgument("hindsight needs a sequence with true depth and poses")
    prepared = [backbone.preparation.depth(each) for each in sequence["depth"].values]
    found = np.stack(prepared).astype(np.float32)
    return xr.DataArray(found, {"frame": sequence["frame"].values}, ("frame", "y", "x"))


def with_hindsight(backbone: Backbone, sequence: xr.Dataset, window: int = 2) -> xr.Dataset:
    """Score the rates that hindsight chooses beside writing everything.

    Returns
    -------
    Dataset
        ``error`` (arm, measure) of the arms "hindsight" and "cut3r", and ``rate`` (frame).
    """
    chosen = oracle(backbone, sequence, window)
    runs = replayed(backbone, sequence, {"hindsight": chosen, "cut3r": torch.ones_like(chosen)})
    pose = xr.DataArray(sequence["pose"].values, runs["pose"][0].coords, ("frame", "row", "col"))
    truth = xr.Dataset({"depth": _true_depth(backbone, sequence), "pose": pose.drop_vars("arm")})
    scored = {
        str(arm): errors(truth, runs["depth"].sel(arm=arm), runs["pose"].sel(arm=arm))
        for arm in runs["arm"].values
    }
    return xr.Dataset({"error": beside(scored, "arm"), "rate": ("frame", chosen[:, 0].numpy())})


def _abs_rel(truth: Tensor, predicted: Tensor) -> Tensor:
    """Take the mean relative error ``(batch,)`` of depth ``(batch, y, x)``, at its median scale."""
    valid = truth.isfinite() & (truth > 0)
    wanted, given = truth[valid], predicted[:, valid]
    scale = wanted.median() / given.median(dim=1, keepdim=True).values
    return ((scale * given - wanted).abs() / wanted).mean(dim=1)


def against_controls(error: xr.DataArray) -> xr.Dataset:
    """Return the change of each rule's error against each of its controls, percent.

    Parameters
    ----------
    error : DataArray
        (sequence, rule, arm, measure).
    """
    own, others = error.sel(arm=OWN, drop=True), error.sel(arm=list(ARMS[1:]))
    return change(own, others)


def finding(error: xr.DataArray, measure: str = DEPTH) -> Finding:
    """Say what each rule does against the constant of its mean rate."""
    found = against_controls(error).sel(arm=CONSTANT, measure=measure, drop=True)
    known = found.sel(rule=(found["n"] > 0).values)
    about = "Writing by a rule, not by the constant of its mean rate,"
    return Finding(QUESTION, rows(known, f"{measure} with {{}}"), about)
