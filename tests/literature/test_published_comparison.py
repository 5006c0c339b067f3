"""Own scores beside the literature: one protocol, one unit, the spread in sight."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.literature import compare, published
from mut3r_analysis.literature.rows import UNSPECIFIED, read_rows


def protocol_of(dataset: str, task: str, source: str, metric: str) -> str:
    rows = published("CUT3R", dataset, task, metric=metric)
    return str(rows[rows["source"].str.startswith(source)]["protocol"].iloc[0])


SINTEL_POSE = protocol_of("Sintel", "pose", "CUT3R", "ate")
TUM_POSE = protocol_of("TUM-dynamics", "pose", "CUT3R", "ate")
BONN_DEPTH = protocol_of("Bonn", "video-depth", "CUT3R", "abs_rel")
NAMED = sorted(set(read_rows()["protocol"]) - {UNSPECIFIED})


def pose_scores(protocol: str = SINTEL_POSE, ate: tuple[float, ...] = (0.1, 0.3)) -> xr.Dataset:
    scores = xr.Dataset(attrs={"protocol": protocol})
    for metric, unit in (("ate", "m"), ("rpe_translation", "m"), ("rpe_rotation", "degree")):
        scores[metric] = ("sequence", np.array(ate), {"units": unit})
        scores[f"mean_{metric}"] = ((), np.nanmean(ate), {"units": unit})
    return scores.assign_coords(sequence=[f"scene-{index}" for index in range(len(ate))])


def depth_scores(delta: float, unit: str) -> xr.Dataset:
    return xr.Dataset(
        {
            "delta_1": ("sequence", [delta, delta], {"units": unit}),
            "mean_delta_1": ((), delta, {"units": unit}),
        },
        attrs={"protocol": BONN_DEPTH},
    )


def test_own_and_published_numbers_stand_side_by_side() -> None:
    table = compare(pose_scores())
    assert table.index.names == ["metric", "system"]
    row = table.loc[("ate", "MUT3R")]
    assert row["own"] == pytest.approx(0.2)
    assert (row["minimum"], row["maximum"], row["spread"]) == (0.228, 0.228, 0.0)
    assert row["n_sources"] == 1
    assert row["unit"] == "m"
    assert table.attrs["protocol"] == SINTEL_POSE


def test_the_spread_of_disagreeing_sources_is_shown_with_its_conflict() -> None:
    row = compare(pose_scores()).loc[("ate", "CUT3R")]
    assert (row["minimum"], row["maximum"]) == (0.208, 0.216)
    assert row["spread"] == pytest.approx(0.008)
    assert row["n_sources"] == 5
    assert row["conflict"] == "C8"
    assert "ZipMap" in row["sources"]


def test_a_misleading_baseline_is_marked() -> None:
    table = compare(pose_scores())
    assert table.loc[("rpe_rotation", "CUT3R"), "conflict"] == "C1;C8"


def test_every_system_of_the_protocol_appears_once_per_metric() -> None:
    table = compare(pose_scores())
    rows = published(protocol=SINTEL_POSE)
    assert table.index.is_unique
    assert set(table.index) == set(zip(rows["metric"], rows["system"], strict=True))


@pytest.mark.parametrize(("delta", "unit"), [(0.9, "1"), (90.0, "%")])
def test_own_shares_are_converted_to_the_unit_of_the_literature(delta: float, unit: str) -> None:
    row = compare(depth_scores(delta, unit)).loc[("delta_1", "CUT3R")]
    assert row["own"] == pytest.approx(90.0)
    assert row["unit"] == "%"
    assert row["maximum"] == 93.7


def test_several_evaluations_get_a_column_each() -> None:
    better = pose_scores(ate=(0.1, 0.2, 0.1)).drop_vars("rpe_rotation")
    table = compare({"plain": pose_scores(), "gated": better})
    assert table.columns[:3].tolist() == ["unit", "plain", "gated"]
    assert np.isnan(table.loc[("rpe_rotation", "CUT3R"), "gated"])
    assert table.attrs["n_sequences"] == {"plain": 2, "gated": 3}


def test_sequences_without_a_value_are_counted() -> None:
    table = compare(pose_scores(ate=(0.1, np.nan, 0.2)))
    assert table.attrs["n_sequences"] == {"own": 3}
    assert table.attrs["n_valid"] == {"own": 2}


def test_a_number_without_sequences_is_taken_as_it_is() -> None:
    scores = xr.Dataset({"ate": ((), 0.2, {"units": "m"})}, attrs={"protocol": SINTEL_POSE})
    assert set(compare(scores)["own"]) == {0.2}


def test_rows_to_compare_against_can_be_chosen() -> None:
    table = compare(pose_scores(), published("TTT3R", protocol=SINTEL_POSE))
    assert set(table.index.get_level_values("system")) == {"TTT3R"}


def test_published_rows_of_another_protocol_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="different protocols cannot be compared") as caught:
        compare(pose_scores(), published("CUT3R", "TUM-dynamics", metric="ate"))
    assert SINTEL_POSE in str(caught.value)
    assert TUM_POSE in str(caught.value)


def test_rows_without_a_protocol_are_refused() -> None:
    with pytest.raises(InvalidArgument, match=UNSPECIFIED):
        compare(pose_scores(), published("MUT3R", "TUM-dynamics", metric="rpe_rotation"))


def test_own_scores_of_two_protocols_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="once per protocol"):
        compare({"sintel": pose_scores(), "tum": pose_scores(TUM_POSE)})


@pytest.mark.parametrize("protocol", [None, "", UNSPECIFIED, 3])
def test_scores_without_a_protocol_are_refused(protocol: object) -> None:
    scores = pose_scores()
    scores.attrs["protocol"] = protocol
    with pytest.raises(InvalidArgument, match="under a named protocol"):
        compare(scores)


def test_a_protocol_nobody_published_lists_those_that_were() -> None:
    with pytest.raises(InvalidArgument, match="Known: ") as caught:
        compare(pose_scores("my-own"))
    assert SINTEL_POSE in str(caught.value)


def test_no_scores_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="no scores"):
        compare({})


def test_what_is_no_dataset_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="are a DataArray"):
        compare({"pose": pose_scores()["ate"]})


def test_metrics_nobody_published_are_refused_with_both_lists() -> None:
    scores = pose_scores().rename(ate="error").drop_vars(["rpe_translation", "rpe_rotation"])
    with pytest.raises(InvalidArgument, match="no metric is both scored") as caught:
        compare(scores)
    assert "error" in str(caught.value)
    assert "rpe_rotation" in str(caught.value)


def test_a_missing_mean_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="'mean_ate' is absent"):
        compare(pose_scores().drop_vars("mean_ate"))


def test_values_per_frame_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="expected values per"):
        compare(pose_scores().rename(sequence="frame"))


@pytest.mark.parametrize("unit", [None, "cm", "%"])
def test_a_missing_or_foreign_unit_is_refused(unit: str | None) -> None:
    scores = pose_scores()
    scores["ate"].attrs = {} if unit is None else {"units": unit}
    with pytest.raises(InvalidArgument, match="'m'; set or convert the unit"):
        compare(scores)


@given(protocol=st.sampled_from(NAMED), own=st.floats(0.001, 100))
@settings(max_examples=30, deadline=None)
def test_the_spread_encloses_every_source_of_the_protocol(protocol: str, own: float) -> None:
    rows = published(protocol=protocol)
    scores = xr.Dataset(
        {row.metric: ((), own, {"units": row.unit}) for row in rows.itertuples()},
        attrs={"protocol": protocol},
    )
    table = compare(scores)
    assert (table["own"] == own).all()
    for (metric, system), row in table.iterrows():
        values = rows[(rows["metric"] == metric) & (rows["system"] == system)]["value"]
        assert row["minimum"] == min(values)
        assert row["maximum"] == max(values)
        assert row["n_sources"] == len(values)
