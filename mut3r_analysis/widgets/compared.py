"""Two runs of one sequence beside each other: where they differ, and which heads do."""

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from mut3r_analysis.attention.sites import PATCH_STREAMS
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.explaining.looking import attention_at
from mut3r_analysis.foundation.labelling import held
from mut3r_analysis.motion.attention_change import attention_change
from mut3r_analysis.running import Configuration
from mut3r_analysis.widgets.attention_explorer import AttentionExplorer

_SAMPLED = 12
"""Limits of colours are taken from so many frames, spread over a run."""
_PERCENTILE = 98
_LISTED = {"sites": 4, "layers": 5, "heads": 8}

Maps = Callable[[str, int], np.ndarray | None]
"""From a run's name and a frame's label to its error, float32 (y, x)."""


class Compared:
    """How far the second of two runs is from the first.

    Parameters
    ----------
    runs : mapping of str to DataTree
        Two.
    sequence : Dataset, optional
    errors : callable
        Relative error of depth, where there is truth.
    backbone : Backbone, optional
        Runs a frame again, where the runs kept no attention of it.
    """

    def __init__(
        self,
        runs: Mapping[str, xr.DataTree],
        sequence: xr.Dataset | None,
        errors: Maps,
        backbone: Backbone | None,
    ) -> None:
        self._runs, self._sequence, self._errors = dict(runs), sequence, errors
        self._backbone = backbone
        self.attended = lru_cache(maxsize=4)(self._attended)
        self.explorer = lru_cache(maxsize=4)(self._explorer)

    def difference(self, frame: int) -> np.ndarray | None:
        """Return the second run's map minus the first's, float32 (y, x).

        Of relative depth errors; without truth of the logarithms of depth, in percent.
        """
        one, other = (self._errors(name, frame) for name in self._runs)
        if one is not None and other is not None:
            return other - one
        known = [held(run, "prediction/depth") for run in self._runs.values()]
        depths = [depth.sel(frame=frame).values for depth in known if depth is not None]
        if len(depths) < len(known):
            return None
        first, second = (np.log(depth.clip(1e-6)) for depth in depths)
        return np.asarray(100 * (second - first), np.float32)

    def heads(self, frame: int, row: int, column: int) -> xr.DataArray:
        """Return how far heads (site, layer, head) changed for a patch, by what they write.

        By what they look at where what they write was not kept.

        Raises
        ------
        InvalidArgument
            Where no attention of that frame is known.
        """
        first, second = self.attended(frame).values()
        changed = attention_change(first, second, frame, row, column)
        if "writes" in changed:
            return changed["writes"]
        return changed["reads"].mean("statistic").assign_attrs(changed["reads"].attrs)

    def ranked(self, frame: int, row: int, column: int) -> dict[str, Any]:
        """Return sites, layers and heads, those that changed most first, with their sizes."""
        size = self.heads(frame, row, column)
        parts = {"sites": size.mean(["layer", "head"]), "layers": size.mean("head"), "heads": size}
        found: dict[str, Any] = {
            name: _places(values.to_series().dropna().nlargest(_LISTED[name]))
            for name, values in parts.items()
        }
        return found | {"label": f"{size.attrs['long_name']} ({size.attrs['units']})"}

    def told(self, frame: int, row: int, column: int) -> dict[str, Any]:
        """Return what :meth:`ranked` gives, or the ``reason`` why nothing is known."""
        try:
            return self.ranked(frame, row, column)
        except InvalidArgument as error:
            return {"reason": str(error)}

    def drawn(self, frames: list[int]) -> dict[str, Any]:
        """Say what differences are of, with one scale for all frames."""

        def maps(frame: int) -> list[np.ndarray]:
            found = self.difference(frame)
            return [] if found is None else [np.abs(found)]

        one, other = self._runs
        true = any(self._errors(name, frames[0]) is not None for name in self._runs)
        what = "relative depth error" if true else "log depth, %"
        return {"title": f"{other} minus {one}", "bar": f"change of {what}",
                "limit": finite(map_limits(maps, frames)[1])}  # fmt: skip

    def runs_again(self, frame: int) -> bool:
        """Whether the runs kept no attention of a frame."""
        return not all(_attends(run, frame) for run in self._runs.values())

    def page_requests(self, frame: int, row: int, column: int) -> list[dict[str, Any]]:
        """Give what a page asks to rank heads for a patch, and to open those that are listed."""
        place = {"frame": frame, "patch_row": row, "patch_col": column}
        heads: dict[str, Any] = {"ask": "heads", **place}
        ranked = self.told(frame, row, column)
        if "reason" in ranked:
            return [heads]
        cells = [*ranked["heads"], *ranked["layers"], *ranked["sites"]]
        held = [{"ask": f"attention {what}", "frame": frame} for what in ("held", "frame")]
        return [heads, *held, *_rows_of(self.explorer(frame), place, cells)]

    def _attended(self, frame: int) -> dict[str, xr.DataTree]:
        """Return two runs whose attention at a frame is known."""
        if not self.runs_again(frame):
            return self._runs
        if self._backbone is None or self._sequence is None:
            raise InvalidArgument(
                f"these runs kept no attention of frame {frame}; give the sequence and backbone=, "
                "and it is run again when asked"
            )
        if any(run.attrs.get("intervene") for run in self._runs.values()):
            raise InvalidArgument(
                "a run that was made with intervene= cannot be run again from what it records; "
                "capture attention when it is run"
            )
        configurations = {name: Configuration.of_run(run.attrs) for name, run in self._runs.items()}
        return attention_at(self._backbone, self._sequence, configurations, frame, archive=True)

    def _explorer(self, frame: int) -> AttentionExplorer:
        runs = self.attended(frame)
        if runs is self._runs or self._sequence is None:
            return AttentionExplorer(runs, self._sequence)
        labels = self._sequence["frame"].values.tolist()
        seen = self._sequence.isel(frame=slice(0, labels.index(frame) + 1))
        return AttentionExplorer(runs, seen, frame=frame)


