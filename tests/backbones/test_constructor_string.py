"""The constructor string of an official checkpoint is parsed, never evaluated."""

import math
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mut3r_analysis.backbones.constructor_string import constructor_arguments, parse_constructor
from mut3r_analysis.backbones.cut3r.config import CUT3RConfig
from mut3r_analysis.backbones.point3r import Point3R, Point3RConfig
from mut3r_analysis.errors import CheckpointError

DPT_512 = (
    "ARCroco3DStereo(ARCroco3DStereoConfig(freeze='encoder', state_size=768, state_pe='2d', "
    "pos_embed='RoPE100', rgb_head=True, pose_head=True, patch_embed_cls='ManyAR_PatchEmbed', "
    "img_size=(512, 512), head_type='dpt', output_mode='pts3d+pose', "
    "depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf), pose_mode=('exp', -inf, inf), "
    "enc_embed_dim=1024, enc_depth=24, enc_num_heads=16, dec_embed_dim=768, dec_depth=12, "
    "dec_num_heads=12, landscape_only=False))"
)
LINEAR_224 = (
    "ARCroco3DStereo(ARCroco3DStereoConfig(freeze='encoder', state_size=768, state_pe='2d', "
    "pos_embed='RoPE100', rgb_head=True, pose_head=True,  img_size=(224, 224), "
    "head_type='linear', output_mode='pts3d+pose', depth_mode=('exp', -inf, inf), "
    "conf_mode=('exp', 1, inf), pose_mode=('exp', -inf, inf), enc_embed_dim=1024, enc_depth=24, "
    "enc_num_heads=16, dec_embed_dim=768, dec_depth=12, dec_num_heads=12))"
)


def constructor_string(config: CUT3RConfig, leave_out: tuple[str, ...] = ()) -> str:
    """Write a configuration as an official constructor string."""
    keywords = ", ".join(
        f"{field.name}={getattr(config, field.name)!r}"
        for field in fields(config)
        if field.name not in leave_out
    )
    return f"ARCroco3DStereo(ARCroco3DStereoConfig({keywords}))"


@st.composite
def configurations(draw: st.DrawFn) -> CUT3RConfig:
    heads = draw(st.sampled_from([1, 2, 4]))
    state_heads = draw(st.sampled_from([1, 2, 3]))
    return CUT3RConfig(
        img_size=(16 * draw(st.integers(1, 40)), 16 * draw(st.integers(1, 40))),
        enc_embed_dim=64 * draw(st.integers(1, 4)),
        enc_depth=draw(st.integers(1, 24)),
        enc_num_heads=draw(st.sampled_from([1, 2, 4, 8, 16])),
        dec_embed_dim=4 * heads * state_heads * draw(st.integers(1, 5)),
        dec_depth=draw(st.integers(2, 12)),
        dec_num_heads=heads,
        state_dec_num_heads=state_heads,
        state_size=draw(st.integers(1, 1000)),
        local_mem_size=draw(st.integers(1, 300)),
        head_type=draw(st.sampled_from(["dpt", "linear"])),
        rgb_head=draw(st.booleans()),
        freeze=draw(st.text(max_size=12)),
        mlp_ratio=draw(st.floats(0.5, 8)),
        feature_dim=draw(st.integers(2, 256)),
        layer_dims=tuple(draw(st.lists(st.integers(1, 800), min_size=4, max_size=4))),
    )


def test_the_released_512_dpt_string_gives_the_default_configuration():
    assert parse_constructor(DPT_512) == CUT3RConfig(freeze="encoder")


def test_the_released_224_linear_string_gives_that_model():
    expected = CUT3RConfig(freeze="encoder", img_size=(224, 224), head_type="linear")
    assert parse_constructor(LINEAR_224) == expected


def test_spaces_and_line_breaks_do_not_matter():
    spread = "\n  " + DPT_512.replace(", ", ",\n    ").replace("(", "( ") + "\n"
    assert parse_constructor(spread) == parse_constructor(DPT_512.replace(" ", ""))


@settings(deadline=None)
@given(configurations())
def test_every_configuration_survives_its_own_constructor_string(config):
    parsed = parse_constructor(constructor_string(config))
    assert parsed == config
    assert parsed.to_json() == config.to_json()


def test_the_rewrites_of_the_official_loader_are_applied_and_reported():
    _, arguments, report = constructor_arguments(DPT_512.replace("only=False", "only=True"))
    assert arguments["patch_embed_cls"] == "PatchEmbedDust3R"
    assert arguments["landscape_only"] is False
    assert len(report) == 2
    assert "ManyAR_PatchEmbed" in report[0]
    assert "landscape_only: True" in report[1]
    *_, report = constructor_arguments(LINEAR_224)
    assert report == ("landscape_only: not given, set to False",)
    assert constructor_arguments(DPT_512.replace("ManyAR_PatchEmbed", "PatchEmbedDust3R"))[2] == ()


def test_keywords_that_are_not_given_take_the_official_defaults_not_ours():
    config = parse_constructor(DPT_512.replace("state_size=768, ", ""))
    assert config.state_size == 324
    config = parse_constructor(DPT_512.replace("enc_depth=24, ", ""))
    assert config.enc_depth == 12
    with pytest.raises(CheckpointError, match="cosine"):
        parse_constructor(DPT_512.replace("pos_embed='RoPE100', ", ""))


def test_lists_and_single_sizes_are_read_as_their_tuples():
    text = DPT_512.replace("('exp', 1, inf)", "['exp', 1, inf]").replace("(512, 512)", "512")
    assert parse_constructor(text) == parse_constructor(DPT_512)


def test_a_pretraining_keyword_without_effect_is_accepted():
    assert parse_constructor(DPT_512.replace("(freeze", "(mask_ratio=0.9, freeze")) == (
        parse_constructor(DPT_512)
    )


