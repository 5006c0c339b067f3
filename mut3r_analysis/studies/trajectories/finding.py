"""Can the absolute trajectory error rise while relative errors fall, and why: the answer."""

import xarray as xr

from mut3r_analysis.studies.ablation import SHUFFLED
from mut3r_analysis.studies.estimates import change, difference, estimate
from mut3r_analysis.studies.finding import Finding, Row, row, rows, without_truth
from mut3r_analysis.studies.trajectories.attribution import (
    gated_and_plain,
    influence,
    relative_contributions,
    separation,
)
from mut3r_analysis.studies.trajectories.read_write import LEVELS, SHORT

QUESTION = "Why can the absolute trajectory error rise while relative errors fall?"
ASKED = ("ate", "rpe_translation")


def finding(cells: xr.Dataset, parts: xr.Dataset | None = None) -> Finding:
    """Tell how errors change under gating, through which path, and whether one sequence carries it.

    Parameters
    ----------
    cells : Dataset
        From `measure_cells`.
    parts : Dataset, optional
        From `path_parts` of the same cells.
    """
    if "ate" not in cells or not bool(cells["ate"].notnull().any()):
        about = "Against the plain camera, in percent of its path, the last camera is away by"
        return without_truth(QUESTION, last_distances(cells), about)
    paths = list(cells.attrs["paths"])
    cues = [
        cue
        for cue in cells["cue"].values.tolist()
        if not cue.endswith(SHUFFLED) and bool(cells["ate"].sel(cue=cue).notnull().any())
    ]
    lead = [
        row(f"{SHORT[name]}, {cue}", change(*gated_and_plain(cells[name].sel(cue=cue), paths)))
        for cue in cues
        for name in ASKED
    ]
    table: list[Row] = []
    for cue in cues:
        table += _causes(cells.sel(cue=cue, drop=True), paths, cue)
        if parts is not None:
            square = parts["mean_square"].sel(cue=cue, drop=True)
            moved = difference(*gated_and_plain(square, paths))
            table += rows(moved, f"squared error of the path, {{}}, {cue}")
    about = "Against the plain run, with gates by each cue, the error is"
    return Finding(QUESTION, [*lead, *table], about, lead=len(lead))


def _causes(chosen: xr.Dataset, paths: list[str], cue: str) -> list[Row]:
    """Through which path ATE changes, in how many sequences, and without which it would not."""
    shares = relative_contributions(chosen["ate"], paths)
    table = rows(shares, f"ATE through {{}}, {cue}")
    ate, rpe = (
        gated - plain for gated, plain in (gated_and_plain(chosen[name], paths) for name in ASKED)
    )
    known = ate.notnull() & rpe.notnull()
    both = ((ate > 0) & (rpe < 0) & known).sum()
    effect = f"sequences in which ATE rises and RPE falls, {cue}"
    table.append(Row(effect, int(both), n=int(known.sum()), reference=None))
    without = influence(ate)
    for name in without["sequence"].values[without["flips"].values]:
        mean = float(without["without"].sel(sequence=name))
        effect = f"mean change of ATE, sign flipped without {name}, {cue}"
        table.append(Row(effect, mean, n=int(ate.notnull().sum()) - 1, unit="m", reference=None))
    return table


def last_distances(cells: xr.Dataset) -> xr.Dataset:
    """Estimate how far the last camera is from the plain one, percent of the plain path, (gated).

    ``gated`` is all paths, and each of them alone; of the first cue.
    """
    far, paths = separation(cells), list(cells.attrs["paths"])
    distance = far["translation"].isel(cue=0, drop=True)
    last = distance.isel(frame=distance.notnull().sum("frame") - 1)
    shares = (100 * last / far["extent"]).assign_attrs(units="%")
    alone = [{other: LEVELS[other == path] for other in paths} for path in paths]
    parts = [gated_and_plain(shares, paths)[0], *(shares.sel(each, drop=True) for each in alone)]
    names = ["all paths gated", *(f"{path} gated" for path in paths)]
    return xr.concat([estimate(each) for each in parts], dim=xr.Variable("gated", names))
