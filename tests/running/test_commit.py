"""Commits print in words, read their words back, and refuse what means nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.running import Commit, Configuration

parts = {
    "read": st.sampled_from(["gated", "probe", "split", "split_rev"]),
    "write": st.sampled_from(["gated", "probe", "hold", "mix(0.25)", "mix(0)"]),
    "memory": st.sampled_from(["follow", "gated", "probe", "hold"]),
    "masked_mean": st.booleans(),
    "rate": st.sets(st.sampled_from(["ttt3r", "ttsa3r", "static_mass", "frame(0.5)"])),
    "warm_up": st.integers(0, 9),
    "reset_cue": st.sampled_from(["clear", "keep"]),
    "reset_pose": st.sampled_from([None, "learned", "memory"]),
}
resets = st.integers(1, 99) | st.sampled_from(["motion(0.3)", "saturation(12.5)"])
commits = st.builds(Commit, **parts, reset=st.none() | resets) | st.builds(
    Commit, **parts, reset=resets, reset_chain=st.booleans()
)


@given(commits)
def test_words_and_json_round_trip(commit):
    assert Commit.parse(str(commit)) == commit
    assert Commit.from_json(commit.to_json()) == commit
    assert hash(Commit.from_dict(commit.to_dict())) == hash(commit)
    assert len({commit, Commit.parse(str(commit))}) == 1


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("", "rw.gg"),
        ("warm.1 rw.gp", "rw.gp warm.1"),
        ("write.hold", "hold"),
        ("read.probe write.gated", "rw.pg"),
        ("rate.frame*one", "rw.gg rate.frame(1)"),
    ],
)
def test_words_are_put_in_order(text, short):
    assert str(Commit.parse(text)) == short


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gg", r"rw.gg \| rw.gp"),
        ("rwgg", r"in a commit \(did you mean 'rw.gg'\?\); it is made of"),
        ("resets.100", r"did you mean 'reset.100'\?"),
        ("hodl", r"did you mean 'hold'\?"),
        ("rw.gg rw.gp", "says read, write twice"),
        ("mix(2)", r"\[0, 1\]"),
        ("write.mix", "share of mix"),
        ("write.hold(1)", "takes no number"),
        ("rate.fast", "must be one of cut3r, ttt3r"),
        ("rate.ttt3r*ttt3r", "named twice"),
        ("rate.frame(1.5)", r"\[0, 1\]"),
        ("rate.ttt3r(2)", "takes no number"),
        ("warm.-1", "from 0 on"),
        ("reset.0", "from 1 on"),
        ("reset.2.5", "whole number"),
        ("reset.cue.drop", "clear, keep"),
        ("mem.all", "memory must be one of"),
    ],
)
def test_words_without_meaning_are_refused(text, message):
    with pytest.raises(InvalidArgument, match=message):
        Commit.parse(text)


@given(commits)
def test_shares_say_which_pass_is_carried_on(commit):
    assert 0 <= commit.written_share <= 1
    assert commit.keeps_probe or (commit.read == "gated" and commit.remembered_share == 1)


def test_configurations_round_trip_and_name_their_parts():
    whole = Configuration(commit="rw.gg reset.9")
    assert Configuration.from_dict(whole.to_dict()) == whole
    assert Configuration.of({"commit": "reset.9"}) == whole
    with pytest.raises(InvalidArgument, match="cue, gate, commit"):
        Configuration.of({"gates": None})
