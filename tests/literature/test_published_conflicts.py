"""The known conflicts of the literature, checked against the numbers themselves."""

import pandas as pd
import pytest

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.literature import conflicts, headlines, published
from mut3r_analysis.literature.conflicts import FLAGS
from mut3r_analysis.literature.rows import UNSPECIFIED

IDS = [f"C{number}" for number in range(1, 15)]


def values(conflict: str, side: int, **cells: str) -> list[float]:
    table = conflicts(conflict)
    table = table[table["side"] == side]
    for column, cell in cells.items():
        table = table[table[column] == cell]
    return table["value"].tolist()


def test_all_fourteen_conflicts_are_there_in_order() -> None:
    assert list(dict.fromkeys(conflicts()["conflict"])) == IDS


@pytest.mark.parametrize("conflict", IDS)
def test_a_conflict_has_two_sides_each_with_numbers_and_sources(conflict: str) -> None:
    table = conflicts(conflict)
    assert table["side"].nunique() >= 2
    assert set(table["flag"]) < set(FLAGS)
    assert table["value"].notna().all()
    for column in ("title", "claim", "statement", "advice", "source"):
        assert (table[column] != "").all()


@pytest.mark.parametrize("conflict", [name for name in IDS if name not in ("C13", "C14")])
def test_the_published_table_marks_the_rows_of_a_conflict(conflict: str) -> None:
    table = published()
    marked = table[table["conflict"].str.split(";").map(lambda ids: conflict in ids)]
    sides = conflicts(conflict)
    columns = ["system", "dataset", "protocol", "metric", "value", "source"]
    pd.testing.assert_frame_equal(
        marked[columns].drop_duplicates().sort_values(columns, ignore_index=True),
        sides[columns].drop_duplicates().sort_values(columns, ignore_index=True),
    )


def test_c1_pairs_a_sintel_baseline_with_a_claim_about_tum() -> None:
    assert set(conflicts("C1")["flag"]) == {"mixes datasets"}
    assert values("C1", 1, dataset="Sintel") == [0.621]
    assert values("C1", 2, dataset="TUM-dynamics") == [0.473]
    assert values("C1", 3, dataset="TUM-dynamics", protocol=UNSPECIFIED) == [0.445]
    assert values("C1", 4, dataset="TUM-dynamics") == [0.446]


def test_c2_holds_three_protocols() -> None:
    table = conflicts("C2")
    per_dataset = table[table["metric"] == "ate"].groupby(["dataset", "system"])["value"].first()
    assert per_dataset["Sintel", "MUT3R"] == 0.228
    assert per_dataset["ADT", "MUT3R"] == 0.058
    assert per_dataset["TUM-dynamics", "CUT3R"] == 0.079


@pytest.mark.parametrize(
    ("conflict", "cells", "first", "second"),
    [
        ("C3", {"metric": "ate"}, [0.219, 0.026, 0.048], [0.251, 0.061, 0.161]),
        ("C4", {"metric": "ate"}, [0.351, 0.075, 0.106], [0.442, 0.058, 0.097]),
        ("C9", {"metric": "rpe_translation"}, [0.063], [0.09366]),
        ("C10", {"system": "CUT3R"}, [0.046], [0.0325]),
        ("C12", {"dataset": "DAVIS-16", "system": "Easi3R_dust3r"}, [53.1, 60.4], [50.1, 55.77]),
        ("C13", {}, [23], [14]),
        ("C14", {}, [15, 200], [1.33, 4]),
    ],
)
def test_both_sides_carry_the_numbers_in_dispute(
    conflict: str, cells: dict[str, str], first: list[float], second: list[float]
) -> None:
    assert values(conflict, 1, **cells) == first
    assert values(conflict, 2, **cells) == second


def test_c4_depth_differs_between_sources() -> None:
    assert values("C4", 1, metric="abs_rel") == [0.060, 0.777]
    assert values("C4", 3, metric="abs_rel") == [0.066, 1.208]


