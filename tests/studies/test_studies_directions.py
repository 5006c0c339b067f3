"""Directions of gating alone and left out: what is run, and the sentence about it."""

import numpy as np
import pytest
import xarray as xr

from mut3r_analysis.motion.realisations import DIRECTIONS
from mut3r_analysis.studies.ablation import PLAIN
from mut3r_analysis.studies.directions import ALL, ablation, direction_changes, finding
from mut3r_analysis.studies.finding import HIGHER, IDENTICAL, LOWER

DEPTH = "depth AbsRel (median scale)"


def swept(factors):
    """A sweep in which each configuration multiplies the error of every sequence by a factor."""
    names = list(ablation().configurations)
    base = np.array([1.0, 2.0, 3.0, 1.5, 2.5, 0.5, 4.0])
    factor = np.array([factors.get(name, 1.0) for name in names])
    values = factor[:, None] * base
    dims = ("configuration", "sequence")
    return xr.Dataset(
        {name: (dims, values, {"long_name": name, "units": "m"}) for name in ("abs_rel", "ate")},
        coords={"configuration": names, "sequence": list("abcdefg")},
    )


def test_every_direction_is_alone_once_and_left_out_once():
    found = ablation(beta=2.0).configurations
    acting = {
        label: {d for d in DIRECTIONS if item and getattr(item.gate, d)}
        for label, item in found.items()
    }
    assert acting[PLAIN] == set()
    assert acting[ALL] == set(DIRECTIONS)
    for name in DIRECTIONS:
        assert acting[f"{name} alone"] == {name}
        assert acting[f"all but {name}"] == set(DIRECTIONS) - {name}
    assert {item.gate.beta for item in found.values() if item} == {2.0}


def test_changes_are_percent_of_the_plain_backbone():
    changes = direction_changes(swept({ALL: 0.8, "image_self alone": 1.1}))
    cell = changes.sel(measure=DEPTH)
    assert PLAIN not in cell["configuration"]
    np.testing.assert_allclose(float(cell["value"].sel(configuration=ALL)), -20)
    np.testing.assert_allclose(float(cell["upper"].sel(configuration="image_self alone")), 10)


def test_the_finding_follows_the_data():
    one = finding(direction_changes(swept({ALL: 0.8, "image_self alone": 1.1})), beta=2.0)
    other = finding(direction_changes(swept({ALL: 1.3, "state_to_image alone": 0.5})), beta=1.0)
    every, alone = (one.row(f"{DEPTH} with {name}") for name in (ALL, "image_self alone"))
    assert (every.verdict, alone.verdict) == (LOWER, HIGHER)
    assert (every.value, every.n, alone.value) == (pytest.approx(-20), 7, pytest.approx(10))
    assert other.row(f"{DEPTH} with {ALL}").verdict == HIGHER
    assert other.row("ATE (Sim3) with state_to_image alone").verdict == LOWER
    assert other.row("ATE (Sim3) with all but image_self").verdict == IDENTICAL
    assert one.headline.startswith("Gating by the own cue at β = 2 lowers depth")
    assert one.answer.endswith("Protocols: default:depth:scale_median, default:pose:sim3.")
    assert not any("all but" in each.effect for each in one.rows[: one.lead])


def test_without_truth_nothing_is_claimed():
    assert direction_changes(swept({}).drop_vars(["abs_rel", "ate"])) is None
