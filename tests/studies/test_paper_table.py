"""The paper in one command: own numbers beside the published ones, or an empty cell with words."""

import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import mut3r_analysis as m3
from mut3r_analysis.backbones import CUT3RConfig
from mut3r_analysis.backbones.random_weights import NAMED_CONFIGS, random_backbone
from mut3r_analysis.cli import main
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.metrics import PROTOCOLS, FrameSelection
from mut3r_analysis.studies.paper_tables.table import beside_published, system_names, table_names

FRAMES = 3
SYSTEMS = ["cut3r", "mut3r"]
NAMES = {"sintel": ("alley_2", "cave_2"), "bonn": ("crowd2",), "tum": ("freiburg3_sitting_xyz",)}
"""Of the protocols of the same shape: of each data set some sequences, of each three frames."""
STARTS = {"sintel": 0, "bonn": 2, "tum": 0}


def short(protocol):
    """The protocol with three frames per sequence, of fewer sequences."""
    names = NAMES[protocol.dataset]
    return replace(
        protocol,
        sequences=names,
        lengths=(),
        frames=FrameSelection("sorted files", STARTS[protocol.dataset], 1, FRAMES),
        expected_sequences=len(names),
        expected_frames=FRAMES * len(names),
    )


@pytest.fixture(scope="module", autouse=True)
def protocols():
    with pytest.MonkeyPatch.context() as patch:
        for id, one in list(PROTOCOLS.items()):
            if one.dataset in NAMES and one.task != "motion":
                patch.setitem(PROTOCOLS, id, short(one))
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small model with the input of the released ones, in the official layout."""
    small = NAMED_CONFIGS["small"]
    assert isinstance(small, CUT3RConfig)
    config = replace(small, img_size=(512, 512), patch_size=16, rgb_head=False)
    inside = ", ".join(
        f"{name}={value!r}"
        for name, value in config.to_dict().items()
        if name in ("state_size", "state_pe", "head_type", "enc_embed_dim", "enc_depth",
                    "enc_num_heads", "dec_embed_dim", "dec_depth", "dec_num_heads",
                    "state_dec_num_heads", "local_mem_size", "ray_enc_depth", "rgb_head")
    )  # fmt: skip
    said = (
        "ARCroco3DStereo(ARCroco3DStereoConfig(freeze='encoder', pos_embed='RoPE100', "
        "pose_head=True, patch_embed_cls='ManyAR_PatchEmbed', img_size=(512, 512), "
        "output_mode='pts3d+pose', depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf), "
        f"pose_mode=('exp', -inf, inf), {inside}))"
    )
    path = tmp_path_factory.mktemp("checkpoint") / "cut3r_small.pth"
    weights = random_backbone(config).state_dict()
    torch.save({"args": Namespace(model=said), "model": weights}, path)
    return path


def export(root, lengths=None):
    """Bundled scenes that pose as the data sets, under right names."""
    for dataset, names in NAMES.items():
        for name in names:
            stop = STARTS[dataset] + (lengths or {}).get(name, FRAMES)
            scene = "scenes/orbit-02" if name == "cave_2" else "scenes/orbit-03"
            sequence = m3.open_sequence(scene, stop=stop)
            m3.export_sequence(sequence, root / dataset, dataset, name=name)
    return {dataset: str(root / dataset) for dataset in NAMES}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return export(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def made(checkpoint, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    settings = {"data": data, "systems": SYSTEMS, "out": out, "progress": False}
    return m3.paper_table([1, 2, 4], checkpoint, **settings), out, settings


def row(table, number, system):
    rows = table.rows
    return rows[(rows["number"] == number) & (rows["system"] == system)].iloc[0]


def test_own_numbers_are_those_that_evaluate_gives(made, checkpoint, data):
    table, _, _ = made
    model = m3.load_backbone(checkpoint)
    for number, id, root in (
        ("Sintel, Sim(3): ATE", "pose:sintel14:sim3", "sintel"),
        ("Sintel, scale per sequence: AbsRel", "video-depth:sintel23:scale_irls", "sintel"),
        ("Bonn, metric scale: δ < 1.25", "video-depth:bonn5:metric", "bonn"),
    ):
        runs, truth = [], f"{root}:{data[root]}"
        for name in NAMES[root]:
            sequence = m3.open_sequence(f"{truth}#{name}")
            runs.append(m3.run(model, sequence, protocol=id, progress=False))
        scores = m3.evaluate(runs, id, truth=truth)
        found = row(table, number, "CUT3R")
        factor = 100 if found["unit"] == "%" else 1
        assert found["own"] == pytest.approx(
            factor * float(scores[f"mean_{found['metric']}"]), rel=1e-4
        )
        assert found["n"] == len(NAMES[root])
        assert found["difference"] == pytest.approx(found["own"] - found["paper"])


def test_a_row_says_whether_own_lies_inside_what_was_published(made):
    rows = made[0].rows.dropna(subset=["own", "paper"])
    assert len(rows) > 10
    inside = rows["own"].between(
        rows["minimum"] - rows["half_unit"], rows["maximum"] + rows["half_unit"]
    )
    plain = rows["protocol"].str.endswith(("metric", "sim3"))
    assert (inside[plain] == rows["inside"][plain].astype(bool)).all()
    assert row(made[0], "Sintel, Sim(3): ATE", "MUT3R")["paper"] == 0.228


def test_what_has_no_data_or_no_protocol_is_empty_with_its_reason(made):
    table, _, _ = made
    for number, words in (
        ("KITTI, metric scale: AbsRel", "no data given: kitti=FOLDER; get it from"),
        ("ADT, Sim(3): ATE", "no loader"),
        ("TUM-dynamics, no protocol: RPE rotation", "names no protocol"),
    ):
        found = row(table, number, "MUT3R")
        assert np.isnan(found["own"])
        assert words in found["verdict"]
    assert table.empty(NAMES) == []
    assert table.empty([*NAMES, "kitti"]) == [
        "video-depth:kitti13:scale_irls", "video-depth:kitti13:metric",
    ]  # fmt: skip


def test_ablations_come_with_their_system(made):
    names = set(made[0].rows.query("table == 'ablation'")["system"])
    assert "MUT3R (layers 0-2)" in names
    assert made[0].rows.query("table == 'ablation' and metric == 'abs_rel'")["own"].notna().all()


def test_the_second_time_nothing_runs(made, checkpoint, monkeypatch):
    table, _, settings = made

    def refuse(*args, **kwargs):
        raise AssertionError("what is done was done again")

    monkeypatch.setattr("mut3r_analysis.sweeps.working.run_batch", refuse)
    monkeypatch.setattr("mut3r_analysis.sweeps.working.evaluate", refuse)
    again = m3.paper_table(["depth", 2, "4"], checkpoint, **settings)
    assert again.rows.equals(table.rows)


def test_the_table_is_written_in_four_forms(made, tmp_path):
    table, _, _ = made
    for suffix in ("html", "csv", "tex", "txt"):
        table.save(tmp_path / f"table.{suffix}")
    page = (tmp_path / "table.html").read_text(encoding="utf-8")
    assert "Table 2: camera pose" in page
    assert "δ &lt; 1.25" in page
    lines = (tmp_path / "table.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(table.rows)
    tex = (tmp_path / "table.tex").read_text(encoding="utf-8")
    assert r"$\delta$ $<$ 1.25" in tex
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 3
    text = (tmp_path / "table.txt").read_text(encoding="utf-8")
    assert "[1] no data given: kitti=FOLDER" in text
    with pytest.raises(InvalidArgument, match=r"\.html, \.csv, \.tex, \.txt"):
        table.save(tmp_path / "table.png")


def test_a_sequence_cut_short_empties_its_cells_and_no_others(checkpoint, tmp_path, capsys):
    roots = export(tmp_path / "data", {"cave_2": 2})
    words = ["paper", "--table", "1", "2", "--backbone", str(checkpoint), "--systems", "cut3r"]
    words += ["--data", *(f"{name}={root}" for name, root in roots.items())]
    status = main([*words, "--out", str(tmp_path / "out"), "--quiet",
                   "--save", str(tmp_path / "t.csv")])  # fmt: skip
    printed = capsys.readouterr().out
    assert status == 1
    assert "pose:sintel14:sim3: data incomplete: 5 of 6 frames; cave_2: only 2 of 3" in printed
    import pandas as pd

    rows = pd.read_csv(tmp_path / "t.csv").query("system == 'CUT3R'")
    own = rows.set_index("protocol")["own"]
    assert own.loc["pose:sintel14:sim3"].isna().all()
    assert own.loc["pose:tum8-stride3-90:sim3"].notna().all()
    assert own.loc["video-depth:bonn5:metric"].notna().all()


def test_a_plan_checks_and_prices_and_runs_nothing(checkpoint, data, tmp_path, capsys):
    words = ["paper", "--table", "2", "--backbone", str(checkpoint), "--systems", "mut3r", "--plan"]
    words += ["--data", f"sintel:{data['sintel']}", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "pose:sintel14:sim3: data complete" in printed
    assert "2 runs, 0 done; left: 6 frames" in printed
    assert not (tmp_path / "out").exists()


def test_runs_made_before_fill_what_no_data_were_given_for(made, checkpoint, data, tmp_path):
    table, out, _ = made
    again = m3.paper_table(
        2, checkpoint, data={}, results=out, systems=SYSTEMS, out=tmp_path, progress=False
    )
    for number in ("Sintel, Sim(3): ATE", "TUM-dynamics, Sim(3): ATE"):
        found, expected = (row(each, number, "MUT3R")["own"] for each in (again, table))
        assert found == pytest.approx(expected)


def test_rows_with_resets_stand_beside_their_systems(checkpoint, data, tmp_path):
    table = m3.paper_table(
        "long", checkpoint, data={"tum": data["tum"]}, systems=["ttt3r"], out=tmp_path,
        progress=False,
    )  # fmt: skip
    assert set(table.rows["system"]) == {"TTT3R", "TTT3R+Reset"}
    found = row(table, "TUM-dynamics, Sim(3): ATE", "TTT3R+Reset")
    assert found["paper"] == 0.093
    # Three frames end before the first reset, so that both rows are of the same path.
    plain = row(table, "TUM-dynamics, Sim(3): ATE", "TTT3R")
    assert found["own"] == pytest.approx(plain["own"], rel=1e-4)
    assert row(table, "KITTI, metric scale: AbsRel", "TTT3R+Reset")["verdict"].startswith(
        "no data given: kitti=FOLDER"
    )


def test_a_model_of_another_size_is_no_comparison(data, tmp_path):
    table = m3.paper_table(2, "tiny", data=data, systems=["CUT3R"], out=tmp_path, progress=False)
    assert table.rows["own"].isna().all()
    assert "long edge of 512 px" in row(table, "Sintel, Sim(3): ATE", "CUT3R")["verdict"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {"sintel": "bonn:/data"}}, "is of 'bonn'"),
        ({"data": {"waymo": "/data"}}, "no data set 'waymo'"),
        ({"data": {"sintl": "/data"}}, "did you mean 'sintel'?"),
        ({"systems": ["mutr3"]}, "did you mean 'MUT3R'?"),
        ({"tables": [7]}, r"no table 7; there are 1 \(depth\)"),
        ({"systems": ["vggt"]}, "no system vggt"),
    ],
)
def test_what_means_nothing_is_refused(changes, words):
    given = {"tables": 1, "backbone": "tiny", "data": {}} | changes
    with pytest.raises(InvalidArgument, match=words):
        m3.paper_table(given.pop("tables"), given.pop("backbone"), **given)


def test_a_difference_inside_the_scatter_of_the_released_fit_is_none():
    import xarray as xr

    protocol = "video-depth:bonn5:scale_irls"  # published: 0.078 by CUT3R
    own = {
        protocol: xr.Dataset(
            {name: (("metric", "system"), [[0.0787]]) for name in ("value", "lower", "upper")}
            | {"n": (("metric", "system"), [[5]])},
            coords={"metric": ["abs_rel"], "system": ["CUT3R"], "unit": ("metric", ["1"])},
        )
    }
    table = beside_published(table_names(1), system_names(["cut3r"]), own, {}, {})
    found = row(table, "Bonn, scale per sequence: AbsRel", "CUT3R")
    assert found["inside"]
    assert found["verdict"] == "no difference: the released fit moves by 0.6 %"


@pytest.mark.slow
def test_killed_it_goes_on_where_it_stopped(made, checkpoint, data, tmp_path):
    """A process of its own, with the short protocols, is killed in the middle."""
    script = tmp_path / "paper.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import mut3r_analysis as m3, test_paper_table as here\n"
        "from mut3r_analysis.metrics import PROTOCOLS\n"
        "for id, one in list(PROTOCOLS.items()):\n"
        "    if one.dataset in here.NAMES and one.task != 'motion':\n"
        "        PROTOCOLS[id] = here.short(one)\n"
        f"m3.paper_table([1, 2, 4], {str(checkpoint)!r}, data={data!r}, systems={SYSTEMS!r}, "
        f"out={str(tmp_path / 'out')!r}, progress=False)\n",
        encoding="utf-8",
    )
    process = subprocess.Popen([sys.executable, str(script)])
    ended = tmp_path / "out" / "units"
    while process.poll() is None and len(list(ended.glob("*.json"))) < 2:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = set(ended.glob("*.json"))
    assert len(before) >= 2
    table = m3.paper_table(
        [1, 2, 4], checkpoint, data=data, systems=SYSTEMS, out=tmp_path / "out", progress=False
    )
    assert before < set(ended.glob("*.json"))
    own, whole = (each.rows["own"].to_numpy() for each in (table, made[0]))
    np.testing.assert_allclose(own, whole, rtol=1e-4)
