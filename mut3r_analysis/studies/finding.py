"""What a notebook found: a table of effects with their intervals, and a headline made from it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
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
        if self.significant and digits < 7:
            # A bound beyond the reference is not rounded to it.
            while any(round(each, digits) == self.reference for each in parts) and digits < 6:
                digits += 1
        kind = f"{max(digits, 0)}f" if -4 < digits < 7 else "3g"
        form = f"{'+' if self.reference == 0 else ''}.{kind}"
        value, *bounds = (format(each, form) for each in parts)
        value = f"{value} {self.unit}".strip()
        return f"{value} [{', '.join(bounds)}]" if bounds else value

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out the reference, over enough sequences."""
        return self.verdict in (LOWER, HIGHER)

    @property
    def distance(self) -> float:
        """How far the value lies from its reference; from zero where it has none."""
        return abs((self.value or 0.0) - (self.reference or 0.0))

    @property
    def magnitude(self) -> str:
        """The interval of a change without its sign, which ``lowers`` and ``raises`` tell."""
        if self.verdict != LOWER:
            return self.interval.replace("+", "")
        upper, lower = (None if each is None else -each for each in (self.lower, self.upper))
        return replace(self, value=-(self.value or 0.0), lower=lower, upper=upper).magnitude


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
    """One computed answer. As the last value of a cell a notebook shows headline and table.

    Parameters
    ----------
    question : str
        What was asked, ending in a question mark.
    rows : sequence of Row
        The effects, those that matter most first.
    about : str
        What was done, the subject of the headline: ``"Gating by the own cue"``. Where values are
        held against another reference than zero, the beginning up to them: ``"The AUC is"``.
    note : str
        What a reader must know besides, in a sentence of its own.
    lead : int, optional
        How many of the first rows the headline speaks of; all unless given.
    told : str
        A headline computed elsewhere, where the rule of :func:`headline` does not fit the rows.
    """

    question: str
    rows: Sequence[Row] = ()
    about: str = ""
    note: str = ""
    lead: int | None = None
    told: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(self.rows))
        if not self.question.strip().endswith("?"):
            raise InvalidArgument(f"a finding answers a question, with a '?': {self.question!r}")
        if not self.answer.strip():
            raise InvalidArgument(f"the finding on {self.question!r} says nothing")

    @property
    def headline(self) -> str:
        """What was done, what happened and how sure it is, in one sentence; the note without it."""
        return self.told or headline(self.about, self.rows[: self.lead]) or self.note

    @property
    def answer(self) -> str:
        """The headline, and the note."""
        return " ".join(dict.fromkeys(filter(None, [self.headline, self.note])))

    def row(self, effect: str) -> Row:
        """Return the row of an effect."""
        return next(each for each in self.rows if each.effect == effect)

    def __str__(self) -> str:
        return f"{self.question} {self.answer}"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        first, rest = self.rows[: self.lead], self.rows[len(self.rows[: self.lead]) :]
        parts = [f"*{self.question}*", f"**{self.headline}**"]
        parts += [self.note] if self.note not in ("", self.headline) else []
        parts += [_table(first)] if first else []
        if rest:
            parts += [f"<details><summary>{len(rest)} more numbers</summary>", _table(rest)]
            parts += ["</details>"]
        table = [asdict(each) | {"verdict": each.verdict} for each in self.rows]
        payload = asdict(self) | {"rows": table, "headline": self.headline, "answer": self.answer}
        return {
            "text/plain": str(self),
            "text/markdown": "\n\n".join(parts),
            FINDING_MIME: payload,
        }


def headline(about: str, table: Sequence[Row]) -> str:
    """Say in one sentence what was done, what happened, and how sure that is.

    The largest significant effect is named, and the largest in the other direction; all others are
    counted.

    Parameters
    ----------
    about : str
        As of :class:`Finding`.
    table : sequence of Row
        Changes, or values that are held against one reference.

    Returns
    -------
    str
        Empty without rows.
    """
    largest = sorted(table, key=lambda each: -each.distance)
    held = [each for each in largest if each.reference is not None]
    if not largest:
        return ""
    if not held:
        others = f" and {len(table) - 1} more" * (len(table) > 1)
        first = f"{table[0].effect} ({table[0].interval}){others}{_counted(table[:1])}"
        return f"{about}: {first}."
    if all(each.reference == 0 for each in held):
        said = _changes(held) + _how_many(held)
    else:
        said = _levels(held) + _how_many(held)
    return f"{about} {said}.".strip()


def _changes(held: Sequence[Row]) -> str:
    """Tell the largest change in each direction, of changes the largest first."""
    found = {each.verdict: each for each in reversed(held) if each.significant}
    verbs = {LOWER: "lowers", HIGHER: "raises"}
    said = [
        f"{verbs[each.verdict]} {each.effect} by {each.magnitude}"
        for each in sorted(found.values(), key=lambda each: -each.distance)
    ]
    if said:
        return " and ".join(said)
    first, alone = held[0], len(held) == 1
    unsure = {
        NOT_SIGNIFICANT: (
            f"does not change {first.effect} significantly"
            if alone
            else "changes nothing significantly"
        ),
        TOO_FEW: f"changes {first.effect} by {first.interval}, on too few sequences to tell",
        IDENTICAL: "changes nothing at all",
        NOT_MEASURED: "was not measured",
    }
    verdicts = {each.verdict for each in held}
    return next(words for verdict, words in unsure.items() if verdict in verdicts)


def _levels(held: Sequence[Row]) -> str:
    """Tell the value that lies farthest from its reference."""
    first = next((each for each in held if each.significant), held[0])
    beside = {
        LOWER: "below",
        HIGHER: "above",
        NOT_SIGNIFICANT: "not significantly different from",
        TOO_FEW: "on too few sequences to be told from",
        IDENTICAL: "the same as",
        NOT_MEASURED: "not measured beside",
    }[first.verdict]
    return f"{first.interval} for {first.effect}, {beside} {first.reference:g}"


def _how_many(held: Sequence[Row]) -> str:
    """Count what is significant among several effects; say over how many sequences they are."""
    found = sum(each.significant for each in held)
    if len(held) == 1:
        return _counted(held)
    if not found:
        return f" ({len(held)} effects{_counted(held).replace(' (', ', ').removesuffix(')')})"
    verb = "is" if found == 1 else "are"
    return f"; {found} of {len(held)} effects {verb} significant{_counted(held)}"


def _counted(table: Sequence[Row]) -> str:
    """Say over how many sequences, ``" (n = 6)"``; empty where nobody counted."""
    counts = sorted({each.n for each in table if each.n})
    return f" (n = {' to '.join(map(str, dict.fromkeys(counts[:1] + counts[-1:])))})" * bool(counts)


def _table(rows: Sequence[Row]) -> str:
    lines = [
        f"| {each.effect} | {each.interval} | {each.n or ''} | {each.verdict} |" for each in rows
    ]
    head = ["| effect | value [95 % confidence interval] | n | verdict |", "|:--|:--|--:|:--|"]
    return "\n".join([*head, *lines])


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
                del held["answer"], held["headline"]
                held["rows"] = [
                    Row(**{name: each[name] for name in each if name != "verdict"})
                    for each in held["rows"]
                ]
                yield Finding(**held)


def finite(value: Any) -> float | None:
    """Return a number; None for what is not finite, which JSON lacks."""
    number = float(value)
    return number if math.isfinite(number) else None
