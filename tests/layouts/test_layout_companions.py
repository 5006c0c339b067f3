"""Data sets that were copied between systems read like the originals, or say what did not come."""

import codecs
import os

import pytest
import xarray as xr
from PIL import Image

from mut3r_analysis.errors import MissingFile, UnreadableFile
from mut3r_analysis.sequences import open_sequence
from mut3r_analysis.sequences.layouts import LAYOUTS

ALL = {"dycheck": "?split=all"}


def files_below(root):
    return [file for file in root.rglob("*") if file.is_file()]


@pytest.fixture(params=LAYOUTS)
def copied(request, exported):
    root, name = exported(request.param)
    name += ALL.get(request.param, "")
    return root, name, open_sequence(name)


def test_companions_of_other_systems_are_ignored(copied):
    root, name, before = copied
    for file in files_below(root):
        file.with_name("._" + file.name).write_bytes(b"\0\5\x16\7" + bytes(60))
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        for clutter in (".DS_Store", "Thumbs.db", "desktop.ini"):
            (folder / clutter).write_bytes(b"\0\1")
    (root / "__MACOSX").mkdir()
    xr.testing.assert_identical(open_sequence(name).load(), before.load())


def test_text_with_a_byte_order_mark_reads_the_same(copied):
    root, name, before = copied
    for file in files_below(root):
        if file.suffix in (".txt", ".json"):
            file.write_bytes(codecs.BOM_UTF8 + file.read_bytes())
    after = open_sequence(name)
    for variable in before.variables:
        xr.testing.assert_equal(after[variable].load(), before[variable].load())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("place", [0, 2, -1])
def test_an_image_that_is_a_link_to_nothing_is_named(layout, place, exported):
    root, name = exported(layout)
    first = open_sequence(name + ALL.get(layout, ""))
    image = next(f for f in root.rglob(str(first.file[place].item())) if _is_colour(f))
    image.unlink()
    image.symlink_to("/mnt/not-mounted/frame")
    with pytest.raises((MissingFile, UnreadableFile), match=image.stem):
        open_sequence(name + ALL.get(layout, ""))


@pytest.mark.parametrize("layout", ["sintel", "scannet", "davis", "bonn"])
def test_truth_that_is_a_link_to_nothing_is_named(layout, exported):
    root, name = exported(layout)
    folder = {"sintel": "depth", "scannet": "depth", "davis": "Annotations", "bonn": "depth"}[
        layout
    ]
    truth = sorted(f for f in files_below(root) if folder in f.parts)[1]
    truth.unlink()
    os.symlink("/mnt/not-mounted/truth", truth)
    with pytest.raises(MissingFile, match=f"{truth.name} is a link to nothing"):
        open_sequence(name)


def _is_colour(file):
    with Image.open(file) as image:
        return image.mode == "RGB"
