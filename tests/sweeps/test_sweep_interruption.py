"""A sweep that is killed goes on where it stopped, and ends with the same numbers."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import xarray as xr

import mut3r_analysis as m3

SCENES = ["scenes/orbit-03", "scenes/slow-01", "scenes/fast-01", "scenes/static-01"]
GRID = {"gate.beta": [0.5, 1.0, 2.0]}
SETTINGS = {"frames": "0:3", "outputs": ("pose", "depth"), "batch": 1, "progress": False}
UNITS = len(SCENES) * 3

PROGRAM = f"""
import sys
import mut3r_analysis as m3
address = sys.argv[2] if len(sys.argv) > 2 else None
client = None
if address:
    from dask.distributed import Client
    client = Client(address)
m3.sweep("tiny", {SCENES}, grid={GRID}, out=sys.argv[1], client=client, **{SETTINGS})
"""


def entries(folder: Path):
    return [json.loads(path.read_text()) for path in (folder / "units").glob("*.json")]


def times_done(folder: Path) -> Counter:
    return Counter(digest for entry in entries(folder) for digest in entry["runs"])


def wait_for(folder: Path, count: int, process=None, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while len(list((folder / "units").glob("*.json"))) < count:
        assert process is None or process.poll() is None, process.stderr.read()
        assert time.monotonic() < until, "the sweep did not get so far"
        time.sleep(0.01)


def started(folder: Path, *more: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), *more],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()


def comparable(table: xr.Dataset) -> xr.Dataset:
    found = table.drop_vars(["run", "seconds"])
    return found.assign_attrs({**table.attrs, "folder": ""})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    # in a process of its own, as the disturbed ones, so that arithmetic is the same
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0
    assert len(entries(folder)) == UNITS
    return comparable(m3.open_sweep(folder))


@pytest.mark.slow
def test_a_killed_sweep_repeats_nothing_and_ends_exactly_as_an_undisturbed_one(
    undisturbed, tmp_path
):
    process = started(tmp_path)
    wait_for(tmp_path, UNITS // 3, process)
    kill(process)
    finished = times_done(tmp_path)
    assert 0 < len(finished) < UNITS
    halfway = m3.open_sweep(tmp_path)
    assert int((halfway["status"] == "done").sum()) == len(finished)
    assert (halfway["status"] == "missing").any()
    again = started(tmp_path)
    assert again.wait(timeout=200) == 0
    again.stderr.close()
    assert all(times_done(tmp_path)[digest] == 1 for digest in finished)
    assert len(times_done(tmp_path)) == UNITS
    assert comparable(m3.open_sweep(tmp_path)).identical(undisturbed)
    assert not list((tmp_path / "partial").iterdir()), "attempts that died were not cleared"


def test_leftovers_of_a_dead_attempt_are_not_results(tmp_path):
    settings = {**SETTINGS, "frames": "0:2"}
    m3.sweep("tiny", SCENES[:1], grid=GRID, out=tmp_path, **settings)
    ledger = next((tmp_path / "units").glob("*.json"))
    (digest,) = json.loads(ledger.read_text())["runs"]
    # killed after the store was moved, before the ledger knew: the store proves nothing
    ledger.unlink()
    table = m3.open_sweep(tmp_path)
    assert int((table["status"] == "missing").sum()) == 1
    m3.sweep("tiny", SCENES[:1], grid=GRID, out=tmp_path, **settings)
    assert times_done(tmp_path)[digest] == 1
    assert (m3.open_sweep(tmp_path)["status"] == "done").all()


@pytest.fixture
def cluster():
    distributed = pytest.importorskip("dask.distributed", reason="Dask is not installed")
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=":0",  # the usual port may be taken
        memory_limit=0,
    ) as found:
        yield found


@pytest.mark.slow
def test_a_killed_dask_worker_costs_no_finished_unit(undisturbed, tmp_path, cluster):
    process = started(tmp_path, cluster.scheduler_address)
    wait_for(tmp_path, 3, process)
    # the one that is in the middle of a unit, by the name of its workplace
    until = time.monotonic() + 60
    busy: list[int] = []
    while not busy and time.monotonic() < until:
        busy = [int(place.name.split("-")[-2]) for place in (tmp_path / "partial").glob("*")]
    assert busy
    finished = times_done(tmp_path)
    os.kill(busy[0], signal.SIGKILL)
    assert process.wait(timeout=200) == 0, process.stderr.read()
    process.stderr.close()
    assert all(times_done(tmp_path)[digest] == 1 for digest in finished)
    table = m3.open_sweep(tmp_path)
    assert (table["status"] == "done").all()
    xr.testing.assert_allclose(comparable(table), undisturbed, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_killed_client_costs_no_finished_unit(undisturbed, tmp_path, cluster):
    process = started(tmp_path, cluster.scheduler_address)
    wait_for(tmp_path, 3, process)
    kill(process)
    time.sleep(1.0)
    finished = times_done(tmp_path)
    again = started(tmp_path, cluster.scheduler_address)
    assert again.wait(timeout=200) == 0, again.stderr.read()
    again.stderr.close()
    assert all(times_done(tmp_path)[digest] == 1 for digest in finished if finished[digest] == 1)
    table = m3.open_sweep(tmp_path)
    assert (table["status"] == "done").all()
    xr.testing.assert_allclose(comparable(table), undisturbed, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_worker_process_that_dies_is_replaced(tmp_path):
    program = PROGRAM.replace("client=client", "workers=2")
    process = subprocess.Popen(
        [sys.executable, "-c", f"if __name__ == '__main__':\n{_indented(program)}", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    wait_for(tmp_path, 2, process)
    victim = entries(tmp_path)[0]["process"]
    finished = times_done(tmp_path)
    os.kill(victim, signal.SIGKILL)
    assert process.wait(timeout=200) == 0, process.stderr.read()
    process.stderr.close()
    assert all(times_done(tmp_path)[digest] == 1 for digest in finished)
    assert (m3.open_sweep(tmp_path)["status"] == "done").all()


def _indented(program: str) -> str:
    return "\n".join(f"    {line}" for line in program.splitlines())
