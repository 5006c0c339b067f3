"""Where the motion cue lives: the evidence as tables and as a finding."""

import xarray as xr

from mut3r_analysis.studies.emergence.cells import (
    BEST,
    CUE,
    ENCODER,
    cell_areas,
    choose,
    choosing_tests,
    chosen_cells,
    halves,
    oriented,
)
from mut3r_analysis.studies.emergence.survey import CONTROLS_OUT, LOCAL, PERMUTED, TWIN, WHOLE
from mut3r_analysis.studies.estimates import change, estimate
from mut3r_analysis.studies.finding import NO_TRUTH, NOT_MEASURED, Finding, row, rows
from mut3r_analysis.studies.labelling import beside

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
        of_cell = estimate(areas[name].sel(test=asked))
        table += rows(of_cell, f"{name}, {{}}", CHANCE)
    lead = [table[place] for place in (0, 1, 2, len(asked), len(asked) + 2)]
    if ENCODER in areas:
        looks = estimate(areas[ENCODER].sel(test=test, drop=True))
        lead.append(row(f"{ENCODER}, {test}", looks, CHANCE))
    table = [*lead, *(each for each in table if each not in lead)]
    for each in dict.fromkeys([test, WHOLE]):
        controls = estimate(found["control_auc"].sel(test=each, drop=True))
        top = controls.isel(abs(controls["value"] - CHANCE).fillna(-1).argmax(...))
        name = str(top["control"].item()).replace("_", " ")
        table.append(row(f"{name}, without a model, {each}", top, CHANCE))
    share = explained(areas[BEST])
    table.append(row("share of the whole image that controls explain", share, reference=None))
    cell = cells[BEST]
    side = "high" if cell.sign > 0 else "low"
    sign = "as declared" if cell.as_declared else "opposite to the declared sign"
    return Finding(
        QUESTION,
        [each for each in table if each.verdict != NOT_MEASURED],
        f"Against chance ({CHANCE}), on sequences that did not choose the cell, the AUC is",
        f"Best of all: {cell}; {side} values mean motion, {sign}.",
        lead=sum(each.verdict != NOT_MEASURED for each in lead),
    )


def estimates(areas: dict[str, xr.DataArray]) -> xr.Dataset:
    """Estimate each ``(sequence, ...)`` over the sequences it has; they stand along ``cell``."""
    return beside({name: estimate(values) for name, values in areas.items()}, "cell")


def explained(areas: xr.DataArray, test: str = WHOLE) -> xr.Dataset:
    """How much of an AUC's distance from chance the controls explain, in percent.

    Parameters
    ----------
    areas : DataArray
        (sequence, test) of one cell.
    test : str
        One that is also given with the controls taken out.

    Returns
    -------
    Dataset
        As of `estimates.estimate`. 100: nothing is left; 0: all of it.
    """
    lost = change(areas.sel(test=CONTROLS_OUT[test], drop=True) - 0.5,
                  areas.sel(test=test, drop=True) - 0.5)  # fmt: skip
    share = xr.Dataset(
        {"value": -lost["value"], "lower": -lost["upper"], "upper": -lost["lower"], "n": lost["n"]}
    )
    for name in ("value", "lower", "upper"):
        share[name].attrs = {"long_name": "explained by the controls", "units": "%"}
    return share


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
        parts = {
            name: estimate(oriented(half["auc"], cell).sel(test=each, drop=True))
            for name, half in (("chose", chose), ("unseen", unseen))
        }
        rows[labels] = beside(parts, "half")
    return beside(rows, "labels")
