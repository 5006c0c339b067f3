"""Cues at equal gate energy: gates that move as much attention, so only where they act differs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.optimize import brentq

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion import Cue, Gate
from mut3r_analysis.motion.site_gates import LARGEST_SCORE
from mut3r_analysis.running import run_batch
from mut3r_analysis.studies.ablation import SHUFFLED, Ablation, against, in_words, with_controls
from mut3r_analysis.studies.finding import Finding, rows
from mut3r_analysis.studies.measures import leading

OWN, MASK = "own", "true mask"
WEIGHED = ("image_self", "state_to_image")
"""Sites of MUT3R's gates whose keys are patches, which the gates weigh by ``(1 - g)^beta``."""
LARGEST_BETA = 64.0
QUESTION = "At equal gate energy, which cue gates better than the model's own?"

Array = NDArray[np.floating[Any]]


class Seen(NamedTuple):
    """What a cue's gates would act on in one sequence.

    ``motion`` ``(frame, patch)`` are the scores, ``received`` ``(site, frame, layer, head, patch)``
    the mean weight that queries give each patch, both of a run without gates.
    """

    motion: Array
    received: Array


def rivals(edition: int = 2) -> dict[str, Cue]:
    """Return cues of the literature and the true mask, each before its scores shuffled."""
    own = {OWN: Cue.mut3r(edition=edition)}
    others = {name: Cue.convention(name) for name in ("mut3r_low", "gram_low", "raymap3r")}
    return with_controls(own | others | {MASK: Cue.oracle()})


def energy(seen: Seen, beta: float) -> float:
    """Return the share of attention that gates move from some keys to others.

    With ``p`` the weight that a key receives, mean over queries, a static query's gated weights
    are ``p' = p (1 - g)^beta / sum p (1 - g)^beta``, ``g = 0`` for keys that are no patches. The
    energy is ``1/2 sum |p' - p|``, mean over frames, layers, heads and sites. A factor that all
    keys share moves nothing.

    Parameters
    ----------
    seen : Seen
    beta : float
        Sharpness, 0 or more.

    Returns
    -------
    float
        In [0, 1], and no lower for a larger beta.
    """
    log_kept = beta * np.log1p(-np.minimum(seen.motion, LARGEST_SCORE))
    plain = seen.received
    others = np.clip(1 - plain.sum(axis=-1, keepdims=True), 0, None)
    plain = np.concatenate([plain, others], axis=-1)
    weight = np.concatenate([np.exp(log_kept), np.ones_like(log_kept[:, :1])], axis=-1)
    gated = plain * weight[None, :, None, None]
    gated /= np.maximum(gated.sum(axis=-1, keepdims=True), np.finfo(gated.dtype).tiny)
    return float(np.abs(gated - plain).sum(axis=-1).mean() / 2)


def look(
    backbone: Backbone, sequences: Iterable[xr.Dataset], cues: Mapping[str, Cue], gate: Gate
) -> dict[str, list[Seen]]:
    """Take every cue's scores, and the weights that the gate's sites give patches, without gating.

    Parameters
    ----------
    backbone : Backbone
    sequences : iterable of Dataset
    cues : mapping of str to Cue
    gate : Gate
        Its sites among :data:`WEIGHED` and its layers are looked at.

    Returns
    -------
    dict of str to list of Seen
        Cue to one per sequence.
    """
    sites = [site for site in gate.sites if site in WEIGHED]
    if not sites:
        raise InvalidArgument(f"energy is that of gates at {' or '.join(WEIGHED)}; gate one")
    layers = gate.layer_range(backbone.decoder_layers)
    capture = Capture(statistics=["received"], sites=sites, layers=list(layers))
    found: dict[str, list[Seen]] = {name: [] for name in cues}
    for sequence in sequences:
        runs = run_batch(
            backbone, sequence, [{"cue": cue} for cue in cues.values()],
            capture=capture, outputs=("pose",), progress=False,
        )  # fmt: skip
        weights = [runs[0][f"attention/{site}/received"].sel(key_token="patch") for site in sites]
        received = np.stack([np.asarray(each, np.float64) for each in weights])
        for name, run in zip(cues, runs, strict=True):
            motion = np.asarray(run["cue/motion"], np.float64)
            found[name].append(Seen(motion.reshape(len(motion), -1), received))
    return found


def equal_betas(
    seen: Mapping[str, Sequence[Seen]], reference: str = OWN, beta: float = 1.0
) -> xr.Dataset:
    """Solve for the beta at which the gates of each cue move as much as those of one of them.

    Parameters
    ----------
    seen : mapping of str to sequence of Seen
        From :func:`look`.
    reference : str
        The cue whose energy at `beta` all others get.
    beta : float

    Returns
    -------
    Dataset
        Along ``cue``: ``beta``, to four digits, NaN where no beta up to :data:`LARGEST_BETA`
        moves as much; ``energy`` at that beta, mean over sequences; ``most``, the energy at
        :data:`LARGEST_BETA`; and ``before``, that at `beta`.
    """

    def mean_energy(name: str, beta: float) -> float:
        return float(np.mean([energy(each, beta) for each in seen[name]]))

    wanted = mean_energy(reference, beta)
    found: dict[str, dict[str, float]] = {}
    for name in seen:
        most, solved = mean_energy(name, LARGEST_BETA), np.nan
        if name == reference:
            solved = beta
        elif most >= wanted:
            root = brentq(lambda beta, name=name: mean_energy(name, beta) - wanted, 0, LARGEST_BETA)
            solved = float(f"{root:.4g}")
        reached = np.nan if np.isnan(solved) else mean_energy(name, solved)
        found[name] = {
            "beta": solved, "energy": reached, "most": most, "before": mean_energy(name, beta),
        }  # fmt: skip
    names = {"cue": list(found)}
    return xr.Dataset(
        {
            each: ("cue", [row[each] for row in found.values()])
            for each in ("beta", "energy", "most", "before")
        },
        names,
        {"reference": reference, "wanted": wanted},
    )


def ablation(cues: Mapping[str, Cue], betas: xr.Dataset, edition: int = 2) -> Ablation:
    """Gate by every cue at its own beta; those that reach the energy at none are left out."""
    solved = betas["beta"].dropna("cue").to_series().to_dict()

    def configure(cue: str) -> dict[str, Any]:
        return {"cue": cues[cue], "gate": Gate.mut3r(beta=solved[cue], edition=edition)}

    return Ablation({"cue": list(solved)}, configure, "{}, at equal energy")


def finding(errors: xr.DataArray, betas: xr.Dataset) -> Finding:
    """Say how each cue differs from the reference, as strong as it is.

    Parameters
    ----------
    errors : DataArray
        (measure, cue, speed, family), cues at equal energy.
    betas : Dataset
        From :func:`equal_betas`.
    """
    reference = str(betas.attrs["reference"])
    others = [
        name
        for name in errors["cue"].values.tolist()
        if name != reference and not name.endswith(SHUFFLED)
    ]
    held = errors.sel(measure=leading(errors))
    found = against(
        held.sel(cue=others), held.sel(cue=reference, drop=True), "family",
        f"change of the error against the cue '{reference}'",
    ).transpose("measure", "speed", "cue")  # fmt: skip
    about = (
        f"Moving {100 * betas.attrs['wanted']:.1f} % of attention by another cue than the "
        f"{in_words(reference)}"
    )
    weak = betas["cue"].values[betas["beta"].isnull().values].tolist()
    note = f"At no β do these move as much: {', '.join(weak)}." if weak else ""
    return Finding(QUESTION, rows(found, "{measure} of {speed} scenes with the {cue}"), about, note)
