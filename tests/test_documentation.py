"""The check of the built documentation finds what it is for; links in texts lead to files."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUILT = [ROOT / "docs" / name for name in ("gallery", "model_cards", "reference")]
"""Written by the build, which checks links to them itself."""
WHOLE = {
    "index.html": '<a href="part.html#place">there</a> <a href="https://example.org">away</a>',
    "part.html": '<h1 id="place">here</h1> <img src="picture.png">',
    "picture.png": "",
    "style.css": "@import 'other.css'; a { background: url(picture.png) }",
    "searchindex.js": "Search.setIndex({entropi:1})",
}


def check(folder: Path, files: dict[str, str]) -> tuple[int, str]:
    for name, text in files.items():
        (folder / name).write_text(text)
    command = [sys.executable, str(ROOT / "docs" / "check_pages.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_pages_that_hold_together_pass(tmp_path):
    assert check(tmp_path, WHOLE) == (0, "")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("index.html", '<a href="gone.html">', "gone.html, which is not there"),
        ("index.html", '<a href="part.html#gone">', "part.html#gone, which has no such place"),
        ("index.html", '<script src="https://cdn.example/x.js">', "loads https://cdn.example/x.js"),
        ("style.css", "@import 'https://fonts.example/x';", "loads https://fonts.example/x"),
        ("searchindex.js", "Search.setIndex({})", "does not know the word entropy"),
    ],
)
def test_what_is_broken_or_needs_a_network_is_named(tmp_path, name, text, said):
    status, told = check(tmp_path, WHOLE | {name: text})
    assert status == 1
    assert said in told


def committed(pattern: str) -> list[str]:
    command = ["git", "ls-files", pattern]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return done.stdout.split()


@pytest.mark.parametrize("name", committed("*.md"))
def test_links_in_texts_lead_to_files(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    for address in re.findall(r"\]\(([^)#\s]+)", text):
        if not address.startswith(("http://", "https://", "mailto:")):
            target = ((ROOT / name).parent / address).resolve()
            assert target.exists() or target.parent in BUILT, address
