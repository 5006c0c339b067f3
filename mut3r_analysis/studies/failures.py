"""Failure cases: from a sweep to the sequence, frame, patch, layer and head it went wrong at."""

from collections.abc import Mapping
from typing import Any

import xarray as xr

from mut3r_analysis.evaluation.error_maps import over_patches
from mut3r_analysis.foundation.labelling import held
from mut3r_analysis.running import open_run
from mut3r_analysis.studies.estimates import change
from mut3r_analysis.studies.finding import NO_TRUTH, Finding, Row, row


def runs_of(table: xr.Dataset, sequence: str) -> dict[str, xr.DataTree]:
    """Open the runs of all configurations of a sweep on one of its sequences, by their names."""
    paths = table["run"].sel(sequence=sequence)
    return {str(path["configuration"].item()): open_run(str(path.item())) for path in paths}


def worst_case(
    runs: Mapping[str, xr.DataTree], changed: xr.Dataset, frame: int, row: int, column: int
) -> dict[str, Any]:
    """Describe the worst patch: what the cue says of it, whether it moves, and where it changed.

    Parameters
    ----------
    runs : mapping of str to DataTree
        ``plain`` and ``gated``.
    changed : Dataset
        From :func:`~mut3r_analysis.motion.attention_change`, of this patch.
    frame, row, column : int
        The patch.
    """
    cell = changed["reads"].mean("statistic").stack(cell=("site", "layer", "head"))
    site, layer, head = cell["cell"].values[int(cell.argmax("cell"))]
    score = runs["gated"]["cue/motion"].sel(frame=frame)
    moving = None
    if (mask := held(runs["plain"], "truth/motion_mask")) is not None:
        grid = (score.sizes["patch_row"], score.sizes["patch_col"])
        shares = over_patches(mask.sel(frame=[frame]), grid)[0]
        moving = float(shares[row, column])
    return {
        "sequence": str(runs["plain"].attrs["sequence"]["name"]),
        "frame": frame,
        "row": row,
        "column": column,
        "score": float(score.isel(patch_row=row, patch_col=column)),
        "moving": moving,
        "site": site,
        "layer": layer,
        "head": head,
    }


def finding(found: xr.Dataset, worst: Mapping[str, Any]) -> Finding:
    """Tell what gating changes on average, and where the sweep's worst case is.

    Parameters
    ----------
    found : Dataset
        From :func:`harms`.
    worst : mapping
        ``sequence``, ``frame``, ``row``, ``column``, ``score``, ``moving`` (None without truth),
        ``site``, ``layer``, ``head`` of the worst frame; ``beta`` of the gates; ``outside``, what
        of the sequence's scene the backbone was not trained on.
    """
    harm = found["harm"].dropna("sequence")
    count, unit = harm.sizes["sequence"], harm.attrs["units"].replace("1", "")
    note = (
        f"Worst: frame {worst['frame']} of {worst['sequence']}, patch ({worst['row']}, "
        f"{worst['column']}); attention changed most at {worst['site']}, layer {worst['layer']}, "
        f"head {worst['head']}."
    )
    if worst["outside"]:
        note += f" Unlike the scenes of training: {'; '.join(worst['outside'])}."
    if "gated" in found:
        about = f"Gating by the own cue at β = {worst['beta']:g}"
        mean = change(found["gated"], found["plain"])
        rows = [row(found["gated"].attrs["long_name"], mean)]
        raised = int((harm > 0).sum())
        rows.append(Row("sequences whose error is raised", raised, n=count, reference=None))
    else:
        about, note = f"Gating by the own cue at β = {worst['beta']:g}", f"{NO_TRUTH} {note}"
        rows = [Row("depth", float(harm.mean()), n=count, unit=unit, reference=None)]
    for text, place in (("most raised", 0), ("least raised", -1)):
        effect = f"{text}: {harm['sequence'].values[place]}"
        rows.append(Row(effect, float(harm[place]), unit=unit, reference=None))
    rows.append(Row("motion score of the worst patch", worst["score"], reference=None))
    if worst["moving"] is not None:
        rows.append(Row("moving share of the worst patch", worst["moving"], reference=None))
    return Finding("Where does gating fail?", rows, about, note, lead=1)
