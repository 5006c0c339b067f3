"""The motion test: whether motion hurts a model, and whether gates help it then.

It is declared in a protocol file, written before the model it judges was trained: kinds of scenes,
seeds, conditions with their bounds, and findings that are told whatever they are. A model that has
learned a world at rest is set beside a reference; moving scenes are set beside frozen twins.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.motion import Cue, Gate, mask_cells
from mut3r_analysis.motion.normalisers import location_and_scale, normalise
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.scenes import SceneDistribution
from mut3r_analysis.training.clip_cues import KINDS, areas, scored
from mut3r_analysis.training.clips import Clips
from mut3r_analysis.training.cue_trial import FIRST_SEED, scenes_with_twins
from mut3r_analysis.training.declared import METRICS, bootstrap_draws, ratio_interval, target_row
from mut3r_analysis.training.validation import SHORTEST_PATH, held_out_clips, score_clips

SIDES = ("moving", "twin")

OWN_CUES = {
    "own cue one": Cue(reading="logit_query_mean", site="image_self", layers=(3, 6), sign=-1,
                       sharpness=1.0),
    "own cue two": Cue(reading="logit_query_mean", site="state_to_image", layers=(4, 6), sign=-1,
                       sharpness=1.0),
}  # fmt: skip
# spelled out: what a name stands for may change, what was declared may not
DEFAULT_CUE = Cue(
    reading="logit_key_mean", site="image_self", sign=-1, normaliser="zscore", sharpness=1.0
)
DEFAULT_GATE = Gate(
    image_self="pair_bias", state_to_image="key_bias", image_to_state="output_scale",
    layers=(0, 6), of_depth=12, beta=1.0,
)  # fmt: skip

Errors = dict[str, np.ndarray]


def motion_test(
    model: Backbone,
    reference: Backbone,
    protocol: Mapping[str, Any],
    *,
    clips: int | None = None,
    keep: str | Path | None = None,
) -> dict[str, Any]:
    """Measure a model and its reference as a protocol says.

    Parameters
    ----------
    model, reference : Backbone
    protocol : mapping
        From :func:`~mut3r_analysis.training.declared.read_protocol`.
    clips : int, optional
        Clips per number where not the protocol's: a look, no measurement.
    keep : str or Path, optional
        A file that receives every part as it is measured, and from which an interrupted test, or
        one with the same reference, takes the parts that it has.

    Returns
    -------
    dict
        ``clips``; ``rest``, the model's errors over the reference's by clip length; ``models``, per
        model and kind of scene its ``gap``, its ``errors`` without a gate and what ``gates``
        change; ``conditions``, one row each. Triples are [value, low, high]; gaps and changes in
        percent.
    """
    counts = {which: clips or protocol[which]["clips"] for which in ("rest", "moving")}
    names, frames = [protocol["model"], protocol["reference"]], protocol["moving"]["frames"]
    parts = _Parts(keep)

    def kind_of(which: Backbone, kind: str) -> dict[str, Any]:
        options = protocol["scenes"][kind]
        first = protocol["moving"]["first_seeds"][kind]
        asked = [
            which.origin.sha256,
            kind,
            options,
            first,
            frames,
            counts["moving"],
            protocol["gate"],
        ]

        def measure() -> dict[str, Any]:
            scenes, size = (SceneDistribution.from_dict(options),), tuple(protocol["size"])
            pair = scenes_with_twins(scenes, size, counts["moving"], frames, first - FIRST_SEED)
            return _measured(which, pair, Gate(**protocol["gate"]))

        return parts.get(asked, measure)

    asked = [model.origin.sha256, reference.origin.sha256, protocol["rest"], counts["rest"]]
    found: dict[str, Any] = {
        "names": names,
        "scenes": protocol["scenes"],
        "frames": frames,
        "clips": counts,
        "rest": parts.get(asked, lambda: _rest(model, reference, protocol, counts["rest"])),
        "models": {
            name: {kind: kind_of(each, kind) for kind in protocol["scenes"]}
            for name, each in (("model", model), ("reference", reference))
        },
    }
    found["conditions"] = _conditions(found, protocol["conditions"])
    return found


class _Parts:
    """Parts of a measurement, kept in a file under what was asked."""

    def __init__(self, path: str | Path | None) -> None:
        self._path = None if path is None else Path(path)
        self._known: dict[str, Any] = {}
        if self._path is not None and self._path.is_file():
            self._known = json.loads(self._path.read_text(encoding="utf-8"))

    def get(self, asked: Any, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return a part that was measured before, or measure and keep it."""
        key = json.dumps(asked)
        if key not in self._known:
            self._known[key] = json.loads(json.dumps(measure()))
            if self._path is not None:
                self._path.write_text(json.dumps(self._known), encoding="utf-8")
        return self._known[key]


def _rest(
    model: Backbone, reference: Backbone, protocol: Mapping[str, Any], clips: int
) -> dict[str, dict[str, list[float]]]:
    rest = protocol["rest"]
    distribution, draws = SceneDistribution.from_dict(rest["scenes"]), bootstrap_draws(clips)
    found = {}
    for length in rest["frames"]:
        scenes = held_out_clips(
            distribution, tuple(protocol["size"]), clips, length, seed=rest["seeds"][length]
        )
        own, other = (score_clips(each, scenes).errors for each in (model, reference))
        found[str(length)] = {
            name: ratio_interval(own[name], other[name], draws)
            for name in METRICS
            if name != "ate" or length >= SHORTEST_PATH
        }
    return found


