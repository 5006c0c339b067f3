"""Scene view: point clouds and cameras of runs and of the truth, frame by frame."""

from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import traitlets
import xarray as xr

from mut3r_analysis.errors import AlreadyExists, InvalidArgument
from mut3r_analysis.evaluation.error_maps import errors_of
from mut3r_analysis.figures.page import Page
from mut3r_analysis.figures.reading import sentence
from mut3r_analysis.figures.seen import motion_score, predicted_poses, true_poses, view_slopes
from mut3r_analysis.foundation.fields import number, one_of, some_of, whole
from mut3r_analysis.foundation.paths import user_path
from mut3r_analysis.widgets.cloud_files import write_glb, write_ply
from mut3r_analysis.widgets.clouds import (
    NO_POINTS,
    TRUTH,
    Cloud,
    frusta,
    known_edges,
    predicted_cloud,
    true_cloud,
)
from mut3r_analysis.widgets.explorer import Answer, RunExplorer, frontend_module, palette
from mut3r_analysis.widgets.scene_figure import scene_figure

COLORINGS = {
    "image": "the frames' colours",
    "error": "relative depth error, 0 to 1, unaligned",
    "motion": "motion score, 0 to 1",
    "source": "where they come from",
}
SOURCE_COLORS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (110, 110, 110))
"""Of runs in their order, and last of the truth."""

_MOST_RUNS = 3
_MOST_POINTS = 1_000_000
_GREY = 150
_MARKS = {".ply": b"ply\n", ".glb": b"glTF"}
"""How the files begin that a scene may be written to again."""


