"""Where the motion cue lives: what the evidence allows to say, in a computed sentence."""

from typing import Any

import pandas as pd
import xarray as xr

from mut3r_analysis.studies.answers import Finding, verdict
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
from mut3r_analysis.studies.emergence.survey import (
    CONTROLS_OUT,
    LOCAL,
    OBJECTS,
    SHUFFLED,
    TESTS,
    TWIN,
    WHOLE,
)
from mut3r_analysis.studies.estimates import change, estimate, spelled

QUESTION = "Where does the motion cue live?"

_WIDEST_SHARE = 100
"""Percent points: an interval as wide as the whole range says nothing."""

_OTHERS = {OBJECTS: "resting objects", WHOLE: "everything that does not move"}

_JUDGED = {
    "higher": "above chance",
    "lower": "below chance: the choice did not hold up but turned round",
    "no difference that these sequences could show": "not told from chance by these sequences",
    "too few sequences to tell": "too few sequences to tell it from chance",
}


def finding(found: xr.Dataset) -> Finding:
    """Say what was found, with intervals; also when it is nothing, or cannot be told."""
    tests = choosing_tests(found)
    count = found.sizes["sequence"]
    if not tests:
        return Finding(
            QUESTION,
            f"No ground truth: fewer than two of {count} sequence(s) know which patches move, so "
            "no reading can be tested. Only where attention goes is shown.",
            {"sequences": count, "scored": 0},
        )
    test = tests[0]
    cells = chosen_cells(found)
    areas = cell_areas(found, cells)
    best, cell = areas[BEST], cells[BEST]
    part, cue = (
        {name: each.sel(test=name, drop=True) for name in TESTS}
        for each in (estimate(best), estimate(areas[CUE]))
    )
    side = "high" if cell.sign > 0 else "low"
    sign = "the declared sign" if cell.as_declared else "the opposite of the declared sign"
    sentences = [
        f"Every second sequence chose {cell}, where {side} values speak for motion ({sign}). On "
        f"the others its AUC against {_OTHERS[test]} is {spelled(part[test], 2)}, "
        f"{_JUDGED[_judged(part[test])]}.",
        "Resting objects are not known here, so this may be the look of objects alone."
        if test == WHOLE
        else _without_controls(found, part, test),
        _about_twins(part),
        _about_cue(cue, test),
        _about_whole_image(found, best, part[WHOLE]),
        _about_encoder(areas, test),
    ]
    values: dict[str, Any] = {"sequences": count, "test": test, "cell": cell._asdict()}
    for name, parts in (("best", part), ("cue", cue)):
        values[name] = {
            key: {each: float(value[each]) for each in ("value", "lower", "upper", "n")}
            for key, value in parts.items()
            if int(value["n"])
        }
    return Finding(QUESTION, " ".join(sentences), values, " ".join(sentences[:3]))


def estimates(areas: dict[str, xr.DataArray]) -> xr.Dataset:
    """Estimate each ``(sequence, ...)`` over the sequences it has; they stand along ``cell``."""
    return beside({name: estimate(values) for name, values in areas.items()}, "cell")