def _measured(model: Backbone, pair: tuple[Clips, Clips], gate: Gate) -> dict[str, Any]:
    """Gap, errors and changes by gates of one model on one kind of scenes and their twins."""
    moving, frozen = pair
    draws, patch = bootstrap_draws(len(moving.image)), model.patch_size
    plain = {side: score_clips(model, each).errors for side, each in zip(SIDES, pair, strict=True)}
    gates: dict[str, dict[str, Any]] = {}
    for side, each in zip(SIDES, (moving, replace(frozen, moving=moving.moving)), strict=True):
        for label, scores, used in _scored(model, each, gate):
            gated = Configuration(cue=Cue.oracle("score"), gate=used)
            masks = {"score": scores}
            errors = score_clips(model, each, configuration=gated, masks=masks).errors
            row = gates.setdefault(label, {})
            row[side] = _change(errors, plain[side], draws)
            if side == "moving":
                separated = zip(KINDS, areas(scores, each, patch).values, strict=True)
                row["auc"] = {
                    among: ratio_interval(found, np.ones_like(found), draws)
                    for among, found in separated
                }
    return {
        "moving_share": float(moving.moving.float().mean()),
        "errors": {side: {name: float(plain[side][name].mean()) for name in METRICS}
                   for side in SIDES},
        "gap": _change(plain["moving"], plain["twin"], draws),
        "gates": gates,
    }  # fmt: skip


def _scored(model: Backbone, clips: Clips, gate: Gate) -> Iterator[tuple[str, Tensor, Gate]]:
    """Yield every row of the test: its label, its scores and the gate that they act through."""
    patch = model.patch_size
    truth = soft_scores(patch_shares(clips.moving, patch))
    yield "true mask", truth, gate
    # short of 1, so that a row of keys never empties
    yield "true mask, as it is", patch_shares(clips.moving, patch).clamp_max(0.999), gate
    yield "all objects", soft_scores(patch_shares(clips.instance > 0, patch)), gate
    yield "another clip's true mask", truth.roll(1, dims=0), gate
    for label, cue in OWN_CUES.items():
        scores, _ = scored(model, clips, cue, gate=gate)
        yield label, scores, gate
        yield f"{label}, another clip's", scores.roll(1, dims=0), gate
        yield f"{label}, shuffled", shuffled(scores), gate
        yield f"{label}, inverted", 1 - scores, gate
    for label, used in (("default cue", gate), ("default cue, default gate", DEFAULT_GATE)):
        yield label, scored(model, clips, DEFAULT_CUE, gate=used)[0], used


def patch_shares(mask: Tensor, patch: int) -> Tensor:
    """Share of a mask ``(clip, frame, y, x)`` by patch: ``(clip, frame, patch_row, patch_col)``."""
    grid = (mask.shape[-2] // patch, mask.shape[-1] // patch)
    return mask_cells(mask.flatten(0, 1), grid).squeeze(1).unflatten(0, mask.shape[:2])


def soft_scores(evidence: Tensor, sharpness: float = 1.0) -> Tensor:
    """Standardise evidence over the patches of a frame and put it through a sigmoid."""
    cells = evidence.flatten(0, 1).flatten(1)
    scores = normalise("zscore", cells, sharpness, location_and_scale("zscore", cells))
    return scores.view_as(evidence)


def shuffled(scores: Tensor) -> Tensor:
    """Permute the patches of each frame, each in an order of its own."""
    flat = scores.flatten(2)
    order = torch.rand(flat.shape, generator=torch.Generator().manual_seed(0)).argsort(dim=-1)
    return flat.gather(-1, order.to(flat.device)).view_as(scores)


def _change(errors: Errors, plain: Errors, draws: NDArray[np.int_]) -> dict[str, list[float]]:
    """Change of mean errors in percent of the plain ones."""
    return {
        name: [100 * (each - 1) for each in ratio_interval(errors[name], plain[name], draws)]
        for name in METRICS
    }


def _conditions(found: Mapping[str, Any], bounds: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Hold what was measured against the bounds."""
    own, reference = found["names"]
    rows = []
    for length, names in bounds["rest_metrics"].items():
        for name in names:
            value, bound = found["rest"][str(length)][name], bounds["rest_ratio_below"]
            target = (
                f"at rest {METRICS[name]} of {own} over {reference}'s, T = {length}: "
                f"upper end below {bound:g}"
            )
            rows.append(target_row(target, value, bound, value[2] < bound))
    kind, bound = bounds["gap_scenes"], bounds["gap_percent_at_least"]
    for name in bounds["gap_metrics"]:
        value = found["models"]["model"][kind]["gap"][name]
        target = (
            f"{METRICS[name]} on {kind} scenes above their frozen twins', %, "
            f"T = {found['frames']}: at least {bound:g}"
        )
        rows.append(target_row(target, value, bound, value[0] >= bound, above=True))
    return rows
