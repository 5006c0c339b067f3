"""Cells: a reading at one place, chosen on half of the sequences; what it shows, as a finding.

The best of hundreds of cells looks good on the sequences that chose it. Here every second sequence
chooses, with the sign as well, and the others report.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from mut3r_analysis.attention.sites import DECODER_KINDS
from mut3r_analysis.foundation.labelling import beside, described
from mut3r_analysis.motion.readings import READINGS
from mut3r_analysis.studies.emergence.observation import CONTROL_SITE
from mut3r_analysis.studies.emergence.readings import MEAN_HEAD, OVER_TIME, SIGNS
from mut3r_analysis.studies.emergence.survey import (
    CONTROLS_OUT,
    LOCAL,
    OBJECTS,
    PERMUTED,
    TWIN,
    WHOLE,
)
from mut3r_analysis.studies.estimates import change, estimate, formatted
from mut3r_analysis.studies.finding import NO_TRUTH, NOT_MEASURED, Finding, row, rows

BEST, TIME = "the best cell", "the best over time (R5)"
ENCODER, CUE = "the encoder (control)", "MUT3R's cue"

OF_ONE_FRAME = tuple(label for label in SIGNS if label not in OVER_TIME)
"""Readings that look at one frame only: what they know of the past comes from the memory."""

_LEAST_SPREAD = 0.05
"""Of an AUC over sequences: a few that happen to agree are no certainty."""


class SignedCell(NamedTuple):
    """One reading at one place in the network, with the sign that makes motion high."""

    site: str
    reading: str
    layer: int
    head: str
    sign: int

    def __str__(self) -> str:
        head = "mean over heads" if self.head == MEAN_HEAD else f"head {self.head}"
        return f"{self.reading} at {self.site}, layer {self.layer}, {head}"

    @property
    def place(self) -> dict[str, Any]:
        """The labels that select it."""
        return {dim: getattr(self, dim) for dim in ("site", "reading", "layer", "head")}

    @property
    def signed_code(self) -> str:
        """The code of the reading with the sign of what means motion, such as ``"−R1"``."""
        code = self.reading.split()[0] if self.reading in OF_ONE_FRAME else self.reading
        return f"{'+' if self.sign > 0 else '−'}{code}"

    @property
    def as_declared(self) -> bool:
        """Whether the sign is the one that the reading is published, or usually read, with."""
        return self.sign == SIGNS[self.reading]


def choosing_tests(found: xr.Dataset) -> list[str]:
    """Name the tests that choose: the strictest on the picture, and that of the twins.

    Returns
    -------
    list of str
        First moving against resting objects, or against the whole image where fewer than two
        sequences know resting objects; then the change between twins, where at least four sequences
        have one, two in each half. Empty where nothing can be tested.
    """
    if "auc" not in found:
        return []
    on_picture = [test for test in (OBJECTS, WHOLE) if _scored(found, test).sum() >= 2]
    of_past = [LOCAL] if _scored(found, LOCAL).sum() >= 4 else []
    return [*on_picture[:1], *of_past] if on_picture else []


def halves(found: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Split the sequences that can be tested: every second one chooses, the others report."""
    scored = found.isel(sequence=np.flatnonzero(_scored(found, WHOLE)))
    return scored.isel(sequence=slice(0, None, 2)), scored.isel(sequence=slice(1, None, 2))


def choose(
    found: xr.Dataset,
    tests: Sequence[str],
    *,
    sites: Collection[str] = DECODER_KINDS,
    readings: Collection[str] = OF_ONE_FRAME,
    heads: Collection[str] | None = None,
) -> SignedCell | None:
    """Choose the cell whose mean AUC is farthest from chance, on the same side in all tests.

    Distances are counted in standard errors over the sequences, since some readings lie far from
    chance in every sequence but each time elsewhere, and those of the tests add up. A test that a
    reading does not allow adds nothing.

    Returns
    -------
    SignedCell or None
        None where none of the sites and readings was measured.
    """
    areas = found["auc"].sel(test=list(tests))
    for dim, wanted in (("site", sites), ("reading", readings), ("head", heads)):
        if wanted is not None:
            areas = areas.sel({dim: [label for label in areas[dim].values if label in wanted]})
    areas = areas - 0.5
    if not areas.notnull().any():
        return None
    spread = np.sqrt((areas**2).mean("sequence") - areas.mean("sequence") ** 2 + _LEAST_SPREAD**2)
    distance = areas.mean("sequence") / spread * np.sqrt(areas.notnull().sum("sequence"))
    together = distance.sum("test").where(distance.notnull().any("test"))
    cell = together[abs(together).fillna(-1).argmax(...)]
    names = {dim: cell[dim].item() for dim in ("site", "reading", "layer", "head")}
    return SignedCell(**names, sign=1 if cell.item() >= 0 else -1)


