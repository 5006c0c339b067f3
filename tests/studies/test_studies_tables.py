"""The paper's tables: what is rebuilt, what a change means, and what may stand beside it."""

from dataclasses import replace

import nbformat
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import mut3r_analysis as m3
from mut3r_analysis.errors import InvalidArgument, MissingFile
from mut3r_analysis.metrics import protocol as find_protocol
from mut3r_analysis.notebooks.execution import execute_notebook, find_notebook
from mut3r_analysis.running import Commit
from mut3r_analysis.studies.finding import HIGHER, LOWER, findings_of
from mut3r_analysis.studies.paper_tables import comparison
from mut3r_analysis.studies.paper_tables.comparison import (
    delta_columns,
    paper_columns,
    stand_in_column,
)
from mut3r_analysis.studies.paper_tables.published import (
    ABLATION,
    EVERY,
    PAPER_TABLES,
    conflict_table,
    gating_deltas,
    published_table,
)
from mut3r_analysis.studies.paper_tables.rebuilt import (
    STAND_INS,
    bundled_values,
    named_stand_in,
    own_values,
    read_results,
    runs_of,
    system_configurations,
)
from mut3r_analysis.studies.paper_tables.table import beside_published

NOTEBOOK = "11_paper_tables"


@pytest.fixture(scope="module")
def tables():
    return {name: published_table(name) for name in PAPER_TABLES}


def number(table, protocol, metric, system):
    key = ["protocol", "metric", "system"]
    return table.set_index(key)["value"].loc[protocol, metric, system]


@pytest.mark.parametrize(
    ("name", "protocol", "metric", "system", "value"),
    [
        ("depth", "video-depth:bonn5:metric", "delta_1", "CUT3R", 88.5),
        ("depth", "video-depth:bonn5:metric", "delta_1", "MUT3R", 96.0),
        ("depth", "video-depth:bonn5:scale_irls", "abs_rel", "TTT3R", 0.068),
        ("pose", "pose:sintel14:sim3", "ate", "MUT3R", 0.228),
        ("pose", "pose:tum8-stride3-90:sim3", "rpe_rotation", "CUT3R", 0.473),
        # The paper's own baseline, not the one of another paper (0.326).
        ("reconstruction", "reconstruction:dycheck-stride10:sim3", "distance_mean", "CUT3R", 0.329),
        ("ablation", "video-depth:bonn5:metric", "abs_rel", "MUT3R (layers 0-2)", 0.099),
        ("long", "pose:tum8-stride1-1000:sim3", "ate", "TTT3R+Reset", 0.093),
        ("long", "pose:tum8-stride1-1000:sim3", "rpe_rotation", "CUT3R+Reset", 0.403),
        ("long", "video-depth:kitti13-500:metric", "delta_1", "TTT3R+Reset", 88.5),
        ("long", "video-depth:kitti13-500:metric", "abs_rel", "CUT3R", 0.152),
    ],
)
def test_tables_hold_the_published_values(tables, name, protocol, metric, system, value):
    assert number(tables[name], protocol, metric, system) == value


def test_every_headline_of_one_protocol_is_a_change_of_a_table(tables):
    deltas = [gating_deltas(table) for table in tables.values()]
    pairs = m3.headlines()
    pairs = pairs[pairs["protocol_before"] == pairs["protocol_after"]]
    assert len(pairs) == 3
    for pair in pairs.itertuples():
        found = [
            (row.before, row.after)
            for one in deltas
            for row in one.itertuples()
            if (row.protocol, row.metric) == (pair.protocol_before, pair.metric)
        ]
        assert (pair.value_before, pair.value_after) in found


def test_what_has_no_protocol_is_no_common_ground(tables):
    loose = tables["pose"].query("not comparable")
    gated = loose[loose["system"] == "MUT3R"]
    assert gated["value"].tolist() == [0.445]
    assert gated["conflict"].tolist() == ["C1"]
    # No baseline is borrowed for it from another protocol.
    assert not set(loose["cell"]) & set(gating_deltas(tables["pose"]).index)


def test_digits_are_those_of_the_source_also_where_a_value_ends_in_zero(tables):
    cell = ("Bonn, scale per sequence: AbsRel", "MUT3R")
    bonn = tables["depth"].set_index(["cell", "system"]).loc[cell]
    assert bonn["value"] == 0.07
    assert bonn["half_unit"] == pytest.approx(0.0005)
    text = paper_columns(tables["depth"]).loc["Bonn, scale per sequence: AbsRel", "MUT3R"]
    assert text == "0.070"


def test_an_unknown_table_is_refused():
    with pytest.raises(InvalidArgument, match="depth, pose"):
        published_table("speed")


