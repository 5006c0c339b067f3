"""Does gating keep moving content out of the memory? Injections over sequences, and the answer."""

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr
from tqdm.auto import tqdm

from mut3r_analysis.backbones.cut3r import CUT3R
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion import DIRECTIONS
from mut3r_analysis.motion.cue import Cue
from mut3r_analysis.motion.gate import Gate
from mut3r_analysis.sequences import open_sequence
from mut3r_analysis.studies.answers import Finding
from mut3r_analysis.studies.corruption.content_pairs import content_pair
from mut3r_analysis.studies.corruption.injection import inject
from mut3r_analysis.studies.estimates import change, estimate, verdict
from mut3r_analysis.studies.trajectories.finding import plain_numbers, ranged
from mut3r_analysis.studies.trajectories.read_write import CONTROLS

QUESTION = "Does state-to-image gating protect the memory from moving content?"
NO_GATE, ALL_GATES = "none", "all three"


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
    return {NO_GATE: None, **{name: alone[name] for name in order},
            ALL_GATES: Gate.mut3r(beta, **changes)}  # fmt: skip


def measure_injections(
    backbone: CUT3R,
    sequences: Sequence[str | xr.Dataset],
    gates: Mapping[str, Gate | None],
    *,
    cues: Mapping[str, Cue] = CONTROLS,
    frames: int | None = None,
    window: tuple[int, int] | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Inject moving content into every sequence, under every gate and cue.

    Parameters
    ----------
    backbone : CUT3R
    sequences : sequence of str or Dataset
    gates : mapping of str to Gate or None
        Among them `NO_GATE`, which is the same for all cues.
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
    if gates.get(NO_GATE, 0) is not None:
        raise InvalidArgument(f"gates need {NO_GATE!r}: None, which all others are compared with")
    configurations: dict[str, dict[str, Any]] = {NO_GATE: {}}
    for name, gate in gates.items():
        if gate is not None:
            configurations |= {_key(name, cue): {"cue": cues[cue], "gate": gate} for cue in cues}
    rows, names, skipped, contents = [], [], [], []
    bar = tqdm(sequences, desc="sequences", disable=not progress)
    for given in bar:
        sequence = open_sequence(given, stop=frames)
        bar.set_postfix_str(str(sequence.attrs["name"]))
        try:
            pair = content_pair(sequence, window)
        except InvalidArgument as error:
            skipped.append(f"{sequence.attrs['name']}: {error}")
            continue
        found = inject(backbone, pair, configurations)
        rows.append(_by_gate_and_cue(found, list(gates), list(cues)))
        inside = slice(pair.attrs["start"], pair.attrs["stop"])
        share = 100 * float(pair["changed"][inside].mean())
        attrs = {"long_name": "pixels that differ within the window", "units": "%"}
        rows[-1]["moving_share"] = ((), share, attrs)
        names.append(pair.attrs["name"])
        contents.append(pair.attrs["how"])
    if not rows:
        raise InvalidArgument("nothing could be injected:\n  " + "\n  ".join(skipped))
    table = xr.concat(rows, dim=xr.Variable("sequence", names), join="outer")
    # Frames that a shorter sequence does not have.
    table["in_view"] = table["in_view"].fillna(False).astype(bool)
    return table.assign_attrs(
        skipped="; ".join(skipped),
        contents=" or ".join(dict.fromkeys(contents)),
        source=f"{backbone.origin.name}, {len(names)} sequences",
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
    names = ["state", "memory", "translation", "rotation", "depth"]
    rows = []
    for name in names:
        gated = later[name].drop_sel(gate=NO_GATE)
        rows.append(change(gated, later[name].sel(gate=NO_GATE, drop=True)))
    found = xr.concat(rows, dim=xr.Variable("measure", names), combine_attrs="drop_conflicts")
    found["value"].attrs = {"long_name": "change of what is left behind", "units": "%"}
    return found


def finding(table: xr.Dataset) -> Finding:
    """Say what injections leave behind, and how much of it state-to-image gating removes."""
    later, seen = afterwards(table), while_in_view(table)
    plain = {"gate": NO_GATE, "cue": table["cue"].values[0]}
    left = {
        name: estimate(later[name].sel(plain, drop=True).sel(injection="state", drop=True))
        for name in ("state", "translation", "depth")
    }
    within = {
        injection: estimate(seen["depth"].sel(plain, drop=True).sel(injection=injection, drop=True))
        for injection in ("image", "state")
    }
    trace = float(later["state"].sel(plain).sel(injection="image").max())
    of_image = "nothing" if trace == 0 else f"up to {trace:.1e} % of the norm"
    said = [
        f"Moving content ({table.attrs['contents']}) in frames that are written leaves the state "
        f"{ranged(left['state'], unsigned=True)} % of its norm, the camera "
        f"{ranged(left['translation'], 3, unsigned=True)} m and depth "
        f"{ranged(left['depth'], 2, unsigned=True)} % away in the frames after it (n = "
        f"{int(left['state']['n'])}); in frames that are only read it leaves {of_image} in the "
        "state. While it is in view, the depth of what rests changes by "
        f"{ranged(within['image'], 2, unsigned=True)} % through the image and by "
        f"{ranged(within['state'], 2, unsigned=True)} % through the state."
    ]
    values: dict[str, Any] = {
        "left_behind": {name: plain_numbers(cell) for name, cell in left.items()},
        "in_view": {name: plain_numbers(cell) for name, cell in within.items()},
    }
    if "state_to_image" in table["gate"].values:
        removed = remaining(table).sel(gate="state_to_image", measure="state", drop=True)
        cells = {cue: removed.sel(cue=cue) for cue in table["cue"].values.tolist()}
        words = ", ".join(f"{ranged(cell)} % ({cue})" for cue, cell in cells.items())
        said.append(
            f"State-to-image gates alone change what is left in the state by {words}: "
            f"{_protects(table, cells)}."
        )
        values["state_to_image"] = {cue: plain_numbers(cell) for cue, cell in cells.items()}
    if ALL_GATES in table["gate"].values:
        first = {"gate": ALL_GATES, "cue": table["cue"].values[0]}
        cell = remaining(table).sel(first, drop=True).sel(measure="state", drop=True)
        price = estimate(later["price"].sel(first, drop=True))
        said.append(
            f"{ALL_GATES.capitalize()} directions by the {first['cue']} cue change it by "
            f"{ranged(cell)} %, and move the state in a world at rest by "
            f"{ranged(price, unsigned=True)} % of its norm."
        )
        values["all_gates"] = {"state": plain_numbers(cell), "price": plain_numbers(price)}
    return Finding(QUESTION, " ".join(said), values, " ".join(said[:2]))


def _protects(table: xr.Dataset, cells: Mapping[str, xr.Dataset]) -> str:
    """Say in words whether the gates protect, cue by cue, and whether location matters."""
    meanings = {
        "lower": "protects",
        "higher": "makes it worse",
        "no difference that these sequences could show": "no effect that these sequences show",
        "too few sequences to tell": "too few sequences to tell",
    }
    found = {cue: meanings[verdict(cell)] for cue, cell in cells.items() if "shuffled" not in cue}
    words = [f"the {cue} {'cue' if cue == 'own' else ''}".strip() for cue in found]
    same = len(set(found.values())) == 1
    if same:
        text = f"{next(iter(found.values()))} with {' and '.join(words)}"
    else:
        text = ", ".join(
            f"{meaning} with {word}" for word, meaning in zip(words, found.values(), strict=True)
        )
    shuffled = next((cue for cue in cells if "shuffled" in cue), None)
    masks = [cue for cue in found if cue != "own"]
    if shuffled is None or not masks or "too few" in text:
        return text
    later = afterwards(table)["state"].sel(gate="state_to_image", injection="state", drop=True)
    place = verdict(change(later.sel(cue=masks[0], drop=True), later.sel(cue=shuffled, drop=True)))
    judged = {
        "lower": "the right places matter",
        "higher": "wrong places do better",
    }.get(place, "right places do no better than wrong ones")
    return f"{text}; {judged}"


def _mean_after(table: xr.Dataset, chosen: xr.DataArray) -> xr.Dataset:
    measures = [name for name in table.data_vars if "after" in table[name].dims]
    with xr.set_options(keep_attrs=True):
        return table[measures].where(chosen).mean("after")


def _by_gate_and_cue(found: xr.Dataset, gates: list[str], cues: list[str]) -> xr.Dataset:
    """Unfold configurations; without a gate the cue makes no difference."""
    keys = found["configuration"].values.tolist()
    places = [
        [0 if gate == NO_GATE else keys.index(_key(gate, cue)) for cue in cues] for gate in gates
    ]
    index = xr.DataArray(places, {"gate": gates, "cue": cues}, ("gate", "cue"))
    return found.isel(configuration=index).drop_vars("configuration")


def _key(gate: str, cue: str) -> str:
    return f"{gate}, {cue}"
