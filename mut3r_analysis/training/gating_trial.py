"""The gating test: whether keeping moving patches out helps, with the truth as mask.

If an oracle's masks help no more than the same masks shuffled between clips, no cue can help this
model by that gate; and a model that does not use history shows no effect of either.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.metrics.bootstrap import drawn_counts, percentile_bounds, resampled_means
from mut3r_analysis.motion import Cue, Gate
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.scenes import SceneDistribution
from mut3r_analysis.training.patches import patch_mean
from mut3r_analysis.training.validation import held_out_clips, score_clips

METRICS = ("rpe_rotation", "rpe_translation", "depth", "points_self", "points_world")
GATES = {
    "MUT3R": Gate.mut3r(beta=1.0, edition=1),
    "state_to_image keys": Gate(image_self=None, state_to_image="key_bias", image_to_state=None),
    "image_self keys": Gate(image_self="key_bias", state_to_image=None, image_to_state=None),
}
SEED = 900_000
RESAMPLES = 1000


def gating_test(
    model: Backbone,
    *,
    distribution: SceneDistribution | None = None,
    size: tuple[int, int] = (64, 48),
    clips: int = 256,
    frames: int = 4,
) -> dict[str, Any]:
    """Compare the plain run, oracle masks and shuffled masks on the same clips.

    Parameters
    ----------
    model : Backbone
    distribution : SceneDistribution, optional
        What the clips show; every clip gets at least one moving object.
    size : (int, int)
    clips, frames : int

    Returns
    -------
    dict
        ``setting``; ``ungated`` means; per gate and metric the relative change by the ``oracle``,
        by ``shuffled`` masks and their ``difference``, each [value, low, high] in percent of the
        ungated mean, over clips.
    """
    distribution = distribution or SceneDistribution()
    distribution = replace(distribution, movers=(1, max(1, distribution.movers[1])))
    scenes = held_out_clips(distribution, size, clips, frames, seed=SEED)
    patch = model.patch_size
    rows, columns = size[1] // patch, size[0] // patch
    motion = patch_mean(scenes.moving.flatten(0, 1).float(), patch)
    # the very share of moving pixels, short of 1 so that a row of keys never empties
    motion = motion.clamp_max(0.999).unflatten(0, (clips, frames)).unflatten(2, (rows, columns))

    def gated(gate: Gate, shift: int) -> dict[str, np.ndarray]:
        masked = Configuration(cue=Cue.oracle("moving"), gate=gate)
        masks = {"moving": motion.roll(shift, dims=0)}
        return score_clips(model, scenes, configuration=masked, masks=masks).errors

    plain = score_clips(model, scenes).errors
    draws = drawn_counts(clips, RESAMPLES, seed=1)
    found: dict[str, Any] = {
        "setting": {
            "clips": clips,
            "frames": frames,
            "size": list(size),
            "distribution": distribution.to_dict(),
            "moving_share": float(scenes.moving.float().mean()),
        },
        "ungated": {name: float(plain[name].mean()) for name in METRICS},
        "gates": {},
    }
    for label, gate in GATES.items():
        oracle, shuffled = gated(gate, 0), gated(gate, 1)
        pairs = {
            "oracle": (oracle, plain),
            "shuffled": (shuffled, plain),
            "difference": (oracle, shuffled),
        }
        found["gates"][f"{label}, {gate.describe_layers(model.decoder_layers)}"] = {
            name: {
                which: _percent(one[name] - other[name], plain[name], draws)
                for which, (one, other) in pairs.items()
            }
            for name in METRICS
        }
    return found


def _percent(change: np.ndarray, plain: np.ndarray, draws: np.ndarray) -> list[float]:
    bounds = percentile_bounds(resampled_means(change, draws))
    return [100 * float(each) / float(plain.mean()) for each in (np.nanmean(change), *bounds)]
