"""Adaptive depth: one state, a choice per frame, and a finding that follows the errors."""

import nbformat
import numpy as np
import pytest
import xarray as xr

import mut3r_analysis as m3
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion import Cue, Gate
from mut3r_analysis.notebooks.execution import execute_notebook, find_notebook
from mut3r_analysis.studies.ablation import PLAIN
from mut3r_analysis.studies.adaptive_depth import choice as depth_findings
from mut3r_analysis.studies.adaptive_depth.choice import (
    BEST,
    BOUND,
    OPTIONS,
    PAPER,
    RULE,
    Experiment,
    by_median,
    choices,
    fit,
    halves,
    survey,
    trial,
)
from mut3r_analysis.studies.adaptive_depth.walk import (
    CRITERIA,
    Policy,
    candidate_depths,
    drawn,
    fixed,
    leading,
    oracle,
    paper_depth,
    thresholds,
    walk,
)
from mut3r_analysis.studies.finding import HIGHER, LOWER, NOT_SIGNIFICANT, TOO_FEW, findings_of

NOTEBOOK = "07_adaptive_depth"
CUE, GATE = Cue.mut3r(), Gate.mut3r(beta=2.0)


@pytest.fixture(scope="module")
def backbone():
    return m3.load_backbone("random:small")


@pytest.fixture(scope="module")
def scene():
    return m3.open_sequence("scenes/orbit-03", stop=3)


def test_the_rule_gates_leading_layers_until_one_is_below_its_threshold():
    limits, depths = np.array([1.0, 2.0, 3.0, 4.0]), range(5)
    rule = leading(limits, depths)
    for spread, expected in (
        ([1, 2, 3, 4], 4),
        ([1, 2, 2.9, 4], 2),
        ([0, 9, 9, 9], 0),
        ([1, 2, 3, 0], 3),
    ):
        assert rule.propose(np.array(spread, float), 0) == (expected,)
    assert leading(limits, (0, 2, 4)).propose(np.array([1.0, 2, 3, 0]), 0) == (2,)
    opposite = leading(limits, depths, wide=False)
    assert opposite.propose(np.array([1.0, 2, 3.1, 0]), 0) == (2,)
    assert opposite.propose(np.array([0.0, 0, 0, 0]), 0) == (4,)


def test_small_quantiles_gate_much_in_both_directions():
    values = np.arange(20.0).reshape(2, 5, 2)
    spread = xr.DataArray(values, dims=("sequence", "frame", "layer"))
    np.testing.assert_array_equal(thresholds(spread, 0.0), values.min(axis=(0, 1)))
    np.testing.assert_array_equal(thresholds(spread, 0.0, wide=False), values.max(axis=(0, 1)))
    for wide in (True, False):
        rule = leading(thresholds(spread, 0.0, wide=wide), range(3), wide=wide)
        assert {rule.propose(each, 0) for each in values.reshape(-1, 2)} == {(2,)}


@pytest.mark.parametrize(("layers", "expected"), [(2, (0, 1, 2)), (6, (0, 1, 2, 3, 4, 5, 6)),
                                                  (12, (0, 2, 4, 6, 8, 10, 12))])  # fmt: skip
def test_depths_scale_with_the_decoder_and_hold_the_papers(layers, expected):
    assert candidate_depths(layers) == expected
    assert paper_depth(layers) in candidate_depths(layers, most=2)


def test_drawn_depths_repeat_and_follow_their_list():
    policy = drawn([1, 1, 1, 3], seed=(5, 0))
    found = [policy.propose(np.zeros(4), position)[0] for position in range(400)]
    assert found == [policy.propose(np.ones(4), position)[0] for position in range(400)]
    assert set(found) == {1, 3}
    assert np.mean(np.array(found) == 1) == pytest.approx(0.75, abs=0.08)
    assert found != [
        drawn([1, 1, 1, 3], seed=(5, 1)).propose(np.zeros(4), i)[0] for i in range(400)
    ]