def beside(parts: dict[str, xr.Dataset], dim: str) -> xr.Dataset:
    """Put estimates side by side along a new dimension; their labels stay."""
    together = xr.concat(list(parts.values()), pd.Index(list(parts), name=dim), join="outer")
    first = next(iter(parts.values()))
    for name in together:
        together[name].attrs = first[name].attrs
    return together


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

    Chosen by the test on the picture alone, which can be done with labels dealt out anew as well.

    Returns
    -------
    Dataset
        As of `estimates.estimate`, (labels, half): for the true labels and for labels dealt out
        anew, on the half that chose and on the unseen one.
    """
    test, *_ = choosing_tests(found)
    chose, unseen = halves(found)
    rows = {}
    for labels, each in ((f"true ({test})", test), ("dealt out anew", SHUFFLED)):
        cell = choose(chose, [each])
        assert cell is not None
        parts = {
            name: estimate(oriented(half["auc"], cell).sel(test=each, drop=True))
            for name, half in (("chose", chose), ("unseen", unseen))
        }
        rows[labels] = beside(parts, "half")
    return beside(rows, "labels")


def _judged(area: xr.Dataset) -> str:
    """Words of `estimates.verdict` on an AUC beside chance."""
    return verdict(area.assign({each: area[each] - 0.5 for each in ("value", "lower", "upper")}))


def _about_twins(part: dict[str, xr.Dataset]) -> str:
    if not int(part[LOCAL]["n"]):
        return "Without twins it stays open how much of it the past has made."
    words = {
        "higher": "so the past makes part of it, which looks cannot explain",
        "lower": "so motion in the past moves it the wrong way",
        "no difference that these sequences could show": "so no effect of the past itself is shown",
        "too few sequences to tell": "too few sequences to tell",
    }
    return (
        "Between twins, the same picture after motion and after rest, it changes more where things "
        f"moved than elsewhere with AUC {spelled(part[LOCAL], 2)}, {words[_judged(part[LOCAL])]}; "
        f"moved patches stand above themselves at rest with AUC {spelled(part[TWIN], 2)}."
    )


def _without_controls(found: xr.Dataset, part: dict[str, xr.Dataset], test: str) -> str:
    rest = part[CONTROLS_OUT[test]]
    name, alone = _strongest_control(found, test)
    return (
        f"With the controls taken out it is {spelled(rest, 2)}, {_JUDGED[_judged(rest)]}; without "
        f"any model, {name} reaches {spelled(alone, 2)}."
    )


def _about_cue(cue: dict[str, xr.Dataset], test: str) -> str:
    """Judge the cue by each test on its own; tests of one verdict share a clause."""
    tests = {
        test: f"against {_OTHERS[test]}",
        CONTROLS_OUT[test]: "with the controls taken out",
        LOCAL: "between twins",
    }
    words = {
        "higher": "is above chance",
        "lower": "is below chance, so it points the wrong way,",
        "no difference that these sequences could show": "is not told from chance",
        "too few sequences to tell": "has too few sequences to be judged",
    }
    clauses: dict[str, list[str]] = {}
    for name, text in tests.items():
        if int(cue[name]["n"]):
            said = clauses.setdefault(words[_judged(cue[name])], [])
            said.append(f"{text} ({spelled(cue[name], 2)})")
    if not clauses:
        return "The cue itself could not be tested."
    told = "; it ".join(f"{verb} {' and '.join(said)}" for verb, said in clauses.items())
    return f"The AUC of the default cue {told}."


def _strongest_control(found: xr.Dataset, test: str) -> tuple[str, xr.Dataset]:
    """Name what tells moving patches best without any model, with its AUC."""
    controls = estimate(found["control_auc"].sel(test=test, drop=True))
    top = controls.isel(abs(controls["value"] - 0.5).fillna(-1).argmax(...))
    return str(top["control"].item()).replace("_", " "), top


def _about_whole_image(found: xr.Dataset, best: xr.DataArray, raw: xr.Dataset) -> str:
    name, top = _strongest_control(found, WHOLE)
    alone = f"the strongest control, {name}, alone reaches {spelled(top, 2)}"
    start = f"Over the whole image the reading's AUC is {spelled(raw, 2)}"
    if _judged(raw) != "higher":
        return f"{start}, not shown to be above chance, and {alone}."
    share = explained(best)
    if not float(share["upper"] - share["lower"]) < _WIDEST_SHARE:
        told = f"how much of that the controls explain cannot be told ({spelled(share, 0)})"
    else:
        told = f"of what exceeds chance the controls explain {spelled(share, 0)}"
    return f"{start}; {told}, and {alone}."


def _about_encoder(areas: dict[str, xr.DataArray], test: str) -> str:
    if ENCODER not in areas:
        return "The encoder was not measured."
    area = estimate(areas[ENCODER].sel(test=test, drop=True))
    return (
        "What looks alone can do: the best one-frame reading of the encoder, which has no past, "
        f"reaches {spelled(area, 2)} against {_OTHERS[test]}, {_JUDGED[_judged(area)]}."
    )
