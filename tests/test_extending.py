"""Each kind of thing can be added where CONTRIBUTING says, and nowhere else: fakes prove it."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import mut3r_analysis as m3
from mut3r_analysis.attention import SITE_KINDS, STATISTICS, Site, SiteSize, Statistic, attend
from mut3r_analysis.attention.sites import SiteKind
from mut3r_analysis.attention.tokens import image_axis, memory_axis
from mut3r_analysis.backbones import CUT3R, Backbone, Encoded, Origin, StateVariable, load_backbone
from mut3r_analysis.backbones import families as families_room
from mut3r_analysis.backbones.configuration import ModelConfig
from mut3r_analysis.backbones.heads import Prediction
from mut3r_analysis.backbones.precision import PRECISIONS
from mut3r_analysis.backbones.write_rule import Outcome, Span, WriteRule
from mut3r_analysis.backbones.write_rules import WRITE_RULES, RuleMemory
from mut3r_analysis.errors import InvalidArgument, StoreError
from mut3r_analysis.motion.readings import READINGS, Reading


@pytest.fixture(scope="module")
def sequence():
    return m3.open_sequence("scenes/orbit-03").isel(frame=slice(3))


def quiet(*args, **kwargs) -> xr.DataTree:
    return m3.run(*args, progress=False, **kwargs)


def dense(group: xr.Dataset) -> torch.Tensor:
    """Float64 logits (frame, layer, head, query, key) of archived queries and keys."""
    q, k = (
        torch.from_numpy(group[name].values).double() for name in ("rotated_query", "rotated_key")
    )
    return q @ k.mT / q.shape[-1] ** 0.5


def test_every_row_of_every_registry_is_whole():
    for name, row in STATISTICS.items():
        assert (row.of_tokens is None) != (row.of_tile is None), name
        assert row.name == name
        assert row.side in ("query", "key")
        assert row.long_name
        assert row.units
    for name, row in READINGS.items():
        assert row.name == name
        assert row.sign in (1, -1)
        assert row.formula
    for name, row in WRITE_RULES.items():
        assert row.name == name
        assert callable(row.act)
        assert row.number is None or row.number in row.settings
    for name, row in SITE_KINDS.items():
        assert row.name == name
        assert row.part in ("decoder", "encoder", "head", "memory")
    for name, row in families_room.FAMILIES.items():
        assert row.config.family == name
        assert issubclass(row.model, Backbone)


def test_a_statistic_is_a_row(monkeypatch, sequence):
    row = Statistic(
        "logit_energy", "query", "mean squared logit", "nat2",
        of_tokens=lambda of: (of.q @ of.k.mT).square().mean(dim=-1),
    )  # fmt: skip
    monkeypatch.setitem(STATISTICS, row.name, row)
    capture = m3.Capture(statistics=[row.name], sites=["image_self"], archive="float32")
    run = quiet(load_backbone("tiny"), sequence, capture=capture, outputs=("pose",))
    group = run["attention/image_self"].to_dataset()
    expected = dense(group).square().mean(dim=-1)
    np.testing.assert_allclose(group[row.name].values, expected, rtol=1e-4)
    assert group[row.name].attrs["long_name"] == row.long_name
    later = quiet(
        load_backbone("tiny"),
        sequence,
        capture=m3.Capture(statistics=(), sites=["image_self"], archive="float32"),
        outputs=("pose",),
    )
    derived = later[f"attention/image_self/{row.name}"]
    np.testing.assert_allclose(derived.values, expected, rtol=1e-4)


def test_a_reading_is_a_row_on_a_statistic(monkeypatch, sequence):
    row = Reading(
        "spread", "R9", STATISTICS["logit_variance"], 1, "var_j z_ij / M", "nat",
        lambda values, keys: values / keys,
    )  # fmt: skip
    monkeypatch.setitem(READINGS, row.name, row)
    capture = m3.Capture(statistics=["logit_variance"], sites=["image_self"])
    cue = m3.Cue(reading="spread")
    run = quiet(load_backbone("tiny"), sequence, cue=cue, capture=capture, outputs=("pose",))
    variance = run["attention/image_self/logit_variance"]
    patches = variance.sel(token="patch").mean("head").transpose("frame", "layer", ...)
    read = run["cue/spread"].values.reshape(patches.shape)
    np.testing.assert_allclose(read, patches.values / variance.sizes["query"], rtol=1e-4)


def test_a_write_rule_is_a_row_with_its_rate_and_its_memory(monkeypatch, sequence):
    def memory(signals, settings):
        return {"proposal": signals["proposal"]}

    def act(signals, past, settings):
        new = memory(signals, settings)
        if past is None:
            return Outcome(torch.full(signals["proposal"].shape[:2], settings["most"]), new)
        change = (signals["proposal"] - past["proposal"]).norm(dim=-1)
        return Outcome(settings["most"] * change.div(change.amax(dim=-1, keepdim=True)), new)

    row = WriteRule(
        "slow", act, ("proposal",), {"most": Span(0.5)}, "most", full=memory, remembers=True
    )
    monkeypatch.setitem(WRITE_RULES, row.name, row)
    own = quiet(load_backbone("tiny", update="slow(0.25)"), sequence, outputs=("pose",))
    written = own["state/write_rate"].values
    assert (written[0] == 1).all()
    np.testing.assert_allclose(written[1:].max(axis=1), 0.25, rtol=1e-6)
    assert written[1:].min() < 0.25
    in_commit = quiet(
        load_backbone("tiny"), sequence, commit="rw.gg rate.slow(0.25)", outputs=("pose",)
    )
    assert np.array_equal(in_commit["state/write_rate"].values, written)
    with pytest.raises(InvalidArgument, match="rate must be one of"):
        m3.Commit.parse("rate.slower")


class TwoGlances(CUT3R):
    """CUT3R that looks at its patches once more before it encodes a state."""

    skip = False

    def sites(self):
        return super().sites() | {"glance": SiteSize(1, 2, 8)}

    def enter(self, encoded, state, *, probe=None):
        tokens = encoded.features[..., :16].unflatten(-1, (2, 8)).transpose(1, 2)
        if not self.skip:
            attend(Site("glance", 0), tokens, tokens, tokens, probe=probe)
        return super().enter(encoded, state, probe=probe)

    def decode(self, entered, *, gate=None, probe=None, **options):
        tokens = entered.features[..., :16].unflatten(-1, (2, 8)).transpose(1, 2)
        if not self.skip:
            attend(Site("glance", 0), tokens, tokens, tokens, gate, probe)
        return super().decode(entered, gate=gate, probe=probe, **options)


@pytest.fixture
def glancing(monkeypatch):
    monkeypatch.setitem(SITE_KINDS, "glance", SiteKind("glance", "patches", "patches"))
    plain = load_backbone("tiny")
    model = TwoGlances(plain.config)
    model.load_state_dict(plain.state_dict())
    model.origin, model.preparation = plain.origin, plain.preparation
    return model.eval().requires_grad_(False)


def test_a_site_kind_is_a_row_and_the_block_that_owns_it(glancing, sequence):
    capture = m3.Capture(sites=["glance"], archive="float32", head_outputs=["glance:values"])
    run = quiet(glancing, sequence, capture=capture, outputs=("pose",))
    group = run["attention/glance"].to_dataset()
    weights = dense(group).softmax(dim=-1)
    entropy = torch.special.entr(weights).sum(dim=-1)
    np.testing.assert_allclose(group["entropy"].values, entropy, rtol=1e-4, atol=1e-5)
    written = weights @ torch.from_numpy(group["rotated_key"].values).double()
    np.testing.assert_allclose(group["output"].values, written, rtol=1e-4, atol=1e-5)
    norm = written.norm(dim=-1)
    np.testing.assert_allclose(group["output_norm"].values, norm, rtol=1e-4, atol=1e-5)
    scored = quiet(glancing, sequence, cue=m3.Cue(site="glance"), outputs=("pose",))
    assert np.isfinite(scored["cue/motion"].values).all()


def test_a_declared_site_that_is_never_passed_is_an_error_and_no_empty_array(glancing, sequence):
    glancing.skip = True
    with pytest.raises(StoreError, match="attention/glance of frame 0"):
        quiet(glancing, sequence, capture=m3.Capture(sites=["glance"]), outputs=("pose",))


@dataclass(frozen=True, kw_only=True)
class MeanConfig(ModelConfig):
    family: ClassVar[str] = "mean"


@dataclass(frozen=True, eq=False)
class MeanState:
    tokens: torch.Tensor
    rules: RuleMemory

    def described(self, before, rate, *, keep):
        return {"write_rate": rate} | ({"tokens": self.tokens} if keep else {})


@dataclass(frozen=True, eq=False)
class MeanEntered:
    patches: torch.Tensor
    state: torch.Tensor
    grid: tuple[int, int]


@dataclass(frozen=True, eq=False)
class MeanDecoded:
    levels: list[torch.Tensor]
    pose_token: torch.Tensor
    proposal: torch.Tensor
    grid: tuple[int, int]
    signals: dict[str, torch.Tensor]


class MeanModel(Backbone):
    """Carries one token, the mean colour of what its patches say to each other."""

    def __init__(self, config, *, update="cut3r"):
        super().__init__(config, update=update)
        self.origin = Origin("mean", sha256="0" * 64)
        self.precision = PRECISIONS["float32-throughout"]
        self.outputs, self.decoder_layers = ("pose",), 1
        self.scale = nn.Parameter(torch.ones(1))

    def rotate_encoder_in(self, dtype):
        pass

    def sites(self):
        return {"image_self": SiteSize(1, 1, 4)}

    def axes(self, grid, frames=1):
        return {"image": image_axis(grid), "state": memory_axis(1, "state")}

    def begin(self, batch=1):
        rules = RuleMemory.start(batch, self.device)
        return MeanState(torch.zeros(batch, 1, 4, device=self.device), rules)

    def encode(self, frame, *, gate=None, probe=None):
        grid = self.patch_grid(*frame.image.shape[-2:])
        colour = nn.functional.avg_pool2d(frame.image, 8).flatten(2).mT
        return Encoded(torch.cat([colour, colour[..., :1]], dim=-1), grid)

    def enter(self, encoded, state, *, probe=None):
        return MeanEntered(encoded.features * self.scale, state.tokens, encoded.grid)

    def decode(self, entered, *, gate=None, probe=None, signals=(), layers=None):
        x = entered.patches[:, None]
        seen = attend(Site("image_self", 0), x, x, x, gate, probe)[:, 0]
        mean = seen.mean(dim=1, keepdim=True)
        return MeanDecoded([seen], mean, mean, entered.grid, {})

    def predict(self, decoded, outputs=None, *, gate=None, probe=None):
        shift = decoded.pose_token[:, 0, :3]
        still = shift.new_tensor([1.0, 0, 0, 0]).expand(len(shift), -1)
        return Prediction(pose=torch.cat([shift, still], dim=-1))

    def commit(self, read, state, write, *, probe=None):
        proposal = read.decoded.proposal
        return MeanState(proposal, state.rules), torch.ones(proposal.shape[:2])

    def state_variables(self, grid, frames):
        token = {"state_token": 1}
        return (
            StateVariable("write_rate", token, "share replaced"),
            StateVariable("tokens", token | {"channel": 4}, "mean colour", kept=True),
        )

    def restore(self, held, age, restart):
        rules = replace(RuleMemory.start(1, self.device), begun=torch.tensor([age > 0]))
        return MeanState(held["tokens"][None], rules)

    def meta_state(self, grid, frames):
        return self.begin()


@pytest.fixture
def mean_model():
    sizes = {"enc_embed_dim": 64, "dec_embed_dim": 48, "dec_num_heads": 4, "enc_num_heads": 4}
    config = MeanConfig(img_size=(64, 64), patch_size=8, head_type="linear", **sizes)
    return MeanModel(config).eval().requires_grad_(False)


def test_a_model_is_a_room_of_its_own(mean_model, sequence, tmp_path):
    capture = m3.Capture(state=True, archive="float32")
    store = tmp_path / "mean.zarr"
    run = quiet(mean_model, sequence, capture=capture, out=store)
    image = torch.from_numpy(
        np.stack([mean_model.preparation.image(each.values) for each in sequence["image"]])
    )
    colour = nn.functional.avg_pool2d(image, 8).flatten(2).mT
    x = torch.cat([colour, colour[..., :1]], dim=-1).double()
    expected = ((x @ x.mT / 2).softmax(dim=-1) @ x).mean(dim=1)
    again = m3.open_run(store)
    np.testing.assert_allclose(again["state/tokens"].values[:, 0], expected, atol=1e-5)
    np.testing.assert_allclose(run["prediction/pose"].values[:, :3, 3], expected[:, :3], atol=1e-5)
    group = again["attention/image_self"].to_dataset()
    assert "pose_weight" not in group
    entropy = torch.special.entr(dense(group).softmax(dim=-1)).sum(dim=-1)
    np.testing.assert_allclose(group["entropy"].values, entropy, rtol=1e-4, atol=1e-5)
    plan = m3.plan(mean_model, sequence, capture=capture)
    assert plan.frames == sequence.sizes["frame"]
    assert plan.stored_bytes > 0


def test_cues_gates_and_forks_fit_a_model_that_nobody_knew(mean_model, sequence):
    gate = m3.Gate(image_self="key_bias", state_to_image=None, image_to_state=None)
    gated = quiet(mean_model, sequence, cue=m3.Cue(), gate=gate, capture=m3.Capture(state=True))
    plain = quiet(mean_model, sequence)
    assert not np.array_equal(gated["prediction/pose"], plain["prediction/pose"])
    off = quiet(mean_model, sequence, cue=m3.Cue(), gate=m3.Gate(
        image_self="key_bias", state_to_image=None, image_to_state=None, beta=0
    ))  # fmt: skip
    assert np.array_equal(off["prediction/pose"], plain["prediction/pose"])
    at = int(sequence["frame"][1])
    same = m3.fork(gated, at, backbone=mean_model, sequence=sequence, outputs=("pose",))
    assert not same["state_distance"].values.any()
    other = m3.fork(gated, at, backbone=mean_model, sequence=sequence, gate=None, outputs=("pose",))
    assert other["translation_distance"].values.all()


def test_what_a_model_lacks_is_refused_by_name(mean_model, sequence):
    with pytest.raises(InvalidArgument, match=r"the gate names state_to_image.*lacks.*image_self"):
        quiet(mean_model, sequence, cue=m3.Cue(), gate=m3.Gate.mut3r())
    with pytest.raises(InvalidArgument, match="the cue names encoder_self"):
        quiet(mean_model, sequence, cue=m3.Cue(site="encoder_self"))
    with pytest.raises(InvalidArgument, match="capture names state_self"):
        quiet(mean_model, sequence, capture=m3.Capture(sites=["state_self"]))


def test_what_a_run_was_shown_and_changed_by_is_recorded(sequence):
    backbone = load_backbone("tiny")
    seen = []

    def watch(site, q, k, v, out):
        seen.append((str(site), tuple(out.shape)))

    def silence(site, q, k, v, out):
        if site == Site("image_to_state", 2):
            out = out.clone()
            out[:, 1] = 0
            return out
        return None

    run = quiet(backbone, sequence, probe=watch, intervene=silence, outputs=("pose",))
    plain = quiet(backbone, sequence, outputs=("pose",))
    assert not np.array_equal(run["prediction/pose"][1:], plain["prediction/pose"][1:])
    assert any(name == "state_to_image.5" for name, _ in seen)
    assert run.attrs["probe"].endswith("watch")
    assert run.attrs["intervene"].endswith("silence")
    nothing = quiet(backbone, sequence, intervene=lambda *_: None, outputs=("pose",))
    assert np.array_equal(nothing["prediction/pose"], plain["prediction/pose"])
    assert "unnamed" in nothing.attrs["intervene"]
    at = int(sequence["frame"][1])
    with pytest.raises(InvalidArgument, match="give the same callable"):
        m3.fork(run, at, backbone=backbone, sequence=sequence)
    same = m3.fork(run, at, backbone=backbone, sequence=sequence, intervene=silence)
    assert not same["state_distance"].values.any()
