"""The playground's numbers are those of the runs it names, and inert settings say why."""

import numpy as np
import pytest

import mut3r_analysis as m3
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion import Cue, Gate
from mut3r_analysis.widgets import GatePlayground
from mut3r_analysis.widgets.gate_playground import METRICS

SETTING = {
    "ask": "setting", "reading": "entropy", "beta": 2.0, "first_layer": 1, "last_layer": 3,
    "image_self": "key_bias", "state_to_image": "off", "image_to_state": "output_scale", "frame": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def playground(model, scene) -> GatePlayground:
    return GatePlayground(model, scene)


def test_maps_and_scores_are_those_of_the_two_runs(playground, model, scene):
    content, arrays = playground.answer(SETTING)
    gate = Gate(
        beta=2, layers=(1, 3), image_self="key_bias", state_to_image=None,
        image_to_state="output_scale",
    )  # fmt: skip
    plain = m3.run(model, scene, progress=False)
    gated = m3.run(model, scene, cue=Cue.mut3r(reading="entropy"), gate=gate, progress=False)
    for array, run in zip(arrays, (plain, gated), strict=False):
        np.testing.assert_array_equal(array, run["prediction/depth"].sel(frame=2).values)
    np.testing.assert_array_equal(
        arrays[content["cue"]], gated["cue/motion"].sel(frame=2).values.astype(np.float32)
    )
    before, after = (run["prediction/depth"].sel(frame=2).values for run in (plain, gated))
    np.testing.assert_allclose(arrays[content["change"]], after / before - 1, rtol=1e-6, atol=1e-6)
    assert arrays[content["image"]].shape == (48, 64, 3)
    scores = [m3.evaluate(run) for run in (plain, gated)]
    for name in METRICS:
        assert content["scores"][name] == [float(each[name][0]) for each in scores]
    assert content["inert"] is None
    assert content["layers"] == "[1, 3) of 4 layers"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"beta": 0.0}, "beta = 0"),
        ({"first_layer": 3}, "range of layers is empty"),
        ({"image_self": "off", "image_to_state": "off"}, "no direction is gated"),
        ({"image_self": "off", "image_to_state": "literal"}, "softmax does not see row shifts"),
    ],
)
def test_an_inert_setting_says_why_and_shows_the_plain_numbers(playground, change, reason):
    content, arrays = playground.answer(SETTING | change)
    assert reason in content["inert"]
    np.testing.assert_array_equal(arrays[0], arrays[1])
    assert all(before == after for before, after in content["scores"].values())


def test_the_true_mask_can_be_the_cue(playground):
    content, arrays = playground.answer(SETTING | {"reading": "mask"})
    cue, truth = arrays[content["cue"]], arrays[content["truth"]]
    cells = truth.reshape(6, 8, 8, 8).mean((1, 3))
    np.testing.assert_allclose(cue, cells, atol=1e-6)


def test_what_does_not_exist_is_refused(playground, model):
    with pytest.raises(InvalidArgument, match="image_self must be one of off, pair_bias"):
        playground.image_self = "magic"
    with pytest.raises(InvalidArgument, match=r"first_layer must be .* from 0 to 4"):
        playground.first_layer = 5
    with pytest.raises(InvalidArgument, match="reading must be one of"):
        playground.reading = "horoscope"
    with pytest.raises(InvalidArgument, match="stop=32 or less"):
        GatePlayground(model, m3.open_sequence("scenes/long-01", stop=40))


def test_figure_and_page_are_made(playground, tmp_path):
    page = playground.save_html(tmp_path / "playground.html")
    assert page.stat().st_size > 10_000
    titles = [axis.get_title() for axis in playground.figure().axes]
    assert titles[:3] == ["plain", "gated", "relative change"]
    playground.beta = 0.0
    assert [axis.get_title() for axis in playground.figure().axes][:1] == ["plain"]
