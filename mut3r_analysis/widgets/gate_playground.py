"""Gate playground: turn a knob, see depth, pose and cue of a short sequence change."""

import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import traitlets
import xarray as xr

from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.evaluation import evaluate
from mut3r_analysis.figures.cells import DIVERGING_COLORS
from mut3r_analysis.figures.page import Page
from mut3r_analysis.figures.seen import frames_seen, motion_score, true_motion
from mut3r_analysis.figures.styling import DEPTH_COLORS
from mut3r_analysis.foundation.fields import one_of, whole
from mut3r_analysis.metrics import find_metric
from mut3r_analysis.metrics.errors import UndefinedMetric
from mut3r_analysis.motion import DIRECTIONS, READINGS, REALISATIONS, Cue, Gate
from mut3r_analysis.running import run
from mut3r_analysis.running.inputs import check_inputs
from mut3r_analysis.widgets.explorer import Answer, Explorer, frontend_module, packed, palette
from mut3r_analysis.widgets.playground_figure import MOST_CHANGE, playground_figure, relative_change

OFF = "off"
METRICS = {name: find_metric(name).labelled() for name in ("abs_rel", "ate", "rpe_rotation")}
_KEPT_RUNS = 12
_MOST_FRAMES = 32
# Knobs begin at the latest edition of MUT3R's cue and gate, on all layers.
_START = Gate.mut3r()
_SETTINGS = ("reading", "beta", "first_layer", "last_layer", *DIRECTIONS)


