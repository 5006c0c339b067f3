"""Which call of the fused attention is which site: by the module's path, a pattern, or its turn."""

import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import nn

from mut3r_analysis.errors import InvalidArgument

Chosen = Mapping[str, str] | Callable[[str, nn.Module], str | None] | Sequence[str] | None
"""How sites are chosen: see :func:`~mut3r_analysis.attach`."""


class Place(NamedTuple):
    """A site of a foreign model: its kind, its 0-based layer and the path of its module."""

    kind: str
    layer: int
    module: str


class Naming:
    """Names the calls of a model.

    Parameters
    ----------
    model : torch.nn.Module
    sites : mapping, callable, sequence or None

    Raises
    ------
    InvalidArgument
        When a pattern fits no module, or turns are not told as ``kind.layer``.
    """

    def __init__(self, model: nn.Module, sites: Chosen) -> None:
        self._turns: list[Place] | None = None
        self._places: dict[str, Place] = {}
        self._named = callable(sites) or isinstance(sites, Mapping)
        if isinstance(sites, Sequence):
            self._turns = [_turn(name) for name in sites]
        elif sites is not None:
            self._match(model, sites)

    @property
    def turns(self) -> int | None:
        """How many calls make one pass through the model, where they are told by their turn."""
        return None if self._turns is None else len(self._turns)

    def place(self, stack: Sequence[str], turn: int) -> Place | None:
        """Return the site of a call within these modules, from the outermost; None to leave it."""
        if self._turns is not None:
            return self._turns[turn]
        if self._named:
            inner = next((name for name in reversed(stack) if name in self._places), None)
            return None if inner is None else self._places[inner]
        return self._by_path(stack[-1] if stack else "")

    def _by_path(self, path: str) -> Place:
        if path not in self._places:
            kind = re.sub(r"(^|\.)\d+(?=\.|$)", "", path).strip(".") or "attention"
            layer = sum(each.kind == kind for each in self._places.values())
            self._places[path] = Place(kind, layer, path)
        return self._places[path]

    def _match(
        self, model: nn.Module, sites: Mapping[str, str] | Callable[[str, nn.Module], str | None]
    ) -> None:
        counts: dict[str, int] = {}
        for path, module in model.named_modules():
            if callable(sites):
                kind = sites(path, module)
            else:
                parts = _parts(path)
                fitting = (one for one, form in sites.items() if _fits(parts, _parts(form)))
                kind = next(fitting, None)
            if kind is not None:
                self._places[path] = Place(kind, counts.get(kind, 0), path)
                counts[kind] = counts.get(kind, 0) + 1
        unmet = [] if callable(sites) else [kind for kind in sites if kind not in counts]
        if unmet or not counts:
            paths = [path for path, _ in model.named_modules() if path][:12]
            raise InvalidArgument(
                f"sites of {', '.join(unmet) or 'the predicate'} fit no module; modules are called "
                f"{', '.join(paths)}, ..."
            )

    def layers(self, kind: str) -> int:
        """Return how many layers of a kind are known."""
        places = self._places.values() if self._turns is None else self._turns
        return sum(place.kind == kind for place in places)


def _parts(path: str) -> list[str]:
    return path.split(".") if path else []


def _fits(path: list[str], form: list[str]) -> bool:
    """Whether a path is what a pattern says: part by part, ``**`` any number of parts."""
    if not form:
        return not path
    if form[0] == "**":
        return any(_fits(path[start:], form[1:]) for start in range(len(path) + 1))
    return bool(path) and fnmatchcase(path[0], form[0]) and _fits(path[1:], form[1:])


def _turn(name: str) -> Place:
    kind, _, layer = name.rpartition(".")
    if not kind or not layer.isdigit():
        raise InvalidArgument(
            f"sites told by their turn are called kind.layer, as 'image_self.0'; got {name!r}"
        )
    return Place(kind, int(layer), name)
