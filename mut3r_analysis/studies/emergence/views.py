"""Views of the evidence: what the figures and tables of the emergence study show."""

from collections.abc import Sequence

import pandas as pd
import xarray as xr

from mut3r_analysis.attention.sites import DECODER_KINDS
from mut3r_analysis.motion.readings import READINGS
from mut3r_analysis.studies.emergence.cells import (
    ENCODER,
    SignedCell,
    choose,
    choosing_tests,
    chosen_cells,
    halves,
    oriented,
    signed,
)
from mut3r_analysis.studies.emergence.finding import beside
from mut3r_analysis.studies.emergence.observation import CONTROL_SITE
from mut3r_analysis.studies.emergence.readings import MEAN_HEAD, OVER_TIME, SIGNS
from mut3r_analysis.studies.estimates import estimate, formatted


def definitions() -> pd.DataFrame:
    """List the readings by label: formula, and whether high or low values are read as motion.

    z are logits, p weights, i queries, j keys, M the number of keys.
    """
    formulas = {f"{item.code} {item.name}": item.formula for item in READINGS.values()}
    formulas |= dict.fromkeys(OVER_TIME, "standard deviation over the frames so far")
    return pd.DataFrame(
        [(label, formulas[label], "high" if sign > 0 else "low") for label, sign in SIGNS.items()],
        columns=["reading", "formula", "read as motion"],
    )


def layers_and_heads(found: xr.Dataset, test: str) -> xr.DataArray:
    """AUC on the unseen half, ``(panel, layer, head)``: each site with its chosen reading."""
    _, half = halves(found)
    cells = chosen_cells(found)
    panels = {}
    for site in (*DECODER_KINDS, CONTROL_SITE):
        cell = cells.get(ENCODER if site == CONTROL_SITE else site)
        if cell is not None:
            areas = half["auc"].sel(test=test, site=site, reading=cell.reading, drop=True)
            panels[f"{site}, {cell.signed_code}"] = signed(areas, cell.sign).mean("sequence")
    together = xr.concat(list(panels.values()), pd.Index(list(panels), name="panel"))
    return together.assign_attrs(found["auc"].attrs)


def over_layers(found: xr.Dataset, tests: Sequence[str]) -> xr.Dataset:
    """Estimate the AUC of the mean over heads, ``(site, test, layer)``, on the unseen half.

    Each site is read with the reading that the other half chose for its mean over heads.
    """
    chosen_by = choosing_tests(found)
    chose, half = halves(found)
    parts = {}
    for site in (*DECODER_KINDS, CONTROL_SITE):
        by = chosen_by[:1] if site == CONTROL_SITE else chosen_by
        cell = choose(chose, by, sites=[site], heads=[MEAN_HEAD])
        if cell is not None:
            areas = half["auc"].sel(site=site, reading=cell.reading, head=MEAN_HEAD, drop=True)
            parts[f"{site}, {cell.signed_code}"] = estimate(
                signed(areas.sel(test=list(tests)), cell.sign)
            )
    return beside(parts, "site")


def over_frames(found: xr.Dataset, cells: dict[str, SignedCell]) -> xr.Dataset:
    """Estimate the AUC against resting objects, ``(cell, past)``, on the unseen half."""
    _, half = halves(found)
    parts = {name: estimate(oriented(half["frame_auc"], cell)) for name, cell in cells.items()}
    together = beside(parts, "cell")
    together["past"].attrs = {"long_name": "frames seen before", "units": "1"}
    return together


def readings_by_layer(found: xr.Dataset, test: str) -> xr.DataArray:
    """AUC ``(site, reading, layer)`` of the mean over heads, all sequences, declared signs."""
    areas = found["auc"].sel(test=test, head=MEAN_HEAD, drop=True).mean("sequence")
    signs = xr.DataArray(
        [SIGNS[label] for label in areas["reading"].values], {"reading": areas["reading"]}
    )
    return xr.where(signs > 0, areas, 1 - areas).assign_attrs(found["auc"].attrs)


def strongest(found: xr.Dataset, test: str) -> pd.DataFrame:
    """Write the best layer and head of every reading and site, chosen on one half, on the other.

    Returns
    -------
    DataFrame
        Readings by sites: ``layer/head, AUC [lower, upper] (n)``, with the sign chosen: + where
        high values mean motion.
    """
    chose, half = halves(found)
    labels, areas = {}, {}
    for site in found["site"].values:
        for reading in found["reading"].values:
            cell = choose(chose, [test], sites=[site], readings=[reading])
            if cell is not None:
                sign = "+" if cell.sign > 0 else "−"
                labels[site, reading] = f"{sign}{cell.layer}/{cell.head}"
                areas[site, reading] = oriented(half["auc"], cell).sel(test=test, drop=True)
    tested = estimate(xr.concat(list(areas.values()), "cell"))
    table = pd.DataFrame("", index=found["reading"].values, columns=found["site"].values)
    for place, (site, reading) in enumerate(areas):
        table.loc[reading, site] = (
            f"{labels[site, reading]}, {formatted(tested.isel(cell=place), 2)}"
        )
    return table