def test_a_policy_that_never_changes_is_a_run_with_that_gate(backbone, scene):
    found = walk(backbone, scene, {str(n): fixed(n) for n in range(5)}, cue=CUE, gate=GATE)
    gates = [{"cue": CUE, "gate": Gate.mut3r(beta=2.0, layers=(0, depth))} for depth in range(1, 5)]
    runs = m3.run_batch(backbone, scene, [{}, *gates], outputs=("pose", "depth"), progress=False)
    for policy, run in enumerate(runs):
        for name, other in (("depth_map", "depth"), ("pose", "pose")):
            expected = run[f"prediction/{other}"].values
            np.testing.assert_allclose(found[name][policy], expected, rtol=1e-4, atol=1e-5)
        assert (found.chosen[policy] == policy).all()
    scored = m3.run(backbone, scene, cue=CUE, outputs=("pose",), progress=False)
    spread = scored["cue/logit_query_mean"].astype(float).var(["patch_row", "patch_col"])
    np.testing.assert_allclose(found.spread[0], spread, rtol=1e-3)


def test_a_depth_chosen_once_is_a_fork_from_there(backbone, scene):
    late = Policy(lambda spread, position: (0 if position < 2 else 3,))
    found = walk(backbone, scene, {"late": late, "plain": fixed(0)}, cue=CUE, gate=GATE)
    assert found.chosen.sel(policy="late").values.tolist() == [0, 0, 3]
    run = m3.run(backbone, scene, outputs=("pose", "depth"), progress=False)
    fork = m3.fork(
        run, 2, backbone=backbone, sequence=scene, cue=CUE,
        gate=Gate.mut3r(beta=2.0, layers=(0, 3)),
    )  # fmt: skip
    apart = abs(found.depth_map.sel(policy="late") - found.depth_map.sel(policy="plain"))
    assert float(apart.isel(frame=slice(0, 2)).max()) < 1e-4
    np.testing.assert_allclose(apart.isel(frame=2), fork["depth_distance"][0], atol=2e-4)


def test_errors_are_zero_for_the_truth_and_agree_with_their_definitions(backbone, scene):
    found = walk(backbone, scene, {"plain": fixed(0)}, cue=CUE, gate=GATE).isel(policy=0)
    true = np.stack([backbone.preparation.depth(each) for each in scene.depth.values])
    for frame in range(3):
        own = found.depth_map[frame].values
        scaled = own * np.median(true[frame]) / max(np.median(own), 1e-6)
        expected = np.mean(np.abs(scaled - true[frame]) / true[frame])
        assert float(found.depth_error[frame]) == pytest.approx(expected, rel=1e-5)
    assert np.isnan(found.rotation_error[0])
    own, wanted = (
        np.linalg.inv(pose[:-1]) @ pose[1:] for pose in (found.pose.values, scene.pose.values)
    )
    turn = np.einsum("fij,fik->fjk", own[:, :3, :3], wanted[:, :3, :3])
    cosine = (np.trace(turn, axis1=1, axis2=2) - 1) / 2
    np.testing.assert_allclose(found.rotation_error[1:], np.degrees(np.arccos(cosine)), rtol=1e-3)
    shift = np.linalg.norm(own[:, :3, 3] - wanted[:, :3, 3], axis=1)
    np.testing.assert_allclose(found.translation_error[1:], shift, rtol=1e-4)


def test_the_oracle_takes_the_lowest_error_of_a_frame(backbone, scene):
    policies = {str(depth): fixed(depth) for depth in range(5)}
    found = walk(
        backbone, scene, {**policies, "best": oracle(range(5), "depth")}, cue=CUE, gate=GATE
    )
    # On the first frame all states are still the same.
    errors = found.depth_error.isel(frame=0)
    best = errors.sel(policy="best")
    others = errors.drop_sel(policy="best")
    assert float(best) == pytest.approx(float(others.min()), rel=1e-5)
    assert int(found.chosen.sel(policy="best")[0]) == int(np.argmin(others.values))
    turning = walk(backbone, scene, {"best": oracle((2, 3), "rotation")}, cue=CUE, gate=GATE)
    assert int(turning.chosen[0, 0]) == 2  # no motion to score yet: the first proposed


