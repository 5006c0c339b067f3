"""The wheel alone, in an environment that has nothing else of this checkout."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WITHOUT_CHECKOUT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
    # Where nbconvert's templates are: with the dependencies, which stay in the tests' environment.
    "JUPYTER_PATH": f"{sys.prefix}/share/jupyter"
}


@pytest.mark.slow
def test_the_wheel_runs_the_demo_outside_the_checkout(tmp_path):
    pytest.importorskip("hatchling", reason="hatchling is not installed: pip install hatchling")

    def call(*command: object, **options: object) -> str:
        return subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, check=True, **options
        ).stdout

    build = f"from hatchling.build import build_wheel; build_wheel({str(tmp_path)!r})"
    call(sys.executable, "-c", build, cwd=ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "empty", with_pip=False)
    programs = tmp_path / "empty" / "bin"
    call(sys.executable, "-m", "pip", "--python", programs / "python", "install", "--quiet",
         "--no-deps", "--no-index", wheel)  # fmt: skip
    # Dependencies are those of the tests; what puts the checkout on the path is not read there.
    (site,) = (tmp_path / "empty" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    elsewhere = {"cwd": tmp_path, "env": WITHOUT_CHECKOUT}
    show = "import mut3r_analysis; print(mut3r_analysis.__file__)"
    where = call(programs / "python", "-c", show, **elsewhere).strip()
    assert Path(where).is_relative_to(site)
    assert "FLOP per frame" in call(programs / "mut3r", "plan", "scenes/orbit-03", **elsewhere)
    small = ("--backbone", "random:small")  # bundled ones would also be scored on many scenes
    printed = call(programs / "mut3r", "demo", "--out", "made", *small, **elsewhere)
    assert str(tmp_path / "made" / "quickstart.html") in printed
    assert (tmp_path / "made" / "failures.html").is_file()
