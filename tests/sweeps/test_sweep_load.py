"""Large sweeps: nothing is read, checked or counted that is not asked for, and nothing twice."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import mut3r_analysis as m3
from mut3r_analysis.errors import StoreError
from mut3r_analysis.running import planning
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.running.inventory import RunStore
from mut3r_analysis.running.provenance import FORMAT_VERSION
from mut3r_analysis.sequences.frames import lazy_frames
from mut3r_analysis.sweeps import gather
from mut3r_analysis.sweeps.sources import BackboneSource, SequenceSource
from mut3r_analysis.sweeps.units import digest_of, run_digests

GRID = {"gate.beta": [0.5, 2.0]}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    settings = {"frames": "0:3", "outputs": ("pose",), "progress": False}
    m3.sweep("tiny", ["scenes/orbit-03", "scenes/slow-01"], grid=GRID, out=folder, **settings)
    return folder


@pytest.fixture
def folder(swept, tmp_path):
    return Path(shutil.copytree(swept, tmp_path / "sweep"))


def test_gather_opens_the_variable_and_its_labels_alone(folder, monkeypatch):
    opened, get = Counter(), RunStore.get

    async def counted(self, key, *args, **kwargs):
        opened[key] += 1
        return await get(self, key, *args, **kwargs)

    monkeypatch.setattr(RunStore, "get", counted)
    gather(m3.open_sweep(folder), "state/norm")
    arrays = {key.split("/c/")[0].removesuffix("/zarr.json") for key in opened}
    labels = {"state_token", "token", "patch_row", "patch_col"}
    of_variable = {"state", "state/norm", "state/frame", *(f"state/{name}" for name in labels)}
    assert {array for array in arrays if "/." not in array} <= {"zarr.json", *of_variable}
    # The values once a run, the labels of tokens once.
    assert opened["state/norm/c/0/0"] == 4
    assert opened["state/token/c/0"] == 1


def test_gather_minds_no_damage_of_what_it_does_not_read(folder):
    table = m3.open_sweep(folder)
    expected = gather(table, "state/norm")
    runs = list((folder / "runs").iterdir())
    for run in runs:
        shutil.rmtree(run / "timing")
        shutil.rmtree(run / "prediction")
        with pytest.raises(StoreError):
            m3.open_run(run)
    assert gather(table, "state/norm").identical(expected)


@pytest.mark.parametrize("part", ["state/norm", "state/frame", "state/token"])
@pytest.mark.parametrize("damage", ["removed", "flipped", "description"])
def test_gather_finds_damage_of_what_it_reads(folder, part, damage):
    table = m3.open_sweep(folder)
    run = Path(str(table["run"].values.flat[0]))
    place = run / part
    file = next(path for path in (place / "c").rglob("*") if path.is_file())
    if damage == "removed":
        file.unlink()
    elif damage == "flipped":
        file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    else:
        described = json.loads((place / "zarr.json").read_text())
        described["attributes"]["units"] = "furlong"
        (place / "zarr.json").write_text(json.dumps(described))
    with pytest.raises(StoreError, match=f"{run.name}.* is damaged"):
        gather(table, "state/norm")


def test_gathered_values_are_those_of_the_runs_with_their_labels(folder):
    table = m3.open_sweep(folder)
    for path in ("state/norm", "prediction/pose", "cue/motion"):
        together = gather(table, path)
        for cell in np.ndindex(table["run"].shape):
            place = dict(zip(table["run"].dims, cell, strict=True))
            run = m3.open_run(str(table["run"].isel(place).item()))
            one = run[path].reset_coords(drop=True)
            found = together.isel(place, drop=True)
            xr.testing.assert_identical(found, one)


def test_cells_without_a_run_and_frames_that_are_not_there_are_nan(folder):
    table = m3.open_sweep(folder)
    table["run"][0, 1] = ""
    one = gather(table, "state/norm")
    assert one.isel(gate_beta=0, sequence=1).isnull().all()
    assert one.isel(gate_beta=1).notnull().all()


def test_a_variable_that_follows_from_others_is_gathered_too(tmp_path):
    capture = m3.Capture(statistics=[], sites=["image_self"], maps=["image_self"], layers=[0])
    table = m3.sweep(
        "random:small", "scenes/orbit-03", configurations=[{}], out=tmp_path, frames="0:2",
        outputs=("pose",), capture=capture, progress=False,
    )  # fmt: skip
    found = gather(table, "attention/image_self/weights")
    run = m3.open_run(str(table["run"].item()))["attention/image_self/weights"]
    np.testing.assert_array_equal(found.squeeze(["configuration", "sequence"]), run)


def test_opening_a_sweep_reads_every_file_once(folder, monkeypatch):
    read, text_of = Counter(), Path.read_text

    def counted(self, *args, **kwargs):
        read[self.relative_to(folder).parts[0]] += 1
        return text_of(self, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", counted)
    m3.open_sweep(folder)
    units = len(list((folder / "units").iterdir()))
    assert read == {"sweep.json": 1, "units": units, "scores": 4}


class CountedFrames:
    """Frames that count how often each is read."""

    shape = (4, 48, 64, 3)

    def __init__(self, seed):
        self.read_times = Counter()
        self.pixels = np.random.default_rng(seed).integers(0, 256, self.shape, np.uint8)

    def read(self, position):
        self.read_times[position] += 1
        return self.pixels[position]


def test_planning_reads_each_sequence_once_and_counts_operations_once(monkeypatch):
    sources = [CountedFrames(seed) for seed in range(3)]
    videos = [
        xr.Dataset(
            {"image": (("frame", "y", "x", "rgb"), lazy_frames(source))}, attrs={"name": str(index)}
        )
        for index, source in enumerate(sources)
    ]
    counted, count = [], planning.frame_flops
    monkeypatch.setattr(planning, "frame_flops", lambda *args: (counted.append(1), count(*args))[1])
    grid = {"gate.beta": np.linspace(0.5, 9, 30).tolist()}
    plan = m3.plan(m3.load_backbone("random:small"), videos, grid=grid)
    assert plan.runs == 90
    assert all(source.read_times == dict.fromkeys(range(4), 1) for source in sources)
    assert len(counted) == 1


def test_a_plan_of_many_costs_what_each_of_them_costs():
    backbone = m3.load_backbone("random:small")
    videos = [
        m3.open_sequence(np.zeros((frames, 48, 64, 3), np.uint8), name=str(frames))
        for frames in (2, 5)
    ]
    cues = {"early": m3.Cue(layers=range(2)), "cut": m3.Cue(source="two_pass_cut(1)")}
    plan = m3.plan(backbone, videos, grid={"cue": cues, "gate": [m3.Gate.mut3r(), None]})
    single = [
        m3.plan(backbone, video, cue=cue, gate=gate)
        for video in videos
        for cue in cues.values()
        for gate in (m3.Gate.mut3r(), None)
    ]
    # Their attributes differ by some characters.
    assert plan.stored_bytes == pytest.approx(sum(each.stored_bytes for each in single), rel=1e-4)


def test_a_pass_that_is_measured_counts_what_it_runs():
    backbone = m3.load_backbone("random:small")
    sequence = m3.open_sequence(np.zeros((2, 48, 64, 3), np.uint8))
    gate = m3.Gate.mut3r()

    def probe(**cue):
        return m3.plan(backbone, sequence, cue=m3.Cue.mut3r(**cue), gate=gate).flops["probe"]

    one, two, every = probe(layers=range(1)), probe(layers=range(2)), probe()
    # What the first layer projects is there before the pass.
    assert 0 <= one < two < every
    kept = m3.plan(backbone, sequence, cue=m3.Cue.mut3r(), gate=gate, commit="rw.gp").flops
    assert every < kept["probe"] < kept["decoder and memory"]


def test_runs_are_named_by_all_that_determines_them():
    backbone = BackboneSource.of(m3.load_backbone("random:small"))
    videos = [SequenceSource(None, None, name, name * 64, 4) for name in ("a", "b")]
    several = [Configuration(), Configuration(cue=m3.Cue.mut3r())]
    capture = m3.Capture(statistics=["entropy"])
    names = run_digests(backbone, videos, several, capture, ("pose",))
    for video, of_video in zip(videos, names, strict=True):
        for configuration, name in zip(several, of_video, strict=True):
            whole = {
                "format": FORMAT_VERSION,
                "backbone": backbone.identity(),
                "sequence": video.sha256,
                "configuration": configuration.to_dict(),
                "capture": capture.to_dict(),
                "outputs": ["pose"],
            }
            assert name == digest_of(whole)
