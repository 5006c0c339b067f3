"""Answers in prose, of studies whose finding is not yet a table."""

import math
from dataclasses import dataclass, field
from typing import Any

import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.metrics.bootstrap import sequences_needed
from mut3r_analysis.studies.estimates import LEVEL

FINDING_MIME = "application/vnd.mut3r.finding+json"


@dataclass(frozen=True)
class Finding:
    """One computed answer. As the last value of a cell a notebook shows it as text.

    Parameters
    ----------
    question : str
        What was asked, ending in a question mark.
    answer : str
        Sentences whose numbers were computed.
    values : dict
        The numbers behind them, plain values.
    brief : str
        The answer in one or two sentences, for an overview; `answer` itself unless given.
    """

    question: str
    answer: str
    values: dict[str, Any] = field(default_factory=dict)
    brief: str = ""

    def __post_init__(self) -> None:
        if not self.question.strip().endswith("?"):
            raise InvalidArgument(f"a finding answers a question, with a '?': {self.question!r}")
        if not self.answer.strip():
            raise InvalidArgument(f"the finding on {self.question!r} says nothing")
        if not self.brief:
            object.__setattr__(self, "brief", self.answer)

    def __str__(self) -> str:
        return f"{self.question} {self.answer}"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {
            "text/plain": str(self),
            "text/markdown": f"**{self.question}** {self.answer}",
            FINDING_MIME: {
                "question": self.question,
                "answer": self.answer,
                "values": self.values,
                "brief": self.brief,
            },
        }


def finite(value: Any) -> float | None:
    """Return a number for a finding's values; None for what is not finite, which JSON lacks."""
    number = float(value)
    return number if math.isfinite(number) else None


def verdict(cell: xr.Dataset) -> str:
    """Say in words what one cell of :func:`change` or :func:`difference` allows to conclude.

    Parameters
    ----------
    cell : Dataset
        Scalars ``value``, ``lower``, ``upper``, ``n``.

    Returns
    -------
    str
        ``"lower"``, ``"higher"``, ``"no difference that these sequences could show"`` or
        ``"too few sequences to tell"``.
    """
    if cell.sizes:
        raise InvalidArgument(f"select one cell first; dimensions left: {dict(cell.sizes)}")
    if int(cell["n"]) < sequences_needed(LEVEL):
        return "too few sequences to tell"
    if float(cell["upper"]) < 0:
        return "lower"
    if float(cell["lower"]) > 0:
        return "higher"
    return "no difference that these sequences could show"
