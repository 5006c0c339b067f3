"""What a run records of each frame: group -> name -> array without the frame dimension."""

import sys
from collections.abc import Collection
from typing import Any

import numpy as np
import psutil
import torch
import xarray as xr

from mut3r_analysis.backbones.cut3r import CUT3R
from mut3r_analysis.backbones.geometry import focal_length, pose_matrix
from mut3r_analysis.backbones.heads import Prediction
from mut3r_analysis.motion.cue import Cue
from mut3r_analysis.running.passes import Outcome, of_sample
from mut3r_analysis.running.schema import TRUTH_DIMS, Schema

Found = dict[str, dict[str, np.ndarray]]


def recorded(
    outcome: Outcome,
    sample: int,
    *,
    cue: Cue | None,
    schema: Schema,
    outputs: Collection[str],
    truth: dict[str, np.ndarray],
    seconds: tuple[float, ...],
    memory: int,
) -> Found:
    """Collect all that is known of a frame of one configuration.

    Parameters
    ----------
    outcome : Outcome
    sample : int
        Of the branch's batch.
    cue : Cue, optional
    schema : Schema
    outputs : collection of str
    truth : dict of str to array
        From :func:`known_truth`.
    seconds : tuple of float
        By pass.
    memory : int
        Peak, in bytes.
    """
    found = {"prediction": _predictions(outcome.prediction, sample, outputs)}
    found["state"] = _state_statistics(outcome, sample, schema)
    if cue is not None and outcome.motion is not None:
        found["cue"] = _motion(outcome, outcome.motion[sample], sample, cue, schema)
    if outcome.attention:
        found |= {
            f"attention/{kind}": {name: values.numpy() for name, values in records.items()}
            for kind, records in outcome.attention[sample].items()
        }
    found["timing"] = {
        "seconds": np.array(seconds),
        "peak_memory": np.full(len(seconds), memory),
    }
    if "truth" in schema:
        found["truth"] = truth
    return found


def _predictions(
    prediction: Prediction, sample: int, outputs: Collection[str]
) -> dict[str, np.ndarray]:
    prediction = of_sample(prediction, sample)
    values: dict[str, torch.Tensor] = {}
    if prediction.pose is not None:
        values["pose"] = pose_matrix(prediction.pose)
    if prediction.points_self is not None and prediction.confidence_self is not None:
        values["depth"] = prediction.points_self[..., 2]
        values["confidence_self"] = prediction.confidence_self
        values["focal"] = focal_length(prediction.points_self)
        if "points_self" in outputs:
            values["points_self"] = prediction.points_self
    if prediction.points_world is not None and prediction.confidence_world is not None:
        values["points_world"] = prediction.points_world
        values["confidence_world"] = prediction.confidence_world
    if prediction.color is not None:
        values["color"] = prediction.color
    return {name: value[0].cpu().numpy() for name, value in values.items()}


def _state_statistics(outcome: Outcome, sample: int, schema: Schema) -> dict[str, np.ndarray]:
    before, after = outcome.before, outcome.carried.state
    values = {
        "norm": after.tokens.float().norm(dim=-1),
        "update_size": (after.tokens.float() - before.tokens.float()).norm(dim=-1),
        "write_rate": outcome.rate,
        "memory_norm": after.memory.float().norm(dim=-1),
    }
    if "tokens" in schema["state"].variables:
        values |= {"tokens": after.tokens.float(), "memory": after.memory.float()}
    return {name: value[sample].cpu().numpy() for name, value in values.items()}


def _motion(
    outcome: Outcome, motion: torch.Tensor, sample: int, cue: Cue, schema: Schema
) -> dict[str, np.ndarray]:
    found = {"motion": motion.float().cpu().numpy()}
    variables = schema["cue"].variables
    if "gated" in variables:
        found["gated"] = np.array(outcome.gated[sample])
    if "used" in variables:
        missing = np.full_like(found["motion"], np.nan)
        found["used"] = missing if outcome.used is None else outcome.used[sample].cpu().numpy()
    reading = outcome.readings[sample]
    if cue.reading in variables and reading is not None:
        found[cue.reading] = reading.float().cpu().numpy()
    return found


def known_truth(backbone: CUT3R, frame: xr.Dataset) -> dict[str, np.ndarray]:
    """Return what the sequence knows of a frame, on the prediction grid."""
    preparation = backbone.preparation
    height, width = frame.sizes["y"], frame.sizes["x"]
    prepare: dict[str, Any] = {
        "depth": preparation.depth,
        "motion_mask": preparation.mask,
        "instance": preparation.mask,
        "intrinsics": lambda matrix: preparation.intrinsics(matrix, height, width),
        "pose": np.asarray,
    }
    return {name: prepare[name](frame[name].values) for name in TRUTH_DIMS if name in frame}


def peak_memory(device: torch.device) -> int:
    """Return the most memory used so far, in bytes: on a CUDA device, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
