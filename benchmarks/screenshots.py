"""Pictures of every explorer: the explorers' notebook executed, its pages photographed.

    python benchmarks/screenshots.py [outputs]

Needs a Chromium on this machine; nothing else is started and nothing is fetched.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mut3r_analysis.notebooks.execution import execute_notebook, find_notebook

NAMES = ("chromium", "chromium-browser", "google-chrome")
HEIGHTS = {
    "attention": 830, "compared": 1370, "failures": 1330, "closer": 1420, "scene": 740,
    "playground": 930,
}  # fmt: skip


def photograph(chromium: str, page: Path, picture: Path, height: int) -> None:
    """Let a browser draw a page and keep what it shows."""
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                chromium, "--headless", "--no-sandbox", "--disable-background-networking",
                "--enable-unsafe-swiftshader", "--hide-scrollbars",
                "--run-all-compositor-stages-before-draw", "--virtual-time-budget=20000",
                f"--user-data-dir={profile}", f"--window-size=970,{height}",
                f"--screenshot={picture}", page.as_uri(),
            ],
            check=True, capture_output=True, timeout=300,
        )  # fmt: skip


def main(out: Path) -> None:
    chromium = next((found for name in NAMES if (found := shutil.which(name))), None)
    if chromium is None:
        sys.exit(f"no Chromium on this machine (looked for {', '.join(NAMES)})")
    folder = out / "explorers"
    execute_notebook(
        find_notebook("12_explorers"),
        {"out": str(out), "progress": False},
    )
    for page in sorted(folder.glob("*.html")):
        picture = folder / f"{page.stem}.png"
        photograph(chromium, page, picture, HEIGHTS.get(page.stem, 900))
        print(picture)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "outputs").resolve())
