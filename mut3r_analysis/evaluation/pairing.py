"""Two systems on the same sequences: is one better, or are there too few sequences to tell."""

import pandas as pd
import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.evaluation.averages import LEVEL, frame_series, metric_names
from mut3r_analysis.metrics.bootstrap import compare_paired
from mut3r_analysis.metrics.protocols import find_metric


def paired(first: xr.Dataset, second: xr.Dataset) -> pd.DataFrame:
    """Compare two evaluations sequence by sequence and frame by frame.

    Sequences that either evaluation skipped are left out of both, so that the means are over the
    same ones.

    Parameters
    ----------
    first, second : Dataset
        From `evaluate`, under one protocol.

    Returns
    -------
    pandas.DataFrame
        One row per metric: ``difference`` (second minus first) of the protocol's mean, ``lower``
        and ``upper`` of its bootstrap interval, ``n_sequences``, ``verdict`` (``"first is
        better"``, ``"second is better"`` or ``"too few sequences to tell"``) and ``reason``.

    Raises
    ------
    InvalidArgument
        The evaluations are of different protocols, or share no sequence with values.

    Notes
    -----
    A difference of nothing throughout, as between a system and itself, is ``"too few sequences to
    tell"`` too: no number of sequences could tell.

    Examples
    --------
    >>> scene = m3.open_sequence("scenes/orbit-03", stop=3)
    >>> scores = m3.evaluate(m3.run("tiny", scene, outputs=("depth",), progress=False))
    >>> paired(scores, scores).loc["abs_rel", "verdict"]
    'too few sequences to tell'
    """
    if any(first.attrs[key] != second.attrs[key] for key in ("protocol", "protocol_digests")):
        raise InvalidArgument(
            f"the first scores are under {first.attrs['protocol']!r}, the second under "
            f"{second.attrs['protocol']!r}; evaluate both under one protocol"
        )
    rows = {}
    for metric in metric_names(first):
        both = set.intersection(
            *(
                {str(n) for n in scores[metric].dropna("sequence")["sequence"].values}
                for scores in (first, second)
            )
        )
        names = [str(name) for name in first["sequence"].values if str(name) in both]
        if not names:
            continue
        ours, theirs = (frame_series(scores, metric, names) for scores in (first, second))
        found = compare_paired(
            ours.values,
            theirs.values,
            ours.statistic,
            lower_is_better=not find_metric(metric).higher_is_better,
            level=LEVEL,
            frame_weights=ours.frame_weights,
            sequence_weights=ours.sequence_weights,
        )
        rows[metric] = {
            "difference": found.difference.value,
            "lower": found.difference.low,
            "upper": found.difference.high,
            "n_sequences": found.difference.n_sequences,
            "verdict": found.verdict,
            "reason": found.reason,
        }
    if not rows:
        raise InvalidArgument("the two evaluations share no sequence with values")
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("metric")
    table.attrs["protocol"] = first.attrs["protocol"]
    return table
