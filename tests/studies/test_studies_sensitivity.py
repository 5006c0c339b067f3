"""Sensitivity to beta: speeds, where harm starts, static scenes, and what carries over."""

import numpy as np
import pytest
import xarray as xr

import mut3r_analysis as m3
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion.gate import Gate
from mut3r_analysis.notebooks.execution import execute_notebook, find_notebook
from mut3r_analysis.scenes import load_scene
from mut3r_analysis.sequences import open_sequence
from mut3r_analysis.studies import measures
from mut3r_analysis.studies.ablation import PLAIN, counted
from mut3r_analysis.studies.finding import (
    HIGHER,
    LOWER,
    NO_TRUTH,
    TOO_FEW,
    findings_of,
)
from mut3r_analysis.studies.sensitivity import beta as sensitivity
from mut3r_analysis.studies.sensitivity import energy, motion_speed
from mut3r_analysis.studies.sensitivity.beta import contrast

NOTEBOOK = "08_beta_sensitivity"
BETAS = (0.0, 0.5, 1.0, 2.0)
CUE = "own, zscore"
FAMILIES = 8
GROUPS = ("static", "slow", "fast")


def errors(effects, families=FAMILIES, seed=0):
    """Errors by speed: a level per family times 1 + the effect of (speed, beta), nearly exact."""
    rng = np.random.default_rng(seed)
    factor = np.array([[1 + effects.get((group, beta), 0.0) for group in GROUPS] for beta in BETAS])
    level = rng.uniform(0.5, 1.5, families)
    noise = 1 + 0.001 * rng.standard_normal((2, len(BETAS), len(GROUPS), families))
    found = xr.DataArray(
        (factor[:, :, None] * level * noise)[:, None],
        dims=("measure", "cue", "beta", "speed", "family"),
        coords={
            "measure": ["depth AbsRel (median scale)", "ATE (Sim3)"],
            "task": ("measure", ["video-depth", "pose"]),
            "cue": [CUE],
            "beta": list(BETAS),
            "speed": list(GROUPS),
            "family": [f"scene-{number}" for number in range(families)],
        },
    )
    found["speed"].attrs["boundary"] = 2.5
    return found


@pytest.mark.parametrize("factor", [0.0, 0.5, 3.0])
def test_a_retimed_scene_is_the_same_at_one_frame_and_keeps_its_camera(factor):
    scene = load_scene("slide-01")
    other = motion_speed.retimed(scene, factor, at=3)
    plain, changed = scene.render(), other.render()
    np.testing.assert_array_equal(changed["pose"], plain["pose"])
    np.testing.assert_allclose(
        changed["image"].isel(frame=3).astype(int), plain["image"].isel(frame=3).astype(int), atol=1
    )
    assert not changed["image"].isel(frame=0).equals(plain["image"].isel(frame=0))


def test_a_retimed_object_is_where_the_original_is_at_the_scaled_time():
    scene = load_scene("slide-01")
    slow = motion_speed.retimed(scene, 0.5, at=4)
    paths = [each.arrays().object_poses(9)[0] for each in (scene, slow)]
    np.testing.assert_allclose(paths[1][8], paths[0][6], atol=1e-12)
    np.testing.assert_allclose(paths[1][0], paths[0][2], atol=1e-12)
    with pytest.raises(InvalidArgument, match="factor"):
        motion_speed.retimed(scene, -1.0)


