"""The directions of gating, each alone and each left out: the lower half of the paper's Table 4."""

import pandas as pd
import xarray as xr

from mut3r_analysis.evaluation.scores import named_protocols
from mut3r_analysis.motion.cue import Cue
from mut3r_analysis.motion.gate import Gate
from mut3r_analysis.motion.realisations import DIRECTIONS
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.studies.answers import Finding
from mut3r_analysis.studies.estimates import change, spelled, verdict
from mut3r_analysis.studies.measures import measure_label

METRICS = {
    "video-depth": ("abs_rel", "delta_1"),
    "pose": ("ate", "rpe_translation", "rpe_rotation"),
}
_TOLD = ("abs_rel", "rpe_translation", "rpe_rotation")
"""Metrics of the answer; the figure has them all."""

PLAIN = "none"
ALL = "all three"


def direction_configurations(cue: Cue, beta: float = 1.0) -> dict[str, Configuration]:
    """Return the plain backbone, all directions, each alone and each left out, by label.

    Parameters
    ----------
    cue : Cue
    beta : float
        Sharpness of all gates.
    """
    chosen: dict[str, tuple[str, ...]] = {ALL: DIRECTIONS}
    chosen |= {f"only {name}": (name,) for name in DIRECTIONS}
    chosen |= {f"without {name}": tuple(d for d in DIRECTIONS if d != name) for name in DIRECTIONS}
    gated = {
        label: Configuration(cue=cue, gate=Gate.mut3r(beta=beta, directions=names))
        for label, names in chosen.items()
    }
    return {PLAIN: Configuration(), **gated}


def direction_changes(table: xr.Dataset, protocol: str = "default") -> xr.Dataset | None:
    """Return how each choice of directions changes each metric against the plain backbone.

    Parameters
    ----------
    table : Dataset
        Sweep over :func:`direction_configurations`.
    protocol : str
        What it was scored under.

    Returns
    -------
    Dataset or None
        ``value``, ``lower``, ``upper`` (percent of the plain mean, paired over sequences) and ``n``
        over (metric, configuration); along ``metric`` also ``label``, its name with the alignment,
        and ``protocol``, the id. None where no sequence has truth.
    """
    scored = {
        name: (_label(name, each.align), each.id)
        for each in named_protocols(protocol)
        for name in METRICS.get(each.task, ())
        if name in table and bool(table[name].notnull().any())
    }
    if not scored:
        return None
    gated = table.drop_sel(configuration=PLAIN)
    plain = table.sel(configuration=PLAIN, drop=True)
    parts = [change(gated[name], plain[name]) for name in scored]
    found = xr.concat(
        parts, dim=pd.Index(list(scored), name="metric"), combine_attrs="drop_conflicts"
    )
    labels, ids = zip(*scored.values(), strict=True)
    found = found.assign_coords(label=("metric", list(labels)), protocol=("metric", list(ids)))
    found["value"].attrs = {"long_name": "change against the plain backbone", "units": "%"}
    return found


def finding(changes: xr.Dataset | None, beta: float) -> Finding:
    """Say which direction of gating carries the effect on depth and on pose.

    Parameters
    ----------
    changes : Dataset or None
        Of :func:`direction_changes`.
    beta : float
        Sharpness that the gates had.
    """
    question = "Which direction of gating does what?"
    if changes is None:
        return Finding(question, "No ground truth: effects on errors cannot be known here.")
    sentences, values = [], {}
    for metric in [str(name) for name in changes["metric"].values]:
        cells = changes.sel(metric=metric)
        alone = cells.sel(
            configuration=[c for c in cells["configuration"].values if str(c).startswith("only")]
        )
        strongest = str(alone["configuration"].values[int(abs(alone["value"].values).argmax())])
        one, every = cells.sel(configuration=strongest), cells.sel(configuration=ALL)
        values[metric] = {"strongest": strongest, "alone": float(one["value"])}
        if metric in _TOLD:
            sentences.append(
                f"{cells['label'].item()} changes by {spelled(every)} with all three "
                f"({verdict(every)}), and most by one alone with "
                f"{strongest.removeprefix('only ')}: {spelled(one)}."
            )
    scored_as = ", ".join(dict.fromkeys(changes["protocol"].values.tolist()))
    answer = f"With gates of sharpness β = {beta:g}: {' '.join(sentences)} Protocols: {scored_as}."
    return Finding(question, answer, values)


def _label(metric: str, align: str) -> str:
    label = measure_label(metric, align)
    return f"{label}, higher is better" if metric == "delta_1" else label
