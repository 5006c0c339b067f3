"""Failure explorer: errors frame by frame, and what the frame looked like."""

from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import traitlets
import xarray as xr

from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.evaluation.eligibility import UnmetProtocol
from mut3r_analysis.evaluation.error_maps import errors_of, over_patches
from mut3r_analysis.figures.cells import DIVERGING_COLORS
from mut3r_analysis.figures.page import Page
from mut3r_analysis.figures.seen import motion_score, true_motion
from mut3r_analysis.figures.styling import DEPTH_COLORS
from mut3r_analysis.foundation.fields import one_of, some_of
from mut3r_analysis.foundation.labelling import held
from mut3r_analysis.running.opening import open_run
from mut3r_analysis.widgets.attention_explorer import AttentionExplorer
from mut3r_analysis.widgets.compared import Compared, finite, map_limits
from mut3r_analysis.widgets.explorer import (
    MOST_BYTES,
    Answer,
    RunExplorer,
    frontend_module,
    packed,
    palette,
)
from mut3r_analysis.widgets.failure_figure import failure_figure
from mut3r_analysis.widgets.failures import (
    aligned_series,
    frame_series,
    gate_words,
    named_scores,
    with_difference,
)

_WORST = 8


class FailureExplorer(RunExplorer):
    """Show errors as strips over frames; click a frame to see it, click a patch to look closer.

    Two runs are ranked and drawn by their difference: of errors, or without truth of depth. Beside
    the map stand the sites, layers and heads that changed most for a patch, and a click on one
    opens its attention in both runs.

    Of the cells of a sweep: :meth:`of_sweep`.

    Parameters
    ----------
    runs : xarray.DataTree or mapping of str to xarray.DataTree
        One run, or two of one sequence under names.
    sequence : xarray.Dataset, str or Path, optional
        The sequence that was run, for its frames.
    scores : xarray.Dataset or mapping of str to xarray.Dataset, optional
        What `evaluate` gave for each run; by default the runs are evaluated here, as far as they
        hold the truth.
    protocol : str
        Under which the runs are evaluated when there are no scores.
    metrics : collection of str, optional
        Strips to show, by the metrics' names.
    backbone : Backbone, optional
        Of the runs: runs a frame again when its heads are asked for and the runs kept no attention
        of it.

    Attributes
    ----------
    frame : int
        Label of the frame that is looked at.
    metric : str
        By which frames are ranked.
    rank : str
        ``"difference"`` (the second run's error minus the first's), with which two runs begin, or
        a run's name.
    patch : dict
        ``patch_row`` and ``patch_col`` last clicked in this frame; empty before, which is the patch
        where two runs differ most.
    layer : int
        At which a linked attention explorer opens.

    Raises
    ------
    InvalidArgument
        When runs or scores do not fit together, or there is nothing to show per frame.

    Examples
    --------
    >>> explorer = FailureExplorer({"plain": run, "gated": gated}, sequence)
    >>> explorer.save_html("failures.html").name
    'failures.html'
    """

    _esm = frontend_module("shared", "attention", "failure")
    _title = "Failure explorer"

    palette = traitlets.Bytes().tag(sync=True)
    cue_palette = traitlets.Bytes().tag(sync=True)
    difference_palette = traitlets.Bytes().tag(sync=True)
    metric = traitlets.Unicode().tag(sync=True)
    rank = traitlets.Unicode().tag(sync=True)
    patch = traitlets.Dict().tag(sync=True)
    layer = traitlets.Int(0).tag(sync=True)

    def __init__(
        self,
        runs: xr.DataTree | Mapping[str, xr.DataTree],
        sequence: xr.Dataset | str | Path | None = None,
        *,
        scores: xr.Dataset | Mapping[str, xr.Dataset] | None = None,
        protocol: str = "default",
        metrics: Collection[str] | None = None,
        backbone: Backbone | None = None,
    ) -> None:
        self._take(runs, sequence)
        self._scores = named_scores(self._runs, scores, protocol)
        self._error = lru_cache(maxsize=32)(self._scored_error)
        found = {
            name: frame_series(run, self._scores[name], metrics) for name, run in self._runs.items()
        }
        pair = len(self._runs) == 2
        self._compared = (
            Compared(self._runs, self._sequence, self._error, backbone) if pair else None
        )
        self._series = aligned_series(found)
        if pair and not any(self._scores.values()):
            self._series = with_difference(self._series, self._runs)
        if not self._series:
            raise InvalidArgument(
                "there is nothing to show per frame: the runs hold no state statistics and could "
                "not be scored; give scores=m3.evaluate(run, ...)"
            )
        self._linked: list[AttentionExplorer] = []
        about = self._describe()
        super().__init__(
            held=about,
            palette=palette("magma" if about["map"]["error"] else DEPTH_COLORS),
            cue_palette=palette("viridis"),
            difference_palette=palette(DIVERGING_COLORS),
        )
        self.metric = about["series"][0]["name"]
        self.rank = about["ranks"][0]
        self.frame = self.worst()[0]

    @classmethod
    def of_sweep(
        cls,
        table: xr.Dataset,
        name: str,
        cells: Mapping[str, Mapping[str, Any]],
        sequence: xr.Dataset | str | Path | None = None,
        **options: Any,
    ) -> "FailureExplorer":
        """Explore cells of a sweep on one of its sequences.

        Parameters
        ----------
        table : xarray.Dataset
            From `sweep` or `open_sweep`.
        name : str
            The sequence, as the table labels it.
        cells : mapping
            One or two runs: name -> the labels of its configuration, for example
            ``{"plain": {"configuration": "plain"}, "gated": {"configuration": "own cue"}}``.
        sequence : xarray.Dataset, str or Path, optional
            The sequence that was run, for its frames.
        **options
            As for the class.

        Raises
        ------
        InvalidArgument
            For labels that the table does not have, that leave more than one run, or whose run
            is not finished.
        """
        if not isinstance(table, xr.Dataset) or "run" not in table:
            raise InvalidArgument("give the table that m3.sweep or m3.open_sweep returned")
        runs = {
            given: open_run(_store_of(table["run"], {**labels, "sequence": name}))
            for given, labels in cells.items()
        }
        return cls(runs, sequence, **options)

    def worst(self, count: int = _WORST) -> list[int]:
        """Return the labels of the worst frames under the current ranking, worst first."""
        values = self._badness()
        order = np.argsort(-np.where(np.isfinite(values), values, -np.inf), kind="stable")
        ranked = [int(self.held["frames"][at]) for at in order if np.isfinite(values[at])]
        return ranked[:count] or [int(self.held["frames"][0])]

    def series(self, metric: str, run: str | None = None) -> xr.DataArray:
        """Return one strip, labelled by frame.

        Raises
        ------
        InvalidArgument
            For a strip or a run that is not there.
        """
        one_of("metric", metric, list(self._series))
        return self._series[metric].sel(run=self._run_name(run), drop=True)

    def error_map(self, run: str | None = None) -> np.ndarray | None:
        """Return the relative depth error of the current frame, float32 (y, x)."""
        return self._error(self._run_name(run), self.frame)

    def difference_map(self) -> np.ndarray | None:
        """Return the second run's error minus the first's in the current frame, float32 (y, x).

        Without truth it is the difference of the logarithms of depth, in percent.

        Raises
        ------
        InvalidArgument
            When there is one run only.
        """
        return self._both().difference(self.frame)

    def head_changes(self) -> xr.DataArray:
        """Return how far heads (site, layer, head) changed for the patch that is looked at.

        Raises
        ------
        InvalidArgument
            When there is one run only, or no attention of the frame.
        """
        chosen = [self.patch[name] for name in _PLACE[1:]] if self.patch else None
        row, column = chosen or self._worst_patch(self.frame) or (0, 0)
        return self._both().heads(self.frame, row, column)

    def _both(self) -> Compared:
        if self._compared is None:
            raise InvalidArgument("there is one run; give two, {'plain': run, 'gated': other}")
        return self._compared

    def _scored_error(self, name: str, frame: int) -> np.ndarray | None:
        scores = self._scores[name]
        # Where nothing could be scored there is no alignment, and depth is taken as it is.
        scored = scores is not None and "depth_alignment_scale" in scores
        protocol = "default" if scored else "default:depth:metric"
        try:
            found = errors_of(self._runs[name], protocol, scores=scores, frames=[frame])
        except UnmetProtocol:
            return None
        return found["error"].values[0]

    def _map(self, name: str, frame: int) -> np.ndarray | None:
        """Return what is drawn of a run: its error, or its depth where no run has any."""
        if self.held["map"]["error"]:
            return self._error(name, frame)
        depth = held(self._runs[name], "prediction/depth")
        return None if depth is None else depth.sel(frame=frame).values.astype(np.float32)

    def _worst_patch(self, frame: int) -> list[int] | None:
        """Return row and column of the patch where the second run is worst beside the first."""
        found = None if self._compared is None else self._compared.difference(frame)
        if found is None:
            return None
        # A difference of depth is as bad to either side.
        pixels = found if self.held["map"]["error"] else np.abs(found)
        grid = (self.held["grid"]["rows"], self.held["grid"]["columns"])
        patches = over_patches(xr.DataArray(pixels[None], dims=("frame", "y", "x")), grid)[0]
        if not patches.notnull().any():
            return None
        return [int(place) for place in patches.argmax(...).values()]

    def attention_explorer(self, **view: Any) -> AttentionExplorer:
        """Open an attention explorer that follows: a clicked patch is held there at its frame.

        Parameters
        ----------
        **view
            Where it begins, as for :class:`AttentionExplorer`.
        """
        explorer = AttentionExplorer(self._runs, self._sequence, **view)
        self._linked.append(explorer)
        self.layer = explorer.layer
        self._lead(None)
        return explorer

    @traitlets.observe("frame", "patch", "layer")
    def _lead(self, _: Any) -> None:
        for explorer in getattr(self, "_linked", []):
            if self.frame in explorer.held["frames"]:
                explorer.frame = self.frame
            if self.layer in explorer.held_site()["layers"]:
                explorer.layer = self.layer
            streams = {explorer.held_site()["queries"], explorer.held_site()["keys"]}
            if self.patch and streams & {"image", "patches"}:
                explorer.select("patch", self.patch["patch_row"], self.patch["patch_col"])

    def _draw(self, size: str) -> Page:
        strips = {
            each["label"]: {run: self.series(each["name"], run) for run in self._runs}
            for each in self.held["series"]
        }
        found = {run: self._map(run, self.frame) for run in self._runs}
        maps = {run: each for run, each in found.items() if each is not None}
        change = None if self._compared is None else self.difference_map()
        return failure_figure(strips, maps, change, self.held, self.frame, size)

    def save_html(
        self,
        path: str | Path,
        *,
        frames: Collection[int] | None = None,
        most_bytes: int = MOST_BYTES,
    ) -> Path:
        """Write the explorer as one page that needs neither a kernel nor a network.

        Parameters
        ----------
        path : str or Path
            Ends in ``.html``.
        frames : collection of int, optional
            Whose pictures the page holds; by default the worst ones and the current one. Strips
            are always whole.
        most_bytes : int
            Refuse a page with more numbers than this.

        Returns
        -------
        Path

        Raises
        ------
        InvalidArgument
            For a frame that was not run, or a page that would be too large.
        AlreadyExists
            When the path holds something else than such a page.
        """
        chosen = [self.frame, *self.worst()] if frames is None else frames
        wanted = list(dict.fromkeys(int(frame) for frame in chosen))
        some_of("frames", wanted, self.held["frames"])
        requests: list[dict[str, Any]] = [
            {"ask": "strips"},
            *({"ask": "frame", "frame": each} for each in wanted),
            *(request for each in wanted for request in self._attention_requests(each)),
        ]
        return self._write_page(path, requests, most_bytes)

    def _attention_requests(self, frame: int) -> list[dict[str, Any]]:
        """Give what the page asks to rank heads at a frame's worst patch and to open one.

        In the frame that is looked at, at the patch that was clicked as well.
        """
        both, patches = self._compared, [self._worst_patch(frame)]
        if self.patch and frame == self.frame:
            patches.append([self.patch[name] for name in _PLACE[1:]])
        # A frame that has to be run again first is kept where it is looked at.
        if both is None or (frame != self.frame and both.runs_again(frame)):
            return []
        known = [patch for patch in patches if patch is not None]
        return [request for patch in known for request in both.page_requests(frame, *patch)]

    def answer(self, request: dict[str, Any]) -> Answer:
        """Answer the page: all strips, or the pictures of a frame."""
        if request.get("ask") == "strips":
            return {}, [np.stack([both.values for both in self._series.values()])]
        if request.get("ask") == "frame":
            return self._frame(int(request["frame"]))
        if request.get("ask") == "heads":
            return self._both().told(*(int(request[name]) for name in _PLACE)), []
        what, _, asked = str(request.get("ask")).partition(" ")
        if what == "attention":
            shown = self._both().explorer(int(request["frame"]))
            return (
                ({"held": shown.held}, [])
                if asked == "held"
                else shown.answer({**request, "ask": asked})
            )
        raise InvalidArgument(f"this explorer does not know {request.get('ask')!r}")

    def _frame(self, frame: int) -> Answer:
        both = self._compared
        values, arrays = packed(
            {
                "image": self._image(frame),
                "truth": true_motion(self._first, frame),
                "maps": [self._map(name, frame) for name in self._runs],
                "difference": None if both is None else both.difference(frame),
                "cues": [motion_score(run, frame) for run in self._runs.values()],
            }
        )
        return values | {"worst_patch": self._worst_patch(frame)}, arrays

    def _describe(self) -> dict[str, Any]:
        backbone = self._first.attrs["backbone"]
        depth = self._first["prediction"].to_dataset().sizes
        patch = backbone.get("config", {}).get("patch_size", backbone["preparation"]["patch"])
        height, width = depth.get("y", 3 * patch), depth.get("x", 4 * patch)
        names = list(self._runs)
        return self._about() | {
            "ranks": [*(["difference"] if len(names) > 1 else []), *names],
            "gates": [gate_words(run) for run in self._runs.values()],
            "frames": self._frames,
            "series": [
                {
                    "name": name,
                    "label": both.attrs["long_name"],
                    "higher_is_better": both.attrs["higher_is_better"],
                }
                for name, both in self._series.items()
            ],
            "image": {"height": height, "width": width},
            "grid": {"rows": height // patch, "columns": width // patch},
            "layers": backbone.get("config", {}).get("dec_depth", 0),
            "worst": _WORST,
            "map": self._drawn(),
            "cues": ["cue" in run.children for run in self._runs.values()],
            "difference": None if self._compared is None else self._compared.drawn(self._frames),
        }

    def _drawn(self) -> dict[str, Any]:
        """Say what is drawn of each run, with one scale for all frames."""
        names = list(self._runs)

        def maps(frame: int) -> list[np.ndarray]:
            found = [self._error(name, frame) for name in names]
            return [each for each in found if each is not None]

        high = map_limits(maps, self._frames)[1]
        if not np.isnan(high):
            bar = "|aligned − true| / true depth"
            return {"error": True, "title": "relative depth error", "bar": bar, "low": 0.0,
                    "high": high}  # fmt: skip
        depths = [held(run, "prediction/depth") for run in self._runs.values()]
        known = [depth for depth in depths if depth is not None]
        low, high = map_limits(lambda frame: [d.sel(frame=frame).values for d in known],
                               self._frames)  # fmt: skip
        title = "depth (no truth to compare with)"
        return {"error": False, "title": title, "bar": "depth (m)", "low": finite(low),
                "high": finite(high)}  # fmt: skip

    def _badness(self) -> np.ndarray:
        """How bad every frame is under the current ranking."""
        both = self._series[self.metric]
        sign = -1.0 if both.attrs["higher_is_better"] else 1.0
        if self.rank == "difference":
            return sign * (both.values[1] - both.values[0])
        return sign * both.sel(run=self.rank).values

    def _choices(self) -> dict[str, Any]:
        return super()._choices() | {"metric": list(self._series), "rank": self.held["ranks"]}

    @traitlets.validate("metric")
    def _check_metric(self, proposal: Any) -> str:
        return str(one_of("metric", proposal["value"], list(self._series)))

    @traitlets.validate("rank")
    def _check_rank(self, proposal: Any) -> str:
        return str(one_of("rank", proposal["value"], self.held["ranks"]))


_PLACE = ("frame", "patch_row", "patch_col")


def _store_of(stores: xr.DataArray, labels: dict[str, Any]) -> str:
    """Return where the run of one cell of a sweep is."""
    asked = ", ".join(f"{dim}={label!r}" for dim, label in labels.items())
    try:
        cell = stores.sel(labels)
    except KeyError as error:
        known = "; ".join(f"{dim}: {stores[dim].values.tolist()}" for dim in stores.dims)
        raise InvalidArgument(f"the sweep has no cell {asked}; it has {known}") from error
    if cell.ndim:
        raise InvalidArgument(
            f"{asked} leaves {', '.join(map(str, cell.dims))} open; give a label for each"
        )
    if not cell.item():
        raise InvalidArgument(
            f"the run of {asked} is not finished; the table's status and error say why. Start the "
            "same sweep again to finish it"
        )
    return str(cell.item())
