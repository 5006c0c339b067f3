"""The kinds of backbone there are: a row each, and nothing else names them."""

from dataclasses import dataclass
from typing import Any

from mut3r_analysis.backbones.cut3r.config import CUT3RConfig
from mut3r_analysis.backbones.cut3r.model import CUT3R
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import InvalidArgument


@dataclass(frozen=True)
class Family:
    """One kind of backbone.

    Attributes
    ----------
    config : type
        Of its sizes, under the official field names; has ``from_dict`` and ``to_dict``.
    model : type
        Made from ``(config, *, update)``.
    """

    config: Any
    model: type[Backbone]

    @property
    def name(self) -> str:
        """As runs and checkpoints record it."""
        return self.model.family


FAMILIES = {family.name: family for family in (Family(CUT3RConfig, CUT3R),)}


def family_of(config: Any) -> Family:
    """Return the family that a configuration belongs to.

    Raises
    ------
    InvalidArgument
    """
    for family in FAMILIES.values():
        if isinstance(config, family.config):
            return family
    known = ", ".join(family.config.__name__ for family in FAMILIES.values())
    raise InvalidArgument(f"{config!r} is not the configuration of a backbone; known are {known}")


def find_family(name: str) -> Family:
    """Return a family by its name.

    Raises
    ------
    InvalidArgument
    """
    if name not in FAMILIES:
        raise InvalidArgument(f"unknown kind of backbone {name!r}; known: {', '.join(FAMILIES)}")
    return FAMILIES[name]
