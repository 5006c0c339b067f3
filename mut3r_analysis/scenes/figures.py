"""A contact sheet: what a set of scenes looks like, and what moves in it."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.scenes.bundled import load_scene, scene_names
from mut3r_analysis.scenes.specification import Scene


def contact_sheet(
    scenes: Sequence[str | Scene] | None = None,
    *,
    moments: int = 3,
    columns: int = 4,
    size: tuple[int, int] = (96, 72),
) -> Figure:
    """Show scenes side by side, each at several moments with its moving pixels outlined.

    Parameters
    ----------
    scenes : sequence of str or Scene, optional
        Scenes or names that `load_scene` knows; all bundled ones by default.
    moments : int
        Images per scene, evenly spread over its frames.
    columns : int
        Scenes side by side.
    size : (int, int)
        Width and height of each image, px.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> figure = contact_sheet(["orbit-03"], moments=2, size=(32, 24))
    """
    chosen = [
        scene if isinstance(scene, Scene) else load_scene(scene)
        for scene in (scene_names() if scenes is None else scenes)
    ]
    if not chosen or moments < 1 or columns < 1:
        raise InvalidArgument(
            f"{len(chosen)} scenes, moments={moments}, columns={columns}; give at least one each."
        )
    columns = min(columns, len(chosen))
    rows = -(-len(chosen) // columns)
    width = 1.55 * moments * columns
    height = rows * (1.55 * size[1] / size[0] + 0.26)
    spacing = ConstrainedLayoutEngine(w_pad=0.05, h_pad=0.02, hspace=0.01, wspace=0.01)
    figure = Figure(figsize=(width, height), layout=spacing)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(chosen) :]:
        axis.remove()
    for axis, scene in zip(axes.flat, chosen, strict=False):
        frames = np.unique(np.linspace(0, scene.frames - 1, moments).round().astype(int))
        rendered = scene.render(size, supersample=2).isel(frame=frames)
        strip = np.concatenate(list(rendered["image"].values), axis=1)
        mask = np.concatenate(list(rendered["motion_mask"].values), axis=1)
        axis.imshow(strip, interpolation="nearest")
        if mask.any():
            axis.contour(mask.astype(float), levels=[0.5], colors="#ffd400", linewidths=1.0)
        for cut in range(1, len(frames)):
            axis.axvline(cut * size[0] - 0.5, color="white", linewidth=2)
        axis.set_title(scene.name, fontsize=9, loc="left", pad=2)
        axis.set_title(f"frames {', '.join(map(str, frames))}", fontsize=7, loc="right", pad=2)
        axis.set_axis_off()
    return figure
