"""One run under one protocol: every task's scores in the same form.

A task gives a Dataset with its metrics (no dims), what each frame contributes as ``frame_...``
(frame), the alignment, ``n_frames`` and, where it counts pixels, ``n_pixels``.
"""

import json
from collections.abc import Callable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mut3r_analysis.evaluation.cue_masks import motion_masks
from mut3r_analysis.evaluation.eligibility import (
    LacksVariable,
    UnmetProtocol,
    eligible_frames,
    keeps_everything,
    recorded_preparation,
)
from mut3r_analysis.evaluation.truth import prepared_truth, select_frames
from mut3r_analysis.metrics.depth import score_depth
from mut3r_analysis.metrics.errors import UndefinedMetric
from mut3r_analysis.metrics.metric import Metric
from mut3r_analysis.metrics.multiview import score_multiview
from mut3r_analysis.metrics.protocols import FLOW_FRAMES, TASKS, Protocol, find_metric
from mut3r_analysis.metrics.reconstruction import score_reconstruction
from mut3r_analysis.metrics.segmentation import score_masks
from mut3r_analysis.metrics.temporal import score_temporal
from mut3r_analysis.metrics.tracks import SAME_POINT, score_tracks
from mut3r_analysis.metrics.trajectory import score_trajectory

Frames = NDArray[np.int64]
SINGLE_FRAMES = "rw.gg reset.1 reset.pose.learned"
"""The commit under which every frame is predicted as if it were the only one."""
Truth = xr.Dataset | None


def score_run(protocol: Protocol, run: xr.DataTree, truth: xr.Dataset | None) -> xr.Dataset:
    """Score one run under one protocol.

    Raises
    ------
    UnmetProtocol
        The run or the truth is not what the protocol scores.
    UndefinedMetric
        The metric has no value on this sequence.
    """
    frames = eligible_frames(protocol, run, truth)
    if not len(frames):
        raise UndefinedMetric("no frame of the run is whole")
    scores = _TASKS[protocol.task](protocol, run, truth, frames)
    return scores.assign_attrs({})


def _depth(
    protocol: Protocol,
    run: xr.DataTree,
    truth: Truth,
    frames: Frames,
    *,
    each_frame: bool = False,
) -> xr.Dataset:
    pair = compared_depth(protocol, run, truth, frames)
    scores = score_depth(
        *pair, protocol.align, protocol.maximum, protocol.clip, each_frame=each_frame
    )
    pixels, of = scores["pixels"], "frame" if each_frame else "depth"
    return _kept(protocol, scores, frames).assign(
        {
            "frame_pixels": pixels,
            "n_pixels": pixels.sum().assign_attrs(long_name="pixels scored"),
            f"{of}_alignment_scale": scores["alignment_scale"],
            f"{of}_alignment_shift": scores["alignment_shift"],
        }
    )


def compared_depth(
    protocol: Protocol, run: xr.DataTree, truth: Truth, frames: Frames
) -> tuple[xr.DataArray, xr.DataArray]:
    """Return the true and the predicted depth (frame, y, x) that a protocol compares.

    Raises
    ------
    UnmetProtocol
        The run or the truth lacks it.
    """
    prediction = _predicted(run, frames, "depth")
    wanted = _require_truth(protocol, _given_truth(protocol, run, truth, frames))
    order = ("frame", "y", "x")
    return wanted["depth"].transpose(*order), prediction["depth"].transpose(*order)


def _mono_depth(protocol: Protocol, run: xr.DataTree, truth: Truth, frames: Frames) -> xr.Dataset:
    _require_single_frames(protocol, run, frames)
    return _depth(protocol, run, truth, frames, each_frame=True)


def _given_truth(protocol: Protocol, run: xr.DataTree, truth: Truth, frames: Frames) -> xr.Dataset:
    """Return truth on the grid on which a protocol compares."""
    if protocol.preparation == "given":
        return prepared_truth(run, truth, frames)
    return _at_source_size(protocol, run, truth, frames)


