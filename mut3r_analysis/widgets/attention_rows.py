"""Rows and columns of attention maps, one token at a time, from an open run."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import xarray as xr

from mut3r_analysis.attention.sites import SITE_KINDS
from mut3r_analysis.attention.statistics import STATISTICS
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import one_of

QUANTITIES = {"weights": "attention weight", "logits": "scaled logit (nat)"}
"""What of a map is shown, and what it is called."""

Heads = Sequence[int | str]
"""Labels of heads, and "mean"."""

_KEPT_MAPS = 4
"""Maps remembered between rows; those of all heads at a full model's size are large."""


@dataclass(frozen=True)
class SiteOffer:
    """What a run can show at one kind of site.

    Attributes
    ----------
    name : str
        Kind of site.
    layers, heads : tuple of int
        Labels that were captured.
    statistics : tuple of str
    rows : bool
        Whether single rows and columns of the map can be shown.
    origin : str
        Where rows come from; or, without rows, what to capture to have them.
    """

    name: str
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    statistics: tuple[str, ...]
    rows: bool
    origin: str


class AttentionRows:
    """Single rows of the attention maps of a run, by name.

    The maps of the latest frames, layers and kinds of site are remembered over all heads, so that
    moving over patches costs nothing; a map is never sent anywhere whole. Sites with tokens of
    other frames, on either side, are not shown.

    Parameters
    ----------
    run : xarray.DataTree

    Raises
    ------
    InvalidArgument
        When the run holds no attention that can be shown.

    Examples
    --------
    >>> sorted(AttentionRows(run).offers)
    ['image_self', 'image_to_state', 'state_self', 'state_to_image']
    """

    def __init__(self, run: xr.DataTree) -> None:
        if not isinstance(run, xr.DataTree):
            raise InvalidArgument(
                f"an explorer shows a run's DataTree, got {type(run).__name__}; give what m3.run "
                "or m3.open_run returned"
            )
        groups = run["attention"].children if "attention" in run.children else {}
        if not groups:
            raise InvalidArgument(
                "this run holds no attention; run again with capture=m3.Capture(archive=True) for "
                "rows of every map, or m3.Capture() for statistics"
            )
        self.sites = {
            name: run["attention"][name].to_dataset()
            for name in groups
            if name not in SITE_KINDS or not _of_other_frames(name)
        }
        if not self.sites:
            raise InvalidArgument(
                f"an explorer shows sites among tokens of one frame and a state; this run holds "
                f"{', '.join(groups)}, where some are of other frames. Read them from the run: "
                f"run['attention/{next(iter(groups))}']"
            )
        self.offers = {name: _offer(name, site) for name, site in self.sites.items()}
        self._map = lru_cache(maxsize=_KEPT_MAPS)(self._read_map)

    @property
    def frames(self) -> list[int]:
        """Labels of the frames at which attention was captured."""
        return [int(frame) for frame in next(iter(self.sites.values()))["frame"].values]

    def position(self, site: str, side: str, token: dict[str, Any]) -> int:
        """Return where a token stands along a side of a site.

        Parameters
        ----------
        site : str
        side : {"query", "key"}
        token : dict
            The words that select it: ``token``, ``patch_row``, ``patch_col``.

        Raises
        ------
        InvalidArgument
            When there is no such token on that side.
        """
        held = self.sites[site]
        prefix = "key_" if side == "key" else ""
        match = np.ones(held.sizes[side], bool)
        for name, value in token.items():
            match &= held[f"{prefix}{name}"].values == value
        found = np.flatnonzero(match)
        if not len(found):
            kind = SITE_KINDS[site]
            raise InvalidArgument(
                f"{token_words(token)} is no {side} of {site}, which has {kind.queries} queries "
                f"and {kind.keys} keys"
            )
        return int(found[0])

    def row(
        self, site: str, frame: int, layer: int, heads: Heads, side: str, token: int, show: str
    ) -> np.ndarray:
        """Return what one token has to do with every token of the other side, head by head.

        Parameters
        ----------
        site : str
        frame, layer : int
            Labels.
        heads : sequence of int or "mean"
            Labels of heads; "mean" is over all captured ones.
        side : {"query", "key"}
            Which side `token` is on: as a query it looks at keys, as a key it is looked at.
        token : int
            Position along that side.
        show : {"weights", "logits"}

        Returns
        -------
        numpy.ndarray
            float32 ``(head, key)`` for a query, ``(head, query)`` for a key.

        Raises
        ------
        InvalidArgument
            When the run has no rows at the site, or nothing of that name.
        """
        offer = self._offered(site)
        if not offer.rows:
            raise InvalidArgument(offer.origin)
        block = self._map(site, frame, layer, show)
        part = block[:, token, :] if side == "query" else block[:, :, token]
        return self._chosen(part, offer, heads)

    def statistic(self, site: str, frame: int, layer: int, heads: Heads, name: str) -> np.ndarray:
        """Return a statistic of every token of its side, float32 ``(head, token)``.

        Raises
        ------
        InvalidArgument
            When the run does not have it.
        """
        offer = self._offered(site)
        one_of(f"statistic at {site}", name, offer.statistics)
        values = _at(self.sites[site][name], frame=frame, layer=layer)
        return self._chosen(values.values, offer, heads)

    def _read_map(self, site: str, frame: int, layer: int, show: str) -> np.ndarray:
        found = _at(self.sites[site][show], frame=frame, layer=layer)
        return found.transpose("head", "query", "key").values

    def _offered(self, site: str) -> SiteOffer:
        return self.offers[one_of("site", site, self.offers)]

    @staticmethod
    def _chosen(values: np.ndarray, offer: SiteOffer, heads: Heads) -> np.ndarray:
        """Select along the first axis, which is heads, and reduce where the mean is asked for."""
        chosen = np.empty((len(heads), *values.shape[1:]), np.float32)
        for at, head in enumerate(heads):
            one_of(f"head at {offer.name}", head, ("mean", *offer.heads))
            chosen[at] = (
                values.mean(axis=0, dtype=np.float32)
                if head == "mean"
                else values[offer.heads.index(int(head))]
            )
        return chosen


