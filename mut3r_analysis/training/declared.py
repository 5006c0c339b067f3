"""What a test that was declared before a training consists of: protocol, intervals, conditions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mut3r_analysis.errors import InvalidArgument, MissingFile
from mut3r_analysis.foundation.paths import user_path
from mut3r_analysis.foundation.text_files import read_yaml
from mut3r_analysis.metrics.bootstrap import drawn_counts, percentile_bounds, resampled_means

METRICS = {
    "rpe_rotation": "rotation error",
    "rpe_translation": "translation error",
    "ate": "trajectory error",
    "depth": "depth error",
}
RESAMPLES = 2000

_SHARED = {"model", "reference", "size", "scenes", "conditions"}
_OWN = {"motion": {"moving", "rest", "gate"}, "reconstruction": {"clips", "seeds"}}


def read_protocol(path: str | Path) -> dict[str, Any]:
    """Read the declaration of a motion test, or of a reconstruction test where `test` says so.

    Raises
    ------
    MissingFile
        When there is no such file.
    InvalidArgument
        When it declares another test, or a part of it is missing.
    """
    path = user_path(path)
    if not path.is_file():
        raise MissingFile(f"no protocol at {path}; tiny-static_protocol.yaml is in data/training")
    values = read_yaml(path)
    values = values if isinstance(values, dict) else {}
    test = declared_test(values)
    if test not in _OWN:
        raise InvalidArgument(f"the protocol {path}: test = {test!r}; choose among {sorted(_OWN)}")
    if missing := sorted((_SHARED | _OWN[test]) - set(values)):
        raise InvalidArgument(f"the protocol {path} does not say {', '.join(missing)}")
    return values


def declared_test(protocol: Mapping[str, Any]) -> str:
    """Return the name of the test that a protocol declares."""
    return str(protocol.get("test", "motion"))


def bootstrap_draws(clips: int) -> NDArray[np.int_]:
    """Return how often each clip is drawn ``(draw, clip)``, the same for all sides."""
    return drawn_counts(clips, RESAMPLES, seed=3)


def ratio_interval(
    values: np.ndarray, reference: np.ndarray, draws: NDArray[np.int_]
) -> list[float]:
    """Mean of values ``(clip,)`` over that of a reference in the same draws: [value, low, high]."""
    counts = np.vstack([np.ones_like(draws[:1]), draws])
    value, *drawn = resampled_means(values, counts) / resampled_means(reference, counts)
    return [float(value), *percentile_bounds(drawn).tolist()]


def target_row(
    target: str, value: list[float], bound: float, reached: bool, above: bool = False
) -> dict[str, Any]:
    """Return a row of a card's targets: what should hold of [value, low, high], and whether."""
    return {"target": target, "value": value, "bound": bound, "above": above, "reached": reached}