class GatePlayground(Explorer):
    """Run a backbone over a short sequence again at every setting, beside the plain backbone.

    A frame, its depth in both, how much that changed (one scale for all frames and settings), the
    motion score, and the scores before and after, where there is truth.

    A setting that cannot change anything is not run: the playground says why it is inert.
    ``save_html`` keeps the current setting at all frames.

    Parameters
    ----------
    backbone : Backbone
    sequence : xarray.Dataset, str or Path
        At most 32 frames; open a longer one with ``stop=``.

    Attributes
    ----------
    reading : str
        What the cue reads of image self-attention, or ``"mask"`` for the true motion.
    beta : float
    first_layer, last_layer : int
        Half-open range of gated layers.
    image_self, state_to_image, image_to_state : str
        Realisation at each site, or ``"off"``.
    frame : int
        Label.

    Raises
    ------
    InvalidArgument
        For a sequence that is too long, or a setting that does not exist.

    Examples
    --------
    >>> playground = GatePlayground("tiny", sequence)
    >>> playground.beta = 2.0
    """

    _esm = frontend_module("shared", "playground")
    _title = "Gate playground"

    palette = traitlets.Bytes().tag(sync=True)
    cue_palette = traitlets.Bytes().tag(sync=True)
    difference_palette = traitlets.Bytes().tag(sync=True)
    reading = traitlets.Unicode(Cue.mut3r().reading).tag(sync=True)
    beta = traitlets.Float(1.0, min=0).tag(sync=True)
    first_layer = traitlets.Int(0).tag(sync=True)
    last_layer = traitlets.Int(1).tag(sync=True)
    image_self = traitlets.Unicode(_START.image_self).tag(sync=True)
    state_to_image = traitlets.Unicode(_START.state_to_image).tag(sync=True)
    image_to_state = traitlets.Unicode(_START.image_to_state).tag(sync=True)

    def __init__(self, backbone: Backbone | str | Path, sequence: xr.Dataset | str | Path) -> None:
        backbone, sequence = check_inputs(backbone, sequence, None)
        if sequence.sizes.get("frame", 0) > _MOST_FRAMES:
            raise InvalidArgument(
                f"{sequence.sizes['frame']} frames take too long for every turn of a knob; open "
                f"the sequence with stop={_MOST_FRAMES} or less"
            )
        self._backbone, self._sequence = backbone, sequence
        self._done = lru_cache(maxsize=_KEPT_RUNS)(self._carried_out)
        self._depth = backbone.decoder_layers
        height, width = backbone.preparation.shape(sequence.sizes["y"], sequence.sizes["x"])
        patch = backbone.patch_size
        name = sequence.attrs.get("name")
        held: dict[str, Any] = {
            "frames": [int(frame) for frame in sequence["frame"].values],
            "readings": [*READINGS, *(["mask"] if "motion_mask" in sequence else [])],
            "realisations": {site: [OFF, *REALISATIONS[site]] for site in DIRECTIONS},
            "depth": self._depth,
            "image": {"height": height, "width": width},
            "grid": {"rows": height // patch, "columns": width // patch},
            "metrics": METRICS,
            "most_change": MOST_CHANGE,
            "note": f"{name}, {backbone.origin.name}, {backbone.update} update",
        }
        super().__init__(
            held=held,
            palette=palette(DEPTH_COLORS),
            cue_palette=palette("viridis"),
            difference_palette=palette(DIVERGING_COLORS),
        )
        self.last_layer = self._depth
        self.frame = held["frames"][-1]

    def gate(self) -> Gate:
        """Return the gate of the current setting."""
        return _gate(self._settings())

    def cue(self) -> Cue:
        """Return the cue of the current setting."""
        return _cue(self.reading)

    def runs(self) -> dict[str, xr.DataTree]:
        """Return the plain run, and the gated one unless the setting is inert."""
        plain, _ = self._run(None)
        if self.gate().inert(self._depth):
            return {"plain": plain}
        return {"plain": plain, "gated": self._run(self._settings())[0]}

    def __repr__(self) -> str:
        gate, frames = self.gate().describe_layers(self._depth), len(self.held["frames"])
        return f"{self._title} on {self.held['note']} ({frames} frames), gates on {gate}"

    def answer(self, request: dict[str, Any]) -> Answer:
        """Answer the page: scores before and after, and the maps of one frame."""
        if request.get("ask") != "setting":
            raise InvalidArgument(f"this playground does not know {request.get('ask')!r}")
        settings = {name: request[name] for name in _SETTINGS}
        gate = _gate(settings)
        inert = gate.inert(self._depth)
        plain, before = self._run(None)
        gated, after = (plain, before) if inert else self._run(settings)
        frame = int(request["frame"])
        one, other = (
            tree["prediction"].to_dataset()["depth"].sel(frame=frame).values.astype(np.float32)
            for tree in (plain, gated)
        )
        values, arrays = packed(
            {
                "depths": [one, other],
                "image": frames_seen(plain, self._sequence, np.array([frame])).values[0],
                "change": relative_change(one, other),
                "cue": motion_score(gated, frame),
                "truth": true_motion(plain, frame),
            }
        )
        more = {
            "inert": inert,
            "layers": gate.describe_layers(self._depth),
            "scores": {name: [before.get(name), after.get(name)] for name in METRICS},
        }
        return values | more, arrays

    def _choices(self) -> dict[str, Any]:
        layers = list(range(self._depth + 1))
        return {
            "reading": self.held["readings"], **self.held["realisations"],
            "beta": (0.0, 8.0, 0.25), "first_layer": layers, "last_layer": layers,
            **super()._choices(),
        }  # fmt: skip

    def _draw(self, size: str) -> Page:
        inert = self.gate().inert(self._depth)
        return playground_figure(self.runs(), self.frame, self.reading, inert, size)

    def _page_requests(self) -> Iterable[dict[str, Any]]:
        """Ask for the current setting at all frames."""
        settings = self._settings()
        return [{"ask": "setting", **settings, "frame": frame} for frame in self.held["frames"]]

    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _SETTINGS} | {"beta": _plain(self.beta)}

    def _run(self, settings: dict[str, Any] | None) -> tuple[xr.DataTree, dict[str, float]]:
        return self._done(json.dumps(settings, sort_keys=True))

    def _carried_out(self, text: str) -> tuple[xr.DataTree, dict[str, float]]:
        """Return a run by its settings, as JSON, and its scores."""
        settings = json.loads(text)
        more: dict[str, Any] = {}
        if settings is not None:
            more = {"cue": _cue(str(settings["reading"])), "gate": _gate(settings)}
        tree = run(self._backbone, self._sequence, progress=False, **more)
        try:
            found = evaluate(tree)
        except UndefinedMetric:
            # Without truth there are maps to look at, and no numbers.
            return tree, {}
        values = {name: float(found[name][0]) for name in METRICS if name in found}
        return tree, {name: value for name, value in values.items() if np.isfinite(value)}

    @traitlets.validate("reading", *DIRECTIONS)
    def _check_name(self, proposal: Any) -> str:
        name, value = proposal["trait"].name, proposal["value"]
        known = self.held["readings"] if name == "reading" else self.held["realisations"][name]
        return str(one_of(name, value, known))

    @traitlets.validate("first_layer", "last_layer")
    def _check_layer(self, proposal: Any) -> int:
        return whole(proposal["trait"].name, proposal["value"], 0, self._depth)


def _plain(number: float) -> float | int:
    """Write whole numbers as JavaScript does, so that a page finds its recorded answers."""
    return int(number) if number == int(number) else number


def _cue(reading: str) -> Cue:
    return Cue.oracle() if reading == "mask" else Cue.mut3r(reading=reading)


def _gate(settings: dict[str, Any]) -> Gate:
    sites: dict[str, Any] = {
        site: None if settings[site] == OFF else settings[site] for site in DIRECTIONS
    }
    first, last = sorted((int(settings["first_layer"]), int(settings["last_layer"])))
    return Gate(beta=float(settings["beta"]), layers=(first, last), **sites)