def chosen_cells(found: xr.Dataset) -> dict[str, SignedCell]:
    """Choose on the first half: over all, per site, over time, and at the encoder (a control).

    Readings over time (R5) stand apart: they look at earlier frames themselves, so that a twin with
    another past changes them whatever the memory holds. The encoder has no memory, so that its best
    reading of one frame shows what looks alone can do. Neither is chosen by twins.
    """
    tests = choosing_tests(found)
    if not tests:
        return {}
    half, _ = halves(found)
    chosen = {
        BEST: choose(half, tests),
        **{site: choose(half, tests, sites=[site]) for site in DECODER_KINDS},
        TIME: choose(half, tests[:1], readings=OVER_TIME),
        ENCODER: choose(half, tests[:1], sites=[CONTROL_SITE]),
    }
    return {name: cell for name, cell in chosen.items() if cell is not None}


def oriented(areas: xr.DataArray, cell: SignedCell) -> xr.DataArray:
    """Take the AUC of one cell, with its sign."""
    return signed(areas.sel(cell.place, drop=True), cell.sign)


def signed(areas: xr.DataArray, sign: int) -> xr.DataArray:
    """Turn an AUC to the side of its sign."""
    return areas if sign > 0 else (1 - areas).assign_attrs(areas.attrs)


def cell_areas(found: xr.Dataset, cells: dict[str, SignedCell]) -> dict[str, xr.DataArray]:
    """AUC ``(sequence, test)`` of cells on the half that did not choose them, and of the cue.

    The cue was not chosen here, so all sequences report on it.
    """
    tests = choosing_tests(found)
    if not tests:
        return {}
    _, half = halves(found)
    areas = {name: oriented(half["auc"], cell) for name, cell in cells.items()}
    return areas | {CUE: found["cue_auc"]}


def cell_changes(found: xr.Dataset, cells: dict[str, SignedCell]) -> dict[str, xr.DataArray]:
    """Change ``(sequence)`` of cells between twins, on the half that did not choose them, by sign.

    Positive where motion in the past makes the reading mean motion more.
    """
    _, half = halves(found)
    taken = {name: half["change"].sel(cell.place, drop=True) for name, cell in cells.items()}
    changes = {
        name: (cells[name].sign * change).assign_attrs(change.attrs)
        for name, change in taken.items()
        if change.notnull().any()
    }
    return changes | {CUE: found["cue_change"]}


def _scored(found: xr.Dataset, test: str) -> np.ndarray:
    """Which sequences allow a test, ``(sequence,)``."""
    known = found["auc"].sel(test=test).notnull()
    return known.any([dim for dim in known.dims if dim != "sequence"]).values


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
    return beside(panels, "panel").assign_attrs(found["auc"].attrs)


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
            where = {"site": site, "reading": cell.reading, "head": MEAN_HEAD, "test": list(tests)}
            areas = half["auc"].sel(where).drop_vars(["site", "reading", "head"])
            parts[f"{site}, {cell.signed_code}"] = signed(areas, cell.sign)
    return estimates(parts, "site")


def over_frames(found: xr.Dataset, cells: dict[str, SignedCell]) -> xr.Dataset:
    """Estimate the AUC against resting objects, ``(cell, past)``, on the unseen half."""
    _, half = halves(found)
    together = estimates({name: oriented(half["frame_auc"], cell) for name, cell in cells.items()})
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
    table = pd.DataFrame("", index=found["reading"].values, columns=found["site"].values)
    for reading, site in product(table.index, table.columns):
        cell = choose(chose, [test], sites=[site], readings=[reading])
        if cell is not None:
            area = estimate(oriented(half["auc"], cell).sel(test=test, drop=True))
            sign = "+" if cell.sign > 0 else "−"
            table.loc[reading, site] = f"{sign}{cell.layer}/{cell.head}, {formatted(area, 2)}"
    return table


