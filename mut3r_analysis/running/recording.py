"""What a run records of each frame: group -> name -> array without the frame dimension."""

import sys
from typing import Any

import numpy as np
import psutil
import torch
import xarray as xr

from mut3r_analysis.backbones.batching import rows
from mut3r_analysis.backbones.geometry import focal_length, pose_matrix
from mut3r_analysis.backbones.heads import Prediction
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.motion.cue import Cue
from mut3r_analysis.running.passes import FrameResult
from mut3r_analysis.running.schema import TRUTH_DIMS, Group, Schema

Found = dict[str, dict[str, np.ndarray]]
_Values = dict[str, dict[str, Any]]
"""Group -> name -> array or tensor, on any device."""


def recorded(
    backbone: Backbone,
    result: FrameResult,
    sample: int,
    *,
    cue: Cue | None,
    schema: Schema,
    truth: dict[str, np.ndarray],
) -> Found:
    """Collect all that is known of a frame of one configuration, but for what it took.

    Parameters
    ----------
    backbone : Backbone
    result : FrameResult
    sample : int
        Of the batch.
    cue : Cue, optional
    schema : Schema
    truth : dict of str to array
        From :func:`known_truth`.
    """
    found: _Values = {"prediction": _predictions(result.prediction, sample, schema["prediction"])}
    state = result.carried.state.described(
        result.before, result.rate, keep=schema["state"].keeps_state
    )
    found["state"] = {name: value[sample] for name, value in state.items()}
    if "reset" in schema["state"].variables:
        found["state"]["reset"] = np.array(result.resets[sample])
    if cue is not None and result.motion is not None:
        found["cue"] = _motion(result, result.motion[sample], sample, cue, schema["cue"])
    if result.attention:
        found |= {
            f"attention/{kind}": dict(records) for kind, records in result.attention[sample].items()
        }
    paths = {f"attention/{kind}" for kind in result.unpassed}
    found |= {path: _blank(schema[path]) for path in paths & set(schema)}
    if "truth" in schema:
        found["truth"] = dict(truth)
    return on_host(found)


def on_host(found: _Values) -> Found:
    """Return arrays: all that is on a GPU comes by one copy, since each of them waits for it."""
    tensors = [
        (path, name, value)
        for path, values in found.items()
        for name, value in values.items()
        if isinstance(value, torch.Tensor)
    ]
    arrays: Found = {path: dict(values) for path, values in found.items()}
    # Largest numbers first, so that each part begins at a multiple of its own numbers' size.
    remote = [each for each in tensors if each[2].device.type != "cpu"]
    remote.sort(key=lambda each: -each[2].element_size())
    if remote:
        parts = [value.contiguous().flatten().view(torch.uint8) for _, _, value in remote]
        packed = torch.cat(parts).cpu()
        split = packed.split([len(part) for part in parts])
        for (path, name, value), part in zip(remote, split, strict=True):
            arrays[path][name] = part.view(value.dtype).reshape(value.shape).numpy()
    for path, name, value in tensors:
        if value.device.type == "cpu":
            arrays[path][name] = value.numpy()
    return arrays


def _blank(group: Group) -> dict[str, np.ndarray]:
    """Return what is recorded of a site that a frame does not pass: NaN, and no keys."""
    return {
        item.name: np.full(
            [0 if dim in item.grows else n for dim, n in zip(item.dims, item.shape, strict=True)][
                1:
            ],
            np.nan,
            item.dtype,
        )
        for item in group.variables.values()
        if item.values is None
    }


def _predictions(prediction: Prediction, sample: int, group: Group) -> dict[str, Any]:
    """Values of the variables that the group has."""
    prediction = rows(prediction, slice(sample, sample + 1))
    values: dict[str, torch.Tensor | None] = dict(vars(prediction))
    if prediction.pose is not None:
        values["pose"] = pose_matrix(prediction.pose)
    if prediction.points_self is not None and "depth" in group.variables:
        values["depth"] = prediction.points_self[..., 2]
        values["focal"] = focal_length(prediction.points_self)
    return {
        name: value[0]
        for name, value in values.items()
        if value is not None and name in group.variables
    }


def _motion(
    result: FrameResult, motion: torch.Tensor, sample: int, cue: Cue, group: Group
) -> dict[str, Any]:
    found: dict[str, Any] = {"motion": motion.float()}
    variables = group.variables
    if "gated" in variables:
        found["gated"] = np.array(result.gated[sample])
    if "used" in variables:
        missing = np.full(motion.shape, np.nan, np.float32)
        found["used"] = missing if result.used is None else result.used[sample]
    reading = result.readings[sample]
    if cue.reading in variables and reading is not None:
        found[cue.reading] = (reading[0] if cue.casts_rays else reading).float()  # no layers
    return found


def known_truth(backbone: Backbone, frame: xr.Dataset) -> dict[str, np.ndarray]:
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
    """Return the most memory used so far, in bytes: of a GPU in this run, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
