"""Readings R1 to R8 of every layer and head, per image patch, and sinks, from one run's statistics.

A cue reads one site with one reading. Nearly all readings follow from the statistics that a
capture stores, so one run answers for all of them at once. Missing is only `collision_complement`
(R3b), a variant of R3 that needs the sum of squared weights.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from mut3r_analysis.attention import SITE_KINDS
from mut3r_analysis.foundation.fields import one_of
from mut3r_analysis.foundation.labelling import beside
from mut3r_analysis.motion.readings import READINGS, STEADY
from mut3r_analysis.studies.emergence.observation import SITES, Observed

Array = NDArray[np.floating[Any]]

MEAN_HEAD = "mean"
"""Label of the mean over heads along ``head``; the others are the heads' numbers, as text."""


_STORED: dict[str, tuple[tuple[str, ...], Callable[..., Array]]] = {
    "logit_key_mean": (("logit_mean",), lambda keys, mean: mean),
    "received": (("received",), lambda keys, share: keys * share),
    "entropy": (("entropy",), lambda keys, entropy: entropy / np.log(keys)),
    "peak_complement": (("max_weight",), lambda keys, peak: 1 - peak),
    "logit_query_mean": (("received_logit",), lambda keys, mean: mean),
    "pose_complement": (("pose_weight",), lambda keys, share: (1 - share) / (keys - 1)),
    "logit_key_std": (("logit_variance",), lambda keys, variance: np.sqrt(variance)),
    "maxpool_similarity": (("max_weight", "logsumexp"), lambda keys, peak, z: np.log(peak) + z),
}
"""How a reading follows from stored statistics, given the number of keys."""

_UNSTEADY = {f"R5 instability of {READINGS[name].code}": name for name in STEADY}

_LABELS = {name: f"{READINGS[name].code} {name}" for name in _STORED}
SIGNS = {label: READINGS[name].sign for name, label in _LABELS.items()} | dict.fromkeys(
    _UNSTEADY, 1
)
"""Label of a reading -> its declared sign: +1 where high means motion, -1 where low does."""

OVER_TIME = tuple(_UNSTEADY)
"""R5: how much a reading has changed at the same place. These alone look at earlier frames."""


def patch_readings(observed: Observed, site: str) -> xr.DataArray:
    """Read one kind of site.

    Parameters
    ----------
    observed : Observed
        Of one clip.
    site : str
        One of `SITES`. A reading of ``state_self`` is
        carried to the patches by what they read: the attention weights of ``image_to_state`` in
        the same layer, averaged over its heads.

    Returns
    -------
    DataArray
        (reading, layer, head, frame, patch), patches row by row, float32, unsigned: as defined,
        with the pose token and the diagonal, as `Cue` reads them. `head` has the mean over heads
        first. Readings that do not describe patches at this site are absent.
    """
    one_of("site", site, SITES)
    kind, statistics = SITE_KINDS[site], observed.statistics[site]
    keys = statistics["received"].shape[-1]
    found: dict[str, Array] = {}
    for name, (needed, read) in _STORED.items():
        stream = kind.queries if READINGS[name].side == "query" else kind.keys
        if not {*needed} <= {*statistics} or (stream == "state" and site != "state_self"):
            continue
        value = read(keys, *(statistics[each] for each in needed))
        if stream == "state":
            value = np.matmul(observed.carrying[:, None], value[..., None])[..., 0]
        elif stream == "image":
            value = value[..., 1:]
        found[name] = _with_mean(value)
    labelled = {_LABELS[name]: value for name, value in found.items()}
    labelled |= {
        label: _instability(found[name]) for label, name in _UNSTEADY.items() if name in found
    }
    readings = [label for label in SIGNS if label in labelled]
    values = np.stack([labelled[label] for label in readings]).astype(np.float32)
    return xr.DataArray(
        values,
        {"reading": readings} | _places(values.shape[1:3]),
        ("reading", "layer", "head", "frame", "patch"),
        name=site,
        attrs={"long_name": f"reading at {site}", "units": "1"},
    )


def _with_mean(values: Array) -> Array:
    """Put the mean over heads in front of the heads of ``(layer, head, ...)``."""
    return np.concatenate([values.mean(axis=1, keepdims=True), values], axis=1)


def _places(shape: tuple[int, ...]) -> dict[str, Any]:
    """Label layers and heads, the mean over heads first."""
    layers, heads = shape
    return {"layer": np.arange(layers), "head": [MEAN_HEAD, *map(str, range(heads - 1))]}


def on_grid(values: xr.DataArray, grid: tuple[int, int], frames: Any) -> xr.DataArray:
    """Unfold ``patch`` to ``patch_row`` and ``patch_col`` and label frames, as figures take it."""
    index = pd.MultiIndex.from_product([range(n) for n in grid], names=["patch_row", "patch_col"])
    coords = xr.Coordinates.from_pandas_multiindex(index, "patch")
    return values.assign_coords(coords).unstack("patch").assign_coords(frame=frames)


def _instability(values: Array) -> Array:
    """Take the standard deviation over the frames so far of ``(layer, head, frame, patch)``.

    On the first frame there is nothing to compare with: NaN.
    """
    # Centred on the first frame, so that a common offset does not drown the difference.
    centred = values.astype(np.float64) - values[:, :, :1]
    count = np.arange(1, values.shape[2] + 1)[:, None]
    mean = centred.cumsum(axis=2) / count
    squares = (centred**2).cumsum(axis=2) / count
    deviation = np.sqrt(np.maximum(squares - mean**2, 0))
    deviation[:, :, 0] = np.nan
    return deviation


TOKENS = ("pose token", "patch (0, 0)", "strongest other patch", "strongest state token")


def sink_shares(observed: Observed) -> xr.DataArray:
    """How much attention single tokens receive.

    Parameters
    ----------
    observed : Observed
        Of one clip.

    Returns
    -------
    DataArray
        (site, token, layer, head): attention received from all queries, averaged over frames, as a
        multiple of an even share; the first head is the mean over heads. The strongest of many is
        what is strongest on average over the frames, not in each: a sink stays where it is. NaN
        where a site has no such key.
    """
    found = {}
    for site in SITES:
        received = observed.statistics[site]["received"].mean(axis=2)
        values = _with_mean(received.shape[-1] * received)
        shares = dict.fromkeys(TOKENS, np.full(values.shape[:2], np.nan))
        if (stream := SITE_KINDS[site].keys) == "state":
            shares["strongest state token"] = values.max(axis=-1)
        else:
            first = int(stream == "image")
            if first:
                shares["pose token"] = values[..., 0]
            shares["patch (0, 0)"] = values[..., first]
            shares["strongest other patch"] = values[..., first + 1 :].max(axis=-1)
        coords = {"token": list(TOKENS)} | _places(values.shape[:2])
        found[site] = xr.DataArray(np.stack(list(shares.values())), coords, list(coords))
    words = {"long_name": "attention received, times an even share", "units": "1"}
    return beside(found, "site").assign_attrs(words)


def corner_rank(motion: np.ndarray) -> float:
    """Where the motion score of patch (0, 0) stands among those of its frame, averaged.

    Parameters
    ----------
    motion : ndarray
        (frame, patch), patch (0, 0) first.

    Returns
    -------
    float
        0 the least dynamic of all, 1 the most, 0.5 in the middle.
    """
    first, rest = motion[:, :1], motion[:, 1:]
    return float(((rest < first) + 0.5 * (rest == first)).mean())
