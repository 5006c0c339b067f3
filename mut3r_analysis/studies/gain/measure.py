"""From cue to gain: how well a score has to tell moving patches for gating by it to help.

Scores of every quality act through one gate on the same clips: true masks degraded step by step in
two ways, and the model's own cues of every reading. Each has its AUC and what it changes.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from mut3r_analysis.attention.sites import SITE_KINDS
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.metrics.bootstrap import drawn_counts
from mut3r_analysis.motion import READINGS, REALISATIONS, Cue, Gate
from mut3r_analysis.motion.gate import EDITIONS
from mut3r_analysis.motion.readings import INSTABILITY, STEADY, describes_patches
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.studies.finding import Finding, Row
from mut3r_analysis.training.clip_cues import areas, scored
from mut3r_analysis.training.clips import Clips
from mut3r_analysis.training.declared import METRICS, ratio_interval
from mut3r_analysis.training.motion_trial import patch_shares, shuffled, soft_scores
from mut3r_analysis.training.validation import score_clips

FLIPPED = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
"""Shares of patches whose true class is turned round, each for itself and in every frame anew."""

NOISE = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, math.inf)
"""Standard deviations of noise on the true share of moving pixels, in its own over a frame."""

GATE = Gate(image_self="pair_bias", state_to_image="key_bias", image_to_state=None)
HARD, SOFT, OWN = "true mask, patches flipped", "true share, noise added", "own cue"
QUESTION = "How well must a score tell moving patches for gating by it to help?"

_ALMOST = 0.999
"""Score of a patch that surely moves: short of 1, so that no row of keys empties."""


class Score(NamedTuple):
    """One set of scores of all clips, and the gate that they act through.

    Attributes
    ----------
    family, label : str
    level : float
        Of degradation; NaN where it is none.
    scores : Tensor
        ``(clip, frame, patch_row, patch_col)`` in [0, 1].
    gate : Gate
    """

    family: str
    label: str
    level: float
    scores: Tensor
    gate: Gate


def flipped(shares: Tensor, part: float, seed: int = 0) -> Tensor:
    """Hard masks with this part of the patches turned round."""
    draws = torch.rand(shares.shape, generator=torch.Generator().manual_seed(seed))
    turned = (shares >= 0.5) ^ (draws < part).to(shares.device)
    return turned.float() * _ALMOST


def noisy(shares: Tensor, noise: float, seed: int = 0) -> Tensor:
    """Soft scores of the true share with noise; an infinite amount leaves noise alone."""
    draws = torch.randn(shares.shape, generator=torch.Generator().manual_seed(seed))
    draws = draws.to(shares.device)
    if math.isinf(noise):
        return soft_scores(draws)
    spread = shares.flatten(2).std(dim=-1, correction=0)[..., None, None]
    return soft_scores(shares + noise * spread * draws)


def degraded(clips: Clips, patch: int) -> Iterator[Score]:
    """Yield true masks of every quality, from perfect to worthless."""
    shares = patch_shares(clips.moving, patch)
    for part in FLIPPED:
        yield Score(HARD, f"{100 * part:g} % flipped", part, flipped(shares, part), GATE)
    for noise in NOISE:
        yield Score(SOFT, f"noise {noise:g}", noise, noisy(shares, noise), GATE)


def own_cues(model: Backbone) -> dict[str, Cue]:
    """Return the cues of every reading at every site of the decoder that has it, by name.

    They are read in the second half of the decoder.
    """
    layers = range(model.decoder_layers // 2, model.decoder_layers)
    sites = [name for name in model.sites() if SITE_KINDS[name].part == "decoder"]
    steady = {name: Cue(reading=INSTABILITY, of=name, site="image_self") for name in STEADY}
    found = {
        f"{name} at {site}": Cue(reading=name, site=site, layers=layers)
        for name, row in READINGS.items()
        for site in sites
        if describes_patches(row, site)
    }
    return found | {
        f"{INSTABILITY} of {name} at image_self": replace(cue, layers=layers)
        for name, cue in steady.items()
    }


def own_scores(model: Backbone, clips: Clips, cues: Mapping[str, Cue]) -> Iterator[Score]:
    """Yield the scores of a model's own cues, as they come when the gate acts on them."""
    for name, cue in cues.items():
        scores, _ = scored(model, clips, cue, gate=GATE)
        yield Score(OWN, name, math.nan, scores, GATE)


