"""Frames read together instead of one after another: one reading, or two with a mask between."""

import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from mut3r_analysis.attention.seam import SiteGate
from mut3r_analysis.backbones.geometry import pose_matrix
from mut3r_analysis.backbones.heads import check_outputs
from mut3r_analysis.backbones.precision import arithmetic
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.backbones.steps import Encoded, Frame
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion.window_cue import WindowCue, WindowGate
from mut3r_analysis.motion.window_motion import (
    GramProbe,
    WindowMotion,
    WindowSiteGate,
    motion_of_window,
)
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.running.inputs import check_inputs
from mut3r_analysis.running.provenance import provenance


def reconstruct(
    backbone: Backbone | str | Path,
    sequence: xr.Dataset | str | Path,
    *,
    cue: WindowCue | None = None,
    gate: WindowGate | None = None,
    outputs: Collection[str] | None = None,
) -> xr.Dataset:
    """Read all frames of a sequence together.

    All of them are in memory at once, and each attends to all others, so that this is no run: its
    numbers are not those of frames read one after another.

    Parameters
    ----------
    backbone : Backbone, str or Path
        Of a kind that reads frames together.
    sequence : xarray.Dataset, str or Path
    cue : WindowCue, optional
        How a motion mask is made of what the frames attend to.
    gate : WindowGate, optional
        Which keys of the mask's patches are removed in a second reading, from which poses are then
        taken, and all else from the first, as VGGT4D does. Needs a cue.
    outputs : collection of str, optional
        Among what the model predicts; None is all.

    Returns
    -------
    xarray.Dataset
        ``pose`` (frame, row, col), ``depth``, ``confidence_self``, ``confidence_world`` (frame, y,
        x), ``points_self``, ``points_world`` (frame, y, x, xyz); with a cue ``motion``, its factors
        and, smoothed, ``motion_smooth`` (frame, patch_row, patch_col), and ``mask`` (frame, y, x).
        :func:`evaluate` scores it like a run, against a ``truth`` that is given.

    Raises
    ------
    InvalidArgument
        For a model that reads frames one after another, a gate without a cue, or a cue that the
        model is not deep enough for.

    Examples
    --------
    >>> together = reconstruct("random:vggt-small", sequence, outputs=("pose", "depth"))
    >>> together["pose"].shape
    (3, 4, 4)
    """
    if gate is not None and cue is None:
        raise InvalidArgument("gate= removes what a cue finds; give cue=WindowCue() with it")
    backbone, sequence = check_inputs(backbone, sequence, None)
    names = check_outputs(outputs, backbone.outputs)
    images = [backbone.preparation.image(image) for image in sequence["image"].values]
    frame = Frame(torch.from_numpy(np.stack(images)).to(backbone.device))
    with arithmetic(backbone.precision, backbone.device), torch.no_grad():
        encoded = backbone.encode(frame)
        axis = backbone.axes(encoded.grid)["image" if cue is not None else "patches"]
        probe = None
        if cue is not None:
            assert isinstance(axis.patches, slice)
            probe = GramProbe(cue, backbone.sites(), len(images), axis.patches)
        decoded = backbone.decode_together(encoded, probe=probe)
        prediction = backbone.predict(decoded, names)
        motion = None
        if cue is not None and probe is not None:
            motion = _motion(cue, probe, encoded, frame)
        if gate is not None and motion is not None and "pose" in names:
            removed: SiteGate = WindowSiteGate(gate, motion.cells, len(axis) - axis.patch_count)
            second = backbone.decode_together(encoded, gate=removed)
            prediction = replace(prediction, pose=backbone.predict(second, ("pose",)).pose)
    found: dict[str, Tensor] = {
        name: value for name, value in vars(prediction).items() if value is not None
    }
    if prediction.pose is not None:
        found["pose"] = pose_matrix(prediction.pose)
    if prediction.points_self is not None:
        found["depth"] = prediction.points_self[..., 2]
    return _labelled(found, motion, sequence, backbone, cue, gate)


def _motion(cue: WindowCue, probe: GramProbe, encoded: Encoded, frame: Frame) -> WindowMotion:
    features = encoded.features.float().cpu().unflatten(1, encoded.grid)
    assert frame.image is not None
    height, width = frame.image.shape[-2:]
    return motion_of_window(cue, probe.factors(encoded.grid), features, (height, width))


_DIMS = {
    "pose": ("row", "col"),
    "depth": ("y", "x"),
    "confidence_self": ("y", "x"),
    "confidence_world": ("y", "x"),
    "points_self": ("y", "x", "xyz"),
    "points_world": ("y", "x", "xyz"),
}


def _labelled(
    found: dict[str, Tensor],
    motion: WindowMotion | None,
    sequence: xr.Dataset,
    backbone: Backbone,
    cue: WindowCue | None,
    gate: WindowGate | None,
) -> xr.Dataset:
    source = backbone.origin.name
    variables: dict[str, Any] = {
        name: (("frame", *dims), found[name].cpu().numpy(), {"source": source})
        for name, dims in _DIMS.items()
        if name in found
    }
    if motion is not None:
        maps = {"motion": motion.dynamic, "motion_smooth": motion.smooth, **motion.factors}
        variables |= {
            name: (("frame", "patch_row", "patch_col"), values.numpy(), {"source": str(cue)})
            for name, values in maps.items()
        }
        variables["mask"] = (("frame", "y", "x"), motion.mask.numpy(), {"source": str(cue)})
    made = provenance(backbone, sequence, None, Configuration(), ())
    kept = {name: made[name] for name in ("backbone", "sequence", "frames", "precision")}
    together = {"cue": cue and cue.to_json(), "gate": gate and gate.to_json()}
    attrs = {
        "provenance": json.dumps(kept | together),
        "backbone": source,
        "sequence": str(sequence.attrs.get("name", "sequence")),
        "cue": str(cue),
        "gate": str(gate),
    }
    return xr.Dataset(variables, {"frame": sequence["frame"].values}, attrs)
