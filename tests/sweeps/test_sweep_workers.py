"""Workers of a sweep: started only where they can be, and gone with their parent."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

SETTINGS = """"tiny", ["scenes/orbit-03", "scenes/slow-01"], grid={"gate.beta": [0.5, 1.0, 2.0]},
    frames="0:20", outputs=("pose",), batch=1, workers=2, progress=False, out=sys.argv[-1]"""
PLAIN = f"""
import sys
print("the body runs", flush=True)
import mut3r_analysis as m3
m3.sweep({SETTINGS})
"""
IN_A_FUNCTION = f"""
import sys
print("the body runs", flush=True)
import mut3r_analysis as m3
def all_of_it():
    return m3.sweep({SETTINGS})
if True:
    all_of_it()
"""
GUARDED = f"""
import sys
import mut3r_analysis as m3
def main():
    return m3.sweep({SETTINGS})
if __name__ == "__main__":
    main()
"""
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("how", ["a script", "a function of a script", "standard input"])
def test_a_script_without_the_main_guard_starts_nothing(tmp_path, how):
    body = IN_A_FUNCTION if "function" in how else PLAIN
    script, out = tmp_path / "plain.py", tmp_path / "sweep"
    script.write_text(body)
    piped = how == "standard input"
    done = subprocess.run(
        [sys.executable, "-" if piped else str(script), str(out)],
        input=body if piped else None, capture_output=True, text=True, env=ENVIRONMENT, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout.count("the body runs") == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "InvalidArgument: workers= " in last
    assert 'put the call under if __name__ == "__main__":' in last
    assert not out.exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent(tmp_path, number):
    script = tmp_path / "guarded.py"
    script.write_text(GUARDED)
    command = [sys.executable, str(script), str(tmp_path / "sweep")]
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL) as process:
        place, until = tmp_path / "sweep" / "partial", time.monotonic() + 300
        while not (place.is_dir() and any(place.glob("*/*.zarr"))):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        workers = psutil.Process(process.pid).children(recursive=True)
        assert len(workers) >= 2
        process.send_signal(number)
    _, alive = psutil.wait_procs(workers, timeout=15)
    assert alive == []