def made_table(before, after, metric="abs_rel", half_unit=0.0005, sources=(1, 0.0)):
    """A published table of one number."""
    count, scatter = sources
    return pd.DataFrame(
        {
            "cell": "Data, metric scale: number",
            "system": pd.Categorical(["CUT3R", "MUT3R"]),
            "value": [before, after],
            "half_unit": half_unit,
            "minimum": [before, after],
            "maximum": [before + scatter, after],
            "n_sources": [count, 1],
            "conflict": ["C2;C10", "C2"],
            "source": ["one", "two"],
            "dataset": "Data",
            "protocol": "video-depth:bonn5:metric",
            "metric": metric,
            "unit": "1",
            "sequences": 5,
            "comparable": True,
        }
    )


@settings(max_examples=30)
@given(
    before=st.integers(2, 900),
    after=st.integers(2, 900),
    hidden=st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)),
)
def test_bounds_hold_for_whatever_was_rounded_away(before, after, hidden):
    delta = gating_deltas(made_table(before / 1000, after / 1000)).iloc[0]
    true_before, true_after = (v + h for v, h in zip((before, after), hidden, strict=True))
    change = 100 * (true_after / true_before - 1)
    assert float(delta["lower"]) - 1e-6 <= change <= float(delta["upper"]) + 1e-6
    assert bool(delta["rounding"]) == (abs(after - before) <= 1)
    if not bool(delta["rounding"]):
        assert np.sign(change) == np.sign(float(delta["change"]))


@pytest.mark.parametrize(
    ("metric", "before", "after", "better"),
    [("abs_rel", 0.2, 0.1, 1), ("abs_rel", 0.1, 0.2, -1), ("delta_1", 0.8, 0.9, 1),
     ("delta_1", 0.9, 0.8, -1), ("ate", 0.1, 0.1, 0)],
)  # fmt: skip
def test_better_means_fewer_errors_or_more_inliers(metric, before, after, better):
    assert gating_deltas(made_table(before, after, metric))["better"].item() == better


def test_a_change_is_put_beside_the_scatter_of_its_baseline():
    inside = gating_deltas(made_table(0.046, 0.042, sources=(3, 0.004)))
    beyond = gating_deltas(made_table(0.046, 0.041, sources=(3, 0.004)))
    single = gating_deltas(made_table(0.046, 0.042))
    assert [bool(each["in_scatter"].item()) for each in (inside, beyond, single)] == [
        True, False, False,
    ]  # fmt: skip
    assert np.isnan(single["scatter"].item())
    words = delta_columns(made_table(0.046, 0.042, sources=(3, 0.004))).iloc[0]
    assert words["scatter of the baseline"] == "0.004, as large"
    assert words["conflicts"] == "C2;C10"


def test_conflicts_are_listed_with_how_many_numbers_they_touch(tables):
    listed = conflict_table(list(tables.values()))
    assert listed.loc["C5", "where"] == "DyCheck"
    assert listed.loc["C5", "numbers"] == 8  # accuracy and completion, mean and median, twice
    assert {"C1", "C2", "C8"} <= set(listed.index)
    assert conflict_table([made_table(0.1, 0.2)])["numbers"].to_dict() == {"C2": 2, "C10": 1}


def test_systems_are_what_their_names_say():
    systems = system_configurations(2.0, EVERY)
    assert str(systems["CUT3R+Reset"].commit) == "rw.gg reset.100 reset.chain reset.pose.learned"
    assert systems["TTT3R+Reset"].commit == Commit.ttt3r(reset=100, reset_chain=True)
    assert systems["CUT3R"].gate is None
    assert systems["CUT3R"].cue is None
    assert systems["TTT3R"].commit == Commit.ttt3r()
    gates = {name: each.gate for name, each in systems.items() if each.gate is not None}
    assert {gate.beta for gate in gates.values()} == {2.0}
    assert gates["MUT3R"].layer_range(12) == range(6)
    assert gates["MUT3R (layers 0-12)"].layer_range(12) == range(12)
    assert gates["MUT3R (layers 0-2)"].layer_range(6) == range(1)
    for direction in ("image_self", "image_to_state", "state_to_image"):
        without = gates[f"MUT3R (without {direction.replace('_', '-')} gate)"]
        assert getattr(without, direction) is None
        assert replace(without, **{direction: getattr(gates["MUT3R"], direction)}) == gates["MUT3R"]
    assert set(ABLATION) < set(systems)


def own(scores, metric="abs_rel", protocol="default:depth:scale_median", unit="1"):
    """Own values of CUT3R and MUT3R from errors (system, sequence)."""
    scores = np.asarray(scores, float)
    mean = scores.mean(-1)
    return {
        protocol: xr.Dataset(
            {
                "scores": (("metric", "system", "sequence"), scores[None]),
                "value": (("metric", "system"), mean[None]),
                "lower": (("metric", "system"), mean[None] - 0.01),
                "upper": (("metric", "system"), mean[None] + 0.01),
                "n": (("metric", "system"), [[scores.shape[1]] * len(scores)]),
            },
            coords={
                "metric": [metric],
                "system": ["CUT3R", "MUT3R"][: len(scores)],
                "unit": ("metric", [unit]),
                "sequence": [f"s{i}" for i in range(scores.shape[1])],
            },
            attrs={"protocol": protocol, "expected": 5, "reasons": []},
        )
    }


