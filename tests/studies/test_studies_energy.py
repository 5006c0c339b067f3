"""Gate energy: its formula, its limits, and cues that are given as much of it."""

import numpy as np
import pytest
import xarray as xr

import mut3r_analysis as m3
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.studies.ablation import PLAIN
from mut3r_analysis.studies.finding import LOWER
from mut3r_analysis.studies.sensitivity import energy
from mut3r_analysis.studies.sensitivity.energy import Seen


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def seen(rng, frames=3, patches=12, special=0.1, high=1.0):
    """Weights of two sites, 2 layers and 2 heads, of which a share goes to keys without a score."""
    received = rng.dirichlet(np.ones(patches), (2, frames, 2, 2)) * (1 - special)
    return Seen(rng.uniform(0, high, (frames, patches)), received)


def test_energy_is_the_weight_that_goes_from_some_keys_to_others():
    # p = (1/2, 1/4) and 1/4 for a special key; g = (1/2, 0): p' = (1/3, 1/3, 1/3).
    found = Seen(np.array([[0.5, 0.0]]), np.array([0.5, 0.25]).reshape(1, 1, 1, 1, 2))
    assert energy.energy(found, 1.0) == pytest.approx(1 / 6)
    assert energy.energy(found, 0.0) == 0


def test_a_factor_that_all_keys_share_moves_nothing(rng):
    even = seen(rng, special=0.0)
    assert energy.energy(even._replace(motion=np.full_like(even.motion, 0.7)), 3.0) < 1e-12


def test_energy_never_falls_with_beta_and_of_a_mask_ends_at_the_weight_on_it(rng):
    drawn = seen(rng)
    values = [energy.energy(drawn, beta) for beta in np.linspace(0, 20, 41)]
    assert (np.diff(values) >= 0).all()
    mask = (drawn.motion > 0.6).astype(float)
    on_it = (drawn.received * mask[None, :, None, None]).sum(axis=-1).mean()
    assert energy.energy(drawn._replace(motion=mask), 64.0) == pytest.approx(on_it, rel=1e-9)


def test_betas_give_every_cue_the_energy_of_the_reference(rng):
    held = {
        "own": [seen(rng) for _ in range(3)],
        "soft": [seen(rng, high=0.2) for _ in range(3)],
        "faint": [each._replace(motion=each.motion * 0) for each in [seen(rng)] * 3],
    }
    found = energy.equal_betas(held, beta=0.5)
    assert float(found["beta"].sel(cue="own")) == 0.5
    assert float(found["beta"].sel(cue="soft")) > 0.5
    energies = found["energy"].sel(cue=["own", "soft"])
    np.testing.assert_allclose(energies, found.attrs["wanted"], rtol=1e-3)
    assert np.isnan(found["beta"].sel(cue="faint"))
    cues = dict.fromkeys(held, m3.Cue.mut3r())
    made = energy.ablation(cues, found).configurations
    assert list(made) == [PLAIN, "own, at equal energy", "soft, at equal energy"]
    assert made["soft, at equal energy"]["gate"].beta == float(found["beta"].sel(cue="soft"))


def test_what_is_looked_at_is_the_run_without_gates():
    model = m3.load_backbone("tiny")
    sequence = m3.open_sequence("scenes/orbit-03", stop=2)
    cues = {"own": m3.Cue.mut3r(), "mask": m3.Cue.oracle()}
    gate = m3.Gate.mut3r(layers=(3, 5), directions=("image_self", "state_to_image"))
    found = energy.look(model, [sequence], cues, gate)
    capture = m3.Capture(maps=["state_to_image"])
    run = m3.run(model, sequence, cue=cues["own"], capture=capture, progress=False)
    own = found["own"][0]
    np.testing.assert_allclose(own.motion, run["cue/motion"].values.reshape(2, -1), atol=1e-6)
    weights = run["attention/state_to_image/weights"].isel(layer=[3, 4]).sel(key_token="patch")
    np.testing.assert_allclose(own.received[1], weights.mean("query"), atol=1e-5)
    assert set(np.unique(found["mask"][0].motion)) - {0.0, 1.0}  # shares of moving pixels
    with pytest.raises(InvalidArgument, match="energy is that of gates at image_self or"):
        energy.look(model, [sequence], cues, m3.Gate.mut3r(directions=["image_to_state"]))


def test_cues_are_told_apart_where_they_are_as_strong(rng):
    own = rng.uniform(1, 2, (2, 1, 3, 8))
    errors = xr.DataArray(
        np.concatenate([own, own * 2, own * 0.9, own * 2], axis=1),
        dims=("measure", "cue", "speed", "family"),
        coords={
            "measure": ["depth AbsRel (median scale)", "ATE (Sim3)"],
            "task": ("measure", ["video-depth", "pose"]),
            "cue": ["own", "own, shuffled", "true mask", "true mask, shuffled"],
            "speed": ["static", "slow", "fast"],
        },
    )
    betas = xr.Dataset(
        {"beta": ("cue", [1.0, 0.9, 1.4, 1.0, np.nan])},
        {"cue": [*errors["cue"].values, "weak"]},
        {"reference": "own", "wanted": 0.1},
    )
    found = energy.finding(errors, betas)
    assert len(found.rows) == 2 * 3
    assert all(row.value == pytest.approx(-10) and row.verdict == LOWER for row in found.rows)
    assert found.rows[0].effect == "depth AbsRel (median scale) of static scenes with the true mask"
    assert "Moving 10.0 % of attention" in found.headline
    assert found.answer.endswith("At no β do these move as much: weak.")
