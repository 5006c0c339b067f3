"""What a notebook found: a table of effects with their intervals, and one sentence made from it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.metrics.bootstrap import sequences_needed
from mut3r_analysis.studies.estimates import LEVEL

FINDING_MIME = "application/vnd.mut3r.finding+json"

LOWER, HIGHER = "lower", "higher"
NOT_SIGNIFICANT = "not significant"
TOO_FEW = "too few"
IDENTICAL = "identical"
NOT_MEASURED = "not measured"
FEWEST = sequences_needed(LEVEL)
"""Sequences below which nothing is concluded from an interval."""

_PHRASES = {
    LOWER: "lower for",
    HIGHER: "higher for",
    "": "",
    IDENTICAL: "identical for",
    NOT_SIGNIFICANT: "not significantly different for",
    TOO_FEW: "measured on too few to tell for",
    NOT_MEASURED: "not measured for",
}
_LONGEST = 4
"""Effects of one verdict that a sentence lists before it says how many others there are."""
NO_TRUTH = "No ground truth: only differences between runs are shown."


@dataclass(frozen=True)
class Row:
    """One effect.

    Parameters
    ----------
    effect : str
        What was measured, and where.
    value, lower, upper : float or None
        Point estimate and its 95 % interval, in `unit`; None where there is none.
    n : int
        Over how many sequences, or clips.
    unit : str
    reference : float or None
        What the value is compared with: 0 for changes, 0.5 for areas under a ROC curve; None for a
        number that is only reported.
    """

    effect: str
    value: float | None
    lower: float | None = None
    upper: float | None = None
    n: int = 0
    unit: str = ""
    reference: float | None = 0.0

    @property
    def verdict(self) -> str:
        """What may be concluded: one of the words of this module, or nothing to compare with."""
        if self.reference is None:
            return ""
        if self.value is None or not self.n:
            return NOT_MEASURED
        if {self.value, self.lower, self.upper} <= {self.reference, None}:
            return IDENTICAL
        if self.n < FEWEST or self.lower is None or self.upper is None:
            return TOO_FEW
        if self.upper < self.reference:
            return LOWER
        return HIGHER if self.lower > self.reference else NOT_SIGNIFICANT

    @property
    def interval(self) -> str:
        """Value, interval and unit in text, as many digits as the interval is worth."""
        if self.value is None:
            return "–"
        parts = [each for each in (self.value, self.lower, self.upper) if each is not None]
        width = max(parts) - min(parts)
        digits = 3 - math.ceil(math.log10(abs(self.value))) if self.value % 1 else 0
        if width > 1e-6 * abs(self.value):
            digits = -math.floor(math.log10(width / 5))
        kind = f"{max(digits, 0)}f" if -4 < digits < 7 else "3g"
        form = f"{'+' if self.reference == 0 else ''}.{kind}"
        value, *bounds = (format(each, form) for each in parts)
        return " ".join(
            filter(None, [value, f"[{', '.join(bounds)}]" if bounds else "", self.unit])
        )


def row(effect: str, cell: xr.Dataset, reference: float | None = 0.0, n: int | None = None) -> Row:
    """Make a row from one cell of estimates.

    Parameters
    ----------
    effect : str
    cell : Dataset
        Scalars ``value``, ``lower``, ``upper`` and, unless given, ``n``.
    reference : float or None
        As of :class:`Row`.
    n : int, optional

    Raises
    ------
    InvalidArgument
        When the cell has dimensions left.
    """
    if cell.sizes:
        raise InvalidArgument(f"select one cell first; dimensions left: {dict(cell.sizes)}")
    units = str(cell["value"].attrs.get("units", "1"))
    value, lower, upper = (
        finite(cell[name]) if name in cell else None for name in ("value", "lower", "upper")
    )
    count = int(cell.get("n", 0)) if n is None else n
    return Row(effect, value, lower, upper, count, "" if units == "1" else units, reference)


def rows(
    found: xr.Dataset, effect: str = "{}", reference: float | None = 0.0, n: int | None = None
) -> list[Row]:
    """Make a row of every cell of estimates, named by its labels.

    Parameters
    ----------
    found : Dataset
        From `estimates`, of any dimensions.
    effect : str
        Into which the labels are filled, all together or by dimension: ``"{}, against the plain
        run"`` or ``"{measure} by {cue}"``.
    reference : float or None
        As of :class:`Row`.
    n : int, optional
        As of :func:`row`.
    """
    dims = [str(dim) for dim in found["value"].dims]
    labels = product(*(found[dim].values.tolist() for dim in dims))
    return [
        row(effect.format(", ".join(map(str, each)), **place), found.sel(place), reference, n)
        for each in labels
        for place in [dict(zip(dims, each, strict=True))]
    ]


@dataclass(frozen=True)
class Finding:
    """One computed answer. As the last value of a cell a notebook shows it as text and table.

    Parameters
    ----------
    question : str
        What was asked, ending in a question mark.
    rows : sequence of Row
        The effects, those that matter most first.
    about : str
        Beginning of the sentence, up to its verb: ``"Against the plain run, the error is"``.
    note : str
        What a reader must know besides, in a sentence of its own.
    lead : int, optional
        How many of the first rows the sentence speaks of; all unless given.
    """

    question: str
    rows: Sequence[Row] = ()
    about: str = ""
    note: str = ""
    lead: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(self.rows))
        if not self.question.strip().endswith("?"):
            raise InvalidArgument(f"a finding answers a question, with a '?': {self.question!r}")
        if not self.answer.strip():
            raise InvalidArgument(f"the finding on {self.question!r} says nothing")

    @property
    def answer(self) -> str:
        """The sentence, and the note."""
        written = sentence(self.about, self.rows[: self.lead])
        return " ".join(filter(None, [written, self.note]))

    def row(self, effect: str) -> Row:
        """Return the row of an effect."""
        return next(each for each in self.rows if each.effect == effect)

    def __str__(self) -> str:
        return f"{self.question} {self.answer}"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        lines = [f"**{self.question}** {self.answer}"]
        if self.rows:
            lines += ["", "| effect | value [95 % interval] | n | verdict |", "|:--|:--|--:|:--|"]
        lines += [
            f"| {each.effect} | {each.interval} | {each.n or ''} | {each.verdict} |"
            for each in self.rows
        ]
        table = [asdict(each) | {"verdict": each.verdict} for each in self.rows]
        payload = asdict(self) | {"rows": table, "answer": self.answer}
        return {
            "text/plain": str(self),
            "text/markdown": "\n".join(lines),
            FINDING_MIME: payload,
        }


def sentence(about: str, table: Sequence[Row]) -> str:
    """Put rows into one sentence, verdict by verdict; numbers where something was found."""
    counts = {each.n for each in table}
    alike = len(counts) == 1

    def told(each: Row) -> str:
        numbers = each.interval if each.verdict in (LOWER, HIGHER, "") else ""
        count = "" if alike or not each.n else f"n = {each.n}"
        shown = ", ".join(filter(None, [numbers, count]))
        return f"{each.effect} ({shown})" if shown else each.effect

    parts = []
    for verdict, phrase in _PHRASES.items():
        effects = [told(each) for each in table if each.verdict == verdict]
        if (others := len(effects) - _LONGEST) > 1:
            effects[_LONGEST - 1 :] = [f"{effects[_LONGEST - 1]} and {others} others"]
        if effects:
            parts.append(f"{phrase} {', '.join(effects)}".strip())
    if not parts:
        return ""
    n = counts.pop() if alike else 0
    return f"{about} {'; '.join(parts)}{f' (n = {n})' if n else ''}.".strip()


def without_truth(question: str, found: xr.Dataset, about: str) -> Finding:
    """Report how far runs lie from each other, where nothing can be scored.

    Parameters
    ----------
    question : str
    found : Dataset
        From `estimates`: departures from the plain run.
    about : str
        As of :class:`Finding`.
    """
    return Finding(question, rows(found, reference=None), about, NO_TRUTH)


def findings_of(notebook: Any) -> Iterator[Finding]:
    """Yield the findings that the outputs of an executed notebook hold, in their order."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if FINDING_MIME in (data := output.get("data", {})):
                held = dict(data[FINDING_MIME])
                del held["answer"]
                held["rows"] = [
                    Row(**{name: each[name] for name in each if name != "verdict"})
                    for each in held["rows"]
                ]
                yield Finding(**held)


def finite(value: Any) -> float | None:
    """Return a number; None for what is not finite, which JSON lacks."""
    number = float(value)
    return number if math.isfinite(number) else None
