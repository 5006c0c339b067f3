"""What many runs, many settings, many frames and many readers cost.

    python benchmarks/load.py [--quick] [--frames 10000]

A sweep folder of copies of one run is opened and one variable of all runs gathered; a grid is
planned on sequences that are open; one long run is timed in parts; one process writes a run while
others open and read it, and every number they read is compared with the finished run.
"""

import argparse
import multiprocessing
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import xarray as xr
from measure import at_least, at_most, measure, publish
from zarr.storage import LocalStore, WrapperStore

import mut3r_analysis as m3
from mut3r_analysis.errors import MissingFile, StoreError
from mut3r_analysis.sweeps import gather
from mut3r_analysis.sweeps.declaration import SweepIndex
from mut3r_analysis.sweeps.ledger import DONE, Entry, Ledger

SCENE = "scenes/orbit-01"
PARTS = 5
OPEN_LIMIT, GATHER_LIMIT, PLAN_LIMIT = 1.0, 5.0, 1.0
OPEN_RUN_LIMIT = 1.1
FLAT_TIME, FLAT_MEMORY = 1.15, 1.05


def seconds_of(call: Callable[[], Any], repetitions: int = 3) -> float:
    """Return the least wall time of some calls: whatever else a machine does only adds to it."""
    found = []
    for _ in range(repetitions):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return min(found)


def folder_of_runs(folder: Path, settings: int, sequences: int) -> None:
    """Make the folder of a finished sweep whose runs are all the same one."""
    m3.sweep("tiny", SCENE, configurations=[{}], out=folder, outputs=("pose",), progress=False)
    ledger, cells = Ledger(folder), SweepIndex.read(folder)
    made = str(cells.digests.item())
    digests = [f"{index:020d}" for index in range(settings * sequences)]
    for digest in digests:
        shutil.copytree(ledger.run_path(made), ledger.run_path(digest), copy_function=os.link)
        os.link(ledger.score_path(made, cells.scoring), ledger.score_path(digest, cells.scoring))
    for start in range(0, len(digests), 8):
        runs = dict.fromkeys(digests[start : start + 8], DONE)
        ledger.record(Entry(f"unit{start}", "copies", runs, 1.0, 16, "2030-01-01T00:00:00+00:00"))
    labels = {
        "gate_beta": tuple(map(float, range(settings))),
        "sequence": tuple(f"scene-{index}" for index in range(sequences)),
    }
    found = np.array(digests, dtype=object).reshape(settings, sequences)
    SweepIndex(labels, found, cells.scoring, cells.protocol).write(folder)


def of_a_sweep(folder: Path, settings: int, sequences: int) -> tuple[float, float]:
    """Return the seconds of opening a sweep and of gathering one variable of it."""
    folder_of_runs(folder, settings, sequences)
    m3.open_sweep(folder)  # loads what is loaded once
    table = m3.open_sweep(folder)
    opening = seconds_of(lambda: m3.open_sweep(folder))
    return opening, seconds_of(lambda: gather(table, "state/norm"))


def of_opening(folder: Path, repetitions: int) -> float:
    """Return what opening a run costs with its checks, over what it costs without any."""
    store = Path(str(m3.open_sweep(folder)["run"].values.flat[0]))
    # A store that is given as one is taken as it is.
    plain = WrapperStore(LocalStore(store, read_only=True))
    found = measure(
        {"checked": lambda: m3.open_run(store), "plain": lambda: m3.open_run(plain)}, repetitions
    )
    return found["checked"].least_cpu / found["plain"].least_cpu


def of_a_plan(settings: int, sequences: int) -> float:
    """Return the seconds of planning a grid on so many open sequences."""
    random = np.random.default_rng(0)
    backbone = m3.load_backbone("tiny")
    videos = [
        m3.open_sequence(
            random.integers(0, 256, (16 + index % 4, 48, 64, 3), np.uint8), name=f"video-{index}"
        )
        for index in range(sequences)
    ]
    grid = {"gate.beta": np.linspace(0.1, 9, settings).tolist()}
    m3.plan(backbone, videos[:1], grid={"gate.beta": [1.0]})
    return seconds_of(lambda: m3.plan(backbone, videos, grid=grid))


def looped(frames: int) -> xr.Dataset:
    scene = m3.open_sequence(SCENE)[["image"]]
    order = np.arange(frames) % scene.sizes["frame"]
    return scene.isel(frame=order).assign_coords(frame=np.arange(frames))


