"""The paper's tables with own numbers beside the published ones, and no comparison that is none."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.aligned import aligned
from mut3r_analysis.foundation.fields import meant, one_of
from mut3r_analysis.foundation.paths import user_path
from mut3r_analysis.literature.comparison import unit_factor
from mut3r_analysis.literature.rows import UNSPECIFIED
from mut3r_analysis.metrics.alignment import irreproducible
from mut3r_analysis.metrics.catalogue import PROTOCOLS
from mut3r_analysis.studies.paper_tables.published import (
    EVERY,
    PAPER_TABLES,
    SYSTEMS,
    base_system,
    published_table,
)
from mut3r_analysis.studies.paper_tables.rebuilt import read_results, system_configurations
from mut3r_analysis.studies.paper_tables.work import Work, prepare

NUMBERS = {"1": "depth", "2": "pose", "3": "reconstruction", "4": "ablation"}
"""The paper's numbers of its own tables."""

_SHOWN = {
    "number": "number",
    "system": "system",
    "paper": "paper",
    "sources": "published values",
    "own": "own [95 % interval]",
    "difference": "difference",
    "inside": "inside the published scatter?",
    "verdict": "verdict",
}


@dataclass(frozen=True, eq=False)
class PaperNumbers:
    """Published numbers with own ones beside: one row per number and system.

    Prints as a table, in a notebook too; `rows` has the plain values.

    Attributes
    ----------
    rows : DataFrame
        ``table``, ``number`` (data set, alignment, metric), ``system``, ``protocol``, ``metric``,
        ``unit``; ``paper``, the published value, between ``minimum`` and ``maximum`` of all its
        ``n_sources``, ``half_unit`` of its last digit; ``own`` with ``lower`` and ``upper``,
        the ends of its 95 % interval, over ``n`` sequences; ``difference``, own minus paper;
        ``inside``, whether own lies within what was published (None where nothing can say);
        ``conflict``; and ``verdict``, in words, which says where there is no own number why.
        All in the unit of the literature.
    own : dict of str to Dataset
        Protocol to own numbers, with those of every sequence.
    left_out : tuple of str
        Runs made before that fit no protocol or system, and why.
    """

    rows: pd.DataFrame
    own: dict[str, xr.Dataset]
    left_out: tuple[str, ...] = ()

    def of(self, table: str) -> "PaperNumbers":
        """Return one of its tables."""
        return replace(self, rows=self.rows[self.rows["table"] == table])

    def empty(self, datasets: Collection[str]) -> list[str]:
        """Protocols of these data sets that have a published number and no own one beside it."""
        found = self.rows.loc[self.rows["own"].isna(), "protocol"].unique()
        return [id for id in found if id in PROTOCOLS and PROTOCOLS[id].dataset in datasets]

    def to_frame(self) -> pd.DataFrame:
        """Return the table in words; reasons are numbers in brackets, which `notes` spells out."""
        numbered = {why: f"[{at}]" for at, why in enumerate(self.notes(), start=1)}
        cells = [_cells(row, numbered) for row in self.rows.itertuples()]
        index = pd.Index(self.rows["table"].tolist(), name="table")
        return pd.DataFrame(cells, index=index, columns=list(_SHOWN.values()))

    def notes(self) -> list[str]:
        """Why there is no own number, each reason once."""
        return list(dict.fromkeys(self.rows.loc[self.rows["own"].isna(), "verdict"]))

    def __str__(self) -> str:
        lines = []
        for table, part in self.to_frame().groupby(level=0, sort=False):
            rows = [tuple(part.columns), *part.itertuples(index=False, name=None)]
            lines += [PAPER_TABLES[str(table)].title, aligned(rows), ""]
        return "\n".join([*lines, *self._numbered_notes()])

    __repr__ = __str__

    def to_html(self) -> str:
        """Return the table as HTML that stands by itself."""
        parts = []
        for table, part in self.to_frame().groupby(level=0, sort=False):
            title = escape(PAPER_TABLES[str(table)].title)
            body = part.to_html(index=False, border=0)
            parts.append(f"<h3>{title}</h3>\n{body}")
        parts += [f"<p>{escape(note)}</p>" for note in self._numbered_notes()]
        return "\n".join(parts)

    _repr_html_ = to_html

    def to_latex(self) -> str:
        """Return the table as LaTeX, for the package ``booktabs``."""
        parts = []
        for table, part in self.to_frame().groupby(level=0, sort=False):
            caption = _latex(PAPER_TABLES[str(table)].title)
            rows = [[_latex(str(cell)) for cell in row] for row in part.values]
            heads = [_latex(name) for name in part.columns]
            lines = [" & ".join(row) + r" \\" for row in rows]
            parts += [
                rf"\begin{{table}}\caption{{{caption}}}",
                rf"\begin{{tabular}}{{{'l' * len(heads)}}}\toprule",
                " & ".join(heads) + r" \\ \midrule",
                *lines,
                r"\bottomrule\end{tabular}",
                r"\end{table}",
            ]
        return "\n".join([*parts, *(f"% {note}" for note in self._numbered_notes())]) + "\n"

    def to_csv(self) -> str:
        """Return the plain values, one line per number and system."""
        return self.rows.to_csv(index=False)

    def save(self, path: str | Path) -> None:
        """Write the table as its suffix says: ``.html``, ``.csv``, ``.tex`` or ``.txt``.

        Raises
        ------
        InvalidArgument
            For another suffix.
        """
        path = user_path(path)
        writers = {
            ".html": self.to_html, ".csv": self.to_csv, ".tex": self.to_latex,
            ".txt": self.__str__,
        }  # fmt: skip
        text = writers[one_of("the suffix of a table", path.suffix, writers)]()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def _numbered_notes(self) -> list[str]:
        return [f"[{at}] {why}" for at, why in enumerate(self.notes(), start=1)]


