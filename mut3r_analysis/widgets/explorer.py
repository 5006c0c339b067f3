"""What all explorers share: answering a page's questions, with a kernel and without one."""

import base64
import html
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import matplotlib
import numpy as np
import traitlets
import xarray as xr

from mut3r_analysis.errors import AlreadyExists, InvalidArgument, Mut3rError
from mut3r_analysis.figures.page import Page
from mut3r_analysis.figures.reading import Runs, named_runs, of_one_sequence, source_line
from mut3r_analysis.figures.seen import CUE_THRESHOLD, frames_seen
from mut3r_analysis.foundation.fields import one_of, some_of
from mut3r_analysis.foundation.paths import user_path
from mut3r_analysis.running.source_of_run import sequence_of
from mut3r_analysis.widgets.controls import linked_controls

MOST_BYTES = 64 * 2**20
"""A page without a kernel holds at most so many bytes of numbers, unless more are asked for."""

FRONTEND = Path(__file__).with_name("frontend")

Answer = tuple[dict[str, Any], list[np.ndarray]]
"""Plain values, and arrays that travel as bytes."""


@cache
def frontend_module(*names: str) -> str:
    """Join JavaScript files into one module, which is all a notebook can load without a bundler.

    It shows what the last of them renders: ``scene.js`` has a function ``renderScene``.
    """
    parts = [(FRONTEND / f"{name}.js").read_text(encoding="utf-8") for name in names]
    return "\n".join([*parts, f"export default {{ render: render{names[-1].capitalize()} }};\n"])


@cache
def frontend_style() -> str:
    """Return the style sheet of the explorers."""
    return (FRONTEND / "explorer.css").read_text(encoding="utf-8")


@cache
def palette(name: str) -> bytes:
    """Return 256 colours of a matplotlib colour map, red, green and blue."""
    colors = matplotlib.colormaps[name](np.arange(256))[:, :3]
    return np.round(colors * 255).astype(np.uint8).tobytes()


def runs_to_explore(runs: Runs, most: int) -> dict[str, xr.DataTree]:
    """Return runs of one sequence by name, at most so many.

    Raises
    ------
    InvalidArgument
        For something else.
    """
    named = named_runs(runs, alone="run")
    if len(named) > most:
        raise InvalidArgument(f"{len(named)} runs were given; at most {most} are shown together")
    for name, run in named.items():
        if "prediction" not in run.children:
            raise InvalidArgument(
                f"{name!r} is not a run; give what m3.run or m3.open_run returned"
            )
    of_one_sequence(named)
    return named


def packed(named: Mapping[str, np.ndarray | list[np.ndarray | None] | None]) -> Answer:
    """Answer with arrays by name: each name says at which place its array is, or None."""
    arrays: list[np.ndarray] = []

    def place(array: np.ndarray | None) -> int | None:
        if array is None:
            return None
        arrays.append(array)
        return len(arrays) - 1

    values = {
        name: [place(each) for each in given] if isinstance(given, list) else place(given)
        for name, given in named.items()
    }
    return values, arrays