def test_what_cannot_be_chosen_is_refused(backbone, scene):
    bare = scene[["image"]]
    with pytest.raises(InvalidArgument, match="truth is not known"):
        walk(backbone, bare, {"best": oracle(range(3), "depth")}, cue=CUE, gate=GATE)
    with pytest.raises(InvalidArgument, match="go from 0 to 4"):
        walk(backbone, scene, {"deep": fixed(5)}, cue=CUE, gate=GATE)
    for cue in (Cue.oracle(), Cue.mut3r(layers=(0, 2)), Cue.mut3r(source="previous")):
        with pytest.raises(InvalidArgument, match="probe pass"):
            walk(backbone, scene, {"one": fixed(1)}, cue=cue, gate=GATE)
    with pytest.raises(InvalidArgument, match="criterion must be one of depth"):
        oracle(range(3), "beauty")


@pytest.fixture(scope="module")
def small(backbone):
    names = ("orbit-03", "slide-01", "dolly-01", "fast-01")
    sequences = {name: m3.open_sequence(f"scenes/{name}", stop=2) for name in names}
    return Experiment(backbone, CUE, GATE, (0, 2, 4), progress=False), sequences


def test_each_half_is_tested_with_what_the_other_chose(small):
    experiment, sequences = small
    surveyed = survey(experiment, sequences)
    half = halves(surveyed, ["depth"])
    assert half.values.tolist() == [0, 1, 0, 1]
    fitted = fit(experiment, sequences, surveyed, half, quantiles=(0.0, 0.5))
    chosen = choices(surveyed, fitted, half, ["depth"])
    error = surveyed.depth_error.mean("frame")
    for which in (0, 1):
        own = error.isel(sequence=slice(which, None, 2)).mean("sequence")
        assert float(chosen.depth.sel(half=which)[0]) == float(own.idxmin("depth"))
        ruled = fitted.depth_error.sel(direction=RULE).mean("frame")
        ruled = ruled.isel(sequence=slice(which, None, 2)).mean("sequence")
        picked = chosen["quantile"].sel(half=which, direction=RULE, criterion="depth")
        assert float(picked) == float(ruled.idxmin("quantile"))
    tested = trial(experiment, sequences, surveyed, fitted, chosen, half)
    assert list(tested.option.values) == list(OPTIONS)
    by_name = tested.error.sel(criterion="depth")
    for place, name in enumerate(sequences):
        other = int(chosen.depth.sel(half=1 - place % 2, criterion="depth"))
        assert float(by_name.sel(option=BEST, sequence=name)) == float(
            error.sel(sequence=name, depth=other)
        )
        assert float(by_name.sel(option=PLAIN, sequence=name)) == float(
            error.sel(sequence=name, depth=0)
        )
    assert (tested.chosen.sel(option=PAPER) == 2).all()
    assert set(np.unique(tested.chosen.sel(option=RULE))) <= {0, 2, 4}
    assert depth_findings.finding(tested, chosen, (0.0, 0.5)).lead == 1


def test_sequences_without_truth_take_no_part_in_the_halves(small):
    experiment, sequences = small
    bare = {"bare": sequences["orbit-03"][["image"]], "known": sequences["slide-01"]}
    surveyed = survey(experiment, bare)
    assert halves(surveyed, ["depth", "rotation"]).sequence.values.tolist() == ["known"]
    with pytest.raises(InvalidArgument, match="criteria must be among depth"):
        halves(surveyed, ["beauty"])
    walked = by_median(experiment, bare, surveyed)
    said = depth_findings.without_truth(walked)
    assert "No ground truth" in said.answer
    assert (walked.depth_apart.sel(policy=PLAIN) == 0).all()


def synthetic(sequences=12, **factors):
    """Tested errors in which options differ by known factors, by each criterion alike."""
    rng = np.random.default_rng(0)
    base = 1 + 0.2 * rng.random((1, 2, sequences))
    scale = np.array([factors.get(name, 1.0) for name in _KEYS])[:, None, None]
    error = scale * base * (1 + 1e-3 * rng.standard_normal((len(OPTIONS), 2, sequences)))
    chosen = rng.integers(0, 5, (len(OPTIONS), 2, sequences, 6))
    coords = {"option": list(OPTIONS), "criterion": list(CRITERIA)[:2],
              "sequence": [str(i) for i in range(sequences)]}  # fmt: skip
    dims = ("option", "criterion", "sequence")
    return xr.Dataset({"error": (dims, error), "chosen": ((*dims, "frame"), chosen)}, coords)