def test_residual_motion_is_what_the_scene_moves():
    """Against the projection of the exact scene flow, an independent path to the same number."""
    sequence = open_sequence("scenes/slide-01", stop=6)
    found = motion_speed.residual_motion(sequence)
    total, count = 0.0, 0
    for frame in range(5):
        here, camera = sequence.isel(frame=frame), sequence["intrinsics"].values[frame]
        v, u = np.nonzero(here["motion_mask"].values)
        depth = here["depth"].values[v, u].astype(float)
        rays = np.stack([u, v, np.ones_like(u)]) * depth
        world = (here["pose"].values @ np.vstack([np.linalg.solve(camera, rays), np.ones(len(u))]))[
            :3
        ]
        flow = here["scene_flow"].values[v, u].T
        seen = []
        for points in (world, world + flow):
            inside = np.linalg.inv(sequence["pose"].values[frame + 1]) @ np.vstack(
                [points, np.ones(len(u))]
            )
            projected = sequence["intrinsics"].values[frame + 1] @ inside[:3]
            seen.append(projected[:2] / projected[2])
        total += np.linalg.norm(seen[1] - seen[0], axis=0).sum()
        count += len(u)
    assert float(found["speed"]) == pytest.approx(total / count, rel=1e-3)
    assert 0 < float(found["share"]) < 1


def test_speeds_are_measured_and_static_scenes_are_static():
    opened = motion_speed.families(["scenes/slide-01", "scenes/static-01"], [0.0, 0.5, 1.5], 4)
    assert [each.attrs["name"] for each in opened] == [
        "slide-01+speed-0", "slide-01+speed-0.5", "slide-01+speed-1.5", "static-01+speed-0"
    ]  # fmt: skip
    found = motion_speed.speeds_of(opened)
    assert found["group"].values.tolist() == ["static", "slow", "fast", "static"]
    assert found["family"].values.tolist() == ["slide-01"] * 3 + ["static-01"]
    speed = found["speed"].values
    assert speed[0] == speed[3] == 0
    assert 2 < speed[2] / speed[1] < 4
    assert speed[1] <= found.attrs["boundary"] < speed[2]


def test_what_cannot_be_measured_is_said():
    sequence = open_sequence("scenes/slide-01", stop=4)
    blind = motion_speed.residual_motion(sequence.drop_vars(["flow", "depth"]))
    assert blind["missing"].item() == "no flow, depth"
    assert np.isnan(blind["speed"])
    skipping = motion_speed.residual_motion(sequence.isel(frame=[0, 2]))
    assert "consecutive" in skipping["missing"].item()
    unknown = motion_speed.speeds_of([sequence.drop_vars("flow")])
    assert unknown["group"].item() == motion_speed.UNMEASURED
    with pytest.raises(InvalidArgument, match="names of their own"):
        motion_speed.speeds_of([sequence, sequence])


def test_configurations_are_mut3rs_gates_at_every_beta():
    cues = sensitivity.cues(["zscore", "minmax"])
    ablation = sensitivity.ablation(cues, [2.0, 0.5])
    runs = ablation.configurations
    assert runs[PLAIN] == {}
    assert len(runs) == 1 + 2 * len(cues)
    for label, row in ablation.design.items():
        assert runs[label]["gate"] == Gate.mut3r(beta=row["beta"])
        assert runs[label]["cue"] == cues[row["cue"]]
    with pytest.raises(InvalidArgument, match="above 0"):
        sensitivity.ablation(cues, [0.0, 1.0])
    with pytest.raises(InvalidArgument, match="normaliser"):
        sensitivity.cues([])


def test_families_are_averaged_per_speed_and_count_once():
    values = xr.DataArray([1.0, 3.0, 10.0, 5.0], dims="sequence")
    values = values.assign_coords(sequence=["a1", "a2", "a3", "b1"])
    speeds = xr.Dataset(
        {
            "group": ("sequence", ["slow", "slow", "fast", "fast"]),
            "family": ("sequence", ["a", "a", "a", "b"]),
        },
        coords={"sequence": values["sequence"]},
        attrs={"boundary": 1.5},
    )
    found = sensitivity.by_speed(values, speeds)
    assert found["speed"].attrs["boundary"] == 1.5
    np.testing.assert_array_equal(found.sel(speed=["slow", "fast"]), [[2.0, np.nan], [10.0, 5.0]])
    assert found["speed"].values.tolist() == ["slow", "fast"]