def paper_table(
    tables: int | str | Iterable[int | str],
    backbone: Backbone | str | Path,
    *,
    data: Mapping[str, str | Path],
    systems: Iterable[str] = SYSTEMS,
    beta: float = 1.0,
    edition: int = 2,
    out: str | Path = "outputs/paper",
    results: str | Path | Sequence[str | Path] = (),
    workers: int = 0,
    client: Any = None,
    progress: bool = True,
) -> PaperNumbers:
    """Compute tables of MUT3R's paper, own numbers beside the published ones.

    Data sets are checked first, and what their protocols need is run as a sweep: frames,
    preparation and alignment are the protocol's, what is done is not done again, and a start after
    an interruption goes on. What is no comparison (data incomplete, another input, no runs) is an
    empty cell with its reason.

    Parameters
    ----------
    tables : int, str, or several of them
        1 or ``"depth"``, 2 or ``"pose"``, 3 or ``"reconstruction"``, 4 or ``"ablation"``; also
        ``"long"``, TTT3R's table of long sequences, with its rows of resets.
    backbone : Backbone, str or Path
        A checkpoint of CUT3R; its frames are prepared as each protocol says.
    data : mapping of str to str or Path
        Data set to where it lies: ``{"sintel": "/data/sintel/training"}`` or
        ``"sintel:/data/sintel/training"``.
    systems : iterable of str
        Among ``"CUT3R"``, ``"TTT3R"`` and ``"MUT3R"``, in any case; ablations and
        rows with resets come with them.
    beta : float
        Sharpness of MUT3R's gates, which no source states.
    edition : {2, 1}
        Of MUT3R's cue and gates.
    out : str or Path
        Folder of the runs.
    results : path or sequence of path
        Folders of runs made before: scored under the protocols that they fit, of which `data` gave
        no number.
    workers, client
        As for `sweep`.
    progress : bool
        Whether to say what is checked and what it costs, and how far it is.

    Returns
    -------
    PaperNumbers

    Raises
    ------
    InvalidArgument
        For a table, system or data set that there is not.
    MissingFile
        When nothing lies where a data set should.

    Examples
    --------
    >>> name = m3.export_sequence(sequence, "sintel", layout="sintel", name="alley_2")
    >>> numbers = paper_table(2, "tiny", data={"sintel": "sintel"}, progress=False)
    >>> numbers.rows["verdict"].iloc[0]
    'data incomplete: 3 of 643 frames; alley_2: only 3 of 50 frames; ...'
    """
    names = table_names(tables)
    chosen = system_names(systems)
    work = paper_work(names, backbone, data, chosen, beta=beta, edition=edition, out=out)
    if progress:
        print(work)
    work.carry_out(workers, client, progress)
    configurations = system_configurations(beta, EVERY, edition=edition)
    made, left_out = read_results(results, work.wanted, configurations, work.locations)
    return replace(numbers(names, chosen, work, made), left_out=tuple(left_out))