class Explorer(anywidget.AnyWidget):
    """A widget whose page asks questions and draws the answers."""

    _css = frontend_style()
    _title = "Explorer"

    held = traitlets.Dict().tag(sync=True)
    frame = traitlets.Int().tag(sync=True)
    own_controls = traitlets.Bool(True).tag(sync=True)
    # Kept with a notebook's widgets, so that its page can lead to the explorer's own.
    _saved_page = traitlets.Unicode().tag(sync=True)
    # Of the view that was saved, for where another widget that holds this one was shown.
    _picture = traitlets.Unicode().tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self.on_msg(self._reply)

    def _repr_mimebundle_(self, **how: Any) -> Any:
        """Give a notebook the widget, and the figure to show where no widget can live."""
        if (shown := super()._repr_mimebundle_(**how)) is None:
            return None
        data, metadata = shown
        with suppress(Mut3rError):
            data["image/png"], metadata["image/png"] = self._png()
        return data, metadata

    def _png(self) -> tuple[str, dict[str, int]]:
        """Return the figure as a PNG in base64, and the size at which it is shown."""
        picture, size = self.figure()._repr_png_()
        return base64.b64encode(picture).decode(), size

    def answer(self, request: dict[str, Any]) -> Answer:
        """Answer a question of the page.

        Raises
        ------
        InvalidArgument
            When there is no such thing to show.
        """
        raise NotImplementedError

    def controls(self, *names: str) -> ipywidgets.VBox:
        """Return ipywidgets for attributes: each follows the explorer, and the explorer follows it.

        An explorer is a widget itself, so that it stands in a `HBox` beside others, and
        `ipywidgets.link` ties its attributes to those of any other widget.

        Parameters
        ----------
        *names : str
            Attributes, for example ``"frame"``; by default all that can be chosen. Set
            ``own_controls = False`` to hide those that the explorer draws itself.

        Raises
        ------
        InvalidArgument
            For what is no such attribute.

        Examples
        --------
        >>> explorer = m3.widgets.SceneView(run)
        >>> explorer.own_controls = False
        >>> ipywidgets.HBox([explorer.controls("frame", "coloring"), explorer])  # doctest: +SKIP
        >>> slider = ipywidgets.IntSlider(max=explorer.frame)  # a slider of one's own
        >>> link = ipywidgets.link((slider, "value"), (explorer, "frame"))
        >>> slider.value = 1
        >>> explorer.frame
        1
        >>> def depth(frame):
        ...     return run["prediction/depth"].sel(frame=frame).mean().item()
        >>> ipywidgets.interactive(depth, frame=slider)  # doctest: +SKIP
        """
        known = self._choices()
        some_of("controls", names or known, known)
        return ipywidgets.VBox(linked_controls(self, names or tuple(known), self._choices))

    def _choices(self) -> dict[str, Any]:
        """Return what can be chosen: attribute -> its values, or a range with its step."""
        found: dict[str, Any] = {"frame": self.held["frames"]}
        for name, trait in self.traits(sync=True).items():
            if name not in anywidget.AnyWidget.class_trait_names() and name != "own_controls":
                if isinstance(trait, traitlets.Enum):
                    found[name] = list(trait.values or ())
                elif isinstance(trait, traitlets.Bool):
                    found[name] = [False, True]
        return found

    def figure(self, *, size: str = "page") -> Page:
        """Draw the current view as a figure for a paper.

        Parameters
        ----------
        size : {"column", "page", "slide"}
        """
        return self._draw(size)

    def save_html(self, path: str | Path, *, most_bytes: int = MOST_BYTES) -> Path:
        """Write the explorer as one page that needs neither a kernel nor a network.

        Parameters
        ----------
        path : str or Path
            Ends in ``.html``.
        most_bytes : int
            Refuse a page with more numbers than this.

        Returns
        -------
        Path

        Raises
        ------
        InvalidArgument
            When the page would be too large.
        AlreadyExists
            When the path holds something else than such a page.
        """
        return self._write_page(path, self._page_requests(), most_bytes)

    def page_state(self) -> dict[str, Any]:
        """Return the synchronised values that a page without a kernel starts from."""
        inherited = anywidget.AnyWidget.class_traits(sync=True)
        own = [name for name in self.traits(sync=True) if name not in inherited]
        values = {name: getattr(self, name) for name in own if not name.startswith("_")}
        return values | {"own_controls": True}

    def _reply(self, _: Any, content: dict[str, Any], __: Any) -> None:
        request = {name: value for name, value in content.items() if name != "id"}
        try:
            values, arrays = self.answer(request)
        except Mut3rError as error:
            values, arrays = {"error": str(error)}, []
        except Exception as error:
            # A page that waits for an answer must get one, whatever goes wrong.
            values, arrays = {"error": f"{type(error).__name__}: {error}"}, []
        self.send({"id": content.get("id"), **values}, [_bytes(array) for array in arrays])

    def _draw(self, size: str) -> Page:
        raise NotImplementedError

    def _page_requests(self) -> Iterable[dict[str, Any]]:
        """Give all that a page without a kernel may ask."""
        raise NotImplementedError

    def _page_title(self) -> str:
        return self._title

    def _write_page(
        self, path: str | Path, requests: Iterable[dict[str, Any]], most_bytes: int, **state: Any
    ) -> Path:
        """Write the page with the answers to all `requests`, and other values than the present."""
        path = user_path(path)
        if path.suffix != ".html":
            raise InvalidArgument(
                f"a page is written to a path that ends in .html, got {str(path)!r}"
            )
        if path.exists() and not path.read_bytes()[:2000].count(_MARK):
            raise AlreadyExists(f"{path} exists and is no explorer's page; choose another name")
        answers: dict[str, Any] = {}
        size = 0
        for request in requests:
            answer, arrays = self.answer(request)
            size += sum(array.nbytes for array in arrays)
            if size > most_bytes:
                raise InvalidArgument(
                    f"the page would hold more than {most_bytes / 2**20:.0f} MiB of rows; choose "
                    "fewer frames, layers or heads, or raise most_bytes"
                )
            encoded = [base64.b64encode(_bytes(array)).decode() for array in arrays]
            answers[_request_key(request)] = [answer, encoded]
        values = self.page_state() | state
        page = (FRONTEND / "page.html").read_text(encoding="utf-8")
        parts = {
            "TITLE": html.escape(self._page_title(), quote=False),
            "STYLE": frontend_style(),
            "STATE": _script_json(
                {
                    name: {"base64": base64.b64encode(each).decode()}
                    if isinstance(each, bytes)
                    else each
                    for name, each in values.items()
                }
            ),
            "ANSWERS": _script_json(answers),
            "MODULE": base64.b64encode(str(self._esm).encode()).decode(),
        }
        for name, text in parts.items():
            page = page.replace(f"%{name}%", text)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
        with suppress(Mut3rError):
            self._picture, _ = self._png()
        self._saved_page = str(path.resolve())
        return path

    @traitlets.validate("frame")
    def _check_frame(self, proposal: Any) -> int:
        return int(one_of("frame", proposal["value"], self.held["frames"]))


