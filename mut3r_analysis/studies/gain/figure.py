"""Gain of gating against the AUC of its score."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from mut3r_analysis.figures.page import Page, fix_layout, new_page
from mut3r_analysis.figures.styling import ACCENT, INK, QUIET, style
from mut3r_analysis.studies.gain.measure import HARD, OWN, SOFT

_LOOKS = {
    HARD: {"color": INK, "marker": "s", "linestyle": "-"},
    SOFT: {"color": ACCENT, "marker": "o", "linestyle": "-"},
    OWN: {"color": "#4aa3df", "marker": "^", "linestyle": "none"},
}


def gain_against_auc(
    measured: Mapping[str, xr.Dataset],
    metrics: Sequence[str],
    *,
    title: str,
    source: str = "",
    size: str = "page",
) -> Page:
    """Show what gating changes by how well its scores tell moving patches from others.

    Parameters
    ----------
    measured : mapping of str to Dataset
        Model to what `gains` found; one row of panels each.
    metrics : sequence of str
        One column of panels each.
    title, source : str
    size : {"column", "page", "slide"}
    """
    words = (
        "Change of the error against no gate; below the line gating helps. Black: true mask, "
        "patches flipped; orange: true share, noise added; blue: own cues. Bars: 95 % over clips"
    )
    with style(size) as page:
        height = min(1.7 * len(measured), page.tallest) * page.scale + 0.3 * page.scale
        figure, _ = new_page(page, height, title, words, source)
        axes = figure.subplots(
            len(measured), len(metrics), squeeze=False, sharex=True, sharey="row"
        )
        for row, (model, found) in zip(axes, measured.items(), strict=True):
            for axis, metric in zip(row, metrics, strict=True):
                axis.axhline(0, color=QUIET, linewidth=0.8, zorder=0)
                for family, look in _LOOKS.items():
                    kept = found.sel(metric=metric).isel(
                        score=np.flatnonzero(found["family"].values == family)
                    )
                    spans = {
                        name: np.abs(
                            [kept[f"{name}_{end}"] - kept[name] for end in ("lower", "upper")]
                        )
                        for name in ("auc", "change")
                    }
                    axis.errorbar(
                        kept["auc"], kept["change"], xerr=spans["auc"], yerr=spans["change"],
                        markersize=3, linewidth=0.9, elinewidth=0.5, **look,
                    )  # fmt: skip
                label = str(found["metric_label"].sel(metric=metric).item())
                axis.set_title(f"{model}: {label}")
                axis.set_yscale("symlog", linthresh=10)
                axis.yaxis.set_major_formatter(lambda x, _: f"{x:+g}" if x else "0")
        for axis in axes[-1]:
            axis.set_xlabel("AUC of the score (1)")
        for row in axes:
            row[0].set_ylabel("change (%)")
        fix_layout(figure)
    return figure
