"""Suppression depth: which layers to gate, with the model's own cue and with a perfect one."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.layers import range_label
from mut3r_analysis.motion.cue import Cue
from mut3r_analysis.motion.gate import PAPER_DEPTH, Gate
from mut3r_analysis.studies.choice import best, chosen_elsewhere
from mut3r_analysis.studies.estimates import change, estimate, spelled, verdict
from mut3r_analysis.studies.finding import Finding
from mut3r_analysis.studies.measures import NO_TRUTH, leading

PAPER_RANGES = ((0, 2), (0, 4), (0, 6), (0, 8), (0, 12), (6, 12))
"""Ranges of layers in the paper's Table 4, half-open, of `PAPER_DEPTH`."""

PLAIN = "plain"
OWN, ORACLE = "own cue", "oracle cue"
SHUFFLED = ", shuffled"
"""Ending of the name of a cue's control: its scores at random places of the frame."""

QUESTION = "Which layers should be gated?"


def layer_ranges(
    depth: int, asked: Sequence[Sequence[int]] = PAPER_RANGES, of_depth: int = PAPER_DEPTH
) -> xr.Dataset:
    """Scale ranges of layers to a decoder, naming those that fall together.

    Parameters
    ----------
    depth : int
        Decoder layers of the model.
    asked : sequence of (int, int)
        Half-open ranges of layers.
    of_depth : int
        The depth that `asked` is counted in.

    Returns
    -------
    Dataset
        Along ``layers``, such as ``"[0, 3)"``: ``start``, ``stop`` and ``asked``, the ranges
        that it stands for. Attribute ``empty`` lists ranges that scaling leaves no layer;
        ``note`` says in words what was scaled, merged or left out.

    Raises
    ------
    InvalidArgument
        When no range keeps a layer, or one does not fit `of_depth`.
    """
    merged: dict[tuple[int, int], list[str]] = {}
    empty = []
    for start, stop in asked:
        bounds = Gate(layers=(start, stop), of_depth=of_depth).layer_range(depth)
        if len(bounds):
            merged.setdefault((bounds.start, bounds.stop), []).append(range_label(start, stop))
        else:
            empty.append(range_label(start, stop))
    if not merged:
        raise InvalidArgument(
            f"no range of {', '.join(empty) or 'none given'} keeps a layer in a decoder of "
            f"{depth}; give wider ranges"
        )
    labels = [range_label(*bounds) for bounds in merged]
    notes = [f"Ranges of {of_depth} layers, scaled to {depth}."] if depth != of_depth else []
    notes += [
        f"{' and '.join(names)} are both {label} here and computed once."
        for label, names in zip(labels, merged.values(), strict=True)
        if len(names) > 1
    ]
    if empty:
        notes.append(f"Nothing is left of {', '.join(empty)}, which is therefore plain.")
    found = xr.Dataset(
        {
            "start": ("layers", [start for start, _ in merged]),
            "stop": ("layers", [stop for _, stop in merged]),
            "asked": ("layers", np.array([" ".join(n) for n in merged.values()], dtype=object)),
        },
        coords={"layers": np.array(labels, dtype=object)},
        attrs={"empty": empty, "note": " ".join(notes), "depth": depth, "of_depth": of_depth},
    )
    found["layers"].attrs = {"long_name": f"gated layers of {depth}", "units": "1"}
    return found


def cues(oracle: bool = True) -> dict[str, Cue]:
    """Return the cues by name, each followed by its shuffled control.

    Parameters
    ----------
    oracle : bool
        Whether the true motion mask is among them; it needs sequences that have one.
    """
    bases = {OWN: Cue.mut3r} | ({ORACLE: Cue.oracle} if oracle else {})
    return {
        name + ending: make(control=control)
        for name, make in bases.items()
        for ending, control in (("", None), (SHUFFLED, "shuffle"))
    }


def design(ranges: xr.Dataset, chosen: Mapping[str, Cue]) -> dict[str, dict[str, object]]:
    """Return which cue and which layers each configuration stands for; plain is not among them."""
    return {
        f"{name} {layers}": {"cue": name, "layers": layers}
        for name in chosen
        for layers in ranges["layers"].values.tolist()
    }


