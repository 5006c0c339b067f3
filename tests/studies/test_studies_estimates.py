"""Means over sequences, their intervals and what may be concluded from them."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from mut3r_analysis.studies.estimates import (
    change,
    difference,
    estimate,
    formatted,
    interval_note,
)


def values_of(values, **attrs):
    return xr.DataArray(
        np.asarray(values, float),
        dims=("sequence", "gate"),
        coords={"sequence": list(range(len(values)))},
        attrs={"long_name": "error", "units": "m", **attrs},
    )


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=12))
def test_an_interval_holds_its_mean_and_lies_within_the_data(numbers):
    cell = estimate(values_of([[x] for x in numbers])).isel(gate=0)
    assert float(cell["value"]) == pytest.approx(np.mean(numbers))
    slack = 1e-9 * max(numbers)
    assert min(numbers) - slack <= float(cell["lower"]) <= float(cell["value"]) + slack
    assert float(cell["value"]) - slack <= float(cell["upper"]) <= max(numbers) + slack


def test_coverage_is_about_nominal():
    rng = np.random.default_rng(0)
    draws = rng.normal(1.0, 0.3, (30, 300))
    found = estimate(values_of(draws))
    inside = (found["lower"] <= 1.0) & (found["upper"] >= 1.0)
    assert 0.89 < float(inside.mean()) < 0.98


def test_sequences_without_a_value_are_left_out_cell_by_cell():
    found = estimate(values_of([[1, 1], [3, np.nan], [2, np.nan]]))
    assert found["value"].values.tolist() == [2.0, 1.0]
    assert found["n"].values.tolist() == [3, 1]
    assert np.isnan(float(found["lower"][1]))


def test_a_change_is_of_the_means_and_paired():
    reference = values_of([[1.0], [10.0], [5.0], [7.0], [2.0], [3.0]])
    found = change(1.1 * reference, reference).isel(gate=0)
    assert float(found["value"]) == pytest.approx(10)
    assert float(found["lower"]) == pytest.approx(10)
    assert float(found["upper"]) == pytest.approx(10)
    assert found["value"].attrs["units"] == "%"
    assert formatted(found) == "+10.0 [+10.0, +10.0] % (n = 6)"
    away = difference(reference - 1, reference).isel(gate=0)
    assert float(away["value"]) == pytest.approx(-1)
    assert away["value"].attrs["units"] == "m"


def test_a_caption_says_over_how_many_intervals_were_drawn():
    even = estimate(values_of(np.arange(12.0).reshape(6, 2)))
    assert interval_note(even) == "intervals: 95 % percentile bootstrap over 6 sequences"
    gaps = values_of([[1, 1, 1], [3, 2, np.nan], [2, np.nan, np.nan]])
    assert interval_note(estimate(gaps), "clips").endswith("bootstrap over 2 to 3 clips")
    assert interval_note(estimate(gaps.isel(gate=[2]))).startswith("no intervals")
