"""Does gating keep moving content out of the memory? Injections over sequences, and the answer."""

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr
from tqdm.auto import tqdm

from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion import DIRECTIONS, Cue, Gate
from mut3r_analysis.sequences import open_sequence
from mut3r_analysis.studies.ablation import PLAIN, SHUFFLED, against_control
from mut3r_analysis.studies.corruption.content_pairs import content_pair
from mut3r_analysis.studies.corruption.injection import inject
from mut3r_analysis.studies.estimates import change, estimate
from mut3r_analysis.studies.finding import Finding, row, rows
from mut3r_analysis.studies.labelling import beside, described
from mut3r_analysis.studies.trajectories.read_write import CUES

QUESTION = "Does state-to-image gating protect the memory from moving content?"
ALL_GATES = "all three"


def gates_by_direction(beta: float, **changes: Any) -> dict[str, Gate | None]:
    """Return MUT3R's gates: none, each direction alone, and all three.

    Parameters
    ----------
    beta : float
        Sharpness.
    **changes
        Other fields of :meth:`Gate.mut3r` that differ, such as ``layers``.
    """
    alone = {name: Gate.mut3r(beta, directions=[name], **changes) for name in DIRECTIONS}
    order = ("state_to_image", "image_to_state", "image_self")
    return {PLAIN: None, **{name: alone[name] for name in order},
            ALL_GATES: Gate.mut3r(beta, **changes)}  # fmt: skip


