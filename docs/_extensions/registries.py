"""The page of names that the package can be given, read from its registries."""

import inspect
from collections.abc import Iterable
from itertools import groupby

from mut3r_analysis.attention import SITE_KINDS, STATISTICS
from mut3r_analysis.backbones.write_rules import WRITE_RULES
from mut3r_analysis.metrics.catalogue import list_protocols
from mut3r_analysis.metrics.protocols import TASKS
from mut3r_analysis.motion import READINGS, REALISATIONS
from mut3r_analysis.motion.sources import SOURCES
from mut3r_analysis.sequences.layouts.catalogue import LAYOUTS, find_layout

HIGH_OR_LOW = {1: "high", -1: "low"}


def registries_page() -> str:
    """Return one section per registry, as reStructuredText."""
    sections = [
        section(
            "Statistics",
            "``Capture(statistics=[...])``. Units are nats for logarithms and 1 for pure numbers.",
            ("name", "one per", "meaning", "units"),
            ((code(row.name), row.side, row.long_name, row.units) for row in STATISTICS.values()),
        ),
        section(
            "Kinds of site",
            "Read query to key; the tokens of each stream are the model's word.",
            ("name", "queries", "keys", "part of the model"),
            ((code(row.name), row.queries, row.keys, row.part) for row in SITE_KINDS.values()),
        ),
        section(
            "Readings of a cue",
            "``Cue(reading=...)``. z are logits, p weights, i queries, j keys, M the number of "
            "keys. :doc:`mut3r_analysis.motion` has the others.",
            ("name", "code", "formula", "dynamic is", "one per"),
            (
                (code(row.name), row.code, code(row.formula), HIGH_OR_LOW[row.sign], row.side)
                for row in READINGS.values()
            ),
        ),
        section(
            "Sources of a cue",
            "``Cue(source=...)``: whose attention a frame's gates use.",
            ("name", "meaning"),
            ((code(name), meaning) for name, meaning in SOURCES.items()),
        ),
        section(
            "Realisations of a gate",
            "``Gate(image_self=..., state_to_image=..., image_to_state=...)``, by name or code. "
            "g are motion scores, o the plain output, tau the threshold.",
            ("site", "name", "code", "what a head gives out"),
            (
                (code(site), code(row.name), row.code, code(row.formula))
                for site, rows in REALISATIONS.items()
                for row in rows.values()
            ),
        ),
        ".. py:data:: mut3r_analysis.backbones.write_rules.WRITE_RULES\n   :no-index-entry:\n\n"
        "   The write rules below, by name.\n\n",
        section(
            "Write rules",
            "``load_backbone(update=...)`` and, in a commit, ``rate.<name>``. Settings are given "
            "in parentheses: ``filt3r(keep=0.9)``.",
            ("name", "what it does", "settings"),
            (
                (code(row.name), first_sentence(row.act), ", ".join(map(code, row.settings)))
                for row in WRITE_RULES.values()
            ),
        ),
        section(
            "Data sets",
            '``open_sequence("name:ROOT#sequence")``. ``mut3r datasets check ROOT`` says what is '
            "missing and where to get it.",
            ("name", "known by"),
            ((code(name), find_layout(name).looks_like) for name in LAYOUTS),
        ),
        section(
            "Metrics",
            "Units are 1 for fractions.",
            ("task", "name", "definition", "units"),
            (
                (task, code(row.name), row.long_name, row.units)
                for task, tables in TASKS.items()
                for row in tables.metrics.values()
            ),
        ),
        section(
            "Protocols",
            "``mut3r protocols ID`` and ``m3.metrics.protocol(id).describe()`` say all of one.",
            ("data and frames", "ways to align or to pool"),
            (
                (code(start), ", ".join(code(each.rpartition(":")[2]) for each in ids))
                for start, ids in groupby(
                    (each.id for each in list_protocols()), lambda each: each.rpartition(":")[0]
                )
            ),
        ),
    ]
    title = "Names that can be given"
    return f"{title}\n{'=' * len(title)}\n\n" + "\n".join(sections)


def section(title: str, said: str, columns: tuple[str, ...], rows: Iterable[tuple]) -> str:
    lines = [title, "-" * len(title), "", said, "", ".. list-table::", "   :header-rows: 1", ""]
    for row in (columns, *rows):
        for number, cell in enumerate(row):
            cell = cell if cell.startswith("``") else cell.replace("|", "\\|")
            lines.append(f"   {'* -' if number == 0 else '  -'} {cell}".rstrip())
    return "\n".join([*lines, ""])


def code(text: str) -> str:
    return f"``{text}``"


def first_sentence(function: object) -> str:
    return (inspect.getdoc(function) or "").split("\n")[0]
