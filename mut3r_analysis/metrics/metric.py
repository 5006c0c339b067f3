"""A metric's row: what it is called, its units, which way is better, and how it is computed.

Rows stand in the tables of their tasks, beside what computes them: `DEPTH_METRICS` in `depth`,
`POSE_METRICS` in `trajectory`, `RECONSTRUCTION_METRICS` in `reconstruction`, `MASK_METRICS` in
`segmentation`, `TRACK_METRICS` in `tracks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mut3r_analysis.errors import InvalidArgument

POOLINGS = ("mean", "rmse", "median", "recall", "together")
RECALL_THRESHOLD = 0.5
SIGNS = {"1": "", "degree": "°"}
"""Units to what stands behind a label; others stand as they are."""


@dataclass(frozen=True)
class Metric:
    """One metric; `values` gives what `pooling` turns into the number of a sequence.

    Attributes
    ----------
    name : str
        As protocols, scores and published tables spell it.
    label : str
        Short words for tables and axes; what stands behind a comma is how it was pooled.
    long_name : str
        The definition, in words.
    units : str
        ``"1"`` for fractions.
    pooling : {"mean", "rmse", "median", "recall", "together"}
        ``"recall"`` is the fraction of values above `RECALL_THRESHOLD`; with ``"together"``,
        `values` is asked once for all frames and its number is that of the sequence.
    values : callable
        By task:

        - video depth: true and aligned depth (pixel), metres, of a frame to the frame's error;
        - pose: true and aligned poses (frame, row, col) and the frames between those of a pair, to
          errors (frame) or (pair);
        - reconstruction: what `point_distances` gives, to values (point);
        - tracks: what was measured of all pairs of frames, to values (pair);
        - motion: true and predicted masks (frame, y, x) and a tolerance, to values (frame);
          ``"together"``: true masks and scores of any one shape.
    frames : str
        What a frame contributes, stored as ``frame_<frames>``; empty where there is no such value.
    weights : str
        ``"pixels"`` where frames weigh by their valid pixels.
    higher_is_better : bool
        Of an error it is not.

    Raises
    ------
    InvalidArgument
        A row that lacks words or units, or an unknown pooling.
    """

    name: str
    label: str
    long_name: str
    units: str
    pooling: str
    values: Callable[..., Any]
    frames: str = ""
    weights: str = ""
    higher_is_better: bool = False

    def __post_init__(self) -> None:
        lacking = [n for n in ("name", "label", "long_name", "units") if not getattr(self, n)]
        if lacking or self.pooling not in POOLINGS:
            raise InvalidArgument(
                f"metric {self.name!r}: needs a name, label, long_name and units, and a pooling "
                f"among {', '.join(POOLINGS)}, got {self.pooling!r}"
            )

    @property
    def attrs(self) -> dict[str, str]:
        """Attributes of a stored variable."""
        return {"long_name": self.long_name, "units": self.units}

    def labelled(self, frames: bool = False) -> str:
        """Return label and units, ``"ATE (m)"``; of what a frame contributes without pooling."""
        label = self.label.partition(",")[0] if frames else self.label
        sign = SIGNS.get(self.units, self.units)
        return f"{label} ({sign})" if sign else label

    @property
    def made_of_frames(self) -> bool:
        """Whether what frames contribute makes up the number of the sequence."""
        return bool(self.frames) and self.pooling != "together"

    def counted(self, values: ArrayLike) -> Any:
        """Return what is averaged of values: themselves, or whether they pass the threshold."""
        array = np.asarray(values)
        return array > RECALL_THRESHOLD if self.pooling == "recall" else array

    def pool(self, values: ArrayLike, weights: NDArray[Any] | None = None) -> float:
        """Turn values of frames or points into the number of their sequence."""
        counted = self.counted(values)
        if self.pooling == "median":
            return float(np.median(counted))
        root = self.pooling == "rmse"
        mean = float(np.average(counted**2 if root else counted, weights=weights))
        return float(np.sqrt(mean)) if root else mean


def rows(metrics: Iterable[Metric]) -> dict[str, Metric]:
    """Make a table of metrics, by name."""
    return {row.name: row for row in metrics}
