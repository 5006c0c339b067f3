"""What a cue may be, and what is refused."""

import subprocess
import sys

import pytest

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion import READINGS, Cue, Source

EXAMPLES = [
    Cue.mut3r(),
    Cue.oracle("moving", pool="max"),
    Cue(reading="instability", of="received", decay=0.9, source="previous_ema(0.5)"),
    Cue(reading="entropy", layers=range(1, 4), heads=[2, 0], pose=False, diagonal=False,
        normaliser="robust", running=0.8, sharpness=3, source="two_pass_cut(6)"),
    Cue(control="shift(3)", source="iterate(2)", seed=4),
]  # fmt: skip


@pytest.mark.parametrize("cue", EXAMPLES)
def test_a_cue_survives_json_and_compares_and_hashes_by_value(cue):
    assert Cue.from_json(cue.to_json()) == cue
    assert hash(Cue.from_json(cue.to_json())) == hash(cue)
    assert eval(repr(cue), {"Cue": Cue}) == cue


@pytest.mark.parametrize(
    ("edition", "reading", "sharpness"), [(2, "logit_query_mean", 0.5), (1, "logit_key_mean", 1.0)]
)
def test_mut3rs_cue_reads_mean_logits_of_image_self_attention_in_a_probe_pass(
    edition, reading, sharpness
):
    cue = Cue.mut3r(edition=edition)
    assert (cue.reading, cue.sharpness) == (reading, sharpness)
    assert (cue.site, cue.layers, cue.sign) == ("image_self", None, -1)
    assert (cue.normaliser, cue.source, cue.passes) == ("zscore", "two_pass", 1)
    assert Cue.mut3r(edition=edition, reading="entropy").reading == "entropy"


def test_the_latest_edition_is_the_default_and_no_other_is_known():
    assert Cue.mut3r() == Cue.mut3r(edition=2) == Cue()
    with pytest.raises(InvalidArgument, match="edition must be one of 2, 1; got 3"):
        Cue.mut3r(edition=3)


def test_the_sign_is_always_explicit():
    assert {name: Cue(reading=name).sign for name in READINGS} == {
        name: item.sign for name, item in READINGS.items()
    }
    assert Cue(reading="entropy", sign=-1).sign == -1


@pytest.mark.parametrize("name", ["weight_key_mean", "literal"])
def test_the_average_of_weights_over_keys_is_refused_with_the_reason(name):
    with pytest.raises(InvalidArgument, match="without contrast: a softmax row sums to 1"):
        Cue(reading=name)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"reading": "r1"}, "must be one of logit_key_mean"),
        ({"site": "state_self"}, "site must be one of"),
        (
            {"site": "state_to_image", "reading": "logit_key_mean"},
            "query side of a site, which at .state_to_image",
        ),
        ({"site": "image_to_state", "reading": "received"}, "key side"),
        ({"site": "encoder_self", "reading": "pose_complement"}, "use one of image_self"),
        ({"site": "state_to_image", "diagonal": False}, "self-attention"),
        ({"site": "head_self"}, "previous"),
        ({"pose": "no"}, "pose must be True or False"),
        ({"diagonal": 2}, "diagonal must be True or False"),
        ({"seed": "a"}, "seed must be a whole number from 0"),
        ({"reading": "mask", "of": 3}, "name a variable"),
        ({"reading": "pose_complement", "pose": False}, "leave pose = True"),
        ({"reading": "instability", "of": "entropy"}, "must be one of logit_key_mean"),
        ({"of": "received"}, "only for the readings"),
        ({"decay": 0.5}, "instability"),
        ({"running": 1.0}, r"running must be a number in \[0, 1\)"),
        ({"running": 0.5, "normaliser": "rank"}, "running works with"),
        ({"normaliser": "softmax"}, "normaliser must be one of raw"),
        ({"head_reduction": "max"}, "mean, median"),
        ({"sign": 0}, "sign must be one of"),
        ({"sharpness": -1}, "sharpness must be"),
        ({"sharpness": 0}, "above 0"),
        ({"layers": (3, 1)}, "half-open"),
        ({"layers": [0, 3]}, r"a range or a pair \(start, stop\)"),
        ({"heads": [-1]}, "heads must be"),
        ({"control": "flip"}, "control must be one of const, shuffle"),
        ({"control": "shift"}, "number of frames"),
        ({"control": "const(2)"}, "value of const"),
        ({"control": "invert(2)"}, "takes no number"),
        ({"source": "next"}, "a probe pass over the same frame"),
        ({"source": "two_pass_cut"}, "whole number"),
        ({"source": "two_pass_cut(0)"}, "whole number"),
        ({"source": "iterate(1.5)"}, "whole number"),
        ({"source": "previous_ema(1)"}, r"decay in \[0, 1\)"),
        ({"source": "previous(2)"}, "takes no number"),
        ({"source": "iterate(inf)"}, "expected a name"),
        ({"source": "iterate(two)"}, "expected a name"),
        ({"source": "two_pass_cut(2)", "layers": (0, 4)}, "cut later or read fewer"),
        ({"site": "encoder_self", "source": "same_site"}, "costs no pass"),
        ({"reading": "mask", "source": "layer_causal"}, "costs no pass"),
        ({"pool": "median"}, "pool must be one of"),
    ],
)
def test_what_cannot_mean_anything_is_refused_in_words(arguments, said):
    with pytest.raises(InvalidArgument, match=said):
        Cue(**arguments)


def test_an_unknown_field_is_refused():
    with pytest.raises(InvalidArgument, match=r"cue: unknown \['layer'\]"):
        Cue.from_dict({"layer": 1})


@pytest.mark.parametrize(
    ("text", "passes", "live", "lags", "layers"),
    [
        ("two_pass", 1, False, False, None),
        ("two_pass_cut(6)", 1, False, False, 6),
        ("previous", 0, False, True, None),
        ("previous_ema(0.9)", 0, False, True, None),
        ("layer_causal", 0, True, False, None),
        ("same_site", 0, True, False, None),
        ("iterate(3)", 3, False, False, None),
    ],
)
def test_a_source_says_what_it_needs(text, passes, live, lags, layers):
    source = Source.parse(text)
    assert str(source) == text
    assert (source.passes, source.live, source.lags, source.layers) == (passes, live, lags, layers)


def test_what_is_not_measured_in_the_decoder_costs_no_pass():
    assert Cue.oracle().passes == 0
    assert Cue(control="random").passes == 0
    assert Cue(site="encoder_self").passes == 0
    assert Cue(control="shuffle").passes == 1


def test_specifications_are_made_without_importing_torch():
    code = (
        "import sys; from mut3r_analysis.motion import Cue, Gate; Cue.mut3r(); Gate.mut3r(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
