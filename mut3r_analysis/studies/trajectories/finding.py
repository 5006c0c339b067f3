"""Can the absolute trajectory error rise while relative errors fall, and why: the answer."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from mut3r_analysis.studies.answers import Finding
from mut3r_analysis.studies.estimates import change, difference, estimate, spelled, verdict
from mut3r_analysis.studies.trajectories.attribution import (
    gated_and_plain,
    influence,
    relative_contributions,
    separation,
)
from mut3r_analysis.studies.trajectories.read_write import LEVELS

QUESTION = "Why can the absolute trajectory error rise while relative errors fall?"
PATHS = {
    "read": "what is read",
    "write": "what is written",
    "state": "the state",
    "memory": "the pose memory",
}


def finding(cells: xr.Dataset, parts: xr.Dataset | None = None) -> Finding:
    """Say how errors change under gating, through which path, and whether one sequence carries it.

    Parameters
    ----------
    cells : Dataset
        From `measure_cells`.
    parts : Dataset, optional
        From `path_parts` of the same cells.
    """
    if "ate" not in cells or not bool(cells["ate"].notnull().any()):
        return _without_truth(cells)
    sentences: list[str] = []
    values: dict[str, Any] = {}
    for cue in cells["cue"].values.tolist():
        if "shuffled" not in cue and bool(cells["ate"].sel(cue=cue).notnull().any()):
            said, values[cue] = _of_cue(cells, parts, cue, brief=bool(sentences))
            sentences.append(said)
    return Finding(QUESTION, " ".join(sentences), values, sentences[0])


def pattern(ate: xr.Dataset, rpe: xr.Dataset) -> str:
    """Say whether two changes are what was asked about: ATE higher and RPE lower.

    Parameters
    ----------
    ate, rpe : Dataset
        One cell each, of `change`.
    """
    found = verdict(ate), verdict(rpe)
    if found == ("higher", "lower"):
        return "ATE rises while RPE falls"
    if found == ("lower", "higher"):
        return "the opposite of what was asked about"
    if "too few sequences to tell" in found:
        return "too few sequences to tell"
    if found[0] == found[1] and found[0] in ("lower", "higher"):
        return f"both are {found[0]}"
    sure = [
        f"{name} is {word}"
        for name, word in zip(("ATE", "RPE"), found, strict=True)
        if word in ("lower", "higher")
    ]
    return f"{sure[0]}, the other is not shown to change" if sure else "neither is shown to change"


def carriers(differences: xr.DataArray) -> list[str]:
    """Return the sequences without which alone the mean difference has the other sign."""
    found = influence(differences)
    return [str(name) for name in found["sequence"].values[found["turns"].values]]


def _of_cue(
    cells: xr.Dataset, parts: xr.Dataset | None, cue: str, *, brief: bool
) -> tuple[str, dict[str, Any]]:
    """Sentences on one cue, and their numbers; in brief without parts and sequences."""
    paths = list(cells.attrs["paths"])
    chosen = cells.sel(cue=cue, drop=True)
    pairs = {name: gated_and_plain(chosen[name], paths) for name in ("ate", "rpe_translation")}
    ate_change, rpe_change = (change(*pair) for pair in pairs.values())
    ate, rpe = (gated - plain for gated, plain in pairs.values())
    both = ate.notnull() & rpe.notnull()
    asked, count = int(((ate > 0) & (rpe < 0) & both).sum()), int(both.sum())
    shares = relative_contributions(chosen["ate"], paths)
    numbers: dict[str, Any] = {
        "ate_change": plain_numbers(ate_change),
        "rpe_change": plain_numbers(rpe_change),
        "pattern": pattern(ate_change, rpe_change),
        "sequences_with_pattern": asked,
        "paths": {
            path: plain_numbers(shares.sel(path=path)) for path in shares["path"].values.tolist()
        },
        "carried_by": carriers(ate),
    }
    said = (
        f"With the {'own cue' if cue == 'own' else f'{cue} as cue'}, gating changes ATE by "
        f"{ranged(ate_change)} % and translation RPE by {ranged(rpe_change)} % (n = {count}): "
        f"{numbers['pattern']}"
    )
    through = " and ".join(f"{PATHS[path]} ({ranged(shares.sel(path=path))} %)" for path in paths)
    if brief:
        return f"{said}; ATE changes through {through}.", numbers
    said += (
        f"; in {asked} of {count} sequences ATE rises while RPE falls. The change of ATE comes "
        f"through {through}, in shares of the plain ATE"
    )
    if parts is not None:
        moved = difference(*gated_and_plain(parts["mean_square"].sel(cue=cue, drop=True), paths))
        slow, fast = (moved.sel(part=name) for name in ("bend", "jitter"))
        said += (
            f"; its square changes by {ranged(slow, 3)} m² in bending beyond 6 frames and by "
            f"{ranged(fast, 3)} m² in jitter within them"
        )
        numbers["parts"] = {
            name: plain_numbers(moved.sel(part=name)) for name in moved["part"].values.tolist()
        }
    return f"{said}. {_carried(ate, numbers['carried_by'])}", numbers


def _carried(differences: xr.DataArray, turning: Sequence[str]) -> str:
    if int(differences.notnull().sum()) < 2:
        return "One sequence alone cannot say what carries a mean."
    if turning:
        return f"Without {' or '.join(turning)} alone the mean change of ATE turns its sign."
    strongest = str(abs(influence(differences)["influence"]).idxmax("sequence").item())
    return (
        f"No sequence carries it alone: without any one the mean keeps its sign ({strongest} "
        "pulls most)."
    )


def _without_truth(cells: xr.Dataset) -> Finding:
    far, paths = separation(cells), list(cells.attrs["paths"])
    cue = str(cells["cue"].values[0])
    distance = far["translation"].sel(cue=cue, drop=True)
    last = distance.isel(frame=distance.notnull().sum("frame") - 1)
    shares = (100 * last / far["extent"]).assign_attrs(units="%")
    alone = {path: {other: LEVELS[other == path] for other in paths} for path in paths}
    parts = {path: estimate(shares.sel(levels, drop=True)) for path, levels in alone.items()}
    both = estimate(gated_and_plain(shares, paths)[0])
    return Finding(
        QUESTION,
        "No ground truth: only differences between runs are shown. At the last frame the gated "
        f"camera is {ranged(both, unsigned=True)} % of the plain path's length away from the plain "
        f"one (n = {int(both['n'])}); gated only in "
        + ", only in ".join(f"{PATHS[path]} {ranged(cell, unsigned=True)} %"
                            for path, cell in parts.items()) + ".",
        {"separation": plain_numbers(both), "cue": cue},
    )  # fmt: skip


def ranged(cell: xr.Dataset, digits: int = 1, *, unsigned: bool = False) -> str:
    """Write one estimate as ``value [lower, upper]``, without its unit and count."""
    form = f"{'' if unsigned else '+'}.{digits}f"
    value, lower, upper = (format(float(cell[name]), form) for name in ("value", "lower", "upper"))
    return f"{value} [{lower}, {upper}]" if np.isfinite(float(cell["lower"])) else value


def spelled_or_none(cell: xr.Dataset, digits: int = 1) -> str:
    """Write one estimate with its unit and count, or that there is none."""
    return spelled(cell, digits) if int(cell["n"]) else "no value"


def plain_numbers(cell: xr.Dataset) -> dict[str, float | int]:
    """Return one estimate as plain numbers, what is not known left out."""
    named = {name: float(cell[name]) for name in ("value", "lower", "upper")}
    return {
        **{name: each for name, each in named.items() if np.isfinite(each)},
        "n": int(cell["n"]),
    }
