"""The published numbers: what ships, what it preserves, how it is filtered."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mut3r_analysis.errors import InvalidArgument, Mut3rError
from mut3r_analysis.foundation.bundled import data_path
from mut3r_analysis.literature import published
from mut3r_analysis.literature.rows import COLUMNS, UNSPECIFIED, read_rows
from mut3r_analysis.metrics.catalogue import PROTOCOLS

KINDS = {"paper", "quotation", "rerun", "readme", "summary"}
TASKS = {
    "video-depth",
    "mono-depth",
    "pose",
    "reconstruction",
    "multiview",
    "motion",
    "cost",
}
UNITS = {"1", "%", "m", "mm", "degree", "frame/s", "ms", "s", "GB", "million", "unstated"}

# One row of the raw collection appears twice: CUT3R on ADT in Easi3R's Table 3, ATE 0.084.
DROPPED = Counter({"0.084": 1})


@pytest.fixture
def raw(shared: Path) -> list[dict[str, str]]:
    with (shared / "reference" / "published.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def shipped() -> list[dict[str, str]]:
    with data_path("published", "published.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_schema_is_the_documented_one(shipped: list[dict[str, str]]) -> None:
    assert tuple(shipped[0]) == COLUMNS
    table = pd.DataFrame(shipped)
    assert set(table["kind"]) == KINDS
    assert set(table["task"]) == TASKS
    assert set(table["unit"]) == UNITS
    assert (table.drop(columns="note") != "").all(axis=None)
    assert not table.map(lambda cell: cell != cell.strip()).any(axis=None)


def test_metric_and_unit_belong_together() -> None:
    units = read_rows().groupby("metric")["unit"].agg(set).to_dict()
    assert units["abs_rel"] == {"1"}
    assert units["delta_1"] == {"%"}
    assert units["ate"] == units["rpe_translation"] == {"m"}
    assert units["rpe_rotation"] == {"degree"}
    assert units["distance_mean"] == {"unstated"}


def test_no_source_states_one_number_twice() -> None:
    rows = read_rows()
    named = rows[rows["protocol"] != UNSPECIFIED]
    keys = ["system", "dataset", "task", "protocol", "metric", "source"]
    assert not named.duplicated(keys).any()
    assert not rows.duplicated([*keys, "note"]).any()


def test_a_row_without_a_protocol_says_why_and_no_other_does() -> None:
    rows = read_rows()
    assert (rows["note"].str.startswith("protocol: ") == (rows["protocol"] == UNSPECIFIED)).all()


def test_a_protocol_belongs_to_one_dataset_and_task() -> None:
    rows = read_rows()
    named = rows[rows["protocol"] != UNSPECIFIED]
    per_protocol = named.groupby("protocol")[["dataset", "task"]].nunique()
    assert (per_protocol == 1).all(axis=None)


def test_protocols_are_those_of_the_catalogue_and_score_the_metric() -> None:
    rows = read_rows()
    for row in rows[rows["protocol"] != UNSPECIFIED].itertuples():
        known = PROTOCOLS[row.protocol]
        assert row.task == known.task
        assert row.metric in known.metrics
        spoken = row.dataset.casefold().replace("7-", "seven")
        assert spoken.startswith(known.dataset)


def test_shares_lie_between_0_and_100_percent_and_values_are_positive() -> None:
    rows = read_rows()
    assert np.isfinite(rows["value"]).all()
    assert (rows["value"] > 0).all()
    assert (rows.loc[rows["unit"] == "%", "value"] <= 100).all()


def test_every_number_of_the_raw_collection_is_kept_with_its_digits(
    raw: list[dict[str, str]], shipped: list[dict[str, str]]
) -> None:
    before = Counter(row["value"] for row in raw)
    after = Counter(row["value"] for row in shipped)
    assert before - after == DROPPED
    assert not after - before
    assert len(raw) == len(shipped) + DROPPED.total()


def test_numbers_stay_with_their_dataset_and_metric(
    raw: list[dict[str, str]], shipped: list[dict[str, str]]
) -> None:
    """The raw collection, in order and without the repeated row, lines up with what ships."""
    names = {
        "AbsRel": "abs_rel",
        "delta<1.25": "delta_1",
        "ATE": "ate",
        "RPE_trans": "rpe_translation",
        "RPE_rot": "rpe_rotation",
        "RPE_rot(probable)": "rpe_rotation",
        "JM": "region_mean",
        "JR": "region_recall",
        "FM": "boundary_mean",
        "FR": "boundary_recall",
    }
    kept = [row for row in raw if not row["note"].startswith("RTE 0.025")]
    assert len(kept) == len(shipped)
    for source, row in zip(kept, shipped, strict=True):
        assert row["value"] == source["value"]
        if source["metric"] in names:
            assert row["metric"] == names[source["metric"]]
            assert row["dataset"] == source["dataset"]
        stem = row["system"].split(" (")[0].casefold()
        assert (
            source["system"]
            .replace("(alpha)", "-alpha")
            .replace("(beta)", "-beta")
            .casefold()
            .startswith(stem)
        )


@pytest.mark.parametrize(
    ("system", "dataset", "metric", "source", "value"),
    [
        ("CUT3R", "Sintel", "rpe_rotation", "CUT3R arXiv:2501.12387 Table 8", 0.621),
        ("CUT3R", "TUM-dynamics", "rpe_rotation", "CUT3R arXiv:2501.12387 Table 8", 0.473),
        ("CUT3R", "ScanNet", "rpe_rotation", "CUT3R arXiv:2501.12387 Table 8", 0.600),
        ("MUT3R", "Sintel", "ate", "note quoting MUT3R arXiv:2512.03939 Table 2", 0.228),
        ("TTT3R", "ScanNet", "ate", "TTT3R arXiv:2509.26645 Table 6", 0.064),
        ("StreamVGGT", "ScanNet", "ate", "StreamVGGT arXiv:2507.11539 Table 6", 0.048),
        ("Easi3R_monst3r", "DAVIS-16", "region_mean", "Easi3R arXiv:2503.24391 Table 1", 57.7),
    ],
)
def test_a_known_number_is_found(
    system: str, dataset: str, metric: str, source: str, value: float
) -> None:
    rows = published(system, dataset, metric=metric)
    rows = rows[(rows["source"] == source) & (rows["protocol"] != UNSPECIFIED)]
    assert rows["value"].tolist() == [value]


def test_filters_combine_and_accept_patterns_lists_and_any_case() -> None:
    rows = published(["cut3r", "TTT*"], dataset="s*", metric="A?E")
    assert set(rows["system"]) == {"CUT3R", "TTT3R"}
    assert set(rows["dataset"]) == {"Sintel", "ScanNet"}
    assert set(rows["metric"]) == {"ate"}


def test_names_with_brackets_match_themselves() -> None:
    assert set(published("MUT3R (layers 0-2)")["system"]) == {"MUT3R (layers 0-2)"}


def test_no_filter_returns_everything_and_a_copy() -> None:
    table = published()
    assert len(table) == len(read_rows())
    table["value"] = 0.0
    assert published()["value"].min() > 0


def test_known_names_without_common_rows_give_an_empty_table() -> None:
    table = published("DepthCrafter", task="pose")
    assert table.empty
    assert list(table) == [*COLUMNS, "conflict"]


@pytest.mark.parametrize(
    ("column", "given", "listed"),
    [
        ("system", "CUT4R", "'CUT3R'"),
        ("dataset", "Bon", "'Bonn'"),
        ("metric", "AbsRel", "abs_rel"),
        ("task", "depth", "video-depth"),
        ("protocol", "no-such", UNSPECIFIED),
    ],
)
def test_an_unknown_name_lists_the_known_ones(column: str, given: str, listed: str) -> None:
    with pytest.raises(InvalidArgument, match="Known: ") as caught:
        published(**{column: given})
    assert repr(given) in str(caught.value)
    assert listed in str(caught.value)
    assert isinstance(caught.value, Mut3rError)


def test_one_unknown_name_among_known_ones_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="'Bohn'"):
        published(dataset=["Sintel", "Bohn"])


FILTERS = ("system", "dataset", "task", "protocol", "metric")


@given(
    row=st.integers(0, len(read_rows()) - 1),
    columns=st.sets(st.sampled_from(FILTERS)),
)
@settings(max_examples=40, deadline=None)
def test_every_row_is_found_by_its_own_names(row: int, columns: set[str]) -> None:
    names = read_rows().iloc[row]
    found = published(**{column: names[column] for column in columns})
    expected = read_rows()
    for column in columns:
        expected = expected[expected[column] == names[column]]
    pd.testing.assert_frame_equal(found[list(COLUMNS)], expected.reset_index(drop=True))
