"""The directions of gating, each alone and each left out: the lower half of the paper's Table 4."""

import xarray as xr

from mut3r_analysis.motion import DIRECTIONS, Cue, Gate
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.studies import measures
from mut3r_analysis.studies.ablation import PLAIN, Ablation, against
from mut3r_analysis.studies.finding import Finding, rows

TAKEN = {**measures.TAKEN, "video-depth": ("abs_rel", "delta_1")}
ALL = "all three directions"
QUESTION = "Which direction of gating does what?"


def ablation(beta: float = 1.0, *, edition: int = 2) -> Ablation:
    """Gate in all directions, in each alone, and in all but each.

    Parameters
    ----------
    beta : float
        Sharpness of all gates.
    edition : {2, 1}
        Of :meth:`Cue.mut3r` and :meth:`Gate.mut3r`.
    """
    cue = Cue.mut3r(edition=edition)
    chosen: dict[str, tuple[str, ...]] = {ALL: DIRECTIONS}
    chosen |= {f"{name} alone": (name,) for name in DIRECTIONS}
    chosen |= {f"all but {name}": tuple(d for d in DIRECTIONS if d != name) for name in DIRECTIONS}

    def configure(directions: str) -> Configuration:
        gate = Gate.mut3r(beta=beta, directions=chosen[directions], edition=edition)
        return Configuration(cue=cue, gate=gate)

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
        over (measure, configuration), as of `measures.errors`. None where no sequence has truth.
    """
    scores = measures.errors({protocol: table}, TAKEN)
    if not scores.sizes["measure"]:
        return None
    plain = scores.sel(configuration=PLAIN, drop=True)
    gated = scores.drop_sel(configuration=PLAIN)
    return against(gated, plain, named="change against the plain backbone")


def finding(changes: xr.Dataset, beta: float) -> Finding:
    """Tell what all directions, each alone, and all but each change.

    Parameters
    ----------
    changes : Dataset
        Of :func:`direction_changes`.
    beta : float
        Sharpness that the gates had.
    """
    alone = [each for each in changes["configuration"].values if not each.startswith("all but")]
    changes = changes.transpose("configuration", "measure")
    effect = "{measure} with {configuration}"
    lead = rows(changes.sel(configuration=alone, measure=measures.leading(changes)), effect)
    protocols = dict.fromkeys(changes["protocol"].values.tolist())
    return Finding(
        QUESTION,
        [*lead, *(each for each in rows(changes, effect) if each not in lead)],
        f"Gating by the own cue at β = {beta:g}",
        f"Protocols: {', '.join(protocols)}.",
        lead=len(lead),
    )
