"""Rules are compared with controls that write as much, and hindsight is not worse than one rate."""

import numpy as np
import pytest
import torch

import mut3r_analysis as m3
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.notebooks.execution import execute_notebook, find_notebook
from mut3r_analysis.studies.finding import findings_of
from mut3r_analysis.studies.write_rules import replay


@pytest.fixture(scope="module")
def scene():
    return m3.open_sequence("scenes/orbit-02").isel(frame=slice(5))


def test_controls_write_as_much_and_keep_the_first_frame():
    rate = torch.rand(6, 9, generator=torch.Generator().manual_seed(0))
    found = replay.controls(rate)
    for control in found.values():
        assert torch.equal(control[0], rate[0])
        torch.testing.assert_close(control.mean(), rate.mean())
    assert torch.equal(found[replay.TOKENS].sort(dim=1).values, rate.sort(dim=1).values)
    assert not torch.equal(found[replay.TOKENS], rate)
    assert sorted(found[replay.FRAMES].sum(dim=1).tolist()) == sorted(rate.sum(dim=1).tolist())


def test_replaying_a_rule_is_running_it(scene):
    tiny = m3.load_backbone("tiny")
    run = m3.run(tiny, scene, commit="rate.ttt3r", outputs=["pose", "depth"], progress=False)
    rate = torch.from_numpy(run["state/write_rate"].values)
    again = replay.replayed(tiny, scene, {"a": rate, "b": torch.ones(5, 1)})
    np.testing.assert_allclose(again["depth"][0], run["prediction/depth"], rtol=1e-4)
    plain = m3.run(tiny, scene, outputs=["pose", "depth"], progress=False)
    np.testing.assert_allclose(again["pose"][1], plain["prediction/pose"], atol=1e-5)
    with pytest.raises(InvalidArgument, match="'cut3r'"):
        replay.replayed(m3.load_backbone("tiny", update="ttt3r"), scene, {"a": rate})


def test_every_rule_stands_beside_its_controls(scene):
    found = replay.compared(m3.load_backbone("tiny"), scene, ["const(0.4)", "ttt3r", "clip"])
    error = found["error"]
    assert error.sizes == {"rule": 3, "arm": 4, "measure": 2}
    assert np.isnan(error.sel(rule="clip", arm=list(replay.ARMS[1:]))).all()
    const = error.sel(rule="const(0.4)")
    np.testing.assert_allclose(const, const.sel(arm=[replay.OWN] * 4), rtol=1e-3)
    told = replay.finding(error.expand_dims(sequence=["one"]))
    assert [row.effect for row in told.rows] == [
        f"{replay.DEPTH} with {rule}" for rule in ("const(0.4)", "ttt3r")
    ]
    assert found["moving"].dims == ("frame",)


def test_hindsight_chooses_the_rate_with_the_lowest_error_soon(scene):
    tiny = m3.load_backbone("tiny")
    three = scene.isel(frame=slice(3))
    rate = replay.oracle(tiny, three, window=1)
    assert rate.shape == (3, 1)
    assert rate[0] == rate[2] == 1
    truth = torch.from_numpy(three["depth"].values[2].astype(np.float32))
    arms = {str(c): torch.tensor([[1.0], [c], [1.0]]) for c in replay.ORACLE}
    depth = torch.from_numpy(replay.replayed(tiny, three, arms)["depth"].values[:, 2])
    best = replay._abs_rel(truth, depth).argmin()
    assert float(rate[1]) == replay.ORACLE[int(best)]
    found = replay.with_hindsight(tiny, three, window=1)
    assert found["rate"].values.tolist() == rate[:, 0].tolist()
    assert found["error"].sizes == {"arm": 2, "measure": 2}


@pytest.mark.slow
def test_the_notebook_answers():
    notebook = execute_notebook(
        find_notebook("16_write_rules"),
        {"scenes": 1, "frames": 4, "rules": ["const(0.5)", "ttt3r"]},
    )
    (found,) = findings_of(notebook)
    assert found.question == replay.QUESTION
    assert [row.effect for row in found.rows] == [
        f"{replay.DEPTH} with {rule}" for rule in ("const(0.5)", "ttt3r")
    ]
