"""What a gate may be, what it says of itself, and what is refused."""

import json

import pytest

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion import DIRECTIONS, REALISATIONS, Gate
from mut3r_analysis.motion.gate import PAPER_LAYERS

EXAMPLES = [
    Gate(),
    Gate.mut3r(beta=2.0),
    Gate.mut3r(directions=["state_to_image"], layers=range(2, 4)),
    Gate.easi3r(0.3, sites=["image_self"]),
    Gate(image_to_state="A3", null_logit=-1.5, heads=(3, 1), beta=0.5, kernel="dense"),
]


@pytest.mark.parametrize("gate", EXAMPLES)
def test_a_gate_survives_json_and_compares_and_hashes_by_value(gate):
    again = Gate.from_json(json.dumps(json.loads(gate.to_json())))
    assert again == gate
    assert hash(again) == hash(gate)
    assert eval(repr(gate), {"Gate": Gate}) == gate


def test_every_realisation_can_be_named_by_its_code():
    for site, items in REALISATIONS.items():
        for name, item in items.items():
            assert getattr(Gate(**{site: item.code}), site) == name


@pytest.mark.parametrize(
    ("edition", "third", "layers"),
    [(2, "pair_state", range(12)), (1, "output_scale", range(6))],
)
def test_mut3rs_gates_act_in_all_directions(edition, third, layers):
    gate = Gate.mut3r(edition=edition)
    assert [getattr(gate, site) for site in DIRECTIONS] == ["pair_bias", "key_bias", third]
    assert gate.beta == 1.0
    assert gate.layer_range(12) == layers
    alone = Gate.mut3r(directions=["image_to_state"], edition=edition)
    assert (alone.image_to_state, alone.sites) == (third, ("image_to_state",))


def test_the_latest_edition_is_the_default_and_no_other_is_known():
    assert Gate.mut3r() == Gate.mut3r(edition=2) == Gate()
    with pytest.raises(InvalidArgument, match="edition must be one of 2, 1; got 0"):
        Gate.mut3r(edition=0)


@pytest.mark.parametrize(("depth", "stop"), [(12, 6), (4, 2), (6, 3), (24, 12), (7, 4), (2, 1)])
def test_the_papers_layers_scale_with_the_decoder_and_are_worded_as_a_range(depth, stop):
    gate = Gate.mut3r(**PAPER_LAYERS)
    assert gate.layer_range(depth) == range(round(6 / 12 * depth)) == range(stop)
    assert gate.describe_layers(depth) == f"[0, {stop}) of {depth} layers"


def test_explicit_layers_are_not_scaled():
    assert Gate.mut3r(edition=1, layers=range(2)).layer_range(4) == range(2)
    with pytest.raises(InvalidArgument, match=r"range\(0, 6\) reaches outside the 4 layers"):
        Gate.mut3r(layers=range(6)).layer_range(4)


@pytest.mark.parametrize(
    ("gate", "reason"),
    [
        (Gate(beta=0), "beta = 0"),
        (Gate(layers=(3, 3)), "empty"),
        (Gate(image_self=None, state_to_image=None, image_to_state=None), "no direction"),
        (Gate.mut3r(directions=["image_to_state"], image_to_state="A0"), "row shifts"),
        (Gate(beta=0, image_to_state="A0"), "row shifts"),
        (Gate.mut3r(directions=["image_to_state"], image_to_state="A6", layers=(0, 1)), "before"),
    ],
)
def test_a_gate_knows_that_it_is_inert_and_why(gate, reason):
    assert reason in gate.inert()
    assert reason in gate.inert(depth=12)


@pytest.mark.parametrize(
    "gate",
    [
        Gate(),
        Gate(image_to_state="A0"),
        Gate.easi3r(beta=0),
        Gate(beta=0, image_to_state="A3", null_logit=0.0),
        Gate(beta=0, image_to_state="A7"),
    ],
)
def test_a_gate_that_acts_anywhere_is_not_inert(gate):
    assert gate.inert() is None
    assert gate.inert(depth=12) is None


def test_inertness_is_known_per_direction():
    gate = Gate(image_self=None, image_to_state="A0")
    assert "not gated" in gate.inert(site="image_self")
    assert "row shifts" in gate.inert(site="image_to_state")
    assert gate.inert(site="state_to_image") is None


