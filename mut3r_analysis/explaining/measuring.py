"""What of a run is compared frame by frame: an error, or without truth how far it is from a run."""

from collections.abc import Callable, Iterable
from typing import Any

import xarray as xr

from mut3r_analysis.evaluation.eligibility import UnmetProtocol
from mut3r_analysis.evaluation.harm import DIFFERENCE, ERRORS, depth_difference
from mut3r_analysis.evaluation.scores import named_protocols
from mut3r_analysis.evaluation.tasks import score_run
from mut3r_analysis.metrics.errors import UndefinedMetric
from mut3r_analysis.metrics.protocols import Protocol, measure_label

Measure = Callable[[xr.DataTree], xr.DataArray]
"""From a run to a number per frame."""


def error_measure(
    protocol: str | Protocol,
    sequence: xr.Dataset,
    runs: Iterable[xr.DataTree],
    metrics: tuple[str, ...] = ERRORS,
) -> tuple[str, Measure] | None:
    """Return the first error of a protocol that runs can be scored by, with its name.

    Parameters
    ----------
    protocol : str or Protocol
    sequence : Dataset
        Where a protocol compares at source size, its truth.
    runs : iterable of DataTree
        All of which have to be scored by it.
    metrics : tuple of str
        Names, in the order in which they are looked for.

    Returns
    -------
    tuple or None
        None where there is no such error.
    """
    for chosen in named_protocols(protocol):
        metric = next((name for name in metrics if name in chosen.metrics), None)
        if metric is None:
            continue
        truth = source_truth(chosen, sequence)

        def measure(
            run: xr.DataTree, chosen: Protocol = chosen, metric: str = metric, truth: Any = truth
        ) -> xr.DataArray:
            return score_run(chosen, run, truth)[f"frame_{metric}"]

        try:
            for run in runs:
                measure(run)
        except (UnmetProtocol, UndefinedMetric):
            continue
        return measure_label(metric, chosen.align), measure
    return None


def difference_measure(plain: xr.DataTree) -> tuple[str, Measure]:
    """Return how far the depth of a run is from that of `plain`, which needs no truth."""

    def apart(run: xr.DataTree) -> xr.DataArray:
        return depth_difference(plain, run).median(["y", "x"])

    return DIFFERENCE, apart


def source_truth(protocol: str | Protocol, sequence: xr.Dataset) -> xr.Dataset | None:
    """Return the sequence where a protocol compares at source size; a run holds the rest."""
    given = all(one.preparation == "given" for one in named_protocols(protocol))
    return None if given else sequence