def test_beta_zero_is_the_plain_run():
    given = errors({}).sel(beta=[0.5, 1.0])
    plain = given.isel(beta=0, cue=0, drop=True) * 2
    joined = sensitivity.with_plain(given, plain)
    assert joined["beta"].values.tolist() == [0.0, 0.5, 1.0]
    xr.testing.assert_equal(joined.sel(beta=0.0, cue=CUE, drop=True), plain)
    assert (sensitivity.against_plain(errors({}))["value"].sel(beta=0.0) == 0).all()


def test_harm_starts_where_it_was_put_and_lasts():
    given = errors({("slow", 2.0): 0.2, ("fast", 0.5): 0.2, ("fast", 1.0): 0.2, ("fast", 2.0): 0.3,
                    ("static", 0.5): 0.2})  # fmt: skip
    given.loc[{"speed": "static", "beta": [1.0, 2.0]}] *= 0.9
    found = sensitivity.onset(sensitivity.against_plain(given)).sel(cue=CUE)
    for measure in found["measure"].values:
        told = found.sel(measure=measure)
        assert float(told.sel(speed="slow")) == 2.0
        assert float(told.sel(speed="fast")) == 0.5
        assert np.isinf(told.sel(speed="static"))
    few = sensitivity.onset(sensitivity.against_plain(given.isel(family=slice(0, 3))))
    assert few.isnull().all()


def test_a_beta_that_suits_one_speed_only_costs_at_the_other():
    given = errors({("slow", 2.0): -0.3, ("fast", 2.0): 0.5, ("fast", 0.5): -0.1})
    moved = sensitivity.transfer(given)
    used = moved["beta"].isel(measure=0, cue=0)
    assert set(used.sel(learned="slow").values.ravel()) == {2.0}
    assert set(used.sel(learned="fast").values.ravel()) == {0.5}
    result = sensitivity.transferred(moved, given)["value"].isel(measure=0, cue=0)
    assert float(result.sel(learned="slow", tested="slow")) == pytest.approx(-30, abs=0.5)
    assert float(result.sel(learned="slow", tested="fast")) == pytest.approx(50, abs=0.5)
    cost = sensitivity.cost_of_transfer(moved)["value"].isel(measure=0, cue=0)
    assert float(cost.sel(tested="fast")) == pytest.approx(100 * (1.5 / 0.9 - 1), abs=1)
    assert float(cost.sel(tested="slow")) == pytest.approx(100 * (1 / 0.7 - 1), abs=1)
    assert sensitivity.enough(given)
    assert not sensitivity.enough(given.isel(family=[0]))
    picks = counted(moved["beta"].isel(cue=0, tested=0), "measure", "learned", BETAS)
    assert picks.iloc[0].tolist() == [f"2: {FAMILIES}", f"0.5: {FAMILIES}"]


NAME = "depth AbsRel (median scale)"


def test_the_finding_follows_the_data():
    harm = sensitivity.finding(
        errors({(group, beta): 0.2 * beta for group in GROUPS for beta in BETAS}), CUE
    )
    assert {each.verdict for each in harm.rows[: harm.lead]} == {HIGHER}
    assert harm.row(f"{NAME} of static scenes").value == pytest.approx(20, abs=0.5)
    onsets = [f"smallest β from which on {NAME} of {group} scenes is higher" for group in GROUPS]
    assert [harm.row(effect).value for effect in onsets] == [0.5] * 3
    assert " raises " in harm.headline

    gains = {0.5: -0.1, 1.0: -0.2, 2.0: -0.1}
    fine = sensitivity.finding(
        errors({(group, beta): gains[beta] for group in GROUPS for beta in gains}), CUE
    )
    assert {each.verdict for each in fine.rows[: fine.lead]} == {LOWER}
    assert not any(each.effect in onsets for each in fine.rows)
    slow = fine.row(f"{NAME}, slow, β chosen on other slow scenes")
    assert slow.value == pytest.approx(-20, abs=0.5)

    effects = {("slow", 2.0): -0.3, ("fast", 2.0): 0.5, ("static", 2.0): -0.1}
    apart = sensitivity.finding(errors(effects), CUE)
    assert apart.row(f"{NAME}, fast, β chosen at the other speed instead of this one").verdict == (
        HIGHER
    )
    assert apart.row(onsets[2]).value == 2.0
    assert not any(each.effect in onsets[:2] for each in apart.rows)

    few = sensitivity.finding(errors({}, families=3), CUE)
    assert {each.verdict for each in few.rows[: few.lead]} == {TOO_FEW}
    moving = sensitivity.finding(errors({}).sel(speed=["slow"]), CUE)
    assert not any("static" in each.effect or "chosen" in each.effect for each in moving.rows)


