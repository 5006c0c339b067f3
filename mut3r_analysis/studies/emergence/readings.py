"""Readings R1 to R8 of every layer and head, per image patch, and sinks, from one run's statistics.

A cue reads one site with one reading. Nearly all readings follow from the statistics that a
capture stores, so one run answers for all of them at once. Missing is only `collision_complement`
(R3b), a variant of R3 that needs the sum of squared weights.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mut3r_analysis.attention.sites import SITE_KINDS
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion.readings import READINGS, STEADY
from mut3r_analysis.studies.emergence.observation import SITES, Observed
from mut3r_analysis.studies.labelling import beside

Array = NDArray[np.floating[Any]]

MEAN_HEAD = "mean"
"""Label of the mean over heads along ``head``; the others are the heads' numbers, as text."""


class _Stored(NamedTuple):
    """How a reading follows from stored statistics, given the number of keys."""

    statistics: tuple[str, ...]
    value: Callable[..., Array]


_STORED = {
    "logit_key_mean": _Stored(("logit_mean",), lambda keys, mean: mean),
    "received": _Stored(("received",), lambda keys, share: keys * share),
    "entropy": _Stored(("entropy",), lambda keys, entropy: entropy / np.log(keys)),
    "peak_complement": _Stored(("max_weight",), lambda keys, peak: 1 - peak),
    "logit_query_mean": _Stored(("received_logit",), lambda keys, mean: mean),
    "pose_complement": _Stored(("pose_weight",), lambda keys, share: (1 - share) / (keys - 1)),
    "logit_key_std": _Stored(("logit_variance",), lambda keys, variance: np.sqrt(variance)),
    "maxpool_similarity": _Stored(
        ("max_weight", "logsumexp"), lambda keys, peak, total: np.log(peak) + total
    ),
}

_UNSTEADY = {f"R5 instability of {READINGS[name].code}": name for name in STEADY}

SIGNS = {f"{READINGS[name].code} {name}": READINGS[name].sign for name in _STORED} | dict.fromkeys(
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
    if site not in observed.statistics:
        raise InvalidArgument(f"site must be one of {', '.join(SITES)}, got {site!r}")
    if site == "state_self" and observed.carrying is None:
        raise InvalidArgument(
            "state tokens have no place in the image, and the maps that say which patches read "
            "them were not kept; capture with capture(carry=True)"
        )
    kind, statistics = SITE_KINDS[site], observed.statistics[site]
    keys = statistics["received"].shape[-1]
    found: dict[str, Array] = {}
    for name, stored in _STORED.items():
        stream = kind.queries if READINGS[name].side == "query" else kind.keys
        if not set(stored.statistics) <= set(statistics):
            continue
        value = stored.value(keys, *(statistics[each] for each in stored.statistics))
        if stream == "state":
            if site != "state_self" or observed.carrying is None:
                continue
            value = np.matmul(observed.carrying[:, None], value[..., None])[..., 0]
        elif stream == "image":
            value = value[..., 1:]
        found[name] = np.concatenate([value.mean(axis=1, keepdims=True), value], axis=1)
    labelled = {f"{READINGS[name].code} {name}": value for name, value in found.items()}
    labelled |= {
        label: _instability(found[name]) for label, name in _UNSTEADY.items() if name in found
    }
    readings = [label for label in SIGNS if label in labelled]
    values = np.stack([labelled[label] for label in readings]).astype(np.float32)
    return xr.DataArray(
        values,
        dims=("reading", "layer", "head", "frame", "patch"),
        coords={
            "reading": readings,
            "layer": np.arange(values.shape[1]),
            "head": [MEAN_HEAD, *map(str, range(values.shape[2] - 1))],
        },
        name=site,
        attrs={"long_name": f"reading at {site}", "units": "1"},
    )


def on_grid(values: xr.DataArray, grid: tuple[int, int], frames: Any) -> xr.DataArray:
    """Unfold ``patch`` to ``patch_row`` and ``patch_col`` and label frames, as figures take it."""
    dims = [dim for dim in values.dims if dim != "patch"]
    values = values.transpose(*dims, "patch")
    return xr.DataArray(
        values.values.reshape(*values.shape[:-1], *grid),
        dims=(*dims, "patch_row", "patch_col"),
        coords={dim: values[dim] for dim in dims if dim in values.coords} | {"frame": frames},
        name=values.name,
        attrs=values.attrs,
    )


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
        statistics = observed.statistics[site]
        received = statistics["received"].mean(axis=2)
        values = received.shape[-1] * received
        values = np.concatenate([values.mean(axis=1, keepdims=True), values], axis=1)
        stream = SITE_KINDS[site].keys
        shares = dict.fromkeys(TOKENS, np.full(values.shape[:2], np.nan))
        if stream == "state":
            shares["strongest state token"] = values.max(axis=-1)
        else:
            first = int(stream == "image")
            if first:
                shares["pose token"] = values[..., 0]
            shares["patch (0, 0)"] = values[..., first]
            shares["strongest other patch"] = values[..., first + 1 :].max(axis=-1)
        heads = [MEAN_HEAD, *map(str, range(values.shape[1] - 1))]
        found[site] = xr.DataArray(
            np.stack([shares[token] for token in TOKENS]),
            {"token": list(TOKENS), "layer": np.arange(len(values)), "head": heads},
            ("token", "layer", "head"),
        )
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
