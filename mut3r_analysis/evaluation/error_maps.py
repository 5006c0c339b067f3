"""Where in a frame depth is wrong, aligned as its score was."""

from collections.abc import Collection
from typing import Any

import numpy as np
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.evaluation.eligibility import eligible_frames
from mut3r_analysis.evaluation.scores import evaluate, named_protocols
from mut3r_analysis.evaluation.tasks import compared_depth
from mut3r_analysis.evaluation.truth import Truths
from mut3r_analysis.metrics.depth import valid_depth
from mut3r_analysis.metrics.protocols import Protocol
from mut3r_analysis.metrics.resampling import resize_bicubic


def errors_of(
    run: xr.DataTree,
    protocol: str | Protocol = "default",
    *,
    truth: Any = None,
    scores: xr.Dataset | None = None,
    frames: Collection[int] | None = None,
) -> xr.Dataset:
    """Return the relative error of depth pixel by pixel, as a protocol scores it.

    Parameters
    ----------
    run : DataTree
    protocol : str or Protocol
        Of depth; of ``"default"`` it is the part that scores depth.
    truth
        As for :func:`evaluate`.
    scores : Dataset, optional
        From :func:`evaluate`, whose alignment is taken; by default the run is scored here.
    frames : collection of int, optional
        Labels of the frames that are wanted; None is all that are scored.

    Returns
    -------
    Dataset
        ``error`` (frame, y, x), the distance from the true depth over the true depth, NaN where
        nothing is scored: its mean over a frame is the frame's ``abs_rel``. ``patch_error``
        (frame, patch_row, patch_col), its mean over the pixels of a patch, where the run says how
        large patches are. ``ratio`` (frame, y, x), aligned over true depth.

    Raises
    ------
    UnmetProtocol
        The run or the truth is not what the protocol scores.
    UndefinedMetric
        No alignment can be fitted.
    InvalidArgument
        For a protocol that scores no depth.

    Examples
    --------
    >>> errors = errors_of(run)
    >>> errors["error"].dims, errors["patch_error"].dims
    (('frame', 'y', 'x'), ('frame', 'patch_row', 'patch_col'))
    """
    chosen = next((one for one in named_protocols(protocol) if one.task == "video-depth"), None)
    if chosen is None:
        raise InvalidArgument(f"{protocol} scores no depth; give a protocol such as 'default'")
    name = str(run.attrs["sequence"]["name"])
    known = Truths(truth, [name]).of(name)
    wanted = eligible_frames(chosen, run, known)
    if frames is not None:
        wanted = wanted[np.isin(wanted, list(frames))]
    true, given = compared_depth(chosen, run, known, wanted)
    scale, shift = 1.0, 0.0
    if chosen.align != "metric":
        mine = (evaluate(run, chosen, truth=truth) if scores is None else scores).sel(sequence=name)
        scale, shift = (float(mine[f"depth_alignment_{part}"]) for part in ("scale", "shift"))
    size = (true.sizes["y"], true.sizes["x"])
    aligned = (scale * resize_bicubic(plane, size) + shift for plane in given.values)
    planes = [_ratio(chosen, *pair) for pair in zip(true.values, aligned, strict=True)]
    found = xr.Dataset(coords={"frame": true["frame"]})
    words = {"units": "1", "comment": f"aligned as under {chosen.id}"}
    ratio = np.reshape(planes, (len(planes), *size))
    for name, values, long_name in (
        ("error", np.abs(ratio - 1), "relative error of depth"),
        ("ratio", ratio, "aligned over true depth"),
    ):
        attrs = words | {"long_name": long_name}
        found[name] = (("frame", "y", "x"), values.astype(np.float32), attrs)
    patch = (run.attrs["backbone"].get("preparation") or {}).get("patch")
    if patch:
        grid = (given.sizes["y"] // patch, given.sizes["x"] // patch)
        found["patch_error"] = over_patches(found["error"], grid)
    return found


def over_patches(pixels: xr.DataArray, grid: tuple[int, int]) -> xr.DataArray:
    """Return means (frame, patch_row, patch_col) of what is known of (frame, y, x).

    Parameters
    ----------
    pixels : DataArray
    grid : (int, int)
        Rows and columns of patches, which tile a frame evenly.
    """
    starts = [
        np.linspace(0, pixels.sizes[dim], count, endpoint=False).round().astype(int)
        for dim, count in zip(("y", "x"), grid, strict=True)
    ]

    def summed(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(np.add.reduceat(values, starts[0], axis=1), starts[1], axis=2)

    values = pixels.transpose("frame", "y", "x").values.astype(np.float64)
    with np.errstate(invalid="ignore"):
        means = summed(np.nan_to_num(values)) / summed(np.isfinite(values).astype(float))
    sides = {
        f"patch_{dim}": np.arange(size) for dim, size in zip(("row", "col"), grid, strict=True)
    }
    coords = {"frame": pixels["frame"].values, **sides}
    return xr.DataArray(means, coords, ("frame", *sides), attrs=pixels.attrs)


def _ratio(protocol: Protocol, true: np.ndarray, aligned: np.ndarray) -> np.ndarray:
    if protocol.clip is not None:
        aligned = np.minimum(aligned, protocol.clip)
    scored = valid_depth(true, protocol.maximum)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(scored, aligned / true, np.nan)
