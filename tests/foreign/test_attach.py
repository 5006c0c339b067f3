"""Attaching to models that somebody else wrote: what is seen, that it is right, that it is gone."""

import dataclasses

import numpy as np
import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F

import mut3r_analysis as m3
from mut3r_analysis.attention import Capture, Recorder
from mut3r_analysis.backbones import Frame
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion import Gate, GatePlan

WIDTH = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
IMAGE = {"image_size": 32, "patch_size": 8, "intermediate_size": 64}


def vit():
    made = transformers.ViTModel(transformers.ViTConfig(**WIDTH, **IMAGE))
    return made, (torch.randn(2, 3, 32, 32),), 17


def clip():
    made = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**WIDTH, **IMAGE))
    return made, (torch.randn(2, 3, 32, 32),), 17


def bert():
    config = transformers.BertConfig(**WIDTH, intermediate_size=64, vocab_size=50)
    return transformers.BertModel(config), (torch.randint(0, 50, (2, 7)),), 7


def encoder():
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    return nn.TransformerEncoder(layer, 3), (torch.randn(2, 9, 32),), 9


def gpt2():
    config = transformers.GPT2Config(n_embd=32, n_layer=3, n_head=4, vocab_size=50,
                                     bos_token_id=0, eos_token_id=0)  # fmt: skip
    return transformers.GPT2Model(config), (torch.randint(0, 50, (2, 7)),), 7


FOREIGN = [vit, clip, bert, encoder, gpt2]


@pytest.fixture(params=FOREIGN, ids=lambda make: make.__name__)
def foreign(request):
    torch.manual_seed(0)
    model, inputs, tokens = request.param()
    return model.eval(), inputs, tokens


def outputs(model, inputs):
    with torch.no_grad():
        found = model(*inputs)
    return found if isinstance(found, torch.Tensor) else found[0]


def test_a_foreign_model_is_captured_unchanged_and_the_capture_proves_itself(foreign):
    model, inputs, tokens = foreign
    before = outputs(model, inputs)
    with m3.attach(model, capture=Capture(archive="float32", maps="all", sites="all")) as watched:
        during = outputs(model, inputs)
    assert torch.equal(outputs(model, inputs), before)
    torch.testing.assert_close(during, before)
    assert len(watched.check) == 3
    assert max(watched.check.values()) < 1e-5
    (group,) = watched.data["attention"].children.values()
    data = group.to_dataset()
    assert data.sizes["layer"] == 3
    assert data.sizes["query"] == data.sizes["key"] == tokens
    weights = torch.from_numpy(data["logits"].values).double().softmax(dim=-1)
    entropy = -(weights * weights.clamp_min(1e-300).log()).sum(dim=-1)
    np.testing.assert_allclose(data["entropy"].values, entropy, atol=1e-5)
    np.testing.assert_allclose(data["received"].values, weights.mean(dim=-2), atol=1e-6)
    assert watched.data.attrs["self_check"] == watched.check


def test_nothing_of_the_attachment_remains(foreign):
    model, inputs, _ = foreign
    fast = torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(IndexError), m3.attach(model):
        outputs(model, (*inputs, outputs(model, inputs)[99]))
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert F.scaled_dot_product_attention.__name__ == "scaled_dot_product_attention"


def test_masks_are_part_of_the_weights():
    torch.manual_seed(0)
    model, inputs, _ = gpt2()
    with m3.attach(model.eval()) as watched:
        outputs(model, inputs)
    (data,) = (each.to_dataset() for each in watched.data["attention"].children.values())
    first = data.isel(query=0)
    np.testing.assert_allclose(first["max_weight"], 1)  # the first word sees itself alone
    np.testing.assert_allclose(first["entropy"], 0, atol=1e-6)
    assert "logit_mean" not in data  # closed forms know no mask
    padded = torch.tensor([[1, 2, 3, 0, 0]])
    model, _, _ = bert()
    with m3.attach(model.eval()) as watched, torch.no_grad():
        model(padded, attention_mask=torch.tensor([[1, 1, 1, 0, 0]]))
    (data,) = (each.to_dataset() for each in watched.data["attention"].children.values())
    assert not data["received"].isel(key=slice(3, None)).any()
    np.testing.assert_allclose(data["received"].sum("key"), 1, atol=1e-6)
    assert max(watched.check.values()) < 1e-5