def test_own_values_stand_in_the_unit_of_the_literature():
    def beside(own):
        rows = beside_published(["depth"], ["CUT3R", "TTT3R"], own, {}, {}).rows
        return rows.set_index(["number", "system"])

    shares = own([[0.9, 0.8], [1.0, 0.9]], "delta_1", "video-depth:bonn5:metric")
    found = beside(shares)
    ours = found.loc[("Bonn, metric scale: δ < 1.25", "CUT3R")]
    assert (ours["own"], ours["lower"], ours["upper"]) == pytest.approx((85, 84, 86))
    assert np.isnan(found.loc[("Bonn, metric scale: AbsRel", "CUT3R"), "own"])
    assert found.xs("TTT3R", level="system")["own"].isna().all()
    metres = own([[0.9, 0.8]], "delta_1", "video-depth:bonn5:metric", unit="m")
    with pytest.raises(InvalidArgument, match="is in 'm' here"):
        beside(metres)


def test_the_finding_changes_with_what_stands_beside_the_paper(tables):
    listed = list(tables.values())
    worse, better = own([[1.0] * 6, [2.0] * 6]), own([[1.0] * 6, [0.5] * 6])
    found = [comparison.finding(listed, {}, other, "here") for other in (worse, better)]
    assert [each.row("AbsRel").value for each in found] == pytest.approx([100, -50])
    assert [each.row("AbsRel").verdict for each in found] == [HIGHER, LOWER]
    assert all("no reproduction" in each.answer for each in found)
    assert "No ground truth" in comparison.finding(listed, {}, None, "here").answer
    paper = own([[0.1, 0.1], [0.2, 0.2]], protocol="video-depth:bonn5:metric")
    counts = [comparison.finding(listed, each, None, "here") for each in (paper, {})]
    assert [each.row("with own runs").value for each in counts] == [2, 0]


def test_the_finding_counts_each_number_once():
    one = made_table(0.1, 0.05)
    found = comparison.finding([one, one], {}, None, "here")
    names = ("published values", "changes by gating", "for the better")
    assert [found.row(name).value for name in names] == [2, 1, 1]
    rounded = comparison.finding([made_table(0.1, 0.101)], {}, None, "here")
    assert rounded.row("within rounding").value == 1
    assert rounded.row("for the worse").value == 1


def test_the_figure_holds_published_and_own_changes_of_errors(tables):
    scores = own([[1.0, 2.0], [2.0, 4.0]])
    rows = comparison.error_changes(list(tables.values()), scores, "here")
    names = rows["number"].values.tolist()
    assert "paper: Sintel, Sim(3): ATE" in names
    assert not any("δ" in name or "accuracy" in name for name in names)
    assert float(rows["value"].sel(number="here: AbsRel (scale median)")) == pytest.approx(100)
    assert set(rows["n"].values.tolist()) == {0, 2}  # published bounds are of rounding
    assert comparison.error_changes([], {}, "here").sizes["number"] == 0
    known = own([[1.0, 2.0], [2.0, 4.0]], protocol="video-depth:bonn5:metric")
    rows = comparison.error_changes(list(tables.values()), known, "here")
    assert "own runs: Bonn, metric scale: AbsRel" in rows["number"].values


@pytest.fixture(scope="module")
def sintel(tmp_path_factory):
    """Two bundled scenes in the layout of Sintel, under names of its pose protocol."""
    root = tmp_path_factory.mktemp("sintel")
    for name, scene in (("alley_2", "orbit-02"), ("temple_3", "orbit-03")):
        sequence = m3.open_sequence(f"scenes/{scene}", stop=4)
        m3.export_sequence(sequence, root, "sintel", name=name)
    return f"sintel:{root}"


@pytest.fixture(scope="module")
def mine():
    """The paper's pose protocol for any backbone and two short sequences, under its own name."""
    return replace(
        find_protocol("pose:sintel14:sim3"),
        id="mine:pose",
        preparation="given",
        sequences=("alley_2", "temple_3"),
        lengths=(4, 4),
        expected_sequences=2,
        expected_frames=8,
    )


@pytest.fixture(scope="module")
def ran(sintel, mine, tmp_path_factory):
    systems = system_configurations(1.0, ["CUT3R", "MUT3R"])
    place = tmp_path_factory.mktemp("runs")
    table = m3.sweep(
        "tiny", f"{sintel}#*", configurations=systems, protocol=mine, outputs=("pose",), out=place,
        progress=False,
    )  # fmt: skip
    return place, systems, own_values(runs_of(table), mine, truth=sintel)