def of_frames(folder: Path, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Return processor seconds per frame and resident bytes, for equal parts of one long run."""
    process = psutil.Process()
    spent, resident = [], []

    def watch(site: Any, q: Any, k: Any, v: Any, out: Any) -> None:
        if str(site) == "image_self.0":
            spent.append(time.process_time())
            resident.append(process.memory_info().rss)

    capture = m3.Capture(statistics=["entropy"], sites=["image_self"], layers=[0], heads=[0])
    m3.run(
        m3.load_backbone("tiny", device="cpu"), looped(frames), outputs=("pose",), probe=watch,
        capture=capture, out=folder / "long", progress=False,
    )  # fmt: skip
    ends = np.linspace(0, frames - 1, PARTS + 1).astype(int)
    return np.diff(np.array(spent)[ends]) / np.diff(ends), np.array(resident)[ends[1:]]


def read_on(store: str, stop: Any, answers: Any) -> None:
    """Open a run that is being written, again and again, and say what was read."""
    warnings.simplefilter("ignore")
    opened, poses = 0, np.empty((0, 4, 4), np.float32)
    try:
        while not stop.is_set():
            try:
                run = m3.open_run(store)
            except (MissingFile, StoreError) as error:
                if opened or ("being created" not in str(error) and "no run" not in str(error)):
                    raise
                time.sleep(0.02)
                continue
            now = run["prediction/pose"].values
            assert len(now) == run.attrs["frames_complete"]
            assert np.array_equal(now[: len(poses)], poses)
            opened, poses = opened + 1, now
    except Exception as error:
        answers.put(f"{type(error).__name__}: {error}")
    else:
        answers.put((opened, poses))


def of_readers(folder: Path, readers: int, frames: int) -> tuple[int, int]:
    """Write a run while other processes read it; return how often, and how often wrongly."""
    context = multiprocessing.get_context("spawn")
    stop, answers = context.Event(), context.Queue()
    store = folder / "shared"
    processes = [
        context.Process(target=read_on, args=(str(store), stop, answers), daemon=True)
        for _ in range(readers)
    ]
    for process in processes:
        process.start()
    run = m3.run(
        m3.load_backbone("tiny", device="cpu"), looped(frames), outputs=("pose",), out=store,
        progress=False,
    )  # fmt: skip
    stop.set()
    found = [answers.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    whole = run["prediction/pose"].values
    good = [each for each in found if isinstance(each, tuple)]
    wrong = [each for each in good if not np.array_equal(each[1], whole[: len(each[1])])]
    for text in found:
        if isinstance(text, str):
            print(text)
    opened = sum(count for count, _ in good)
    return max(opened, 1), len(wrong) + len(found) - len(good)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little of everything, to rehearse")
    parser.add_argument("--frames", type=int, default=2000, help="of the long run")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    runs, plans = ((4, 2), (5, 2)) if args.quick else ((50, 20), (500, 20))
    frames, readers = (20, 1) if args.quick else (args.frames, 8)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        opening, gathering = of_a_sweep(folder / "sweep", *runs)
        checked = of_opening(folder / "sweep", 1 if args.quick else 25)
        planning = of_a_plan(*plans)
        spent, resident = of_frames(folder, frames)
        opened, wrong = of_readers(folder, readers, 20 if args.quick else 600)
    total = runs[0] * runs[1]
    ratios = {
        f"seconds to open a sweep of {total} runs / {OPEN_LIMIT:.0f}": at_most(
            opening / OPEN_LIMIT, 1.0
        ),
        f"seconds to gather one variable of {total} runs / {GATHER_LIMIT:.0f}": at_most(
            gathering / GATHER_LIMIT, 1.0
        ),
        f"seconds to plan {plans[0]} x {plans[1]} / {PLAN_LIMIT:.0f}": at_most(
            planning / PLAN_LIMIT, 1.0
        ),
        "open a run, with checks / without": at_most(checked, OPEN_RUN_LIMIT),
        f"processor time per frame, last / first fifth of {frames}": at_most(
            spent[-1] / spent[0], FLAT_TIME
        ),
        f"resident memory, end / first fifth of {frames}": at_most(
            resident[-1] / resident[0], FLAT_MEMORY
        ),
        f"right among {opened} openings by {readers} processes beside a writer": at_least(
            (opened - wrong) / opened, 1.0
        ),
    }
    result = {
        "backbone": "tiny",
        "repetitions": 3,
        "milliseconds": {
            f"open a sweep of {total} runs": 1e3 * opening,
            f"gather one variable of {total} runs": 1e3 * gathering,
            f"plan {plans[0]} settings x {plans[1]} sequences": 1e3 * planning,
            **{
                f"processor time of a frame, part {index + 1} of {PARTS} of {frames}": 1e3 * each
                for index, each in enumerate(spent)
            },
        },
        "ratios": ratios,
    }
    publish("load", result, args.out, args.quick)


if __name__ == "__main__":
    main()
