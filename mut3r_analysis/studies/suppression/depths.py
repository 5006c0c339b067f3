"""Suppression depth: which layers to gate, with the model's own cue and with a perfect one."""

import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.layers import range_label
from mut3r_analysis.literature import published
from mut3r_analysis.motion.cue import Cue
from mut3r_analysis.motion.gate import PAPER_DEPTH, Gate
from mut3r_analysis.studies.ablation import (
    Ablation,
    against,
    against_control,
    best,
    chosen_elsewhere,
    with_controls,
)
from mut3r_analysis.studies.estimates import formatted
from mut3r_analysis.studies.finding import Finding, row, rows
from mut3r_analysis.studies.measures import leading

PAPER_RANGES = ((0, 2), (0, 4), (0, 6), (0, 8), (0, 12), (6, 12))
"""Ranges of layers in the paper's Table 4, half-open, of `PAPER_DEPTH`."""

OWN, ORACLE = "own cue", "oracle cue"
QUESTION = "Which layers should be gated?"


def layer_ranges(depth: int, asked: Sequence[Sequence[int]] = PAPER_RANGES) -> xr.Dataset:
    """Scale ranges of layers to a decoder, naming those that fall together.

    Parameters
    ----------
    depth : int
        Decoder layers of the model.
    asked : sequence of (int, int)
        Half-open ranges of layers, of `PAPER_DEPTH`.

    Returns
    -------
    Dataset
        Along ``layers``, such as ``"[0, 3)"``: ``start``, ``stop`` and ``asked``, the ranges
        that it stands for. Attribute ``empty`` lists ranges that scaling leaves no layer;
        ``note`` says in words what was scaled, merged or left out.

    Raises
    ------
    InvalidArgument
        When no range keeps a layer, or one does not fit `PAPER_DEPTH`.
    """
    merged: dict[tuple[int, int], list[str]] = {}
    for start, stop in asked:
        bounds = Gate(layers=(start, stop), of_depth=PAPER_DEPTH).layer_range(depth)
        kept = (bounds.start, bounds.stop) if len(bounds) else (0, 0)
        merged.setdefault(kept, []).append(range_label(start, stop))
    empty = merged.pop((0, 0), [])
    if not merged:
        raise InvalidArgument(
            f"no range of {', '.join(empty) or 'none given'} keeps a layer in a decoder of "
            f"{depth}; give wider ranges"
        )
    labels = [range_label(*bounds) for bounds in merged]
    notes = []
    if depth != PAPER_DEPTH:
        notes.append(f"Ranges of {PAPER_DEPTH} layers, scaled to {depth}.")
    notes += [
        f"{' and '.join(names)} are both {label} here and computed once."
        for label, names in zip(labels, merged.values(), strict=True)
        if len(names) > 1
    ]
    if empty:
        notes.append(f"Nothing is left of {', '.join(empty)}, which is therefore plain.")
    starts, stops = zip(*merged, strict=True)
    several = np.array([" ".join(names) for names in merged.values()], dtype=object)
    found = xr.Dataset(
        {"start": ("layers", list(starts)), "stop": ("layers", list(stops)),
         "asked": ("layers", several)},
        {"layers": np.array(labels, dtype=object)},
        {"empty": empty, "note": " ".join(notes)},
    )  # fmt: skip
    found["layers"].attrs = {"long_name": f"gated layers of {depth}", "units": "1"}
    return found


def cues(oracle: bool = True, edition: int = 2) -> dict[str, Cue]:
    """Return the cues by name, each followed by its shuffled control.

    Parameters
    ----------
    oracle : bool
        Whether the true motion mask is among them; it needs sequences that have one.
    edition : {2, 1}
        Of :meth:`Cue.mut3r`.
    """
    perfect = {ORACLE: Cue.oracle()} if oracle else {}
    return with_controls({OWN: Cue.mut3r(edition=edition), **perfect})


def ablation(
    ranges: xr.Dataset, chosen: Mapping[str, Cue], beta: float = 1.0, *, edition: int = 2
) -> Ablation:
    """Cross every cue with every range of layers."""

    def configure(cue: str, layers: str) -> dict[str, Any]:
        bounds = (int(ranges[end].sel(layers=layers)) for end in ("start", "stop"))
        gate = Gate.mut3r(beta=beta, edition=edition, layers=tuple(bounds))
        return {"cue": chosen[cue], "gate": gate}

    factors = {"cue": list(chosen), "layers": ranges["layers"].values.tolist()}
    return Ablation(factors, configure, "{} {}")


