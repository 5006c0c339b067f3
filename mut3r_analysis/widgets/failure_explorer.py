"""Failure explorer: errors frame by frame, and what the frame looked like."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import traitlets
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.evaluation.eligibility import UnmetProtocol
from mut3r_analysis.evaluation.error_maps import errors_of
from mut3r_analysis.figures.page import Page
from mut3r_analysis.figures.seen import motion_score, true_motion
from mut3r_analysis.foundation.fields import one_of, some_of
from mut3r_analysis.running.opening import open_run
from mut3r_analysis.widgets.attention_explorer import AttentionExplorer
from mut3r_analysis.widgets.explorer import (
    MOST_BYTES,
    Answer,
    RunExplorer,
    frontend_module,
    packed,
    palette,
)
from mut3r_analysis.widgets.failure_figure import failure_figure
from mut3r_analysis.widgets.failures import aligned_series, frame_series, gate_words, named_scores

_WORST = 8


class FailureExplorer(RunExplorer):
    """Show errors as strips over frames; click a frame to see it, click a patch to look closer.

    Of the cells of a sweep: :meth:`of_sweep`.

    Parameters
    ----------
    runs : xarray.DataTree or mapping of str to xarray.DataTree
        One run, or two of one sequence under names.
    sequence : xarray.Dataset, optional
        The sequence that was run, for its frames.
    scores : xarray.Dataset or mapping of str to xarray.Dataset, optional
        What `evaluate` gave for each run; by default the runs are evaluated here, as far as they
        hold the truth.
    protocol : str
        Under which the runs are evaluated when there are no scores.
    metrics : collection of str, optional
        Strips to show, by the metrics' names.

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
        ``patch_row`` and ``patch_col`` last clicked; empty before.
    layer : int
        At which a linked attention explorer opens.

    Raises
    ------
    InvalidArgument
        When runs or scores do not fit together, or there is nothing to show per frame.
    """

    _esm = frontend_module("shared", "failure")
    _title = "Failure explorer"

    palette = traitlets.Bytes().tag(sync=True)
    cue_palette = traitlets.Bytes().tag(sync=True)
    metric = traitlets.Unicode().tag(sync=True)
    rank = traitlets.Unicode().tag(sync=True)
    patch = traitlets.Dict().tag(sync=True)
    layer = traitlets.Int(0).tag(sync=True)

    def __init__(
        self,
        runs: xr.DataTree | Mapping[str, xr.DataTree],
        sequence: xr.Dataset | None = None,
        *,
        scores: xr.Dataset | Mapping[str, xr.Dataset] | None = None,
        protocol: str = "default",
        metrics: Collection[str] | None = None,
    ) -> None:
        self._take(runs, sequence)
        self._scores = named_scores(self._runs, scores, protocol)
        found = {
            name: frame_series(run, self._scores[name], metrics) for name, run in self._runs.items()
        }
        self._series = aligned_series(found)
        if not self._series:
            raise InvalidArgument(
                "there is nothing to show per frame: the runs hold no state statistics and could "
                "not be scored; give scores=m3.evaluate(run, ...)"
            )
        self._linked: list[AttentionExplorer] = []
        held = self._describe()
        super().__init__(held=held, palette=palette("magma"), cue_palette=palette("viridis"))
        self.metric = held["series"][0]["name"]
        self.rank = held["ranks"][0]
        self.frame = self.worst()[0]

    @classmethod
    def of_sweep(
        cls,
        table: xr.Dataset,
        name: str,
        cells: Mapping[str, Mapping[str, Any]],
        sequence: xr.Dataset | None = None,
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
        sequence : xarray.Dataset, optional
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

    def _error(self, name: str, frame: int) -> np.ndarray | None:
        scores = self._scores[name]
        # Where nothing could be scored there is no alignment, and depth is taken as it is.
        scored = scores is not None and "depth_alignment_scale" in scores
        protocol = "default" if scored else "default:depth:metric"
        try:
            found = errors_of(self._runs[name], protocol, scores=scores, frames=[frame])
        except UnmetProtocol:
            return None
        return found["error"].values[0]

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
        found = {run: self.error_map(run) for run in self._runs}
        errors = {run: error for run, error in found.items() if error is not None}
        return failure_figure(strips, errors, self.frame, self.held["notes"][0], size)

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
        ]
        return self._write_page(path, requests, most_bytes)

    def answer(self, request: dict[str, Any]) -> Answer:
        """Answer the page: all strips, or the pictures of a frame."""
        if request.get("ask") == "strips":
            return {}, [np.stack([both.values for both in self._series.values()])]
        if request.get("ask") == "frame":
            return self._frame(int(request["frame"]))
        raise InvalidArgument(f"this explorer does not know {request.get('ask')!r}")

    def _frame(self, frame: int) -> Answer:
        errors = [self._error(name, frame) for name in self._runs]
        return packed(
            {
                "image": self._image(frame),
                "truth": true_motion(self._first, frame),
                "errors": errors,
                "cues": [motion_score(run, frame) for run in self._runs.values()],
            }
        )

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
        }

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
            f"the run of {asked} is not finished; the table's status and error say why, and the "
            "same sweep started again goes on with it"
        )
    return str(cell.item())
