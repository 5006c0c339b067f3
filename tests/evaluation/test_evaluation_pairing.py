"""Two systems are compared on what both scored, and a verdict needs enough sequences."""

import numpy as np
import pytest
import xarray as xr
from known_runs import a_run, a_sequence

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.evaluation import evaluate, paired


def scores_of(factor: float, count: int, protocol: str = "default:depth:metric") -> xr.Dataset:
    def scaled(prediction: xr.Dataset) -> xr.Dataset:
        return prediction.assign(depth=prediction["depth"] * factor)

    return evaluate(
        [a_run(a_sequence(f"s{seed}", 12, seed), change=scaled) for seed in range(count)], protocol
    )


def test_a_smaller_error_on_enough_sequences_is_better() -> None:
    table = paired(scores_of(1.2, 7), scores_of(1.1, 7))
    row = table.loc["abs_rel"]
    assert row["difference"] == pytest.approx(-0.1)
    assert row["lower"] == pytest.approx(-0.1)
    assert row["verdict"] == "second is better"
    assert row["n_sequences"] == 7
    back = paired(scores_of(1.1, 7), scores_of(1.3, 7))
    assert back.loc["abs_rel", "verdict"] == "first is better"
    # Of the fractions a larger one is better.
    assert back.loc["delta_1", "difference"] == pytest.approx(-1)
    assert back.loc["delta_1", "verdict"] == "first is better"


def test_few_sequences_do_not_tell() -> None:
    row = paired(scores_of(1.2, 3), scores_of(1.1, 3)).loc["abs_rel"]
    assert row["verdict"] == "too few sequences to tell"
    assert "3 sequences could all lean one way by chance" in row["reason"]


def test_a_sequence_that_one_of_them_skipped_counts_for_neither() -> None:
    first = scores_of(1.2, 7)
    still = a_sequence("s0")
    still["depth"].values[:] = np.nan
    second = evaluate(
        [a_run(still), *(a_run(a_sequence(f"s{seed}", 12, seed)) for seed in range(1, 7))],
        "default:depth:metric",
    )
    row = paired(first, second).loc["abs_rel"]
    assert row["n_sequences"] == 6
    assert row["difference"] == pytest.approx(-0.2)


def test_scores_of_two_protocols_or_of_no_common_sequence_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="evaluate both under one protocol"):
        paired(scores_of(1.2, 1), scores_of(1.2, 1, "default:depth:scale_median"))
    other = evaluate(a_run(a_sequence("other")), "default:depth:metric")
    with pytest.raises(InvalidArgument, match="share no sequence"):
        paired(scores_of(1.2, 1), other)