def _temporal(protocol: Protocol, run: xr.DataTree, truth: Truth, frames: Frames) -> xr.Dataset:
    prediction = _predicted(run, frames, "depth", "pose")
    require_one_path(run, frames)
    wanted = _require_truth(protocol, _given_truth(protocol, run, truth, frames))
    scores = score_temporal(wanted, prediction, protocol.align, protocol.maximum, protocol.clip)
    return _kept(protocol, scores, frames).assign(
        depth_alignment_scale=scores["alignment_scale"],
        depth_alignment_shift=scores["alignment_shift"],
    )


def _pose(protocol: Protocol, run: xr.DataTree, truth: Truth, frames: Frames) -> xr.Dataset:
    prediction = _predicted(run, frames, "pose")
    require_one_path(run, frames)
    # A camera path knows no pixels, so the run's own truth serves published protocols too.
    if truth is None and "truth" in run.children:
        truth = run["truth"].to_dataset()
    wanted = select_frames(_require_truth(protocol, truth), frames)
    scores = score_trajectory(
        wanted["pose"], prediction["pose"], protocol.align, protocol.rpe_delta or 1
    )
    return _with_path_alignment(_kept(protocol, scores, frames), scores)


def _reconstruction(
    protocol: Protocol, run: xr.DataTree, truth: Truth, frames: Frames
) -> xr.Dataset:
    prediction = _predicted(run, frames, "depth", "pose", "focal")
    require_one_path(run, frames)
    wanted = _require_truth(protocol, _at_source_size(protocol, run, truth, frames))
    names = list(TASKS[protocol.task].truth)
    prediction = prediction.assign(
        intrinsics=(("frame", "camera_row", "camera_col"), _intrinsics(prediction))
    )
    scores = score_reconstruction(wanted[names], prediction[names], protocol.align)
    found = _kept(protocol, scores, frames).assign(n_pixels=scores["points"])
    return _with_path_alignment(found.assign_coords(axis=scores["axis"]), scores)


def _multiview(protocol: Protocol, run: xr.DataTree, truth: Truth, frames: Frames) -> xr.Dataset:
    prediction = _predicted(run, frames, "points_world")
    require_one_path(run, frames)
    wanted = _require_truth(protocol, prepared_truth(run, truth, frames))
    scores = score_multiview(wanted, prediction["points_world"], protocol.voxel)
    found = _kept(protocol, scores, frames).assign(n_pixels=scores["points"])
    return _with_path_alignment(found.assign_coords(axis=scores["axis"]), scores)


def _tracks(protocol: Protocol, run: xr.DataTree, truth: Truth, frames: Frames) -> xr.Dataset:
    prediction = _predicted(run, frames, "points_world", "pose")
    require_one_path(run, frames)
    if truth is None:
        raise UnmetProtocol(
            f"{protocol.id} needs to know which pixels show the same point, which a run does not "
            "hold; pass truth=, the sequence itself"
        )
    wanted = select_frames(_require_truth(protocol, truth), frames)
    if not any(set(names) <= set(wanted) for names in SAME_POINT):
        raise LacksVariable(
            "the truth has neither track_pixel and track_visible nor flow and scene_flow; pass "
            "truth=, a scene of this package or a scene of DyCheck with keypoint/2x/train"
        )
    if wanted.attrs.get("depth") == "aligned":
        raise UnmetProtocol(
            f"{protocol.id} counts metres, and aligned depth of DyCheck is not known to be in "
            "metres; pass truth='dycheck:ROOT?depth=lidar'"
        )
    preparation = recorded_preparation(run)
    if preparation is None:
        raise UnmetProtocol(
            "the run does not say how its frames were prepared, so pixels of the truth are not "
            "found in it; declare preparation= when importing predictions"
        )
    move = preparation.intrinsics(np.eye(3), wanted.sizes["y"], wanted.sizes["x"])
    scores = score_tracks(wanted, prediction, protocol.align, move)
    found = _kept(protocol, scores, frames).assign(n_pixels=scores["points"])
    return _with_path_alignment(found.assign_coords(axis=scores["axis"]), scores)


