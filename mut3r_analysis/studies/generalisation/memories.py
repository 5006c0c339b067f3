"""One checkpoint with several memories, ungated and gated, as one table of scores."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from mut3r_analysis.backbones.write_rules import WRITE_RULES
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion import Cue, Gate
from mut3r_analysis.studies.ablation import PLAIN, SHUFFLED

OWN, TRUE = "own cue", "true mask"
TREATMENTS = (PLAIN, OWN, OWN + SHUFFLED, TRUE, TRUE + SHUFFLED)
"""The plain backbone with its cue measured, and MUT3R's gates by each score and by the same numbers
at other patches, which gate as strongly."""

_JOIN = " | "


@dataclass(frozen=True)
class Memory:
    """One way to carry a frame on to the next.

    Attributes
    ----------
    update : str
        Write rule the checkpoint is loaded with.
    commit : str
        What the commit adds to it.
    """

    update: str
    commit: str = "rw.gg"

    @property
    def plain(self) -> bool:
        """Whether it is a write rule and nothing else."""
        return self.commit == "rw.gg"


def known_memories(
    rules: Sequence[str] | None = None, commits: Mapping[str, str] | None = None
) -> dict[str, Memory]:
    """Return write rules, and other memories made of commits.

    Parameters
    ----------
    rules : sequence of str, optional
        Names of write rules; all that are registered by default. The first is what others are
        compared with.
    commits : mapping of str to str, optional
        Label -> commit in its text form, on top of the first write rule.

    Raises
    ------
    InvalidArgument
        For a rule that is not registered, or a commit labelled as a rule.
    """
    names = list(WRITE_RULES) if rules is None else list(rules)
    unknown = [name for name in names if name not in WRITE_RULES]
    if unknown or not names:
        raise InvalidArgument(
            f"write rules {unknown or names} are not registered; there are {', '.join(WRITE_RULES)}"
        )
    first = names[0]
    found = {name: Memory(name) for name in names}
    for label, commit in (commits or {}).items():
        if label in found:
            raise InvalidArgument(f"{label!r} is a write rule; give the commit another label")
        found[label] = Memory(first, commit)
    return found


def treatments(memory: Memory, beta: float) -> dict[str, dict[str, Any]]:
    """Return the configurations of a memory by treatment.

    Without a gate the own cue is measured, which changes nothing but where the memory itself
    takes its rate from the cue. Memories made of commits are gated by the own cue only: their rate
    would follow what replaced it.
    """
    gate = Gate.mut3r(beta=beta)
    scores = {OWN: Cue.mut3r()}
    if memory.plain:
        scores[OWN + SHUFFLED] = Cue.mut3r(control="shuffle")
        scores[TRUE] = Cue(reading="mask", normaliser="raw")
        scores[TRUE + SHUFFLED] = Cue(reading="mask", normaliser="raw", control="shuffle")
    found: dict[str, dict[str, Any]] = {PLAIN: {"cue": Cue.mut3r()}}
    found |= {label: {"cue": cue, "gate": gate} for label, cue in scores.items()}
    return {label: {**parts, "commit": memory.commit} for label, parts in found.items()}


def sweep_memories(
    backbone: str,
    sequences: Sequence[str | Path],
    memories: Mapping[str, Memory],
    *,
    beta: float = 1.0,
    frames: int | None = None,
    out: str | Path,
    progress: bool = True,
) -> xr.Dataset:
    """Run and score a checkpoint with every memory and treatment.

    Parameters
    ----------
    backbone : str
        For :func:`~mut3r_analysis.load_backbone`; loaded once per write rule, one after the other.
    sequences : sequence of str
        For :func:`~mut3r_analysis.open_sequence`. Those without a true mask get no treatment that
        needs one.
    memories : mapping of str to Memory
    beta : float
        Sharpness of the gates.
    frames : int, optional
        At most so many of each sequence.
    out : path
        Folder of the runs; what is there is not run again.
    progress : bool

    Returns
    -------
    Dataset
        As of :func:`~mut3r_analysis.sweep`, over (memory, treatment, sequence[, frame]); NaN where
        there is no truth.
    """
    from mut3r_analysis.backbones import load_backbone
    from mut3r_analysis.sequences import open_sequence
    from mut3r_analysis.sweeps import sweep

    taken = "::" if frames is None else f":{frames}:"
    masked = [name for name in sequences if "motion_mask" in open_sequence(name, stop=1)]
    parts = []
    for update in dict.fromkeys(memory.update for memory in memories.values()):
        model = load_backbone(backbone, update=update)
        planned = {
            _JOIN.join((label, treatment)): configuration
            for label, memory in memories.items()
            if memory.update == update
            for treatment, configuration in treatments(memory, beta).items()
        }
        sighted = {cell: each for cell, each in planned.items() if each["cue"].reading == "mask"}
        blind = {cell: each for cell, each in planned.items() if cell not in sighted}
        for chosen, names in ((blind, list(sequences)), (sighted, masked)):
            if chosen and names:
                parts.append(
                    sweep(
                        model,
                        names,
                        configurations=chosen,
                        frames=taken,
                        outputs=("pose", "depth"),
                        out=out,
                        progress=progress,
                    )
                )
    return arranged(parts, memories)


def arranged(parts: Iterable[xr.Dataset], memories: Iterable[str]) -> xr.Dataset:
    """Lay sweeps over configurations labelled ``memory | treatment`` out over both."""
    parts = [part[[name for name in part if "sequence" in part[name].dims]] for part in parts]
    parts = [part.drop_dims(set(part.dims) - {"configuration", "sequence", "frame"})
             for part in parts]  # fmt: skip
    table = xr.concat(
        parts, dim="configuration", data_vars="all", coords="minimal", compat="override",
        join="outer", combine_attrs="override",
    )  # fmt: skip
    order = list(dict.fromkeys(name for part in parts for name in part["sequence"].values.tolist()))
    cells = [tuple(text.split(_JOIN)) for text in table["configuration"].values.tolist()]
    index = pd.MultiIndex.from_tuples(cells, names=("memory", "treatment"))
    coords = xr.Coordinates.from_pandas_multiindex(index, "configuration")
    table = table.drop_vars("configuration").assign_coords(coords).unstack("configuration")
    seen = {treatment for _, treatment in cells}
    kept = [name for name in TREATMENTS if name in seen]
    table = table.sel(memory=list(memories), treatment=kept, sequence=order)
    table["memory"].attrs = {"long_name": "memory"}
    table["treatment"].attrs = {"long_name": "gated by"}
    # Cells that were not run have no store.
    table["run"] = table["run"].fillna("").astype(str)
    for name, variable in table.data_vars.items():
        table[name] = variable.transpose("memory", "treatment", "sequence", ...)
    return table
