"""How far two runs are apart: nothing for the same run, and the largest number is the measure."""

import numpy as np
import pytest
import xarray as xr

import mut3r_analysis as m3
from mut3r_analysis.running.agreement import differences


def tree(**variables):
    dataset = xr.Dataset(
        {name: ("frame", np.asarray(values)) for name, values in variables.items()}
    )
    return xr.DataTree.from_dict({"/prediction": dataset, "/timing": dataset * np.nan})


def test_a_run_done_twice_is_the_same_run():
    one, other = (m3.run("tiny", "scenes/orbit-03", progress=False) for _ in range(2))
    assert set(differences(one, other).values()) == {0.0}


def test_differences_are_of_the_largest_number():
    found = differences(tree(pose=[0.0, 4.0, 1.0]), tree(pose=[0.0, 4.0, 2.0]))
    assert found == {"prediction/pose": 0.25}


@pytest.mark.parametrize("values", [[np.nan, 1.0], [np.inf, 1.0], [1.0, 1.0, 1.0]])
def test_what_is_there_once_only_is_infinitely_far(values):
    assert differences(tree(pose=values), tree(pose=[1.0, 1.0])) == {"prediction/pose": np.inf}


def test_equal_nan_and_infinite_numbers_are_no_difference():
    same = tree(pose=[np.nan, np.inf, 3.0])
    assert differences(same, same) == {"prediction/pose": 0.0}


def test_whole_numbers_and_flags_are_compared_as_numbers():
    found = differences(tree(slot=[1, 5], held=[True, True]), tree(slot=[1, 4], held=[True, False]))
    assert found == {"prediction/slot": 0.25, "prediction/held": 1.0}
