"""The directions of gating, each alone and each left out: the lower half of the paper's Table 4."""

from itertools import product

import xarray as xr

from mut3r_analysis.evaluation.scores import named_protocols
from mut3r_analysis.motion import DIRECTIONS, Cue, Gate
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.studies.ablation import PLAIN, Ablation, against
from mut3r_analysis.studies.finding import Finding, row
from mut3r_analysis.studies.labelling import beside
from mut3r_analysis.studies.measures import measure_label

METRICS = {
    "video-depth": ("abs_rel", "delta_1"),
    "pose": ("ate", "rpe_translation", "rpe_rotation"),
}
ALL = "all three"
QUESTION = "Which direction of gating does what?"


def ablation(cue: Cue, beta: float = 1.0) -> Ablation:
    """Gate in all directions, in each alone, and in all but each.

    Parameters
    ----------
    cue : Cue
    beta : float
        Sharpness of all gates.
    """
    chosen: dict[str, tuple[str, ...]] = {ALL: DIRECTIONS}
    chosen |= {f"only {name}": (name,) for name in DIRECTIONS}
    chosen |= {f"without {name}": tuple(d for d in DIRECTIONS if d != name) for name in DIRECTIONS}

    def configure(directions: str) -> Configuration:
        return Configuration(cue=cue, gate=Gate.mut3r(beta=beta, directions=chosen[directions]))

    return Ablation({"directions": list(chosen)}, configure)


def direction_changes(table: xr.Dataset, protocol: str = "default") -> xr.Dataset | None:
    """Return how each choice of directions changes each metric against the plain backbone.

    Parameters
    ----------
    table : Dataset
        Sweep over the configurations of :func:`ablation`.
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
    named = "change against the plain backbone"
    parts = {name: against(gated[name], plain[name], named=named) for name in scored}
    found = beside(parts, "metric", combine_attrs="drop_conflicts")
    labels, ids = zip(*scored.values(), strict=True)
    return found.assign_coords(label=("metric", list(labels)), protocol=("metric", list(ids)))


def finding(changes: xr.Dataset, beta: float) -> Finding:
    """Tell what all directions, each alone, and all but each change.

    Parameters
    ----------
    changes : Dataset
        Of :func:`direction_changes`.
    beta : float
        Sharpness that the gates had.
    """
    cells = list(product(changes["configuration"].values.tolist(), changes["metric"].values))
    first = [
        cell
        for cell in cells
        if not cell[0].startswith("without") and cell[1] in ("abs_rel", "ate")
    ]
    table = []
    for directions, metric in [*first, *(cell for cell in cells if cell not in first)]:
        cell = changes.sel(configuration=directions, metric=metric)
        table.append(row(f"{directions}, {cell['label'].item()}", cell))
    return Finding(
        QUESTION,
        table,
        f"Against the plain run, with gates of β = {beta:g}, the error is",
        f"Protocols: {', '.join(dict.fromkeys(changes['protocol'].values.tolist()))}.",
        lead=len(first),
    )


def _label(metric: str, align: str) -> str:
    label = measure_label(metric, align)
    return f"{label}, higher is better" if metric == "delta_1" else label