def token_words(token: dict[str, Any]) -> str:
    """Words for a token."""
    if token["token"] == "pose":
        return "the pose token"
    return f"{token['token']} ({token['patch_row']}, {token['patch_col']})"


def stream_grid(site: xr.Dataset, side: str) -> tuple[int, int, int]:
    """Return rows, columns and number of tokens on one side of a site, the pose token included."""
    prefix = "key_" if side == "key" else ""
    rows, columns = (site[f"{prefix}patch_{axis}"].values for axis in ("row", "col"))
    return int(rows.max()) + 1, int(columns.max()) + 1, len(rows)


def _of_other_frames(name: str) -> bool:
    kind = SITE_KINDS[name]
    return bool({kind.queries, kind.keys} & {"partner", "bank"})


def _offer(name: str, site: xr.Dataset) -> SiteOffer:
    one_of("kind of site", name, SITE_KINDS)
    rows = "weights" in site
    if not rows:
        origin = (
            f"No rows of {name}: this run kept neither its maps nor its queries and keys. Run "
            f"again with m3.Capture(archive=True), or with m3.Capture(maps=[{name!r}])."
        )
    elif "rotated_query" in site:
        origin = f"Rows are recomputed from kept queries and keys ({site['rotated_query'].dtype})."
    else:
        origin = f"Rows are read from stored maps of logits ({site['logits'].dtype})."
    return SiteOffer(
        name,
        tuple(int(layer) for layer in site["layer"].values),
        tuple(int(head) for head in site["head"].values),
        tuple(statistic for statistic in STATISTICS if statistic in site),
        rows,
        origin,
    )


def _at(values: xr.DataArray, **labels: int) -> xr.DataArray:
    for dim, label in labels.items():
        one_of(f"captured {dim}", label, values[dim].values.tolist())
    return values.sel(labels)
