"""What the state alone predicts for a camera: as released, fault by fault, and as a cue in runs."""

import numpy as np
import pytest
import torch

import mut3r_analysis as m3
from mut3r_analysis.attention.projection import on_queries
from mut3r_analysis.backbones import Frame
from mut3r_analysis.backbones.geometry import pose_matrix
from mut3r_analysis.backbones.write_rules import WRITE_RULES, parse_rule
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion import Cue
from mut3r_analysis.motion.normalisers import location_and_scale, normalise
from mut3r_analysis.motion.ray_map import camera_rays, disagreement, pooled
from mut3r_analysis.running.inputs import frame_inputs
from mut3r_analysis.running.ray_probe import ray_readings

GRID = (3, 4)
SEEN = range(1, 6)
"""Frames of the released run that it looks at by rays, before it moves positions of its own."""


@pytest.fixture
def released(golden):
    arrays = golden.arrays("write_rules/raymap3r_dynamic_masks")
    return {name: torch.from_numpy(values) for name, values in arrays.items()}


def close(found, expected, atol):
    torch.testing.assert_close(found.float(), expected.float(), atol=atol, rtol=0)


def test_rays_are_those_of_the_released_code(released):
    cameras, focal = pose_matrix(released["raw_pose"]), released["focal"]
    found = camera_rays(cameras[SEEN], focal[SEEN], (48, 64))
    close(found, released["ray_map"][SEEN], 1e-5)


def test_a_camera_without_focal_length_has_rays_in_the_image_plane():
    rays = camera_rays(torch.eye(4)[None], torch.zeros(1), (4, 6))
    assert rays.isfinite().all()
    edge = rays[0, 2, 0, 3:]
    close(edge, torch.tensor([-1.0, 0.0, 0.0]), 1e-6)


def test_differences_on_state_tokens_are_those_of_the_released_code_with_its_bands(released):
    names = ("depth", "ray_depth", "conf_self", "ray_conf_self")
    maps = disagreement(*(released[name][1:] for name in names))
    patches = pooled(*maps, GRID, "bands").flatten(1)
    moving = -on_queries(patches, released["attention"][1:])
    score = normalise("quartile", moving, 3.0, location_and_scale("quartile", moving))
    close(score, released["alpha_state"][1:], 3e-4)
    # What is called a patch there is 256 consecutive pixels, four rows of the whole image.
    flat, weight = (values.flatten(1)[:, :256] for values in maps)
    close(patches[:, 0], (flat * weight).sum(1) / weight.sum(1), 1e-4)
    whole = pooled(*maps, GRID, "patches")[:, 1, 2]
    cell, weight = (values[:, 16:32, 32:48].flatten(1) for values in maps)
    close(whole, (cell * weight).sum(1) / weight.sum(1), 1e-4)


@pytest.mark.parametrize("run", ["short", "dynamic_masks"])
def test_the_gate_of_state_tokens_is_the_released_one(golden, run):
    arrays = golden.arrays(f"write_rules/raymap3r_{run}")
    released = {name: torch.from_numpy(values) for name, values in arrays.items()}
    rule, settings = parse_rule("raymap3r", "rate")
    past = None
    for t in range(3, 5):  # from the first gated frame on; released code forgets before a reset
        # Tokens that read one patch each, whose motion gives the released score.
        static = released["alpha_state"][t][None]
        apart = static.logit() / settings["slope"]  # from the median, in ranges between quartiles
        signals = {
            "motion": -apart,
            "attention": torch.eye(28)[None],
            "proposal": torch.zeros(1, 28, 24),
        }
        outcome = rule.act(signals, past, settings)
        past = outcome.memory
        rate = outcome.rate[0]
        if bool(released["dynamic"][t]):
            rate = rate * released["mean_logit"][t].sigmoid()
        close(past["static"][0], released["alpha_ema"][t], 3e-4)
        if not bool(released["hold"][t]):
            close(rate, released["rate"][t], 1e-4)


def test_a_frame_is_seen_by_rays_as_released(golden, released):
    model = golden.backbone("linear")
    bias = golden.arrays("write_rules/raymap3r_weights")["downstream_head.proj.fc2.bias"]
    model.downstream_head.proj.fc2.bias.data = torch.from_numpy(bias)
    pixels = golden.arrays("write_rules/inputs")["images_uint8"][:3]
    images = torch.from_numpy(pixels).movedim(-1, 1)[:, None] / 255 * 2 - 1
    state = model.begin()
    for t, image in enumerate(images):
        encoded = model.encode(Frame(image))
        decoded = model.decode(model.enter(encoded, state), signals=("attention",))
        if t:
            found = ray_readings(model, state, decoded, GRID, ("bands",))["ray_map(bands)"]
            attention = decoded.signals["attention"]
            close(attention[0], released["attention"][t], 1e-5)
            moving = -on_queries(found.flatten(1), attention)
            score = normalise("quartile", moving, 3.0, location_and_scale("quartile", moving))
            close(score[0], released["alpha_state"][t], 3e-4)
        state = model.step(Frame(image), state).state