def finding(errors: xr.DataArray, plain: xr.DataArray) -> Finding:
    """Tell what the best range changes for depth and for pose, and what the place of scores adds.

    Parameters
    ----------
    errors : DataArray
        (measure, sequence, cue, layers), as :func:`measures.errors` unfolded; every cue with its
        control.
    plain : DataArray
        (measure, sequence).
    """
    errors = errors.sel(measure=leading(errors))
    changes, control = against(errors, plain), against_control(errors)
    errors = errors.sel(cue=control["cue"].values)
    lowest = best(errors, "layers")
    table = []
    for cue, measure in product(errors["cue"].values.tolist(), errors["measure"].values.tolist()):
        layers = lowest.sel(measure=measure, cue=cue).item()
        place = {"measure": measure, "cue": cue, "layers": layers}
        effect = f"{measure} with the {cue}, {layers}"
        table.append(row(f"{effect}, the best", changes.sel(place)))
        table.append(row(f"{effect}, against shuffled scores", control.sel(place)))
    if errors.sizes["sequence"] < 2:
        return Finding(QUESTION, table, "Gating at the best layers")
    fair = against(chosen_elsewhere(errors, "layers")["error"], plain)
    honest = rows(fair.transpose("cue", "measure"), "{measure} with the {cue}")
    return Finding(
        QUESTION,
        [*honest, *table],
        "Gating layers chosen on other sequences",
        lead=len(honest),
    )


def paper_table() -> xr.Dataset:
    """Return the published ablation of suppression depth.

    Returns
    -------
    Dataset
        Along ``asked``, ``"none"`` and the ranges published: ``abs_rel`` and ``delta_1`` on Bonn
        at metric scale, ``change`` of the first against none in percent; attribute ``source``.
    """
    rows = published(["CUT3R", "MUT3R", "MUT3R (layers*"], protocol="video-depth:bonn5:metric")
    rows = rows[rows["source"].str.contains("Table 4")]
    spans = rows["note"].str.extract(r"range\((\d+), (\d+)\)")
    labels = ("[" + spans[0] + ", " + spans[1] + ")").fillna("none")
    table = rows.assign(asked=labels).pivot(index="asked", columns="metric", values="value")
    found = table[["abs_rel", "delta_1"]].to_xarray()
    found["change"] = 100 * (found["abs_rel"] / found["abs_rel"].sel(asked="none") - 1)
    for name, units in (("abs_rel", "1"), ("delta_1", "%"), ("change", "%")):
        found[name].attrs["units"] = units
    found.attrs["source"] = f"{rows['source'].iloc[0]}; Bonn, 5 sequences, metric scale"
    return found


def beside_paper(
    ranges: xr.Dataset, changes: xr.Dataset, measure: str, asked: Sequence[Sequence[int]]
) -> pd.DataFrame:
    """Put the published changes beside one's own, range by range of the paper.

    The published ones are of another model on other data: only signs and orders compare.
    """
    labels = ["none", *(range_label(start, stop) for start, stop in asked)]
    paper = paper_table().to_dataframe().reindex(labels)
    paper.loc["none", "change"] = np.nan
    here = {
        label: str(layers)
        for layers, several in ranges["asked"].to_series().items()
        for label in re.findall(r"\[.*?\)", several)
    }
    found = changes.sel(measure=measure)
    columns = {
        name: paper[part].map(form.format, na_action="ignore")
        for name, part, form in (
            ("paper AbsRel", "abs_rel", "{:.3f}"),
            ("paper δ1.25 (%)", "delta_1", "{:.1f}"),
            ("paper change (%)", "change", "{:+.1f}"),
        )
    }
    table = pd.DataFrame(columns).fillna("")
    table["layers here"] = [here.get(label, "none") for label in labels]
    for cue in changes["cue"].values.tolist():
        table[cue] = [
            formatted(found.sel(cue=cue, layers=here[label])) if label in here else "plain"
            for label in labels
        ]
    return table.rename_axis("layers of 12, paper")