def test_easi3rs_rule_is_refused_where_keys_are_not_patches():
    gate = Gate.easi3r()
    # The released code masks one cross-attention and no self-attention.
    assert gate.state_to_image == "static_to_dynamic"
    assert gate.image_self is gate.image_to_state is None
    both = Gate.easi3r(sites=["image_self", "state_to_image"])
    assert (both.image_self, both.state_to_image) == ("static_to_dynamic",) * 2
    with pytest.raises(InvalidArgument, match="image patches as keys"):
        Gate.easi3r(sites=["image_to_state"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"beta": -1}, r"beta must be a number in \[0, inf\); got -1"),
        ({"beta": float("nan")}, "beta must be a number"),
        ({"beta": float("inf")}, "beta must be a number"),
        ({"beta": "strong"}, "beta must be a number"),
        ({"image_self": "A1"}, "C1 pair_bias, C2 key_bias"),
        ({"image_to_state": "key_bias"}, "A1 output_scale"),
        ({"layers": (6, 2)}, "half-open and 0-based"),
        ({"layers": (-1, 2)}, "half-open and 0-based"),
        ({"layers": range(0, 6, 2)}, "half-open and 0-based"),
        ({"layers": 6}, "half-open and 0-based"),
        ({"layers": (0, 6), "of_depth": 4}, "of_depth"),
        ({"of_depth": 12}, "of_depth"),
        ({"heads": []}, "heads must be None"),
        ({"heads": [-1]}, "heads must be None"),
        ({"heads": "first"}, "heads must be None"),
        ({"layers": [0, 3]}, r"a range or a pair \(start, stop\)"),
        ({"threshold": 0}, "threshold must be above 0"),
        ({"threshold": 1.5}, r"threshold must be a number in \[0, 1\]"),
        ({"null_logit": 0.0}, "null_key"),
        ({"kernel": "flash"}, "kernel must be one of auto, values, dense"),
        ({"kernel": "values", "beta": 1.5}, "whole beta"),
        ({"kernel": "values", "beta": 0.5, "image_self": None, "image_to_state": "A6"}, "whole"),
    ],
)
def test_what_cannot_mean_anything_is_refused_in_words(arguments, said):
    with pytest.raises(InvalidArgument, match=said):
        Gate(**arguments)


def test_an_unknown_site_or_field_is_refused():
    with pytest.raises(InvalidArgument, match="directions must be one of image_self"):
        Gate.mut3r(directions=["state_self"])
    with pytest.raises(InvalidArgument, match=r"gate: unknown \['bias'\]"):
        Gate.from_dict({"bias": 1})
    with pytest.raises(InvalidArgument, match="site must be one of"):
        Gate().inert(site="state_self")


def test_the_kernel_follows_beta_and_device_unless_it_is_named():
    gate = Gate(image_self="C2", image_to_state=None, beta=1.5, kernel="values")
    assert gate.kernel_at("image_self") == "values"
    assert Gate(beta=1.5).kernel_at("image_self", "cuda") == "dense"
    assert Gate(beta=1.5).kernel_at("state_to_image", "cuda") == "values"
    assert Gate(beta=1.5).kernel_at("state_to_image", "cpu") == "dense"
    assert Gate(state_to_image="B2").kernel_at("state_to_image", "cpu") == "values"
    assert Gate(beta=9).kernel_at("image_self", "cuda") == "dense"
    assert Gate(beta=2).kernel_at("image_self", "cuda") == "values"
    assert Gate(beta=2).kernel_at("image_self", "cpu") == "dense"
    assert Gate(beta=2, kernel="values").kernel_at("image_self", "cpu") == "values"


def test_other_sites_have_the_realisations_of_the_direction_they_are_like():
    gate = Gate.at({"view1_self": "C1", "view2_to_view1": "B4", "view1_to_view2": "A5"})
    assert gate.sites == ("view1_self", "view1_to_view2", "view2_to_view1")
    assert gate.realisation("view2_to_view1") == "hard"
    assert gate.realisation("image_self") is None
    assert gate == Gate.at({"view1_to_view2": "temperature", "view2_to_view1": "hard",
                            "view1_self": "pair_bias"})  # fmt: skip
    assert len({gate, Gate.from_json(gate.to_json())}) == 1
    assert gate.only("view1_self") == Gate.at({"view1_self": "C1"})
    for given, message in (
        ({"view1_self": "A1"}, "unknown realisation 'A1' for view1_self; known: C1"),
        ({"view2_to_view1": "B3"}, "unknown realisation 'B3'"),
        ({"view1_to_view2": "A6"}, "unknown realisation 'A6'"),
        ({"view1_to_view2": "A3"}, "unknown realisation 'A3'"),
        ({"encoder_self": "C1"}, "got 'encoder_self'"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            Gate.at(given)
    with pytest.raises(InvalidArgument, match="elsewhere says of sites how they are gated"):
        Gate(elsewhere=3)


def test_gates_of_the_three_directions_are_stored_as_they_were():
    assert "elsewhere" not in Gate.mut3r().to_dict()
    assert Gate.at({"image_self": "C1"}) == Gate(state_to_image=None, image_to_state=None)