QUESTION = "Where does the motion cue live?"
CHANCE = 0.5


def finding(found: xr.Dataset) -> Finding:
    """Tell how well the best cell, the cue and what needs no model tell moving patches.

    Parameters
    ----------
    found : Dataset
        From `survey`.
    """
    tests = choosing_tests(found)
    if not tests:
        note = f"{NO_TRUTH} Fewer than two sequences know which patches move."
        return Finding(QUESTION, note=note)
    test = tests[0]
    cells = chosen_cells(found)
    areas = cell_areas(found, cells)
    asked = list(dict.fromkeys([test, CONTROLS_OUT[test], LOCAL, TWIN, WHOLE, CONTROLS_OUT[WHOLE]]))
    table = []
    for name in (BEST, CUE):
        table += rows(estimate(areas[name].sel(test=asked)), f"{name}, {{}}", CHANCE)
    lead = [table[place] for place in (0, 1, 2, len(asked), len(asked) + 2)]
    if ENCODER in areas:
        lead += rows(estimate(areas[ENCODER].sel(test=[test])), f"{ENCODER}, {{}}", CHANCE)
    table = [*lead, *(each for each in table if each not in lead)]
    for each in dict.fromkeys([test, WHOLE]):
        controls = estimate(found["control_auc"].sel(test=each, drop=True))
        top = controls.isel(abs(controls["value"] - CHANCE).fillna(-1).argmax(...))
        name = str(top["control"].item()).replace("_", " ")
        table.append(row(f"{name}, without a model, {each}", top, CHANCE))
    effect = "share of the whole image that controls explain"
    table.append(row(effect, explained(areas[BEST]), reference=None))
    cell = cells[BEST]
    side = "high" if cell.sign > 0 else "low"
    sign = "as declared" if cell.as_declared else "opposite to the declared sign"
    return Finding(
        QUESTION,
        [each for each in table if each.verdict != NOT_MEASURED],
        "Attention tells moving patches from others with an AUC of",
        f"The best cell: {cell}; {side} values mean motion, {sign}.",
        lead=sum(each.verdict != NOT_MEASURED for each in lead),
    )


def estimates(areas: Mapping[str, xr.DataArray], dim: str = "cell") -> xr.Dataset:
    """Estimate each ``(sequence, ...)`` over the sequences it has, side by side along `dim`."""
    return beside({name: estimate(values) for name, values in areas.items()}, dim)


def explained(areas: xr.DataArray) -> xr.Dataset:
    """How much of an AUC's distance from chance over the whole image controls explain, percent.

    Parameters
    ----------
    areas : DataArray
        (sequence, test) of one cell.

    Returns
    -------
    Dataset
        As of `estimates.estimate`. 100: nothing is left; 0: all of it.
    """
    whole, rest = (areas.sel(test=test, drop=True) - 0.5 for test in (WHOLE, CONTROLS_OUT[WHOLE]))
    lost = change(rest, whole)
    share = (-lost[["value", "lower", "upper"]]).rename(lower="upper", upper="lower")
    words = ("explained by the controls", "%")
    return described(share.assign(n=lost["n"]), dict.fromkeys(("value", "lower", "upper"), words))


def selection(found: xr.Dataset) -> xr.Dataset:
    """Show what choosing does: the AUC of the best cell where it was chosen, and where it was not.

    Chosen by the test on the picture alone, which can be done with permuted labels as well.

    Returns
    -------
    Dataset
        As of `estimates.estimate`, (labels, half): for the true and for permuted labels, on the
        half that chose and on the unseen one.
    """
    test, *_ = choosing_tests(found)
    chose, unseen = halves(found)
    rows = {}
    for labels, each in ((f"true ({test})", test), ("permuted", PERMUTED)):
        cell = choose(chose, [each])
        assert cell is not None
        areas = {"chose": chose["auc"], "unseen": unseen["auc"]}
        areas = {
            name: oriented(all_, cell).sel(test=each, drop=True) for name, all_ in areas.items()
        }
        rows[labels] = estimates(areas, "half")
    return beside(rows, "labels")