def configurations(
    ranges: xr.Dataset, chosen: Mapping[str, Cue], beta: float = 1.0
) -> dict[str, dict[str, Any]]:
    """Return the configurations of a sweep: plain, and every cue on every range."""
    bounds = {
        label: (int(ranges["start"].sel(layers=label)), int(ranges["stop"].sel(layers=label)))
        for label in ranges["layers"].values.tolist()
    }
    gated = {
        label: {
            "cue": chosen[str(row["cue"])],
            "gate": Gate.mut3r(beta=beta, layers=bounds[str(row["layers"])]),
        }
        for label, row in design(ranges, chosen).items()
    }
    return {PLAIN: {}, **gated}


def against_plain(errors: xr.DataArray, plain: xr.DataArray) -> xr.Dataset:
    """Change of each error against the plain run, percent; see `estimates.change`.

    Parameters
    ----------
    errors : DataArray
        (measure, sequence, cue, layers).
    plain : DataArray
        (measure, sequence).
    """
    found = change(errors, plain)
    return _named(found, "change of the error against the plain run")


def against_control(errors: xr.DataArray) -> xr.Dataset:
    """Change of each error against that with the shuffled score of the same cue, percent.

    Returns
    -------
    Dataset
        Along ``cue`` only cues that have a control.
    """
    names = [
        name for name in errors["cue"].values.tolist() if name + SHUFFLED in errors["cue"].values
    ]
    if not names:
        raise InvalidArgument(f"no cue has its control; run {OWN + SHUFFLED!r} beside {OWN!r}")
    control = errors.sel(cue=[name + SHUFFLED for name in names]).assign_coords(cue=names)
    return _named(
        change(errors.sel(cue=names), control), "change of the error against shuffled scores"
    )


def chosen_range(errors: xr.DataArray, plain: xr.DataArray) -> xr.Dataset:
    """Change of each error when the range was chosen on the other sequences, percent."""
    elsewhere = chosen_elsewhere(errors, "layers")
    return _named(change(elsewhere["error"], plain), "change with layers chosen elsewhere")


def picked(errors: xr.DataArray) -> pd.DataFrame:
    """Say which range the others choose for how many sequences, by measure and cue.

    Parameters
    ----------
    errors : DataArray
        (measure, sequence, cue, layers).

    Returns
    -------
    DataFrame
        One row per measure, one column per cue; such as ``"[0, 3) 4 times, [0, 6) once"``.
    """
    chosen = chosen_elsewhere(errors, "layers")["chosen"]
    order = errors["layers"].values.tolist()

    def told(measure: str, cue: str) -> str:
        found = chosen.sel(measure=measure, cue=cue).values.tolist()
        counts = {layers: found.count(layers) for layers in order if layers in found}
        return ", ".join(f"{layers} {_times(count)}" for layers, count in counts.items())

    return pd.DataFrame(
        {
            cue: {measure: told(measure, cue) for measure in errors["measure"].values.tolist()}
            for cue in errors["cue"].values.tolist()
        }
    )


