"""The motion test measures what its protocol declares, and tells it as it is."""

import argparse

import numpy as np
import pytest
import torch
import yaml
from test_training_loop import SMALL

from mut3r_analysis.backbones import CUT3RConfig, load_backbone
from mut3r_analysis.errors import InvalidArgument, MissingFile
from mut3r_analysis.foundation.bundled import data_path
from mut3r_analysis.metrics.bootstrap import drawn_counts
from mut3r_analysis.motion import Gate
from mut3r_analysis.training import motion_trial
from mut3r_analysis.training.card_words import conditions_text, motion_text
from mut3r_analysis.training.command import add_parser
from mut3r_analysis.training.declared import METRICS, ratio_interval, read_protocol
from mut3r_analysis.training.motion_trial import motion_test

BUNDLED = data_path("training", "tiny-static_protocol.yaml")
CLIPS = 3


def small_protocol():
    values = read_protocol(BUNDLED)
    values["scenes"] = {"mixed": values["scenes"]["mixed"]}
    values["moving"] |= {"frames": 3}
    values["size"] = [32, 24]
    return values


@pytest.fixture
def protocol():
    return small_protocol()


@pytest.fixture(scope="module")
def models():
    config = CUT3RConfig.from_dict({**SMALL["model"], "dec_depth": 6})
    return [load_backbone(config, device="cpu", seed=seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def keep(tmp_path_factory):
    return tmp_path_factory.mktemp("motion") / "parts.json"


@pytest.fixture(scope="module")
def found(models, keep):
    return motion_test(*models, small_protocol(), clips=CLIPS, keep=keep)


def test_a_model_beside_itself_costs_nothing_at_rest_and_meets_no_gap_twice(models, protocol):
    found = motion_test(models[0], models[0], protocol, clips=CLIPS)
    for row in found["rest"].values():
        assert all(value == [1, 1, 1] for value in row.values())
    assert "ate" not in found["rest"]["2"]
    assert found["models"]["model"] == found["models"]["reference"]
    met = [row["reached"] for row in found["conditions"]]
    assert met[:5] == [True] * 5
    gap = found["models"]["model"]["mixed"]["gap"]
    errors = found["models"]["model"]["mixed"]["errors"]
    for row, name in zip(found["conditions"][5:], ("rpe_rotation", "rpe_translation"), strict=True):
        change = 100 * (errors["moving"][name] / errors["twin"][name] - 1)
        assert gap[name][0] == pytest.approx(change)
        assert row["reached"] == (change >= 25)


def test_a_condition_at_rest_is_held_against_the_upper_end(protocol):
    rest = {length: {name: [1.0, 0.9, 1.06] for name in METRICS} for length in ("2", "8")}
    gap = {name: [25.0, 3.0, 40.0] for name in METRICS}
    found = {"names": ["a", "b"], "frames": 8, "rest": rest,
             "models": {"model": {"mixed": {"gap": gap}}}}  # fmt: skip
    rows = motion_trial._conditions(found, protocol["conditions"])
    assert [row["reached"] for row in rows] == [False] * 5 + [True] * 2
    text = conditions_text({"conditions": rows})
    assert text.count("**missed**") == 5
    assert "rotation error of a over b's, T = 2" in text


def test_a_gate_without_sharpness_changes_nothing(models, protocol, monkeypatch):
    monkeypatch.setattr(motion_trial, "DEFAULT_GATE", Gate.mut3r(beta=0.0))
    protocol["gate"]["beta"] = 0.0
    found = motion_test(models[0], models[0], protocol, clips=CLIPS)
    gates = found["models"]["model"]["mixed"]["gates"]
    assert len(gates) == 4 + 2 * 4 + 2
    for row in gates.values():
        for side in ("moving", "twin"):
            for value in row[side].values():
                np.testing.assert_allclose(value, 0, atol=0.05)


def test_scores_are_what_their_rows_say(found):
    found = found["models"]["model"]["mixed"]["gates"]
    assert found["true mask"]["auc"]["among all patches"][0] == pytest.approx(1, abs=0.01)
    assert found["true mask, as it is"]["auc"] == found["true mask"]["auc"]
    assert found["all objects"]["auc"]["among all patches"][0] > 0.7
    for kind in ("among all patches", "moving against resting objects"):
        own, inverted = (found[f"own cue one{end}"]["auc"][kind][0] for end in ("", ", inverted"))
        assert own + inverted == pytest.approx(1)
    scores = torch.rand(2, 3, 4, 5)
    shuffled = motion_trial.shuffled(scores)
    assert not torch.equal(shuffled, scores)
    assert torch.equal(shuffled.flatten(2).sort().values, scores.flatten(2).sort().values)


def test_what_was_measured_is_kept_and_not_measured_again(
    found, keep, models, protocol, monkeypatch
):
    monkeypatch.setattr(motion_trial, "score_clips", None)
    assert motion_test(*models, protocol, clips=CLIPS, keep=keep) == found
    with pytest.raises(TypeError):
        motion_test(*models, protocol, clips=CLIPS + 1, keep=keep)


def test_the_ratio_of_means_is_drawn_together():
    rng = np.random.default_rng(0)
    reference = rng.lognormal(size=200)
    draws = drawn_counts(200, 500)
    assert ratio_interval(1.5 * reference, reference, draws) == pytest.approx((1.5, 1.5, 1.5))
    value, low, high = ratio_interval(reference * rng.normal(1.5, 0.1, 200), reference, draws)
    assert low < value < high
    assert high - low < 0.1


def test_a_protocol_that_is_missing_or_incomplete_is_refused(tmp_path):
    with pytest.raises(MissingFile, match="no protocol"):
        read_protocol(tmp_path / "none.yaml")
    file = tmp_path / "some.yaml"
    file.write_text("model: a\nreference: b\n")
    with pytest.raises(InvalidArgument, match="does not say conditions, gate"):
        read_protocol(file)


def test_the_words_have_every_table_and_every_row(found):
    text = motion_text(found)
    for name in found["names"]:
        for side in ("moving", "frozen twin"):
            assert f"### {name}, mixed, {side}" in text
    for label in found["models"]["model"]["mixed"]["gates"]:
        assert text.count(f"| {label} |") == 4


def test_the_command_prints_conditions_and_findings(protocol, tmp_path, capsys):
    file = tmp_path / "protocol.yaml"
    file.write_text(yaml.safe_dump(protocol))
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    words = ["motion-test", "tiny", "--reference", "tiny", "--protocol", str(file), "--clips", "1"]
    args = parser.parse_args(words)
    assert args.run(args) == 0
    told = capsys.readouterr().out
    assert "at rest rotation error of tiny over tiny's, T = 2: upper end below 1.05 | 1.000" in told
    assert "### tiny, mixed, frozen twin" in told
    assert "own cue two, shuffled" in told