@pytest.fixture(scope="module")
def scene():
    return m3.open_sequence("scenes/orbit-02", stop=4)


@pytest.fixture(scope="module")
def backbone():
    return m3.load_backbone("tiny")


def quiet(backbone, scene, **arguments):
    return m3.run(backbone, scene, progress=False, **arguments)


def test_a_run_scores_what_the_state_it_read_with_does_not_know(backbone, scene):
    cue = Cue(reading="ray_map", normaliser="minmax")
    run = quiet(backbone, scene, cue=cue, outputs=["pose"])
    found, kept = run["cue/motion"].values, run["cue/ray_map"].values
    assert not found[0].any()  # a state that has read nothing
    assert not kept[0].any()
    state = backbone.begin()
    for given in frame_inputs(backbone, scene):
        step = backbone.step(Frame(given.image), state)
        if given.position:
            raw = ray_readings(backbone, state, step.decoded, found.shape[1:], ("patches",))
            raw = raw["ray_map(patches)"][0].numpy()
            np.testing.assert_allclose(kept[given.position], raw, rtol=1e-4, atol=1e-6)
            expected = (raw - raw.min()) / (raw.max() - raw.min())
            np.testing.assert_allclose(found[given.position], expected, atol=1e-5)
        state = step.state


def test_it_gates_in_a_second_pass_or_one_frame_later(backbone, scene):
    cue = Cue.convention("raymap3r")
    plain = quiet(backbone, scene, cue=cue, outputs=["pose"])
    gated = quiet(backbone, scene, cue=cue, gate=m3.Gate.mut3r(), outputs=["pose"])
    assert list(gated["timing/pass"].values) == ["probe", "gated"]
    # The same states are read until a gate has acted, up to the rounding of gates at 0.
    np.testing.assert_allclose(gated["cue/motion"][:2], plain["cue/motion"][:2], atol=1e-3)
    assert not np.allclose(gated["prediction/pose"][1], plain["prediction/pose"][1])
    lagging = quiet(
        backbone, scene, cue=Cue.convention("raymap3r", source="previous"), gate=m3.Gate.mut3r(),
        outputs=["pose"],
    )  # fmt: skip
    np.testing.assert_array_equal(lagging["cue/used"][2], lagging["cue/motion"][1])
    inert = quiet(backbone, scene, cue=cue, commit="rate.raymap3r", outputs=["pose"])
    assert (inert["state/write_rate"][0] == 1).all()
    assert ((inert["state/write_rate"][1:] > 0) & (inert["state/write_rate"][1:] < 1)).all()


def test_samples_of_a_batch_cast_rays_of_their_own(backbone, scene):
    kinds = [
        {"cue": Cue(reading="ray_map"), "gate": m3.Gate.mut3r()},
        {"cue": Cue.convention("raymap3r"), "gate": m3.Gate.mut3r(), "commit": "rw.gp"},
        {"cue": Cue.mut3r(), "gate": m3.Gate.mut3r()},
    ]
    together = m3.run_batch(backbone, scene, kinds, outputs=["pose"], progress=False)
    for kind, one in zip(kinds, together, strict=True):
        alone = quiet(backbone, scene, outputs=["pose"], **kind)
        for name in ("cue/motion", "prediction/pose"):
            np.testing.assert_allclose(one[name], alone[name], atol=2e-3)


def test_a_plan_counts_the_pass_by_rays(backbone, scene):
    cue = Cue(reading="ray_map")
    plain = m3.plan(backbone, scene).flops
    whole = plain["decoder and memory"]
    measured = m3.plan(backbone, scene, cue=cue).flops["probe"]
    assert 0.8 * whole < measured <= whole
    gated = m3.plan(backbone, scene, cue=cue, gate=m3.Gate.mut3r()).flops["probe"]
    assert gated == 2 * measured


@pytest.mark.parametrize(
    ("spec", "fields", "message"),
    [
        ("tiny", {"source": "same_site"}, "has none before its gates"),
        ("tiny", {"of": "rows"}, "must be one of patches, bands"),
        ("random:vggt-small", {}, "by rays of a camera, which vggt does not read"),
    ],
)
def test_what_cannot_be_asked_by_rays_is_refused(spec, fields, message, scene):
    with pytest.raises(InvalidArgument, match=message):
        quiet(m3.load_backbone(spec), scene, cue=Cue(reading="ray_map", **fields))
    assert WRITE_RULES["raymap3r"].needs[-1] == "motion"