def finding(errors: xr.DataArray, plain: xr.DataArray) -> Finding:
    """Say which range is best for depth and for pose, and where it beats or loses to its control.

    Parameters
    ----------
    errors : DataArray
        (measure, sequence, cue, layers), as :func:`measures.errors` unfolded; every cue with its
        control.
    plain : DataArray
        (measure, sequence).
    """
    changes, control = against_plain(errors, plain), against_control(errors)
    fair = chosen_range(errors, plain) if errors.sizes["sequence"] > 1 else None
    lowest = best(errors, "layers")
    measures = leading(errors)
    texts, won, elsewhere, lost = [], [], [], []
    values: dict[str, Any] = {}
    for cue in control["cue"].values.tolist():
        parts = []
        for measure in measures:
            layers = lowest.sel(measure=measure, cue=cue).item()
            cell = changes.sel(measure=measure, cue=cue, layers=layers)
            versus = control.sel(measure=measure, cue=cue, layers=layers)
            parts.append(_best_range(measure, layers, cell))
            row = {"layers": layers, "change": _plain(cell), "against shuffled": _plain(versus)}
            if fair is not None:
                honest = fair.sel(measure=measure, cue=cue)
                parts[-1] += f"; chosen on the other sequences, {spelled(honest)}"
                row["chosen on the other sequences"] = _plain(honest)
            if verdict(versus) == "lower":
                won.append(f"{measure} with the {cue} ({spelled(versus)})")
                elsewhere += _other_alignments(errors, control, measure, cue, layers)
            raised = _raised(control.sel(measure=measure, cue=cue))
            if raised:
                lost.append(f"{measure} with the {cue} at {', '.join(raised)}")
            values[f"{measure}, {cue}"] = row | {"raised above shuffled": raised}
        texts.append(f"{cue.capitalize()}: {'. '.join(parts)}.")
    texts.append(f"Shuffled scores of the same cue are beaten {_listed(won, len(values))}.")
    texts += elsewhere
    texts.append(
        f"The places of the scores raise the error above shuffled ones for {'; '.join(lost)}."
        if lost
        else "No range is shown where the places of the scores raise the error above shuffled ones."
    )
    return Finding(QUESTION, " ".join(texts), values)


def departure_finding(departed: xr.DataArray) -> Finding:
    """Say which range changes the outputs most, where nothing can be scored.

    Parameters
    ----------
    departed : DataArray
        (measure, sequence, cue, layers), as :func:`measures.departures` unfolded.
    """
    found = estimate(departed)
    texts, values = [], {}
    for measure in departed["measure"].values.tolist():
        cells = found.sel(measure=measure, cue=OWN)
        place = cells.isel(layers=int(cells["value"].argmax("layers")))
        layers = str(place["layers"].item())
        texts.append(f"{measure} most with {layers}, by {spelled(place)}")
        values[measure] = {"layers": layers, "departure": _plain(place)}
    answer = f"{NO_TRUTH} With the own cue, {'; '.join(texts)}, against the plain run."
    return Finding(QUESTION, answer, values)


def _best_range(measure: str, layers: str, cell: xr.Dataset) -> str:
    """One range against none: the one with the lowest error, which may still be higher."""
    said = verdict(cell)
    judged = f"{said} than without gating" if said in ("lower", "higher") else said
    if float(cell["value"]) < 0:
        return f"{measure} is lowest with {layers}, {spelled(cell)} against none ({judged})"
    return f"{measure} is lowered by no range, least raised by {layers}, {spelled(cell)} ({judged})"


def _other_alignments(
    errors: xr.DataArray, control: xr.Dataset, measure: str, cue: str, layers: str
) -> list[str]:
    """Say what is left of a gain over shuffled scores when the same metric is aligned otherwise."""
    same = errors["measure"].values[(errors["metric"] == errors["metric"].sel(measure=measure))]
    cells = {
        str(name): control.sel(measure=name, cue=cue, layers=layers)
        for name in same
        if name != measure
    }
    if not cells:
        return []
    told = "; ".join(f"{name} {spelled(cell)} ({verdict(cell)})" for name, cell in cells.items())
    return [f"Aligned otherwise, the {cue} at {layers} against shuffled scores: {told}."]


def _raised(control: xr.Dataset) -> list[str]:
    """Ranges at which an error is shown to be higher than with shuffled scores."""
    return [
        layers
        for layers in control["layers"].values.tolist()
        if verdict(control.sel(layers=layers)) == "higher"
    ]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _listed(won: Sequence[str], count: int) -> str:
    if not won:
        return f"by none of these {count}"
    return f"by {len(won)} of these {count}: {'; '.join(won)}"


def _plain(cell: xr.Dataset) -> dict[str, Any]:
    """Plain numbers of one cell; None where there is no interval."""
    return {
        name: round(float(cell[name]), 4) if np.isfinite(float(cell[name])) else None
        for name in ("value", "lower", "upper", "n")
    }


def _named(found: xr.Dataset, long_name: str) -> xr.Dataset:
    found["value"].attrs["long_name"] = long_name
    return found