def test_all_unknown_keywords_are_listed():
    text = DPT_512.replace("(freeze", "(with_gru=True, adapter='x', freeze")
    with pytest.raises(CheckpointError, match=r"unknown keywords: adapter, with_gru"):
        parse_constructor(text)


@pytest.mark.parametrize(
    "value",
    [
        "__import__('os').system('true')",
        "open('marker', 'w')",
        "().__class__",
        "[i for i in (1, 2)]",
        "lambda: 1",
        "f'{1}'",
        "nan",
        "1 + 1",
        "not True",
        "-'a'",
        "-True",
        "-" * 900 + "1",
        "a" + ".a" * 3000,
        "(yield)",
        "{'a': 1}",
        "(x := 3)",
        "~1",
    ],
)
def test_anything_but_literals_is_refused_by_name(value):
    with pytest.raises(CheckpointError, match="never evaluated"):
        parse_constructor(DPT_512.replace("state_size=768", f"state_size={value}"))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "the text"),
        ("ARCroco3DStereo(", "the text"),
        ("a\0b", "the text"),
        ("(" * 3000, "the text"),
        ("-" * 15000 + "1", "the constructor string holds"),
        ("a" + ".a" * 5000, "the constructor string holds"),
        ("ARCroco3DStereo", "'ARCroco3DStereo'"),
        ("MASt3R(ARCroco3DStereoConfig())", "'MASt3R'"),
        ("torch.ARCroco3DStereo(ARCroco3DStereoConfig())", "torch.ARCroco3DStereo"),
        ("ARCroco3DStereo(os.getcwd())", "os.getcwd"),
        ("ARCroco3DStereo(ARCroco3DStereoConfig(), 1)", "other arguments"),
        ("ARCroco3DStereo(ARCroco3DStereoConfig(1))", "positional"),
        ("ARCroco3DStereo(ARCroco3DStereoConfig(**{'state_size': 1}))", r"\*\*"),
        ("ARCroco3DStereo(ARCroco3DStereoConfig(enc_depth=1, enc_depth=2))", "twice"),
        ("ARCroco3DStereo(ARCroco3DStereoConfig(" + " " * 30_000 + "))", "characters"),
        ("__import__('os').system('true')", "system"),
    ],
)
def test_any_other_expression_is_refused(text, named):
    with pytest.raises(CheckpointError, match=named):
        parse_constructor(text)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("enc_depth", "24.0"),
        ("enc_depth", "True"),
        ("enc_depth", "'24'"),
        ("enc_depth", "None"),
        ("rgb_head", "1"),
        ("pos_embed", "100"),
        ("img_size", "(512, 512, 3)"),
        ("conf_mode", "('exp', 1)"),
        ("conf_mode", "'exp'"),
        ("mlp_ratio", "1" + "0" * 400),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_the_form_it_must_have(name, value):
    text = f"ARCroco3DStereo(ARCroco3DStereoConfig({name}={value}))"
    with pytest.raises(CheckpointError, match=f"{name} in the constructor string must be"):
        parse_constructor(text)


@pytest.mark.parametrize(
    "change",
    [{"head_type": "gaussian"}, {"enc_embed_dim": 1000}, {"output_mode": "pts3d"}],
)
def test_a_model_that_cannot_be_built_is_refused_with_the_reason(change):
    ((name, value),) = change.items()
    valid = repr(getattr(replace(CUT3RConfig(), freeze="encoder"), name))
    text = DPT_512.replace(f"{name}={valid}", f"{name}={value!r}")
    with pytest.raises(CheckpointError, match=f"cannot be built here: {name}"):
        parse_constructor(text)


@settings(deadline=None)
@given(st.text(max_size=60))
def test_no_text_at_all_causes_anything_but_a_checkpoint_error(text):
    for candidate in (text, f"ARCroco3DStereo(ARCroco3DStereoConfig({text}))"):
        try:
            parse_constructor(candidate)
        except CheckpointError:
            continue


def test_the_activation_ranges_are_stored_as_numbers():
    config = parse_constructor(DPT_512)
    assert config.conf_mode == ("exp", 1.0, math.inf)
    assert isinstance(config.conf_mode[1], float)


POINT3R_512 = (
    "Point3R(Point3RConfig(pos_embed='RoPE100', pos_embed_3d='RoPE3D100', pose_head=True, "
    "patch_embed_cls='ManyAR_PatchEmbed', img_size=(512, 512), head_type='dpt', "
    "output_mode='pts3d+pose', depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf), "
    "pose_mode=('exp', -inf, inf), enc_embed_dim=1024, enc_depth=24, enc_num_heads=16, "
    "dec_embed_dim=768, dec_depth=12, dec_num_heads=12, landscape_only=False))"
)


def test_the_name_of_the_model_decides_what_is_built():
    family, arguments, report = constructor_arguments(POINT3R_512)
    assert family.model is Point3R
    assert "memory_dec_num_heads" not in arguments
    assert len(report) == 1
    assert parse_constructor(POINT3R_512) == Point3RConfig()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("Point3RConfig", "ARCroco3DStereoConfig"), "'ARCroco3DStereoConfig'"),
        (("pose_head=True", "pose_head=True, rgb_head=True"), "variant of Point3R"),
        (("pos_embed_3d='RoPE3D100', ", ""), "pos_embed_3d must be RoPE3D100; got 'None'"),
        (("dec_depth=12", "dec_depth=open('marker', 'w')"), "never evaluated"),
    ],
)
def test_a_point3r_string_that_cannot_be_built_is_refused(change, named):
    with pytest.raises(CheckpointError, match=named):
        parse_constructor(POINT3R_512.replace(*change))