def test_patches_are_selected_by_row_and_column():
    model, inputs, _ = vit()
    tokens = m3.Tokens(grid=(4, 4), special=("class",))
    with m3.attach(model.eval(), tokens=tokens, sites={"image_self": "**.attention"}) as watched:
        outputs(model, inputs)
        outputs(model, inputs)
    data = watched.data["attention/image_self"].to_dataset()
    assert data.sizes["pass"] == 2
    assert data["entropy"].sel(token="patch", patch_row=2, patch_col=3).dims == (
        "pass", "sample", "layer", "head",
    )  # fmt: skip
    assert data["received"].sel(key_token="class").size == 2 * 2 * 3 * 4
    assert data["module"].values.tolist()[0].endswith("0.attention")


@pytest.mark.parametrize(
    ("pattern", "inside"), [("layers.*", ""), ("**.self_attn", ".self_attn"), ("**.1", None)]
)
def test_a_star_is_one_part_of_a_path(pattern, inside):
    layer = nn.TransformerEncoderLayer(16, 2, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()
    with m3.attach(model, sites={"image_self": pattern}) as watched:
        model(torch.zeros(1, 3, 16))
    found = watched.data["attention/image_self"].to_dataset()
    modules = ["layers.1"] if inside is None else [f"layers.{i}{inside}" for i in range(2)]
    assert found["module"].values.tolist() == modules
    assert found["layer"].values.tolist() == list(range(len(modules)))


def test_what_was_declared_has_to_fit():
    model, inputs, _ = vit()
    with pytest.raises(InvalidArgument, match="fit no module; modules are called"):
        m3.attach(model, sites={"image_self": "decoder.*"})
    tokens = m3.Tokens(grid=(3, 4), special=("class",))
    with (
        pytest.raises(InvalidArgument, match=r"17 tokens, .* declares 3 x 4 patches"),
        m3.attach(model.eval(), tokens=tokens),
    ):
        outputs(model, inputs)
    with pytest.raises(InvalidArgument, match="both gate= and scores="):
        m3.attach(model, gate=Gate.mut3r())
    with pytest.raises(InvalidArgument, match="say with sites= which modules"):
        m3.attach(model, gate=Gate.mut3r(), scores=torch.zeros(2, 4, 4))
    with pytest.raises(InvalidArgument, match="roles among"):
        m3.Tokens(special=("cls",))


def test_attention_by_hand_is_named_with_what_to_do():
    config = transformers.ViTConfig(**WIDTH, **IMAGE, attn_implementation="eager")
    model = transformers.ViTModel(config).eval()
    with pytest.warns(UserWarning, match="a softmax by hand"), m3.attach(model) as watched:
        outputs(model, (torch.randn(1, 3, 32, 32),))
    assert len(watched.not_visible) == 3
    with pytest.raises(InvalidArgument, match="no call of the fused attention was seen in ViT"):
        watched.data  # noqa: B018
    own = nn.MultiheadAttention(32, 4, batch_first=True).eval()
    x = torch.randn(1, 5, 32)
    with pytest.warns(UserWarning, match="need_weights=False"), m3.attach(own):
        own(x, x, x)


GATES = {"image_self": "pair_bias", "state_to_image": None, "image_to_state": None}


def test_a_gate_acts_on_a_foreign_model_as_its_formula_says():
    class Bare(nn.Module):
        def forward(self, x):
            return F.scaled_dot_product_attention(x, x, x)

    model, x = nn.Sequential(Bare()), torch.randn(2, 3, 17, 8)
    scores = torch.rand(2, 4, 4) * 0.9
    tokens = m3.Tokens(grid=(4, 4), special=("class",))
    sites = {"image_self": "0"}
    gate = Gate(**GATES, beta=1.0)
    with m3.attach(model, tokens=tokens, sites=sites, gate=gate, scores=scores) as watched:
        gated = model(x)
    g = F.pad(scores.flatten(1), (1, 0))  # the class token has no score
    bias = torch.log1p(-(1 - g)[:, :, None] * g[:, None, :])
    expected = ((x @ x.mT / 8**0.5 + bias[:, None]).softmax(dim=-1)) @ x
    torch.testing.assert_close(gated, expected)
    assert "gate" in watched.data.attrs
    with m3.attach(
        model, tokens=tokens, sites=sites, gate=dataclasses.replace(gate, beta=0.0), scores=scores
    ):
        assert torch.equal(model(x), outputs(model, (x,)))


def test_a_gate_acts_inside_the_attention_modules_of_pytorch():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, batch_first=True)
    model, x = nn.TransformerEncoder(layer, 2).eval(), torch.randn(1, 17, 16)
    scores = torch.rand(1, 4, 4) * 0.9
    watching = {
        "tokens": m3.Tokens(grid=(4, 4), special=("class",)),
        "sites": {"image_self": "layers.*.self_attn"},
        "scores": scores,
    }
    gate = Gate.at({"image_self": "key_bias"}, beta=2.0)
    with m3.attach(model, gate=gate, **watching) as watched:
        gated = outputs(model, (x,))
    assert watched.data["attention/image_self"].sizes["layer"] == 2
    mask = F.pad(2 * torch.log1p(-scores.flatten(1)), (1, 0)).expand(17, 17)
    torch.testing.assert_close(gated, model(x, mask=mask))
    assert not torch.allclose(gated, outputs(model, (x,)), atol=1e-3)


