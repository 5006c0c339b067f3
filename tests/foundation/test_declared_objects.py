"""Declared objects: what was stored stays readable, and a field's type says what may be given."""

import copy
import pickle
from dataclasses import replace

import pytest

import mut3r_analysis as m3
from mut3r_analysis.attention import Capture
from mut3r_analysis.errors import InvalidArgument, Mut3rError
from mut3r_analysis.foundation.layers import Layers
from mut3r_analysis.motion import Cue, Gate
from mut3r_analysis.running import Commit

SCENE = m3.open_sequence("scenes/orbit-03", stop=1)
STORED_CAPTURE = (
    '{"archive": "float16", "budget": 2147483648, "dtype": "float32", "frames": [0, 1], "heads": '
    '[1], "layers": [0, 3], "maps": ["image_self", "state_self"], "sites": ["image_self", '
    '"image_to_state", "state_self", "state_to_image"], "state": false, "statistics": ["entropy"]}'
)
STORED_GATE = (
    '{"beta": 1.0, "heads": [1, 3], "image_self": "pair_bias", "image_to_state": "output_scale", '
    '"kernel": "auto", "layers": [0, 6], "null_logit": null, "of_depth": 12, "state_to_image": '
    '"key_bias", "threshold": 0.5}'
)
STORED_CUE = (
    '{"control": null, "decay": null, "diagonal": true, "head_reduction": "mean", "heads": [0, 2], '
    '"layers": [2, 5], "normaliser": "zscore", "of": null, "pool": "mean", "pose": true, '
    '"reading": "entropy", "running": null, "seed": 0, "sharpness": 1.0, "sign": 1, "site": '
    '"image_self", "source": "previous_ema(0.8)"}'
)
STORED_COMMIT = (
    '{"masked_mean": false, "memory": "follow", "rate": ["static_mass", "frame(0.5)"], "read": '
    '"gated", "reset": null, "reset_cue": "clear", "reset_pose": null, "warm_up": 1, "write": '
    '"probe"}'
)


@pytest.mark.parametrize(
    ("kind", "text", "field", "held"),
    [
        (Capture, STORED_CAPTURE, "layers", (0, 3)),
        (Gate, STORED_GATE, "layers", range(6)),
        (Gate, STORED_GATE.replace("[0, 6]", "[2, 2]"), "layers", range(2, 2)),
        (Cue, STORED_CUE, "layers", range(2, 5)),
        (Commit, STORED_COMMIT, "rate", ("static_mass", "frame(0.5)")),
    ],
)
def test_what_stores_hold_is_read_with_its_meaning_and_written_to_the_letter(
    kind, text, field, held
):
    made = kind.from_json(text)
    assert getattr(made, field) == held
    assert made.to_json() == text


def test_a_list_is_chosen_layers_a_range_consecutive_ones_and_a_pair_only_where_that_is_clear():
    assert Gate(layers=(0, 3)) == Gate(layers=range(3))
    assert Cue(layers=(0, 3)) == Cue(layers=range(3))
    assert Capture(layers=range(3)) == Capture(layers=[0, 1, 2]) == Capture(layers=(0, 1, 2))
    for kind, ambiguous in ((Capture, (0, 3)), (Gate, [0, 3]), (Cue, [0, 3])):
        with pytest.raises(InvalidArgument, match="layers"):
            kind(layers=ambiguous)


def test_chosen_layers_survive_copies():
    capture = Capture(layers=[3, 0])
    copies = (
        replace(capture, state=True),
        copy.deepcopy(capture),
        pickle.loads(pickle.dumps(capture)),
    )
    for each in copies:
        assert each.layers == capture.layers == Layers([0, 3])
    assert eval(repr(capture), {"Capture": Capture}) == capture


def test_fields_cannot_be_set_afterwards():
    with pytest.raises(AttributeError):
        Capture().layers = [1]


@pytest.mark.parametrize(
    ("make", "meant"),
    [
        (lambda: Capture(statistics=["entropi"]), "entropy"),
        (lambda: Capture(sites=["image_slf"]), "image_self"),
        (lambda: Cue(reading="entropie"), "entropy"),
        (lambda: Cue(source="two_pas"), "two_pass"),
        (lambda: Gate(image_self="pair_bais"), "pair_bias"),
        (lambda: Gate.from_dict({"bta": 1.0}), "beta"),
        (lambda: m3.load_backbone("random:smal"), "small"),
        (lambda: m3.load_backbone("tiny", update="ttt3"), "ttt3r"),
        (lambda: m3.load_backbone("tinny"), "tiny"),
        (lambda: m3.load_backbone("tiny", precision="float23"), "float32"),
        (lambda: m3.open_sequence("scenes/orbit-3"), "orbit-03"),
        (lambda: m3.open_sequence("sintl:/data#alley_2"), "sintel"),
        (lambda: m3.run("tiny", SCENE, outputs=("poses",)), "pose"),
    ],
)
def test_a_name_that_is_not_known_is_refused_with_the_one_that_was_meant(make, meant):
    with pytest.raises(Mut3rError, match=rf"did you mean '?{meant}"):
        make()