def map_limits(maps: Callable[[int], list[np.ndarray]], frames: list[int]) -> tuple[float, float]:
    """Return the 2nd and 98th percentiles of maps of frames spread over a run; NaN without any."""
    some = np.unique(np.linspace(0, len(frames) - 1, min(_SAMPLED, len(frames))).astype(int))
    values = [each[np.isfinite(each)] for at in some for each in maps(frames[at])]
    known = np.concatenate([np.empty(0), *values])
    if not known.size:
        return np.nan, np.nan
    low, high = np.percentile(known, [100 - _PERCENTILE, _PERCENTILE])
    return float(low), float(high)


def finite(value: float) -> float:
    """Return a limit of colours that JSON can hold, whatever was known."""
    return value if np.isfinite(value) and value > 0 else 1.0


def _rows_of(
    shown: AttentionExplorer, place: Mapping[str, int], cells: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Give what a page asks to show the attention of a patch at some cells.

    Parameters
    ----------
    shown : AttentionExplorer
    place : mapping
        ``frame``, ``patch_row`` and ``patch_col``.
    cells : list of dict
        ``site``, and ``layer`` where one is meant; without it the site's first one. Rows are
        those of all heads.
    """
    told = set()
    for cell in cells:
        site = next((each for each in shown.held["sites"] if each["name"] == cell["site"]), None)
        if site is None:
            continue
        layer = cell.get("layer", site["layers"][0])
        where = {"site": site["name"], "frame": place["frame"], "layer": layer,
                 "heads": site["heads"]}  # fmt: skip
        if (site["name"], layer) in told:
            continue
        told.add((site["name"], layer))
        if not site["rows"]:
            yield {"ask": "attention statistic", **where, "show": site["statistics"][0]["name"]}
            continue
        for side, name in (("query", site["queries"]), ("key", site["keys"])):
            stream = shown.held["streams"][name]
            if name in PATCH_STREAMS:
                token = place["patch_row"] * stream["columns"] + place["patch_col"] + stream["pose"]
            elif PATCH_STREAMS[0] in (site["queries"], site["keys"]):
                continue
            else:
                token = stream["rows"] // 2 * stream["columns"] + stream["columns"] // 2
            yield {"ask": "attention row", **where, "side": side, "token": int(token),
                   "show": "weights"}  # fmt: skip


def _attends(run: xr.DataTree, frame: int) -> bool:
    groups = run["attention"].children.values() if "attention" in run.children else ()
    return any(frame in group.to_dataset()["frame"].values for group in groups)


def _places(ranked: pd.Series) -> list[dict[str, Any]]:
    rows = ranked.rename("size").reset_index().to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]
