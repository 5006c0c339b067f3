"""Several estimated camera paths beside the true one, and how far they are from it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure, SubFigure

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.figures.page import fix_layout, new_page
from mut3r_analysis.figures.styling import QUIET, style
from mut3r_analysis.metrics.protocols import measure_label

_NAMES = ("x", "y", "z")


def trajectories(
    scores: Mapping[str, xr.Dataset] | xr.Dataset,
    *,
    size: str = "page",
    title: str | None = None,
    on: SubFigure | None = None,
) -> Figure:
    """Draw aligned paths in the plane in which the true one is widest, and their errors over time.

    Parameters
    ----------
    scores : Dataset or mapping of str to Dataset
        What `compare_trajectories` gave, of estimates against one true path.
    size : {"column", "page", "slide"}
    title : str, optional
    on : matplotlib.figure.SubFigure, optional
        Drawn into instead of a new figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InvalidArgument
        No scores, other ones, or of different true paths.

    Examples
    --------
    >>> for name, drift in (("truth", 0.0), ("own", 0.1)):
    ...     poses = [[t, t, t % 3, drift * t * t, 0, 0, 0, 1] for t in range(6)]
    ...     np.savetxt(f"{name}.txt", poses)
    >>> scores = m3.metrics.compare_trajectories("truth.txt", "own.txt")
    >>> figure = trajectories({"own": scores})
    """
    given = {"estimate": scores} if isinstance(scores, xr.Dataset) else dict(scores)
    truth, aligned = _agreed(given)
    longest = max(given.values(), key=lambda each: each.sizes["frame"])
    true = longest["true_position"].values
    across, up = sorted(np.argsort(np.ptp(true, axis=0), kind="stable")[:0:-1])
    label = measure_label("ate", aligned)
    with style(size) as page:
        page = page.within(on)
        figure, _ = new_page(
            page, min(0.42 * page.width, page.tallest), title or "Camera paths",
            f"{label} behind each name; root mean square over associated poses",
            f"Source: {truth}", on=on,
        )  # fmt: skip
        plan, error = figure.subplots(1, 2)
        plan.plot(true[:, across], true[:, up], color=QUIET, linestyle=(0, (4, 2)), label="truth")
        begin = longest["stamp"].values[0]
        for name, each in given.items():
            place = each["position"].values
            label = f"{name}, {float(each['ate']):.3g} m"
            (line,) = plan.plot(place[:, across], place[:, up], label=label)
            seconds = each["stamp"].values - begin
            error.plot(seconds, each["frame_ate"].values, color=line.get_color(), label=name)
        plan.set(xlabel=f"{_NAMES[across]} (m)", ylabel=f"{_NAMES[up]} (m)")
        plan.set_aspect("equal", adjustable="datalim")
        plan.legend(loc="best")
        error.set(xlabel=_time_label(longest), ylabel="distance from the truth (m)", ylim=(0, None))
        return fix_layout(figure)


def _time_label(scores: xr.Dataset) -> str:
    """Files of KITTI have no stamps: poses are numbered there."""
    return "pose" if scores.attrs.get("quaternion") == "none" else "time (s)"


def _agreed(given: dict[str, Any]) -> tuple[str, str]:
    """Return the true path's name and the alignment that all share."""
    if not given:
        raise InvalidArgument("no trajectories were given; give what compare_trajectories returned")
    for name, each in given.items():
        if not isinstance(each, xr.Dataset) or "true_position" not in each:
            raise InvalidArgument(
                f"{name!r} is not what compare_trajectories returned: it has no true_position"
            )
    shared = {(each.attrs["truth"], each.attrs["align"]) for each in given.values()}
    if len(shared) > 1:
        listed = "; ".join(f"{truth} ({align})" for truth, align in sorted(shared))
        raise InvalidArgument(f"these are of different truths or alignments: {listed}")
    return shared.pop()