POSE = m3.Tokens(grid=(6, 8), special=("pose",))
OWN_TOKENS = {"image_self": POSE, "image_to_state": (POSE, m3.Tokens()),
              "state_to_image": (m3.Tokens(), POSE)}  # fmt: skip


def own_model():
    """The bundled model, a frame and the state before it, and the sites in their turn."""
    model, image = m3.load_backbone("tiny"), torch.rand(1, 3, 48, 64) * 2 - 1
    state = model.step(Frame(image)).state
    turns: list[str] = []
    model.step(Frame(image), state, probe=lambda site, q, k: turns.append(str(site)))
    return model, Frame(image), state, turns


@pytest.mark.parametrize(
    "gate",
    [Gate.mut3r(), Gate.mut3r(edition=1), Gate(image_to_state="null_key", null_logit=-1.0)],
    ids=["edition 2", "edition 1", "null key"],
)
def test_gates_of_all_directions_act_on_our_own_model_as_at_its_own_seam(gate):
    model, frame, state, turns = own_model()
    scores = torch.rand(1, 6, 8) * 0.9
    planned = GatePlan(gate, model.sites()).of_frame(scores, model.axes((6, 8)))
    expected = model.step(frame, state, gate=planned).prediction.points_self
    with m3.attach(model, tokens=OWN_TOKENS, sites=turns, gate=gate, scores=scores):
        gated = model.step(frame, state).prediction.points_self
    assert torch.equal(gated, expected)
    assert not torch.equal(gated, model.step(frame, state).prediction.points_self)


def test_our_own_model_is_captured_as_by_its_own_seam():
    model, frame, state, turns = own_model()
    recorder = Recorder(Capture(sites="decoder"), model.sites(), model.axes((6, 8)))
    model.step(frame, state, probe=recorder)
    with m3.attach(model, tokens=OWN_TOKENS, sites=turns) as watched:
        model.step(frame, state)
    for kind, found in recorder.take().items():
        data = watched.data[f"attention/{kind}"].to_dataset().isel({"pass": 0})
        for name, values in found.items():
            # The recorder measures layers together, which adds in another order.
            there = data[name].transpose("sample", "layer", ...)
            np.testing.assert_allclose(there, values, 1e-5, 1e-6, err_msg=f"{kind}/{name}")