def paper_work(
    tables: Iterable[str],
    backbone: Backbone | str | Path,
    data: Mapping[str, str | Path],
    systems: Iterable[str],
    *,
    beta: float,
    edition: int,
    out: str | Path,
) -> Work:
    """Check data and lay out the runs of tables; see :func:`paper_table`. Nothing runs."""
    configurations = system_configurations(beta, EVERY, edition=edition)
    return prepare(tables, backbone, data, configurations, list(systems), out)


def numbers(
    tables: Iterable[str],
    systems: Iterable[str],
    work: Work,
    made: Mapping[str, xr.Dataset] | None = None,
) -> PaperNumbers:
    """Return the tables with the numbers of runs: those of the work, else those `made` before."""
    own, reasons = work.values()
    return beside_published(tables, systems, {**(made or {}), **own}, reasons, work.refused)


def table_names(tables: int | str | Iterable[int | str]) -> list[str]:
    """Return keys of `PAPER_TABLES`, from these or from the paper's numbers."""
    several = [tables] if isinstance(tables, int | str) else list(tables)
    found = [NUMBERS.get(str(each), str(each)) for each in several]
    unknown = [each for each in found if each not in PAPER_TABLES]
    if unknown or not found:
        numbers = {name: number for number, name in NUMBERS.items()}
        known = ", ".join(
            f"{numbers[name]} ({name})" if name in numbers else name for name in PAPER_TABLES
        )
        near = meant(unknown, PAPER_TABLES)
        raise InvalidArgument(f"no table {', '.join(unknown) or 'given'}{near}; there are {known}")
    return found


def system_names(systems: Iterable[str]) -> list[str]:
    """Return names of `SYSTEMS`, in whatever case they are given."""
    spoken = {name.casefold(): name for name in SYSTEMS}
    given = [str(each).casefold() for each in systems]
    unknown = [each for each in given if each not in spoken]
    if unknown or not given:
        raise InvalidArgument(
            f"no system {', '.join(unknown) or 'given'}"
            f"{meant([each.upper() for each in unknown], SYSTEMS)}; there are {', '.join(SYSTEMS)}"
        )
    return [spoken[each] for each in given]


def beside_published(
    tables: Iterable[str],
    systems: Iterable[str],
    own: Mapping[str, xr.Dataset],
    reasons: Mapping[tuple[str, str], str],
    refused: Mapping[str, str],
) -> PaperNumbers:
    """Put own numbers beside the published ones of the same protocol, metric and system.

    Parameters
    ----------
    tables, systems : iterable of str
    own : mapping of str to Dataset
        Protocol to numbers, as of :func:`~mut3r_analysis.studies.paper_tables.rebuilt.own_values`.
    reasons : mapping of (str, str) to str
        Protocol and system to why there is none.
    refused : mapping of str to str
        Protocol to why there is none of any system.
    """
    asked = set(systems)
    rows = []
    for name in tables:
        table = published_table(name)
        wanted = [s for s in table["system"].cat.categories if base_system(s) in asked]
        listed: list[Any] = list(table.itertuples())
        known = {(one.cell, one.system): one for one in listed}
        for cell in dict.fromkeys(table["cell"]):
            for system in wanted:
                like = known.get((cell, system)) or next(o for o in listed if o.cell == cell)
                value = _own(own.get(like.protocol), like.metric, system, like.unit)
                why = refused.get(like.protocol) or reasons.get((like.protocol, system))
                if like.protocol == UNSPECIFIED:
                    why = "its source names no protocol, so nothing can stand beside it"
                row = _published(name, like, (cell, system) in known, system) | value
                rows.append(row | _judged(row, why or "no own runs under this protocol"))
    return PaperNumbers(pd.DataFrame(rows), dict(own))