def _motion(protocol: Protocol, run: xr.DataTree, truth: Truth, frames: Frames) -> xr.Dataset:
    if truth is None and protocol.frames.among == FLOW_FRAMES:
        raise UnmetProtocol(
            f"{protocol.id} needs to know which frames have a true mask, which a run does not "
            "hold; pass truth=, the sequence itself"
        )
    wanted = _require_truth(protocol, prepared_truth(run, truth, frames))
    if "motion_known" in wanted.coords:
        wanted = wanted.isel(frame=np.flatnonzero(wanted["motion_known"].values))
        frames = wanted["frame"].values
    mask = wanted["motion_mask"].astype(bool)
    of_scores = [find_metric(name).pooling == "together" for name in protocol.metrics]
    if all(of_scores):
        return _motion_ranking(protocol, run, mask, frames)
    if any(of_scores):
        raise UnmetProtocol(f"{protocol.id} scores masks and motion scores; give one protocol each")
    predicted = motion_masks(run, frames, (mask.sizes["y"], mask.sizes["x"]))
    return _kept(protocol, score_masks(mask, predicted), frames)


def _motion_ranking(
    protocol: Protocol, run: xr.DataTree, mask: xr.DataArray, frames: Frames
) -> xr.Dataset:
    """Score patch scores (frame, patch_row, patch_col) as they are, each over all its pixels."""
    if "cue" not in run.children or "motion" not in run["cue"]:
        raise LacksVariable("the run holds no motion score; run it with cue=")
    motion = run["cue"].to_dataset()[["motion"]]
    score = select_frames(motion, frames)["motion"].transpose("frame", "patch_row", "patch_col")
    repeats = [mask.sizes[a] // score.sizes[b] for a, b in (("y", "patch_row"), ("x", "patch_col"))]
    pixels = score.values.repeat(repeats[0], axis=1).repeat(repeats[1], axis=2)
    if pixels.shape != mask.shape:
        raise UnmetProtocol(f"patches {score.shape} do not tile masks {mask.shape}")
    # A cue that reads earlier frames has none to say about the first: those are not scored.
    scored = ~np.isnan(pixels).all(axis=(1, 2))
    pixels, moving = pixels[scored], mask.values[scored]
    found = xr.Dataset(coords={"frame": frames[scored]})
    for row in map(find_metric, protocol.metrics):
        found[row.name] = ((), row.values(moving, pixels), row.attrs)
        per_frame = [_or_nan(row, *pair) for pair in zip(moving, pixels, strict=True)]
        found[f"frame_{row.frames}"] = ("frame", per_frame, row.attrs)
    return _kept(protocol, found, frames[scored])


def _or_nan(row: Metric, mask: NDArray[np.bool_], score: NDArray[np.float64]) -> float:
    try:
        return row.values(mask, score)
    except UndefinedMetric:
        return float("nan")


_TASKS: dict[str, Callable[[Protocol, xr.DataTree, Truth, Frames], xr.Dataset]] = {
    "video-depth": _depth, "mono-depth": _mono_depth, "temporal-depth": _temporal, "pose": _pose,
    "reconstruction": _reconstruction, "multiview": _multiview, "tracks": _tracks,
    "motion": _motion,
}  # fmt: skip


def _kept(protocol: Protocol, scores: xr.Dataset, frames: Frames) -> xr.Dataset:
    """Keep a protocol's metrics and what frames contribute to them."""
    rows = [find_metric(name) for name in protocol.metrics]
    parts = dict.fromkeys(f"frame_{row.frames}" for row in rows if row.frames)
    found = scores[[*protocol.metrics, *parts]]
    if parts:
        found = found.assign_coords(frame=frames)
    return found.assign(n_frames=len(frames))


def _predicted(run: xr.DataTree, frames: Frames, *names: str) -> xr.Dataset:
    prediction = run["prediction"].to_dataset()
    _require(prediction, "the run", *names)
    return prediction[list(names)].sel(frame=frames)


def _require(held: xr.Dataset | None, what: str, *names: str) -> xr.Dataset:
    found = xr.Dataset() if held is None else held
    if missing := [name for name in names if name not in found]:
        advice = {"the run": "outputs= of run names what is computed"}
        otherwise = advice.get(what, "pass truth=, a sequence that has it")
        lacks = f"{what} has no" if held is not None else "the run holds no ground truth for"
        raise LacksVariable(f"{lacks} {', '.join(missing)}; {otherwise}")
    return found


def require_one_path(run: xr.DataTree, frames: Frames) -> None:
    """Refuse poses of which some are in the frame of one start and some in that of another.

    Raises
    ------
    UnmetProtocol
    """
    commit = json.loads(run.attrs.get("commit") or "{}")
    reset = commit.get("reset")
    if reset is None or commit.get("reset_chain"):
        return
    if isinstance(reset, int):
        times, when = (len(frames) - 1) // reset, f"after every {reset} frames"
    else:
        began = run["state/reset"].sel(frame=frames[:-1])
        times, when = int(began.sum()), f"{int(began.sum())} times, by {reset}"
    if times:
        raise UnmetProtocol(
            f"the run was reset {when}, so the poses of each part are relative to the first frame "
            "of that part, and one alignment over all parts would count this as an error. Run it "
            "with 'reset.chain' in the commit, which carries poses over, or without reset"
        )


def _require_single_frames(protocol: Protocol, run: xr.DataTree, frames: Frames) -> None:
    """Refuse a run in which a frame could know of the frames before it.

    Predictions of other code do not say, and are taken as they are.

    Raises
    ------
    UnmetProtocol
    """
    commit = run.attrs.get("commit")
    if commit is None or len(frames) == 1:
        return
    fields = json.loads(commit)
    anew = fields.get("reset_pose") == "learned" or "memory_norm" not in run["state"]
    if fields.get("reset") != 1 or not anew:
        raise UnmetProtocol(
            f"{protocol.id} scores frames that are predicted one by one, and this run carried its "
            f"memory from each to the next; run it with commit='{SINGLE_FRAMES}'"
        )


def _require_truth(protocol: Protocol, truth: xr.Dataset | None) -> xr.Dataset:
    return _require(truth, "the truth", *TASKS[protocol.task].truth)


def _at_source_size(
    protocol: Protocol, run: xr.DataTree, truth: xr.Dataset | None, frames: Frames
) -> xr.Dataset:
    """Return truth as the data set has it, which the protocol compares predictions with."""
    if truth is None:
        raise UnmetProtocol(
            f"{protocol.id} compares with the ground truth at its own size, which a run does not "
            "hold; pass truth=, the sequence or where it is, for example truth='sintel:ROOT'"
        )
    preparation = recorded_preparation(run)
    if preparation is not None and "y" in truth.sizes and not keeps_everything(preparation, truth):
        raise UnmetProtocol(
            f"the run cropped frames of {truth.sizes['x']} x {truth.sizes['y']} px, so its "
            f"predictions do not cover the ground truth that {protocol.id} compares them with"
        )
    return select_frames(truth, frames)


def _intrinsics(prediction: xr.Dataset) -> NDArray[np.float64]:
    """Intrinsics (frame, row, col) about the middle pixel, where focal lengths were estimated."""
    focal = prediction["focal"].values.astype(np.float64)
    matrices = np.tile(np.eye(3), (len(focal), 1, 1))
    matrices[:, 0, 0] = matrices[:, 1, 1] = focal
    matrices[:, 0, 2] = prediction.sizes["x"] // 2
    matrices[:, 1, 2] = prediction.sizes["y"] // 2
    return matrices


def _with_path_alignment(found: xr.Dataset, scores: xr.Dataset) -> xr.Dataset:
    return found.assign(
        {
            f"pose_{name}": scores[name]
            for name in ("alignment_scale", "alignment_rotation", "alignment_translation")
        }
    )
