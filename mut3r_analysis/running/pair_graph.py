"""Which frames are paired: graphs by the names that DUSt3R and its relatives use."""

import re
from collections.abc import Iterable
from operator import index
from typing import Any

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import meant, shown

_NAME = re.compile(
    r"(?P<kind>complete|swin|swinstride|swin2stride|logwin|oneref)(-(?P<number>\d{1,6}))?"
    r"(?P<ends>-noncyclic)?"
)
_WINDOW = 3
_EXAMPLES = ("complete", "swin-3", "swinstride-3", "swin2stride-3", "logwin-3", "oneref-0")
_STRIDES = {"swin": 1, "swinstride": 2, "swin2stride": 3}

Graph = str | Iterable[tuple[int, int]]


def pair_edges(graph: Graph, frames: int) -> list[tuple[int, int]]:
    """Return the pairs of a graph as positions of frames: (view 1, view 2).

    Parameters
    ----------
    graph : str or iterable of (int, int)
        ``"complete"``: every frame with every other. ``"swin-3"``: with the next 3, at the end with
        those at the beginning; ``"swinstride-3"`` with 3 frames at distances 1, 3, 5 and
        ``"swin2stride-3"`` at 1, 4, 7. ``"logwin-3"``: at distances 1, 2, 4 on either side.
        ``"oneref-0"``: with one frame, by its position. The number is 3 (0 for ``oneref``) unless
        given; with ``-noncyclic`` the end does not meet the beginning. Every named graph has each
        pair both ways, which official code leaves out for ``oneref`` and ``swin-1``. Pairs that are
        given are taken as they are.
    frames : int

    Returns
    -------
    list of (int, int)
        Named graphs: ordered by position, then all of them turned.

    Raises
    ------
    InvalidArgument
        For an unknown name, for frames that are not there, and for fewer than two frames.

    Examples
    --------
    >>> pair_edges("swin-1-noncyclic", 3)
    [(0, 1), (1, 2), (1, 0), (2, 1)]
    """
    if frames < 2:
        raise InvalidArgument(
            f"a pair needs two frames, and the sequence has {frames}; give at least two"
        )
    if not isinstance(graph, str):
        return _given(graph, frames)
    match = _NAME.fullmatch(graph)
    if match is None or (match["kind"] == "complete" and match["number"]):
        raise InvalidArgument(
            f"unknown graph of pairs {shown(graph)}{meant([graph], _EXAMPLES)}; known: "
            f"{', '.join(_EXAMPLES)} (with other numbers, and '-noncyclic'), or pairs of "
            "positions such as [(0, 1), (1, 0)]"
        )
    kind, cyclic = match["kind"], match["ends"] is None
    number = int(match["number"]) if match["number"] else 0 if kind == "oneref" else _WINDOW
    if kind == "oneref":
        if number >= frames:
            raise InvalidArgument(f"{graph} names frame {number}, and the last one is {frames - 1}")
        found = {(min(number, j), max(number, j)) for j in range(frames) if j != number}
    elif kind == "complete":
        found = {(i, j) for j in range(frames) for i in range(j)}
    else:
        offsets = _offsets(kind, min(number, frames))  # beyond these, pairs only come again
        ends = ((i, i + offset) for i in range(frames) for offset in offsets)
        reached = ((i, j % frames if cyclic else j) for i, j in ends)
        found = {(min(i, j), max(i, j)) for i, j in reached if i != j < frames}
    edges = sorted(found)
    return edges + [(j, i) for i, j in edges]


def _offsets(kind: str, window: int) -> list[int]:
    if kind == "logwin":
        return [2**power for power in range(window)]
    stride = _STRIDES[kind]
    return list(range(1, stride * window + 1, stride))


def _given(graph: Any, frames: int) -> list[tuple[int, int]]:
    try:
        edges = [(index(first), index(second)) for first, second in graph]
    except (TypeError, ValueError):
        edges = []
    wrong = [edge for edge in edges if not 0 <= min(edge) <= max(edge) < frames]
    if wrong or not edges:
        raise InvalidArgument(
            f"pairs are positions of two frames, from 0 to {frames - 1}, such as [(0, 1), (1, 0)]; "
            f"got {shown(wrong[:5] or graph)}"
        )
    return edges