def test_runs_made_before_are_told_apart_and_scored_where_they_fit(ran, monkeypatch, mine):
    place, systems, found = ran
    monkeypatch.setitem(m3.metrics.PROTOCOLS, mine.id, mine)
    read, left_out = read_results(place, [mine.id, "pose:sintel14:sim3"], systems)
    xr.testing.assert_allclose(read[mine.id]["value"], found["value"])
    # The whole of another list is no number of that list.
    more = replace(mine, sequences=(*mine.sequences, "cave_2"), lengths=(4, 4, 4), id="mine:more",
                   expected_sequences=3, expected_frames=12)  # fmt: skip
    monkeypatch.setitem(m3.metrics.PROTOCOLS, more.id, more)
    nothing, (why,) = read_results(place, [more.id], systems)
    assert nothing == {}
    assert "8 of 12 frames, 2 of 3 sequences: not this protocol" in why
    # The published protocol does not take frames of this size, and says so for each system.
    assert set(read) == {mine.id}
    (why,) = left_out
    assert all(f"{system}: " in why and "64" in why for system in systems)
    _, unknown = read_results(place, [mine.id], system_configurations(3.0, ["CUT3R", "MUT3R"]))
    assert sum("of no system" in text for text in unknown) == 2


def test_a_missing_folder_of_results_is_named(tmp_path):
    with pytest.raises(MissingFile, match="nowhere"):
        read_results(tmp_path / "nowhere", [], {})


def test_stand_ins_take_any_sequence_and_keep_the_rest_of_the_protocol(tmp_path):
    systems = system_configurations(1.0, ["CUT3R", "MUT3R"])
    found = bundled_values(
        "tiny", ["scenes/orbit-02"], systems, frames=3, out=tmp_path, progress=False
    )
    assert set(found) == {name for names in STAND_INS.values() for name in names}
    points = found["given:reconstruction:sim3"].isel(system=0)
    assert float(points["value"].sel(metric="accuracy_mean")) <= float(
        points["value"].sel(metric="distance_mean")
    )
    assert list(stand_in_column("depth", found).columns) == ["CUT3R", "MUT3R"]
    published = find_protocol("reconstruction:dycheck-stride10:sim3")
    stand_in = named_stand_in("given:reconstruction:sim3")
    assert (stand_in.align, stand_in.metrics) == (published.align, published.metrics)
    # One system that cannot be scored does not take the others with it.
    table = m3.sweep(
        "tiny", ["scenes/orbit-02"], configurations=systems, frames=":3:",
        outputs=("pose", "depth"), out=tmp_path, progress=False,
    )  # fmt: skip
    table["run"] = table["run"].where(table["configuration"] != "MUT3R", "")
    alone = own_values(runs_of(table), named_stand_in("default:pose:sim3"))
    assert alone["system"].values.tolist() == ["CUT3R"]
    assert len(alone.attrs["reasons"]) == 1


def test_the_notebook_is_committed_clean():
    notebook = nbformat.read(find_notebook(NOTEBOOK), as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    code = [each for each in notebook.cells if each.cell_type == "code"]
    assert all(not each.outputs and each.execution_count is None for each in code)
    assert len({each.id for each in notebook.cells}) == len(notebook.cells)


def executed(tmp_path, **parameters):
    quick = {"out": str(tmp_path), "progress": False, "frames": 3}
    return execute_notebook(find_notebook(NOTEBOOK), quick | parameters)


def texts(notebook, name):
    (cell,) = (each for each in notebook.cells if each.id == name)
    return "".join(
        output["data"].get("text/markdown") or output["data"].get("text/html", "")
        for output in cell.outputs
    )


@pytest.mark.slow
def test_the_notebook_rebuilds_the_tables_and_names_the_other_model(tmp_path):
    notebook = executed(tmp_path, sequences=["scenes/orbit-02"])
    (found,) = findings_of(notebook)
    assert found.row("with own runs").value == 0
    assert [each.effect for each in found.rows[:2]] == ["AbsRel", "ATE"]
    assert "not a reproduction" in texts(notebook, "depth-other")
    assert "No own runs" in texts(notebook, "depth-own")
    assert "0.228" in texts(notebook, "pose-published")


@pytest.mark.slow
def test_the_notebook_shows_the_paper_also_without_truth(shared, tmp_path):
    folder = str(shared / "frames" / "static_room")
    notebook = executed(tmp_path, backbone="random:small", sequences=[folder], frames=1)
    (found,) = findings_of(notebook)
    assert "No ground truth" in found.answer
    assert "No ground truth" in texts(notebook, "depth-other")
    assert "0.329" in texts(notebook, "reconstruction-published")
