"""Times of a frame are those of the device: on a GPU events in its queue, and none waits."""

import time

import numpy as np
import pytest
import torch

import mut3r_analysis as m3
from mut3r_analysis.running.moments import Moment, duration


def test_on_the_cpu_it_is_the_wall_clock() -> None:
    began = Moment(torch.device("cpu"))
    time.sleep(0.05)
    ended = Moment(torch.device("cpu"))
    assert 0.05 <= duration((began, ended)) < 5
    assert duration(None) == 0


class Event:
    """Of a device that is at the n-th event after n milliseconds."""

    recorded = 0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self, stream: object) -> None:
        Event.recorded += 1
        self.at = Event.recorded

    def elapsed_time(self, later: "Event") -> float:
        return float(later.at - self.at)

    def synchronize(self) -> None:
        raise AssertionError("nothing waits for a time alone")


def test_on_a_gpu_it_is_an_event_in_its_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    began = Moment(torch.device("cuda"))
    time.sleep(0.05)
    assert duration((began, Moment(torch.device("cuda")))) == pytest.approx(1e-3)


def test_passes_add_up_to_what_a_frame_took() -> None:
    model, scene = m3.load_backbone("random:small"), m3.open_sequence("scenes/orbit-03", stop=3)
    began = time.perf_counter()
    run = m3.run(model, scene, cue=m3.Cue.mut3r(), gate=m3.Gate.mut3r(), progress=False)
    took = time.perf_counter() - began
    seconds = run["timing/seconds"]
    assert (seconds.sel({"pass": ["probe", "gated"]}) > 0).all()
    assert float(seconds.sum()) < took
    assert np.isfinite(seconds).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_peak_memory_is_that_of_the_run() -> None:
    model, scene = (
        m3.load_backbone("random:small", device="cuda"),
        m3.open_sequence("scenes/orbit-03", stop=2),
    )
    held = torch.empty(2**28, dtype=torch.uint8, device="cuda")
    del held
    run = m3.run(model, scene, progress=False)
    assert int(run["timing/peak_memory"].max()) < 2**28
