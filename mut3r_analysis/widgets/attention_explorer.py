"""Attention explorer: click a patch, see what it looks at and who looks at it."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import traitlets
import xarray as xr

from mut3r_analysis.attention.sites import SITE_KINDS
from mut3r_analysis.attention.statistics import STATISTICS
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.figures.page import Page
from mut3r_analysis.figures.seen import CUE_THRESHOLD, motion_score, true_motion
from mut3r_analysis.foundation.fields import one_of
from mut3r_analysis.widgets.attention_figure import Panel, attention_figure
from mut3r_analysis.widgets.attention_held import (
    describe,
    narrowed,
    offered,
    page_bytes,
    page_requests,
)
from mut3r_analysis.widgets.attention_rows import QUANTITIES, AttentionRows, token_words
from mut3r_analysis.widgets.explorer import (
    MOST_BYTES,
    Answer,
    RunExplorer,
    frontend_module,
    packed,
    palette,
)

_POSE = {"token": "pose", "patch_row": -1, "patch_col": -1}


class AttentionExplorer(RunExplorer):
    """Show the attention of one token: hover over a patch, click to hold it.

    For a self-attention site the left picture shows where the token looks as a query, the right
    one who looks at it as a key. For a site between two streams the pictures are the frame and the
    lattice of state tokens. Choosing a statistic shows it over its tokens, with the attention of
    the chosen token beside it. Below each picture stand all heads of the layer in one scale; a
    click on one chooses it.

    Only the rows that are looked at travel to the page. They come from the run's kept queries and
    keys or from its stored maps, and the widget says from which; a run with neither shows
    statistics.

    Parameters
    ----------
    runs : xarray.DataTree or mapping of str to xarray.DataTree
        One run, or two of one sequence under names, shown side by side with one cursor.
    sequence : xarray.Dataset, str or Path, optional
        The sequence that was run, for its frames; without it tokens lie on grey.
    **view
        Where to begin: any of the attributes below.

    Attributes
    ----------
    frame, layer : int
        Labels.
    site : str
    head : int or "mean"
    show : str
        ``"weights"``, ``"logits"`` or a statistic of the site.
    token : dict
        The chosen token by the words that select it: ``token``, ``patch_row``, ``patch_col``.
    pinned : bool
        Whether the token is held, or follows the pointer.
    scale : {"linear", "logarithmic"}
    opacity : float
        Of the colours over the frame.
    outlines : list of {"cue", "truth"}
    all_heads : bool
        Whether all heads stand side by side below.

    Raises
    ------
    InvalidArgument
        When a run holds no attention, or two runs do not fit together.

    Examples
    --------
    >>> kept = m3.run("tiny", sequence, capture=m3.Capture(archive=True), progress=False)
    >>> explorer = AttentionExplorer(kept, sequence, site="image_self", layer=2)
    >>> explorer.select(token="patch", patch_row=3, patch_col=4)
    >>> explorer.attention(side="key").dims  # the numbers that are shown, labelled
    ('query',)
    """

    _esm = frontend_module("shared", "attention")
    _title = "Attention explorer"

    palette = traitlets.Bytes().tag(sync=True)
    site = traitlets.Unicode().tag(sync=True)
    layer = traitlets.Int().tag(sync=True)
    head = traitlets.Union([traitlets.Int(), traitlets.Unicode()], default_value="mean").tag(
        sync=True
    )
    show = traitlets.Unicode("weights").tag(sync=True)
    token = traitlets.Dict().tag(sync=True)
    pinned = traitlets.Bool(False).tag(sync=True)
    scale = traitlets.Enum(["linear", "logarithmic"], "linear").tag(sync=True)
    opacity = traitlets.Float(0.7, min=0, max=1).tag(sync=True)
    outlines = traitlets.List(traitlets.Enum(["cue", "truth"])).tag(sync=True)
    all_heads = traitlets.Bool(True).tag(sync=True)

    def __init__(
        self,
        runs: xr.DataTree | Mapping[str, xr.DataTree],
        sequence: xr.Dataset | str | Path | None = None,
        **view: Any,
    ) -> None:
        self._take(runs, sequence)
        self._rows = {name: AttentionRows(run) for name, run in self._runs.items()}
        for name in view:
            one_of("what sets a view", name, _VIEW)
        held = describe(self._first, self._rows) | self._about()
        super().__init__(held=held, palette=palette("viridis"))
        site = held["sites"][0]["name"]
        start = {"site": site, "frame": held["frames"][0], "outlines": ["cue", "truth"]}
        # In this order: the site decides what else may be chosen.
        for name in _VIEW:
            if name in (values := start | view):
                setattr(self, name, values[name])

    def select(self, token: str, patch_row: int = -1, patch_col: int = -1) -> None:
        """Hold a token, by the words that select it in a run.

        Parameters
        ----------
        token : {"patch", "pose", "state"}
        patch_row, patch_col : int
            Place of a patch, or of a state token on its lattice.

        Raises
        ------
        InvalidArgument
            When the site has no such token.
        """
        self.token = {"token": token, "patch_row": int(patch_row), "patch_col": int(patch_col)}
        self.pinned = True

    def attention(self, side: str = "query", run: str | None = None) -> xr.DataArray:
        """Return what is shown of the chosen token, labelled.

        Parameters
        ----------
        side : {"query", "key"}
            Whether the token is taken as a query (result over keys) or as a key (over queries).
        run : str, optional
            Name of the run; the first one unless said.

        Raises
        ------
        InvalidArgument
            When the token is not on that side of the site, or the run has no rows there.
        """
        rows = self._rows[self._run_name(run)]
        show = self.show if self.show in QUANTITIES else "weights"
        index = rows.position(self.site, side, self.token)
        (values,) = rows.row(self.site, self.frame, self.layer, [self.head], side, index, show)
        site = rows.sites[self.site]
        other = "key" if side == "query" else "query"
        labels: dict[Any, Any] = {
            name: (other, site[name].values) for name in site[other].coords if name != other
        }
        labels |= {"frame": self.frame, "layer": self.layer, "head": self.head}
        return xr.DataArray(values, labels, (other,), name=show, attrs=dict(site[show].attrs))

    def statistic(self, run: str | None = None) -> np.ndarray:
        """Return the statistic that is shown, one number per token of its side."""
        rows = self._rows[self._run_name(run)]
        return rows.statistic(self.site, self.frame, self.layer, [self.head], self.show)[0]

    def scene(self, run: str | None = None) -> dict[str, np.ndarray | None]:
        """Return the frame as the backbone saw it, and the regions outlined on it.

        Returns
        -------
        dict
            ``image`` (y, x, rgb), ``cue`` (patch_row, patch_col) and ``truth`` (y, x), bool; None
            for what is not known.
        """
        chosen = self._run(run)
        score, mask = motion_score(chosen, self.frame), true_motion(chosen, self.frame)
        return {
            "image": self._image(self.frame),
            "cue": None if score is None else score > CUE_THRESHOLD,
            "truth": None if mask is None else mask.astype(bool),
        }

    def _draw(self, size: str) -> Page:
        panels = [
            panel
            for run in self._runs
            for side in ("query", "key")
            if (panel := self._panel(run, side)) is not None
        ]
        if not panels:
            raise InvalidArgument(self.held_site()["origins"][0])
        return attention_figure(self.page_state(), panels, size)

    def _panel(self, run: str, side: str) -> Panel | None:
        """Return what is shown over the tokens of one side; None where that is nothing."""
        site = self.held_site()
        stream = site["queries"] if side == "query" else site["keys"]
        statistic = STATISTICS.get(self.show)
        if statistic is not None and statistic.side == side:
            label = next(each["label"] for each in site["statistics"] if each["name"] == self.show)
            values, heads = self.statistic(run), self._by_head(run)
            scene = self.scene(run)
            return Panel(run, side, stream, values, heads, statistic.long_name, label, scene)
        if not site["rows"]:
            return None
        role = "key" if side == "query" else "query"
        if site["queries"] == site["keys"]:
            role = side if statistic is None else statistic.side
        try:
            found = self.attention(role, run)
        except InvalidArgument:
            # The token stands on the other side only.
            return None
        title = f"{token_words(self.token)} {'looks at' if role == 'query' else 'is looked at by'}"
        label, heads = QUANTITIES[str(found.name)], self._by_head(run, role)
        return Panel(run, side, stream, found.values, heads, title, label, self.scene(run))

    def _by_head(self, run: str, role: str | None = None) -> np.ndarray:
        """Return (head, token) of all heads where they are shown: of the token, or a statistic."""
        labels = self.held_site()["heads"][1:] if self.all_heads else []
        rows, place = self._rows[run], (self.site, self.frame, self.layer, labels)
        if role is None:
            return rows.statistic(*place, self.show)
        show = self.show if self.show in QUANTITIES else "weights"
        return rows.row(*place, role, rows.position(self.site, role, self.token), show)

    def save_html(
        self,
        path: str | Path,
        *,
        frames: Collection[int] | None = None,
        sites: Collection[str] | None = None,
        layers: Collection[int] | None = None,
        heads: Collection[int | str] | None = None,
        most_bytes: int = MOST_BYTES,
    ) -> Path:
        """Write the explorer as one page that needs neither a kernel nor a network.

        Parameters
        ----------
        path : str or Path
            Ends in ``.html``.
        frames, sites, layers, heads : collection, optional
            What the page can show; by default the current frame and site, with every layer and
            head, or the current layer or head where those would be too large.
        most_bytes : int
            Refuse a page with more numbers than this.

        Returns
        -------
        Path

        Raises
        ------
        InvalidArgument
            When something was not captured, or the page would be too large.
        AlreadyExists
            When the path holds something else than such a page.
        """
        chosen = {
            "frames": [self.frame] if frames is None else [int(frame) for frame in frames],
            "sites": [self.site] if sites is None else list(sites),
            "layers": None if layers is None else [int(layer) for layer in layers],
            "heads": None if heads is None else list(heads),
        }
        held = narrowed(self.held, chosen)
        for name, current in (("heads", self.head), ("layers", self.layer)):
            if chosen[name] is None and page_bytes(held) > most_bytes:
                chosen[name] = [current]
                held = narrowed(self.held, chosen)
        return self._write_page(path, page_requests(held), most_bytes, held=held)

    def answer(self, request: dict[str, Any]) -> Answer:
        """Answer the page: a row, a statistic, or a frame with its outlines."""
        asked = request.get("ask")
        if asked == "frame":
            return self._frame(int(request["frame"]))
        if asked not in ("row", "statistic"):
            raise InvalidArgument(f"this explorer does not know {asked!r}")
        place = (request["site"], request["frame"], request["layer"], request["heads"])
        if asked == "row":
            more = (request["side"], request["token"], request["show"])
            return {}, [rows.row(*place, *more) for rows in self._rows.values()]
        name = request["show"]
        values = [rows.statistic(*place, name) for rows in self._rows.values()]
        return {"side": STATISTICS[name].side}, values

    def _frame(self, frame: int) -> Answer:
        values, arrays = packed(
            {
                "image": self._image(frame),
                "truth": true_motion(self._first, frame),
                "cues": [motion_score(run, frame) for run in self._runs.values()],
            }
        )
        return self.held["image"] | values, arrays

    def held_site(self) -> dict[str, Any]:
        """Return what the runs hold at the current site."""
        return next(each for each in self.held["sites"] if each["name"] == self.site)

    def _choices(self) -> dict[str, Any]:
        site = self.held_site()
        return super()._choices() | {
            "site": [each["name"] for each in self.held["sites"]], "layer": site["layers"],
            "head": site["heads"], "show": offered(site), "opacity": (0.0, 1.0, 0.05),
            "outlines": ["cue", "truth"],
        }  # fmt: skip

    @traitlets.validate("site")
    def _check_site(self, proposal: Any) -> str:
        return one_of("site", proposal["value"], [each["name"] for each in self.held["sites"]])

    @traitlets.validate("layer")
    def _check_layer(self, proposal: Any) -> int:
        return one_of("layer", proposal["value"], self.held_site()["layers"])

    @traitlets.validate("head")
    def _check_head(self, proposal: Any) -> int | str:
        return one_of("head", proposal["value"], self.held_site()["heads"])

    @traitlets.validate("show")
    def _check_show(self, proposal: Any) -> str:
        return one_of("show", proposal["value"], offered(self.held_site()))

    @traitlets.validate("token")
    def _check_token(self, proposal: Any) -> dict[str, Any]:
        token = dict(proposal["value"])
        if set(token) != set(_POSE):
            raise InvalidArgument(f"a token is named by {', '.join(_POSE)}, got {token}")
        rows = next(iter(self._rows.values()))
        try:
            rows.position(self.site, "key", token)
        except InvalidArgument:
            # It may stand on the other side; if not, this says so.
            rows.position(self.site, "query", token)
        return token

    @traitlets.observe("site")
    def _settle(self, _: Any) -> None:
        """Keep the view valid at another site: what it does not have becomes its nearest."""
        site = self.held_site()
        shown = offered(site)
        kind = SITE_KINDS[self.site]
        with self.hold_trait_notifications():
            if self.layer not in site["layers"]:
                self.layer = site["layers"][0]
            if self.head not in site["heads"]:
                self.head = "mean"
            if self.show not in shown:
                self.show = shown[0]
            role = self.token.get("token")
            fits = {"state": "state", "pose": "image"}.get(str(role))
            has = {kind.queries, kind.keys}
            if role is None or not (fits in has if fits else has & {"image", "patches"}):
                streams = self.held["streams"][kind.queries]
                self.token = {
                    "token": "state" if kind.queries == "state" else "patch",
                    "patch_row": streams["rows"] // 2,
                    "patch_col": streams["columns"] // 2,
                }


_VIEW = (
    "site", "frame", "layer", "head", "show", "token", "pinned", "scale", "opacity", "outlines",
    "all_heads",
)  # fmt: skip