def test_c5_is_what_the_numbers_say() -> None:
    """Completion above distance in Easi3R and MUT3R, never in VGGT4D."""
    table = published(dataset="DyCheck", task="reconstruction")
    wide = table.pivot(index=["source", "system"], columns="metric", values="value")
    own = wide.index.get_level_values("source").str.contains("VGGT4D")
    for statistic in ("mean", "median"):
        nearest = wide[[f"accuracy_{statistic}", f"completion_{statistic}"]]
        possible = nearest.le(wide[f"distance_{statistic}"], axis=0).all(axis=1)
        assert possible[own].all()
        assert not possible[~own].any()
    disputed = conflicts("C5")
    assert set(disputed["protocol"]) == {UNSPECIFIED}


def test_c6_names_three_versions_of_vggt() -> None:
    kitti = conflicts("C6").query("dataset == 'KITTI' and metric == 'abs_rel'")
    assert sorted(kitti["value"]) == [0.061, 0.070, 0.073]
    assert set(conflicts("C6")["side"]) == {1, 2, 3}


def test_c7_separates_quotations_from_the_re_run() -> None:
    tum = conflicts("C7").query("dataset == 'TUM-dynamics' and metric == 'ate'")
    assert tum.set_index("side")["value"].to_dict() == {1: 0.063, 2: 0.074, 3: 0.098}
    assert values("C7", 4, metric="delta_1") == [91.11]


def test_c8_states_the_spread_it_claims() -> None:
    ate = conflicts("C8").query("metric == 'ate'").groupby("dataset")["value"]
    assert (ate.min()["Sintel"], ate.max()["Sintel"]) == (0.208, 0.216)
    assert (ate.min()["ScanNet"], ate.max()["ScanNet"]) == (0.095, 0.099)


def test_c11_equals_a_500_frame_value() -> None:
    (own,) = values("C11", 1, system="CUT3R", dataset="KITTI")
    (metric_scale,) = values("C11", 3)
    assert own == pytest.approx(metric_scale, abs=0.00051)


def test_stride_1_never_shares_a_protocol_with_stride_3() -> None:
    table = conflicts("C10")
    assert not set(table[table["side"] == 1]["protocol"]) & set(
        table[table["side"] == 2]["protocol"]
    )


def test_an_unknown_conflict_lists_the_known_ones() -> None:
    with pytest.raises(InvalidArgument, match="C1, C10"):
        conflicts("C99")


def test_the_headline_pairs_are_labelled() -> None:
    pairs = headlines().set_index(["value_before", "value_after"])
    assert pairs.loc[(88.5, 96.0), "label"] == "metric scale"
    assert pairs.loc[(88.5, 96.0), "protocol_before"] == pairs.loc[(88.5, 96.0), "protocol_after"]
    assert pairs.loc[(0.621, 0.445), "label"] == "mixes datasets"
    assert pairs.loc[(0.621, 0.445), "conflict"] == "C1"
    assert pairs.loc[(0.329, 0.322), "label"] == "distance of corresponding points"
    assert pairs.loc[(0.213, 0.228), "label"] == "degradation"


def test_every_headline_number_is_a_published_row() -> None:
    table = published()
    for pair in headlines().to_dict("records"):
        for when in ("before", "after"):
            found = table[
                (table["metric"] == pair["metric"])
                & (table["system"] == pair[f"system_{when}"])
                & (table["dataset"] == pair[f"dataset_{when}"])
                & (table["protocol"] == pair[f"protocol_{when}"])
                & (table["source"] == pair[f"source_{when}"])
            ]
            assert found["value"].tolist() == [pair[f"value_{when}"]]
            assert set(found["unit"]) == {pair["unit"]}


def test_the_metric_scale_pair_is_not_the_scaled_one() -> None:
    """With per-sequence scale the same systems score 93.7 and 96.2."""
    pair = headlines().query("value_after == 96.0").iloc[0]
    rows = published(["CUT3R", "MUT3R"], "Bonn", "video-depth", metric="delta_1")
    by_protocol = rows.groupby(["protocol", "system"])["value"].agg(set)
    assert by_protocol[pair["protocol_before"], "CUT3R"] == {88.5}
    assert by_protocol[pair["protocol_after"], "MUT3R"] == {96.0}
    assert {93.7} in by_protocol.tolist()
    assert {96.2} in by_protocol.tolist()
