"""Sinks: tokens that draw attention wherever they are and whatever is seen."""

import numpy as np
import xarray as xr

from mut3r_analysis.attention.sites import SITE_KINDS
from mut3r_analysis.studies.emergence.observation import SITES, Observed
from mut3r_analysis.studies.emergence.readings import MEAN_HEAD

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
    found = []
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
        found.append(
            xr.DataArray(
                np.stack([shares[token] for token in TOKENS]),
                {"token": list(TOKENS), "layer": np.arange(len(values)), "head": heads},
                ("token", "layer", "head"),
            ).expand_dims(site=[site])
        )
    together = xr.concat(found, "site", join="outer")
    together.attrs = {"long_name": "attention received, times an even share", "units": "1"}
    return together


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