class SceneView(RunExplorer):
    """Show points and cameras in space; drag to turn, scroll to come closer.

    Points come frame by frame, thinned evenly so that all frames of all clouds together stay below
    `most_points`. The true cloud is moved rigidly so that first poses coincide, and not scaled.
    While a large scene turns, as many points are left out as this machine needs to keep up.
    ``save_html`` keeps all frames; a page that would be too large needs fewer `most_points`.

    Parameters
    ----------
    runs : xarray.DataTree or mapping of str to xarray.DataTree
        Up to three runs of one sequence.
    sequence : xarray.Dataset, str or Path, optional
        The sequence that was run, for the points' colours.
    most_points : int
        At most a million.
    least_confidence : float
        Share in [0, 1) of each frame's least confident points that are left out.

    Attributes
    ----------
    frame : int
        Label of the frame up to which points are shown.
    coloring : {"image", "error", "motion", "source"}
        By the frame's colours, relative depth error, motion score, or by where a cloud comes from.
    alone : bool
        Show the points of this frame only, not of all frames before.
    visible : list of str
        Names of runs, and ``"truth"``.
    point_size : float
        Pixels.

    Raises
    ------
    InvalidArgument
        When a run holds no points of the world, or numbers make no sense.

    Examples
    --------
    >>> view = SceneView({"plain": run, "gated": gated}, sequence)
    >>> view.save_html("scene.html").name
    'scene.html'
    """

    _esm = frontend_module("shared", "scene")
    _title = "Scene view"

    coloring = traitlets.Enum(list(COLORINGS), "image").tag(sync=True)
    alone = traitlets.Bool(False).tag(sync=True)
    visible = traitlets.List(traitlets.Unicode()).tag(sync=True)
    point_size = traitlets.Float(2.0, min=0.5, max=12).tag(sync=True)

    def __init__(
        self,
        runs: xr.DataTree | Mapping[str, xr.DataTree],
        sequence: xr.Dataset | str | Path | None = None,
        *,
        most_points: int = 300_000,
        least_confidence: float = 0.0,
    ) -> None:
        self._take(runs, sequence, _MOST_RUNS)
        if TRUTH in self._runs:
            raise InvalidArgument(f"{TRUTH!r} names the true cloud; give the run another name")
        whole("most_points", most_points, 1, _MOST_POINTS)
        self._least = number("least_confidence", least_confidence, 0, 1, open_high=True)
        predicted_cloud(self._first, self._frames[0], 1)
        has_truth = true_cloud(self._first, self._frames[0], 1) is not None
        names = [*self._runs, *([TRUTH] if has_truth else [])]
        self._stride = self._fitting_stride(most_points, len(names))
        # Clouds are asked for twice: once for their places, once for their colours.
        self._cloud = lru_cache(maxsize=8)(self._make_cloud)
        super().__init__(held=self._describe(names))
        self.visible = list(self._runs)
        self.frame = self._frames[-1]
        if self._sequence is None:
            self.coloring = "source"

    def cloud(
        self, name: str, *, frames: Collection[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return points as they are shown.

        Parameters
        ----------
        name : str
            Of a run, or ``"truth"``.
        frames : collection of int, optional
            By default those that are visible now.

        Returns
        -------
        (numpy.ndarray, numpy.ndarray)
            Positions float32 ``(point, xyz)`` in metres and colours uint8 ``(point, rgb)``.

        Raises
        ------
        InvalidArgument
            For a cloud or a frame that is not there.
        """
        one_of("cloud", name, self.held["names"])
        chosen = self._shown_frames() if frames is None else list(frames)
        some_of("frames", chosen, self._frames)
        places = [self._cloud(name, frame).positions for frame in chosen]
        colors = [self._colors(name, frame, self.coloring) for frame in chosen]
        return np.concatenate(places), np.concatenate(colors)

    def export(self, path: str | Path) -> Path:
        """Write what is visible: points as ``.ply``, or points and cameras as ``.glb``.

        Raises
        ------
        InvalidArgument
            For another suffix, or when nothing is visible.
        AlreadyExists
            When the path holds something else than such a file.
        """
        path = user_path(path)
        if path.suffix not in _MARKS:
            raise InvalidArgument(f"scenes are written as .ply or .glb, got {str(path)!r}")
        mark = _MARKS[path.suffix]
        if path.exists() and not (path.is_file() and path.read_bytes().startswith(mark)):
            raise AlreadyExists(f"{path} exists and is no {path.suffix} scene; choose another name")
        clouds = self._visible_clouds()
        if path.suffix == ".ply":
            positions, colors = zip(*clouds.values(), strict=True)
            return write_ply(path, np.concatenate(positions), np.concatenate(colors))
        shown = [self._frames.index(frame) for frame in self._shown_frames()]
        lines = {
            f"{name} cameras": (known_edges(ends[shown]), self.source_color(name))
            for name in self.visible
            if (ends := self._frusta(name)) is not None
        }
        return write_glb(path, clouds, lines)

    def _visible_clouds(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        if not self.visible:
            raise InvalidArgument(f"nothing is visible; there are {', '.join(self.held['names'])}")
        return {name: self.cloud(name) for name in self.visible}

    def _draw(self, size: str) -> Page:
        clouds = self._visible_clouds()
        paths = {
            name: (poses[:, :3, 3], self.source_color(name))
            for name in self.visible
            if (poses := self._poses(name)) is not None
        }
        subtitle = sentence(
            f"{', '.join(clouds)}; {'frame' if self.alone else 'frames up to'} {self.frame}",
            f"points coloured by {COLORINGS[self.coloring]}",
            "lines: camera paths",
        )
        return scene_figure(clouds, paths, subtitle, " ".join(self.held["notes"]), size)

    def _page_requests(self) -> Iterable[dict[str, Any]]:
        yield {"ask": "cameras"}
        for frame in self._frames:
            yield {"ask": "points", "frame": frame}
            for coloring in self.held["colorings"]:
                yield {"ask": "colors", "frame": frame, "coloring": coloring}

    def answer(self, request: dict[str, Any]) -> Answer:
        """Answer the page: places or colours of a frame's points, or the cameras."""
        asked, names = request.get("ask"), self.held["names"]
        if asked == "points":
            frame = int(request["frame"])
            return {}, [self._cloud(name, frame).positions for name in names]
        if asked == "colors":
            frame, coloring = int(request["frame"]), str(request["coloring"])
            return {}, [self._colors(name, frame, coloring) for name in names]
        if asked == "cameras":
            found = [self._frusta(name) for name in names]
            empty = np.zeros((0, 9, 2, 3), np.float32)
            return {}, [empty if each is None else each for each in found]
        raise InvalidArgument(f"this view does not know {asked!r}")

    def source_color(self, name: str) -> tuple[int, int, int]:
        """Return the colour that stands for a cloud."""
        return SOURCE_COLORS[-1] if name == TRUTH else SOURCE_COLORS[list(self._runs).index(name)]

    def _shown_frames(self) -> list[int]:
        if self.alone:
            return [self.frame]
        return self._frames[: self._frames.index(self.frame) + 1]

    def _fitting_stride(self, most_points: int, clouds: int) -> int:
        sizes = self._first["prediction"].to_dataset()["points_world"].sizes
        stride = 1
        while True:
            down, across = (-(-(sizes[dim] - stride // 2) // stride) for dim in ("y", "x"))
            if down * across * len(self._frames) * clouds <= most_points or down * across == 1:
                return stride
            stride += 1

    def _make_cloud(self, name: str, frame: int) -> Cloud:
        if name == TRUTH:
            return true_cloud(self._first, frame, self._stride) or NO_POINTS
        return predicted_cloud(self._runs[name], frame, self._stride, self._least)

    def _colors(self, name: str, frame: int, coloring: str) -> np.ndarray:
        cloud = self._cloud(name, frame)
        run = self._first if name == TRUTH else self._runs[name]
        values, table = None, b""
        if coloring == "source":
            return np.tile(np.array(self.source_color(name), np.uint8), (len(cloud.pixels), 1))
        if coloring == "image" and (seen := self._image(frame)) is not None:
            return seen.reshape(-1, 3)[cloud.pixels]
        if coloring == "error" and name != TRUTH:
            errors = errors_of(run, "default:depth:metric", frames=[frame])["error"]
            values, table = errors[0].values, palette("magma")
        if coloring == "motion":
            values, table = motion_score(run, frame), palette("viridis")
            if values is not None:
                size = self.held["image"]
                repeats = size["height"] // values.shape[0], size["width"] // values.shape[1]
                values = values.repeat(repeats[0], 0).repeat(repeats[1], 1)
        if values is None:
            return np.full((len(cloud.pixels), 3), _GREY, np.uint8)
        # Both are read on a scale from 0 to 1: an error of 1 is as large as the depth itself.
        shares = np.nan_to_num(values.ravel()[cloud.pixels], nan=0.0)
        steps = np.clip(np.floor(256 * shares), 0, 255).astype(int)
        return np.frombuffer(table, np.uint8).reshape(256, 3)[steps]

    def _poses(self, name: str) -> np.ndarray | None:
        return true_poses(self._first) if name == TRUTH else predicted_poses(self._runs[name])

    def _frusta(self, name: str) -> np.ndarray | None:
        poses = self._poses(name)
        if poses is None:
            return None
        sizes = self._first["prediction"].to_dataset().sizes
        # Where no focal length is known it is taken to be the width of the image.
        slopes = view_slopes(self._first) or (0.5, sizes["y"] / 2 / sizes["x"])
        known = poses[np.isfinite(poses).all(axis=(1, 2)), :3, 3]
        reach = 0.12 * max(float(np.ptp(known, axis=0).max()), 0.5) if len(known) else np.nan
        return frusta(poses, slopes, reach)

    def _describe(self, names: list[str]) -> dict[str, Any]:
        first = self._first["prediction"].to_dataset().sizes
        about = self._about()
        can = {
            "image": self._sequence is not None,
            "error": TRUTH in names,
            "motion": about["has_cue"],
            "source": True,
        }
        pixels = f"Every {self._stride}. pixel along both axes."
        return {
            "names": names,
            "frames": self._frames,
            "colorings": [name for name in COLORINGS if can[name]],
            "source_colors": [list(self.source_color(name)) for name in names],
            "image": {"height": first["y"], "width": first["x"]},
            "stride": self._stride,
            "notes": [pixels if self._stride > 1 else "Every pixel.", *about["notes"]],
        }

    def _choices(self) -> dict[str, Any]:
        sizes = {"visible": self.held["names"], "point_size": (0.5, 12.0, 0.5)}
        return super()._choices() | {"coloring": self.held["colorings"]} | sizes

    @traitlets.validate("visible")
    def _check_visible(self, proposal: Any) -> list[str]:
        names = self.held["names"]
        for name in proposal["value"]:
            one_of("cloud", name, names)
        return [name for name in names if name in proposal["value"]]