def test_differences_of_rounding_are_no_harm():
    given = errors({})
    given[:] = 1.0
    given.loc[{"beta": [0.5, 1.0, 2.0]}] = 1 + 1e-6
    found = sensitivity.onset(sensitivity.against_plain(given))
    assert np.isinf(found).all()


def test_contrast_is_that_of_the_scores_and_grows_with_beta(tmp_path):
    cues = sensitivity.cues(["zscore"])
    ablation = sensitivity.ablation({CUE: cues[CUE]}, [1.0, 3.0])
    table = m3.sweep(
        "random:small",
        open_sequence("scenes/slide-01", stop=2),
        configurations=ablation.configurations,
        capture=m3.Capture(statistics=[], sites=[]),
        outputs=("pose", "depth"),
        out=tmp_path,
        progress=False,
    )
    found = contrast(table, ablation.design).sel(cue=CUE)
    run = m3.open_run(table["run"].sel(configuration=f"{CUE}, beta 1").item())
    kept = 1 - run["cue/motion"].values.reshape(2, -1).astype(float)
    ratio = np.quantile(kept, 0.95, axis=1) / np.quantile(kept, 0.05, axis=1)
    assert float(found.sel(beta=1.0)) == pytest.approx(np.log10(ratio).mean(), rel=0.02)
    assert float(found.sel(beta=3.0)) == pytest.approx(3 * float(found.sel(beta=1.0)))
    departed = ablation.unfolded(measures.departures(table))
    assert departed.dims == ("measure", "cue", "beta", "sequence")
    assert (departed > 0).all()
    nowhere = table.assign(run=table["run"].where(table["configuration"] == "plain", ""))
    assert ablation.unfolded(measures.departures(nowhere)).isnull().all()


@pytest.mark.slow
def test_the_notebook_answers_on_scenes(tmp_path):
    notebook = execute_notebook(
        find_notebook(NOTEBOOK),
        {
            "sequences": ["scenes/orbit-03", "scenes/tumble-01"],
            "frames": 3,
            "speeds": [0.0, 2.0],
            "betas": [1.0],
            "normalisers": ["zscore"],
            "out": tmp_path,
            "progress": False,
        },
    )
    found, as_strong = findings_of(notebook)
    assert found.question == sensitivity.QUESTION
    assert "at β = 1" in found.answer
    assert as_strong.question == energy.QUESTION
    assert {row.effect.split(" with the ")[1] for row in as_strong.rows} <= set(energy.rivals())
    for each in (*found.rows, *as_strong.rows):
        assert each.verdict in {TOO_FEW, "identical", "not measured", ""}


@pytest.mark.slow
def test_the_notebook_runs_on_real_frames(tmp_path, shared):
    folder = shared / "frames" / "static_room"
    if not folder.is_dir():
        pytest.skip(f"no frames at {folder}")
    notebook = execute_notebook(
        find_notebook(NOTEBOOK),
        {
            "backbone": "random:small",
            "sequences": [str(folder)],
            "frames": 2,
            "betas": [1.0, 4.0],
            "normalisers": ["zscore"],
            "out": tmp_path,
            "progress": False,
        },
    )
    (found,) = findings_of(notebook)
    assert found.answer.endswith(NO_TRUTH)
    assert {each.effect for each in found.rows} >= {"depth changed, 1.0", "camera moved, 4.0"}