_KEYS = ("none", "paper", "best", "rule", "opposite", "random", "bound")


GRID = (0.0, 0.5, 0.9)


def picks(depths=(2, 2), quantiles=(0.5, 0.5)):
    """What two halves chose, by each criterion alike."""
    coords = {"half": [0, 1], "criterion": list(CRITERIA)[:2], "direction": [RULE]}
    depth = np.repeat(np.array(depths)[:, None], 2, axis=1)
    quantile = np.repeat(np.array(quantiles)[:, None, None], 2, axis=1)
    return xr.Dataset(
        {
            "depth": (("half", "criterion"), depth),
            "quantile": (("half", "criterion", "direction"), quantile),
        },
        coords,
    )


def test_the_finding_says_what_was_chosen_and_where_the_grid_ends():
    def said(**given):
        return depth_findings.finding(synthetic(), picks(**given), GRID)

    found = said(depths=(2, 0))
    told = [found.row(f"depth error, best fixed depth chosen on half {i}").value for i in (0, 1)]
    assert told == [2, 0]
    assert "at an end" not in said(quantiles=(0.0, 0.5)).answer  # nothing lies below the lowest
    assert "at an end of the quantiles tried" in said(quantiles=(0.5, 0.9)).answer


def test_the_finding_follows_the_errors():
    def said(**given):
        found = depth_findings.finding(synthetic(**given), picks(), GRID)
        timed = found.row("depth error, against the rule's depths at random")
        return found, found.row("depth error").verdict, timed.verdict

    found, *verdicts = said(rule=0.8, bound=0.5)
    assert verdicts == [LOWER, LOWER]
    assert found.row("depth error").value == pytest.approx(-20, abs=0.5)
    assert found.row(f"depth error, {BOUND}").value == pytest.approx(-50, abs=0.5)
    assert " lowers depth error by 20" in found.headline
    assert said(rule=0.8, random=0.8)[1:] == (LOWER, NOT_SIGNIFICANT)
    assert said(rule=1.2)[1] == HIGHER
    assert said(rule=0.8, sequences=4)[1] == TOO_FEW


def test_agreement_is_one_where_the_rule_does_what_the_oracle_does():
    tested = synthetic()
    same = tested.copy(deep=True)
    same["chosen"].loc[{"option": RULE}] = same.chosen.sel(option=BOUND)
    assert depth_findings.agreement(same)["value"].values == pytest.approx(1)
    assert (abs(depth_findings.agreement(tested)["value"]) < 0.5).all()
    still = tested.copy(deep=True)
    still["chosen"][{"sequence": slice(1, None)}] = 3
    assert (depth_findings.agreement(still)["n"] == 1).all()


def test_the_depth_notebook_is_committed_clean():
    notebook = nbformat.read(find_notebook(NOTEBOOK), as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    code = [each for each in notebook.cells if each.cell_type == "code"]
    assert all(not each.outputs and each.execution_count is None for each in code)


@pytest.mark.slow
def test_the_depth_notebook_answers_on_scenes():
    names = ["orbit-01", "orbit-02", "dolly-01", "dolly-02"]
    notebook = execute_notebook(
        find_notebook(NOTEBOOK),
        {
            "sequences": [f"scenes/{name}" for name in names],
            "frames": 2,
            "criteria": ["depth"],
            "depths": 3,
            "quantiles": [0.0, 0.5],
            "progress": False,
        },
    )
    (found,) = findings_of(notebook)
    assert found.row("depth error").n == 4
    assert found.row(f"depth error, {BOUND}").n == 4


@pytest.mark.slow
def test_the_depth_notebook_shows_choices_where_there_is_no_truth(shared):
    notebook = execute_notebook(
        find_notebook(NOTEBOOK),
        {
            "backbone": "random:small",
            "sequences": [str(shared / "frames" / "dog_and_geese")],
            "frames": 3,
            "progress": False,
        },
    )
    (found,) = findings_of(notebook)
    assert "No ground truth" in found.answer
    assert found.row("mean layers gated").n == 3