class RunExplorer(Explorer):
    """An explorer of runs of one sequence, by name."""

    def _take(
        self,
        runs: xr.DataTree | Mapping[str, xr.DataTree],
        sequence: xr.Dataset | str | Path | None,
        most: int = 2,
    ) -> None:
        """Take up to so many runs, and the sequence; refuse now what does not fit together."""
        self._runs = runs_to_explore(runs, most)
        self._first = next(iter(self._runs.values()))
        self._sequence = None if sequence is None else sequence_of(self._first, sequence)
        frames = self._first["prediction"].to_dataset()["frame"].values
        self._frames = [int(frame) for frame in frames]
        self._image(self._frames[0])

    def __repr__(self) -> str:
        names, frames = ", ".join(self._runs), len(self._frames)
        about = f"{self._first.attrs['sequence']['name']}, {frames} frames"
        return f"{self._title} of {names} ({about}); .save_html(path) keeps it as a page"

    def _about(self) -> dict[str, Any]:
        """Return what pages of all these explorers know of their runs."""
        return {
            "runs": list(self._runs),
            "cue_threshold": CUE_THRESHOLD,
            "has_cue": any("cue" in run.children for run in self._runs.values()),
            "notes": list(dict.fromkeys(source_line(run) for run in self._runs.values())),
        }

    def _run(self, name: str | None) -> xr.DataTree:
        """Return a run by its name, the first one unless said."""
        return self._runs[self._run_name(name)]

    def _run_name(self, name: str | None) -> str:
        if name is None:
            return next(iter(self._runs))
        return str(one_of("run", name, self._runs))

    def _image(self, frame: int) -> np.ndarray | None:
        """Return a frame as the backbone saw it, uint8 (y, x, rgb), where the sequence is known."""
        if self._sequence is None:
            return None
        return frames_seen(self._first, self._sequence, np.array([frame])).values[0]

    def _page_title(self) -> str:
        return f"{self._title}: {self._first.attrs['sequence']['name']}"


_MARK = b'<meta name="generator" content="mut3r_analysis explorer">'


def _bytes(array: np.ndarray) -> bytes:
    little = array.dtype.newbyteorder("<")
    return np.ascontiguousarray(array, little).tobytes()


def _request_key(request: dict[str, Any]) -> str:
    """Write a request as the page's own JSON writer does."""
    return json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _script_json(values: Any) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(values, separators=(",", ":")).replace("<", "\\u003c")
