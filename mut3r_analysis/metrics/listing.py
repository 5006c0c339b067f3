"""Protocols as a table that a person reads."""

from typing import TYPE_CHECKING

from mut3r_analysis.foundation.aligned import aligned
from mut3r_analysis.metrics.protocols import Protocol

if TYPE_CHECKING:
    import pandas as pd


class Protocols(tuple[Protocol, ...]):
    """Protocols in the order of the catalogue; prints as a table, in a notebook too."""

    __slots__ = ()

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per protocol, by its id.

        Its card, ``protocol(id).describe()``, says the rest.
        """
        import pandas as pd

        return pd.DataFrame([_row(one) for one in self], columns=_TITLES).set_index("id")

    def __str__(self) -> str:
        return aligned([_TITLES, *map(_row, self)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.to_frame().to_html()


_TITLES = ("id", "data", "frames", "alignment", "from", "released script")


def _row(one: Protocol) -> tuple[str, ...]:
    count = one.expected_sequences
    frames = one.frames.describe()
    if one.expected_frames:
        frames += f"; {one.expected_frames} in all"
    data = f"{one.dataset}, {count} sequences" if count else one.dataset
    return one.id, data, frames, one.align, one.source.partition(" released")[0], one.released
