"""Declared things, a capture, a cue, a gate or a commit: they round-trip through JSON."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Self

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import made_of, shown
from mut3r_analysis.foundation.layers import with_pairs_as_ranges


class Specification:
    """A frozen dataclass that round-trips through JSON."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values: tuples as lists, ranges as ``[start, stop]``."""
        values = asdict(self)  # type: ignore[call-overload]
        for name, value in values.items():
            if isinstance(value, tuple):
                values[name] = list(value)
            elif isinstance(value, range):
                values[name] = [value.start, value.stop]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from :meth:`to_dict`'s output.

        Raises
        ------
        InvalidArgument
            For a field that does not exist, or a value that is not allowed.
        """
        return made_of(" ".join(re.findall("[A-Z][a-z]*", cls.__name__)).lower(), cls, values)

    def to_json(self) -> str:
        """Return the specification as one line of JSON."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Build from :meth:`to_json`'s output.

        Raises
        ------
        InvalidArgument
            For a text that is no JSON object, and as :meth:`from_dict`.
        """
        try:
            values = json.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidArgument(
                f"{shown(text)} is not the JSON of a {cls.__name__.lower()}: {error}"
            ) from error
        if not isinstance(values, dict):
            raise InvalidArgument(
                f"the JSON of a {cls.__name__.lower()} is an object of its fields, got "
                f"{shown(text)}"
            )
        return cls.from_dict(values)


class LayeredSpecification(Specification):
    """One with consecutive layers, which JSON and YAML hold as a list [start, stop]."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from :meth:`to_dict`'s output, or as YAML holds it."""
        return super().from_dict(with_pairs_as_ranges(values))