def measure_injections(
    backbone: Backbone,
    sequences: Sequence[str | xr.Dataset],
    gates: Mapping[str, Gate | None],
    *,
    cues: Mapping[str, Cue] = CUES,
    frames: int | None = None,
    window: tuple[int, int] | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Inject moving content into every sequence, under every gate and cue.

    Parameters
    ----------
    backbone : Backbone
    sequences : sequence of str or Dataset
    gates : mapping of str to Gate or None
        Among them `PLAIN`, which is the same for all cues.
    cues : mapping of str to Cue
        Masks are those of the pairs: what of the frame moves, as far as it is known.
    frames : int, optional
        At most so many of each sequence.
    window : (int, int), optional
        As of `content_pair`.
    progress : bool

    Returns
    -------
    Dataset
        What `inject` measures, over ``sequence``, ``gate``,
        ``cue``, ``injection`` and ``after``; ``moving_share`` (sequence), pixels that show
        something else within the window, %. Attributes: ``skipped``, sequences left out and why;
        ``contents``, what moves.
    """
    if gates.get(PLAIN, 0) is not None:
        raise InvalidArgument(f"gates need {PLAIN!r}: None, which all others are compared with")
    configurations: dict[str, dict[str, Any]] = {PLAIN: {}}
    for name, gate in gates.items():
        if gate is not None:
            configurations |= {_key(name, cue): {"cue": cues[cue], "gate": gate} for cue in cues}
    parts, skipped, contents = {}, [], []
    bar = tqdm(sequences, desc="sequences", disable=not progress)
    for given in bar:
        sequence = open_sequence(given, stop=frames)
        bar.set_postfix_str(str(sequence.attrs["name"]))
        try:
            pair = content_pair(sequence, window)
        except InvalidArgument as error:
            skipped.append(f"{sequence.attrs['name']}: {error}")
            continue
        part = _by_gate_and_cue(inject(backbone, pair, configurations), list(gates), list(cues))
        inside = slice(pair.attrs["start"], pair.attrs["stop"])
        part["moving_share"] = 100 * float(pair["changed"][inside].mean())
        parts[pair.attrs["name"]] = part
        contents.append(pair.attrs["how"])
    if not parts:
        raise InvalidArgument("nothing could be injected:\n  " + "\n  ".join(skipped))
    table = beside(parts, "sequence")
    described(table, {"moving_share": ("pixels that differ within the window", "%")})
    # Frames that a shorter sequence does not have.
    table["in_view"] = table["in_view"].fillna(False).astype(bool)
    return table.assign_attrs(
        skipped="; ".join(skipped),
        contents=" or ".join(dict.fromkeys(contents)),
        source=f"{backbone.origin.name}, {len(parts)} sequences",
    )


def while_in_view(table: xr.Dataset) -> xr.Dataset:
    """Return the mean over the frames of the window."""
    return _mean_after(table, table["in_view"])


def afterwards(table: xr.Dataset) -> xr.Dataset:
    """Return the mean over all frames after the window."""
    return _mean_after(table, table["after"] > 0)


def remaining(table: xr.Dataset, injection: str = "state") -> xr.Dataset:
    """Return what gates change of the distances that an injection leaves behind.

    Parameters
    ----------
    table : Dataset
        From :func:`measure_injections`.
    injection : str

    Returns
    -------
    Dataset
        Dims ``measure``, ``gate`` and ``cue``: ``value``, ``lower`` and ``upper`` in percent of the
        distance without gates (negative: gates protect), and ``n``.
    """
    later = afterwards(table).sel(injection=injection, drop=True)
    parts = {
        name: change(later[name].drop_sel(gate=PLAIN), later[name].sel(gate=PLAIN, drop=True))
        for name in ("state", "memory", "translation", "rotation", "depth")
    }
    found = beside(parts, "measure")
    return described(found, {"value": ("change of what is left behind", "%")})


def finding(table: xr.Dataset) -> Finding:
    """Tell what injections leave behind, and what gates change of it.

    Parameters
    ----------
    table : Dataset
        From :func:`measure_injections`.
    """
    later, seen = afterwards(table), while_in_view(table)
    plain = {"gate": PLAIN, "cue": table["cue"].values[0]}
    state = remaining(table).sel(measure="state", drop=True)
    found = []
    if (gate := "state_to_image") in table["gate"].values:
        found += rows(state.sel(gate=gate, drop=True), f"{gate}, {{}}")
    lead = len(found)
    if lead and any(cue.endswith(SHUFFLED) for cue in table["cue"].values.tolist()):
        errors = later["state"].sel(gate=gate, injection="state", drop=True)
        found += rows(against_control(errors), f"{gate}, {{}}, against shuffled scores")
    if ALL_GATES in table["gate"].values:
        first = {"gate": ALL_GATES, "cue": plain["cue"]}
        found.append(row(f"{ALL_GATES}, {plain['cue']}", state.sel(first)))
        price = estimate(later["price"].sel(first))
        effect = f"change of the state at rest by {ALL_GATES}, {plain['cue']}"
        found.append(row(effect, price, reference=None))
    for name in ("state", "translation", "depth"):
        cells = estimate(later[name].sel(plain, drop=True))
        written = cells.sel(injection="state")
        found.append(row(f"{name} left behind by frames that are written", written, None))
    cells = estimate(later["state"].sel(plain, drop=True))
    effect = "state left behind by frames that are only read"
    found.append(row(effect, cells.sel(injection="image"), None))
    for injection in ("image", "state"):
        cell = estimate(seen["depth"].sel(plain, drop=True)).sel(injection=injection)
        found.append(row(f"change of depth in view, through the {injection}", cell, None))
    about = "Against the plain run, what moving content leaves in the state is"
    note = f"Moving: {table.attrs['contents']}."
    return Finding(QUESTION, found, about, note, lead)


def _mean_after(table: xr.Dataset, chosen: xr.DataArray) -> xr.Dataset:
    measures = [name for name in table.data_vars if "after" in table[name].dims]
    with xr.set_options(keep_attrs=True):
        return table[measures].where(chosen).mean("after")


def _by_gate_and_cue(found: xr.Dataset, gates: list[str], cues: list[str]) -> xr.Dataset:
    """Unfold configurations; without a gate the cue makes no difference."""
    keys = found["configuration"].values.tolist()
    places = [
        [0 if gate == PLAIN else keys.index(_key(gate, cue)) for cue in cues] for gate in gates
    ]
    index = xr.DataArray(places, {"gate": gates, "cue": cues}, ("gate", "cue"))
    return found.isel(configuration=index).drop_vars("configuration")


def _key(gate: str, cue: str) -> str:
    return f"{gate}, {cue}"
