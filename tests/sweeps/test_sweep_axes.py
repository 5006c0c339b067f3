"""What varies in a sweep, and how its result is labelled."""

import numpy as np
import pytest

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion import Cue, Gate
from mut3r_analysis.running import Configuration
from mut3r_analysis.sweeps.axes import Axes, label_of

PLAIN = Configuration()


def test_a_grid_is_every_combination_the_last_dimension_fastest():
    axes = Axes.of(PLAIN, grid={"gate.layers": [(0, 1), (0, 2)], "gate.beta": [0.5, 1, 2]})
    assert axes.labels == {"gate_layers": ("[0, 1)", "[0, 2)"), "gate_beta": (0.5, 1, 2)}
    settings = [(item.gate.layers, item.gate.beta) for item in axes.configurations]
    assert settings == [(range(a), b) for a in (1, 2) for b in (0.5, 1.0, 2.0)]
    assert all(item.cue == Cue.mut3r() for item in axes.configurations)


def test_a_cell_without_a_gate_stays_plain_whatever_its_fields():
    grid = {"gate.beta": [1.0, 2.0], "gate": {"none": None, "mut3r": Gate.mut3r()}}
    axes = Axes.of(PLAIN, grid=grid)
    betas = [item.gate and item.gate.beta for item in axes.configurations]
    assert betas == [None, 1.0, None, 2.0]
    assert axes.configurations[0] == axes.configurations[2]


def test_another_reading_brings_its_own_sign():
    base = Configuration(cue=Cue(reading="logit_key_mean"))
    axes = Axes.of(base, grid={"cue.reading": ["logit_key_mean", "entropy", "received"]})
    expected = [Cue(reading=name).sign for name in ("logit_key_mean", "entropy", "received")]
    assert [item.cue.sign for item in axes.configurations] == expected


def test_without_anything_varied_there_is_one_cell():
    axes = Axes.of(PLAIN)
    assert axes.labels == {}
    assert axes.configurations == (PLAIN,)


def test_configurations_may_be_listed_with_labels():
    axes = Axes.of(PLAIN, configurations={"plain": {}, "own": {"cue": Cue.mut3r()}})
    assert axes.labels == {"configuration": ("plain", "own")}
    assert axes.configurations[1].cue == Cue.mut3r()


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (None, "none"),
        (2, 2),
        (0.5, 0.5),
        (range(6), "[0, 6)"),
        (np.int64(3), 3),
        (np.float32(0.2), 0.2),
        (np.float64(0.5), 0.5),
        ((2, 4), "(2, 4)"),
        ("rw.gp", "rw.gp"),
        (True, "True"),
        (Gate.mut3r(), None),
    ],
)
def test_values_label_themselves_where_they_can(value, label):
    assert label_of(value) == label
    assert type(label_of(value)) is type(label)


def test_a_pair_is_a_range_where_it_names_layers_and_a_list_elsewhere():
    assert label_of((2, 4), layers=True) == label_of([2, np.int64(4)], layers=True) == "[2, 4)"
    axes = Axes.of(PLAIN, grid={"gate.heads": [[0, 1], [2, 3]], "gate.layers": [(0, 1)]})
    assert axes.labels == {"gate_heads": ("[0, 1]", "[2, 3]"), "gate_layers": ("[0, 1)",)}
    for given in ([0, 2], (0, 2), range(2)):
        axes = Axes.of(PLAIN, grid={"gate.layers": [given]})
        assert axes.labels == {"gate_layers": ("[0, 2)",)}
        assert axes.configurations[0].gate.layers == range(2)


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({"beta": [1]}, "cannot vary 'beta'"),
        ({"gate.sharpness": [1]}, "a field of a gate must be one of"),
        ({"commit.read": ["x"]}, "cannot vary"),
        ({"gate.beta": []}, "no values"),
        ({"gate.beta": 1.0}, "list of values"),
        ({"gate.beta": [1.0, 1.0]}, "more than once"),
        ({"gate.beta": [-1.0]}, "beta"),
    ],
)
def test_a_grid_that_cannot_mean_anything_is_refused(grid, words):
    with pytest.raises(InvalidArgument, match=words):
        Axes.of(PLAIN, grid=grid)


def test_a_grid_and_a_list_exclude_each_other():
    with pytest.raises(InvalidArgument, match="not both"):
        Axes.of(PLAIN, grid={"gate.beta": [1]}, configurations=[{}])