def _published(table: str, one: Any, known: bool, system: str) -> dict[str, Any]:
    kept = ("protocol", "metric", "unit")
    values = {"paper": "value", "minimum": "minimum", "maximum": "maximum"}
    values |= {"half_unit": "half_unit"}
    return {
        "table": table,
        "number": one.cell,
        "system": system,
        **{name: getattr(one, name) for name in kept},
        **{name: getattr(one, field) if known else math.nan for name, field in values.items()},
        "n_sources": one.n_sources if known else 0,
        "conflict": one.conflict if known else "",
    }


def _own(values: xr.Dataset | None, metric: str, system: str, unit: str) -> dict[str, Any]:
    """Return an own number with its interval, in the unit of the literature."""
    nothing = {"own": math.nan, "lower": math.nan, "upper": math.nan, "n": 0}
    if values is None or metric not in values["metric"] or system not in values["system"]:
        return nothing
    cell = values.sel(metric=metric, system=system)
    if not int(cell["n"]):
        return nothing
    own_unit = str(cell["unit"].item())
    if (factor := unit_factor(own_unit, unit)) is None:
        raise InvalidArgument(f"{metric} is in {own_unit!r} here and in {unit!r} in the literature")
    found = {end: factor * float(cell[end]) for end in ("lower", "upper")}
    return {"own": factor * float(cell["value"]), **found, "n": int(cell["n"])}


def _judged(row: Mapping[str, Any], why: str) -> dict[str, Any]:
    """Say what an own number is beside the published ones."""
    if math.isnan(row["own"]):
        return {"difference": math.nan, "inside": None, "verdict": why}
    if math.isnan(row["paper"]):
        words = "nothing published"
        return {"difference": math.nan, "inside": None, "verdict": words}
    difference = row["own"] - row["paper"]
    low, high = row["minimum"] - row["half_unit"], row["maximum"] + row["half_unit"]
    scatter = irreproducible(PROTOCOLS[row["protocol"]].align, row["metric"])
    slack = scatter * abs(row["paper"])
    inside = low - slack <= row["own"] <= high + slack
    if inside and low <= row["own"] <= high:
        words = "as published"
    elif inside:
        words = f"no difference: the released fit moves by {100 * scatter:.2g} %"
    else:
        words = f"{100 * difference / row['paper']:+.1f} %"
    return {"difference": difference, "inside": inside, "verdict": words}


def _cells(row: Any, numbered: Mapping[str, str]) -> tuple[str, ...]:
    """Write a row of the table, in the order of `_SHOWN`."""
    digits = _digits(row)
    sources = "–"
    if row.n_sources > 1:
        sources = f"{row.minimum:.{digits}f} to {row.maximum:.{digits}f} ({row.n_sources})"
    own = "–"
    if not math.isnan(row.own):
        interval = ""
        if math.isfinite(row.lower):
            interval = f" [{row.lower:.{digits}f}, {row.upper:.{digits}f}]"
        own = f"{row.own:.{digits}f}{interval} (n = {row.n})"
    inside = {True: "yes", False: "no"}.get(row.inside, "–")
    return (
        f"{row.number}{'' if row.unit in ('1', 'unstated') else f' ({row.unit})'}",
        row.system,
        "–" if math.isnan(row.paper) else f"{row.paper:.{digits}f}",
        sources,
        own,
        "–" if math.isnan(row.difference) else f"{row.difference:+.{digits}f}",
        inside,
        numbered.get(row.verdict, row.verdict),
    )


def _digits(row: Any) -> int:
    if math.isnan(row.half_unit):
        return 1 if row.unit == "%" else 3
    return max(0, round(-math.log10(2 * row.half_unit)))


def _latex(text: str) -> str:
    for sign, written in (("&", r"\&"), ("%", r"\%"), ("_", r"\_"), ("#", r"\#"),
                          ("δ", r"$\delta$"), ("<", "$<$"), ("–", "--")):  # fmt: skip
        text = text.replace(sign, written)
    return text