def variants(clips: Clips, patch: int, layers: int) -> Iterator[Score]:
    """Yield the true mask through other gates: directions, realisations, sharpness, layers."""
    shares = patch_shares(clips.moving, patch)
    hard, plain = flipped(shares, 0.0), soft_scores(shares)
    for name in GATE.sites:
        off: dict[str, Any] = {site: None for site in GATE.sites if site != name}
        yield Score("direction", f"{name} alone", math.nan, plain, replace(GATE, **off))
    for site, names in REALISATIONS.items():
        for name, item in names.items():
            realised: dict[str, Any] = {site: name}
            scores, label = (plain, name) if item.beta else (hard, f"{name}, hard mask")
            yield Score(
                "realisation", f"{site} {label}", math.nan, scores, replace(GATE, **realised)
            )
    for beta in (0.5, 1.0, 2.0, 4.0):
        yield Score("β, hard", f"hard mask, β {beta:g}", beta, hard, replace(GATE, beta=beta))
        yield Score("β, soft", f"true share, β {beta:g}", beta, plain, replace(GATE, beta=beta))
    for sharpness in (0.5, 1.0, 2.0, 4.0, 8.0):
        scores = soft_scores(shares, sharpness)
        yield Score("softness", f"softness {sharpness:g}", sharpness, scores, GATE)
    for first, last in ((0, layers // 2), (layers // 2, layers), (0, layers)):
        chosen = replace(GATE, layers=range(first, last))
        yield Score("layers", f"layers [{first}, {last})", math.nan, plain, chosen)


def all_scores(model: Backbone, clips: Clips) -> tuple[Iterator[Score], int]:
    """Return all scores that the study compares, made one by one, and their number."""
    patch, depth = model.patch_size, model.decoder_layers
    cues = own_cues(model)
    made = variants(clips, patch, depth)
    realised = sum(len(names) for names in REALISATIONS.values())
    number = len(FLIPPED) + len(NOISE) + len(cues) + 2 + realised + 8 + 5 + 3
    return chain(degraded(clips, patch), own_scores(model, clips, cues), made), number


def edition_scores(model: Backbone, clips: Clips) -> Iterator[Score]:
    """Yield own cues of both editions through their gates, and what the latest is held against."""
    for edition in EDITIONS:
        cue, gate = Cue.mut3r(edition=edition), Gate.mut3r(edition=edition)
        scores, _ = scored(model, clips, cue, gate=gate)
        yield Score("edition", f"own cue, edition {edition}", math.nan, scores, gate)
    cue, gate = Cue.mut3r(), Gate.mut3r()
    own, _ = scored(model, clips, cue, gate=gate)
    objects = patch_shares(clips.instance > 0, model.patch_size)
    truth = patch_shares(clips.moving, model.patch_size)
    held_against = {
        "another clip's scores": own.roll(1, dims=0),
        "shuffled": shuffled(own),
        "inverted": 1 - own,
        "all objects": soft_scores(objects, cue.sharpness),
        "true share": soft_scores(truth, cue.sharpness),
    }
    for name, scores in held_against.items():
        yield Score("edition", name, math.nan, scores, gate)


def compare_editions(
    model: Backbone, moving: Clips, frozen: Clips, *, progress: bool = True
) -> dict[str, xr.Dataset]:
    """Measure MUT3R's cue and gates, both editions, where objects move and where nothing does.

    Parameters
    ----------
    model : Backbone
    moving, frozen : Clips
        From :func:`~mut3r_analysis.training.cue_trial.scenes_with_twins`. The true share is that
        of the moving clips on both, which is wrong on their twins: what a mistake costs.
    progress : bool

    Returns
    -------
    dict of str to Dataset
        What :func:`gains` finds, by "moving" and "at rest".
    """
    sides = {"moving": moving, "at rest": replace(frozen, moving=moving.moving)}
    return {
        side: gains(
            model, clips, edition_scores(model, clips), total=len(EDITIONS) + 5, progress=progress
        )
        for side, clips in sides.items()
    }


def gains(
    model: Backbone,
    clips: Clips,
    given: Iterable[Score],
    *,
    total: int | None = None,
    progress: bool = True,
    resamples: int = 2000,
) -> xr.Dataset:
    """Gate by each set of scores and measure what it changes.

    Parameters
    ----------
    model : Backbone
    clips : Clips
    given : iterable of Score
    total : int, optional
        How many there are, for the progress bar.
    progress : bool
    resamples : int
        Draws of clips behind intervals.

    Returns
    -------
    Dataset
        ``change`` (score, metric) in percent of the error without a gate, with ``change_lower``
        and ``change_upper``; ``auc`` (score) of moving patches among all, with its bounds. Paired
        95 % percentile intervals over clips. ``family``, ``label`` and ``level`` say what the
        scores are.
    """
    draws = drawn_counts(len(clips.image), resamples, seed=3)
    plain = score_clips(model, clips).errors
    rows, changes, aucs = [], [], []
    for each in tqdm(given, total=total, unit="score", disable=not progress):
        gated = Configuration(cue=Cue.oracle("score"), gate=each.gate)
        errors = score_clips(model, clips, configuration=gated, masks={"score": each.scores}).errors
        ratios = [ratio_interval(errors[name], plain[name], draws) for name in METRICS]
        changes.append(100 * (np.array(ratios) - 1))
        area = areas(each.scores, clips, model.patch_size).values[0]
        known = np.isfinite(area)
        counts = draws[:, known]
        aucs.append(ratio_interval(area[known], np.ones(known.sum()), counts))
        rows.append((each.family, each.label, each.level))
    family, label, level = (list(part) for part in zip(*rows, strict=True))
    found = {"auc": (("score", "end"), aucs), "change": (("score", "metric", "end"), changes)}
    held = xr.Dataset(
        {
            f"{name}{ending}": (dims[:-1], np.array(values)[..., end])
            for name, (dims, values) in found.items()
            for end, ending in enumerate(("", "_lower", "_upper"))
        },
        coords={
            "metric": list(METRICS),
            "metric_label": ("metric", list(METRICS.values())),
            "family": ("score", family),
            "label": ("score", label),
            "level": ("score", level),
        },
        attrs={"clips": len(clips.image)},
    )
    held["change"].attrs = {"long_name": "change of the error by gating", "units": "%"}
    held["auc"].attrs = {"long_name": "AUC of the score, moving among all patches", "units": "1"}
    return held


def least_auc(found: xr.Dataset, family: str, metric: str) -> float:
    """Return the AUC from which on scores of a family lower an error; NaN where they do not.

    It is that of the worst scores such that theirs and all better ones' intervals lie below 0.
    """
    kept = found.sel(metric=metric).isel(score=np.flatnonzero(found["family"].values == family))
    kept = kept.isel(score=np.argsort(-kept["auc"].values, kind="stable"))
    helping = np.cumprod(kept["change_upper"].values < 0).astype(bool)
    return float(kept["auc"].values[helping].min()) if helping.any() else math.nan


def finding(measured: Mapping[str, xr.Dataset], metrics: Sequence[str]) -> Finding:
    """Say from which AUC on each kind of degraded mask helps each model."""
    rows = []
    for model, found in measured.items():
        for family in (HARD, SOFT):
            for metric in metrics:
                least = least_auc(found, family, metric)
                value = None if math.isnan(least) else least
                effect = f"AUC for {METRICS[metric]} of {model}, {family}"
                rows.append(Row(effect, value, n=found.attrs["clips"], reference=None))
    helps = [each.value for each in rows if each.value is not None]
    reach = f", from an AUC of {min(helps):.3g} to {max(helps):.3g} on" if helps else ""
    said = (
        f"Gating by degraded true masks lowers {len(helps)} of {len(rows)} errors{reach}; "
        f"{len(rows) - len(helps)} are lowered at no AUC (n = {rows[0].n})."
    )
    return Finding(QUESTION, rows, told=said)


def by_family(measured: Mapping[str, xr.Dataset], families: Sequence[str]) -> xr.Dataset:
    """Return the changes of some families of scores, as figures of estimates take them.

    Returns
    -------
    Dataset
        ``value``, ``lower``, ``upper`` (model, score, metric), percent, labelled in words.
    """
    parts = []
    for found in measured.values():
        kept = found.isel(score=np.flatnonzero(found["family"].isin(list(families)).values))
        labels = kept["label"].values
        held = kept[["change", "change_lower", "change_upper"]].drop_vars(
            ["family", "label", "level"]
        )
        parts.append(
            held.rename(change="value", change_lower="lower", change_upper="upper")
            .assign_coords(score=labels, metric=kept["metric_label"].values)
            .drop_vars("metric_label")
        )
    joined = xr.concat(parts, "model").assign_coords(model=list(measured))
    joined["value"].attrs = {"long_name": "change of the error by gating", "units": "%"}
    return joined


def of_family(found: xr.Dataset, family: str, metric: str) -> list[Row]:
    """One row per set of scores of a family, the best AUC first: what gating by it changes."""
    error = METRICS[metric]
    kept = found.sel(metric=metric).isel(score=np.flatnonzero(found["family"].values == family))
    order = np.argsort(-kept["auc"].values, kind="stable")
    return [
        Row(
            f"{error} with {cell['label'].item()} (AUC {cell['auc'].item():.2f})",
            cell["change"].item(),
            cell["change_lower"].item(),
            cell["change_upper"].item(),
            found.attrs["clips"],
            "%",
        )
        for cell in (kept.isel(score=place) for place in order)
    ]
