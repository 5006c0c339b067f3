"""A capture says what is recorded, refuses what cannot be, and round-trips."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mut3r_analysis.attention import DECODER_KINDS, SITE_KINDS, STATISTICS, Capture, SiteSize
from mut3r_analysis.attention.sites import Site
from mut3r_analysis.errors import InvalidArgument

CAPTURED_KINDS = tuple(kind.name for kind in SITE_KINDS.values() if kind.captured)
SITES = dict.fromkeys((*DECODER_KINDS, "encoder_self", "head_self"), SiteSize(2, 2, 8))

captures = st.builds(
    Capture,
    statistics=st.one_of(st.just("all"), st.sets(st.sampled_from(list(STATISTICS)))),
    sites=st.just(CAPTURED_KINDS),
    layers=st.one_of(st.none(), st.sets(st.integers(0, 11), min_size=1)),
    heads=st.one_of(st.none(), st.sets(st.integers(0, 11), min_size=1)),
    frames=st.one_of(st.none(), st.just(range(0, 30, 5))),
    maps=st.sets(st.sampled_from(CAPTURED_KINDS)),
    archive=st.sampled_from([True, False, "float32"]),
    state=st.booleans(),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    budget=st.sampled_from([None, 10**9, "2 GiB", "1.5MB"]),
)


@given(captures)
def test_round_trip_through_json(capture):
    again = Capture.from_json(capture.to_json())
    assert again == capture
    assert hash(again) == hash(capture)


def test_defaults_are_all_statistics_of_the_decoder():
    capture = Capture()
    assert capture.statistics == tuple(STATISTICS)
    assert capture.kinds(SITES) == DECODER_KINDS
    assert capture == Capture(statistics="all")


def test_order_and_form_of_arguments_do_not_matter():
    assert Capture(statistics=["entropy", "logit_mean"], layers=range(2)) == Capture(
        statistics=("logit_mean", "entropy"), layers=[1, 0]
    )
    assert Capture(maps="image_self").maps == ("image_self",)
    assert Capture(layers=3).layers == (3,)
    assert Capture(layers=[0, 3]).layers == (0, 3) != Capture(layers=range(3)).layers


def test_all_none_and_numpy_values_are_understood():
    everything = Capture(sites="all", statistics=["all"], maps="all")
    assert everything.kinds(SITES) == tuple(SITES)
    assert all(everything.keeps_map(kind) for kind in SITES)
    assert everything.statistics == tuple(STATISTICS)
    assert Capture(statistics=None, maps=None) == Capture(statistics=(), maps=())
    made = Capture(state=np.True_, archive=np.True_, dtype=np.dtype("float16"), layers=np.arange(2))
    plain = Capture(state=True, archive=True, dtype="float16", layers={0, 1})
    assert made.to_json() == plain.to_json()


@pytest.mark.parametrize(
    ("text", "count"),
    [("2 GiB", 2 * 2**30), ("10MB", 10**7), ("1.5 kB", 1500), ("500", 500), (np.int64(7), 7)],
)
def test_budget_in_words(text, count):
    assert Capture(budget=text).budget == count


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"statistics": ["entropie"]}, "unknown statistics.*known: logit_mean"),
        ({"sites": ["self"]}, "unknown sites.*image_self"),
        ({"maps": ["img"]}, "unknown maps"),
        ({"maps": ["encoder_self"]}, "name the same kinds in sites"),
        ({"layers": [-1]}, "at least one index from 0 on"),
        ({"layers": []}, "at least one index"),
        ({"layers": (0, 3)}, r"write \[0, 3\] for these two, or range\(0, 3\)"),
        ({"heads": [0.5]}, "heads must be None"),
        ({"frames": "all"}, "collection of at least one index"),
        ({"archive": "int8"}, "archive must be"),
        ({"dtype": "bfloat16"}, "dtype must be"),
        ({"budget": 0}, "positive number of bytes"),
        ({"budget": "two gigs"}, "'2 GiB'"),
        ({"budget": True}, "positive number of bytes"),
        ({"statistics": 5}, "'all', a name or a collection of names"),
        ({"maps": True}, "'all', a name or a collection of names"),
        ({"state": "yes"}, "state must be True or False"),
    ],
)
def test_refusals_say_what_is_allowed(arguments, message):
    with pytest.raises(InvalidArgument, match=message):
        Capture(**arguments)


def test_unknown_fields_in_a_file_are_refused():
    with pytest.raises(InvalidArgument, match="capture: unknown"):
        Capture.from_dict({"statistic": "all"})
    with pytest.raises(InvalidArgument, match="not the JSON of a capture"):
        Capture.from_json("nope")
    with pytest.raises(InvalidArgument, match="an object of its fields"):
        Capture.from_json("5")


def test_sites_have_names():
    assert str(Site("state_to_image", 3)) == "state_to_image.3"
    with pytest.raises(InvalidArgument, match="unknown site kind"):
        Site("img.self", 0)
