"""Data sets are rows: complete, and a module with one line is all that a new one takes."""

import dataclasses
import sys
import types
from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from mut3r_analysis.cli.main import build_parser
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.evaluation import check_dataset
from mut3r_analysis.metrics import PROTOCOLS, Protocol
from mut3r_analysis.sequences import open_sequence
from mut3r_analysis.sequences.layouts import LAYOUTS, export_sequence, find_layout
from mut3r_analysis.sequences.layouts.catalogue import WITHOUT_LAYOUT, canonical_sequence
from mut3r_analysis.sequences.layouts.files import SequenceFiles, planes
from mut3r_analysis.sequences.layouts.formats import write_image
from mut3r_analysis.sequences.layouts.layout import Layout, subfolders
from mut3r_analysis.sequences.model import VARIABLES
from mut3r_analysis.sequences.prefixes import find_opener


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_row_is_complete(name):
    layout = find_layout(name)
    assert layout.name == name
    assert find_opener(name) == layout.open
    assert sys.modules[LAYOUTS[name]].__doc__
    for action in (layout.find, layout.list_files, layout.read, partial(layout.write).func):
        assert action.__doc__, action
    assert {each for need in layout.needs for each in need.split("|")} <= set(VARIABLES)
    assert set(layout.obtain) <= set(VARIABLES)
    assert layout.looks_like
    assert layout.defaults().keys() == layout.options.keys()
    short = f"{layout.prefix}one{''.join(reversed(layout.suffixes))}"
    assert canonical_sequence(name, short) == canonical_sequence(name, "one") == "one"
    assert any(protocol.dataset == name for protocol in PROTOCOLS.values())
    assert f"{name}:" in open_sequence.__doc__
    assert f'"{name}"' in export_sequence.__doc__


def test_what_no_table_knows_is_an_error():
    with pytest.raises(InvalidArgument, match="layout must be one of sintel"):
        find_layout("kinect")
    with pytest.raises(InvalidArgument, match="layout must be one of"):
        canonical_sequence("kinect", "kitchen")
    with pytest.raises(InvalidArgument, match=r"dataset must be one of sintel, .*got 'kinect'"):
        dataclasses.replace(PROTOCOLS["default:depth:metric"], id="mine", dataset="kinect")
    assert not set(WITHOUT_LAYOUT) & set(LAYOUTS)


def find(root):
    return {
        folder.name.removeprefix("toy_").removesuffix("_raw"): folder
        for folder in subfolders(root)
        if folder.name.startswith("toy_")
    }


def list_files(folder, name, options):
    images = tuple(sorted(folder.glob("*.png")))
    depth = tuple(image.with_suffix(".npy") for image in images)
    return SequenceFiles("toy", name, folder, images, {"depth": depth})


def read(files, images, options):
    unit = {"m": 1, "mm": 1000}[options["unit"]]
    depth = planes(files.truth["depth"], lambda path: np.load(path) * unit, images.size)
    return {"depth": depth}, {"unit": options["unit"]}


def write(sequence, root, name):
    folder = root / f"toy_{name}_raw"
    folder.mkdir()
    for index in range(sequence.sizes["frame"]):
        write_image(folder / f"{index}.png", sequence["image"][index].values)
        np.save(folder / f"{index}.npy", sequence["depth"][index].values)


@pytest.fixture
def toy(monkeypatch):
    """A data set that stands where CONTRIBUTING says: a module with `LAYOUT`, and its name."""
    module = types.ModuleType("toy_layout")
    module.LAYOUT = Layout(
        "toy", find, list_files, read, write,
        needs=("image", "depth"), looks_like="toy_<sequence>_raw/0.png",
        obtain={"image": "a toy shop, http://toys.example"}, options={"unit": ("m", "mm")},
        prefix="toy_", suffixes=("_raw",),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "toy_layout", module)
    monkeypatch.setitem(LAYOUTS, "toy", "toy_layout")


def test_a_data_set_takes_a_module_and_its_name(toy, scene, exported):
    root, spec = exported("toy", "toy_orbit-03_raw")
    assert spec == f"toy:{root}#orbit-03"
    for name in (spec, f"toy:{root}#toy_orbit-03_raw", f"toy:{root}"):
        sequence = open_sequence(name)
        assert_array_equal(sequence.image, scene.image)
        assert_array_equal(sequence.depth, scene.depth)
        assert (sequence.attrs["name"], sequence.attrs["kind"]) == ("orbit-03", "toy")
    assert_array_equal(open_sequence(f"{spec}?unit=mm").depth, scene.depth * 1000)
    with pytest.raises(InvalidArgument, match=r"option must be unit; got 'colour'"):
        open_sequence(f"{spec}?colour=red")
    with pytest.raises(InvalidArgument, match="needs depth"):
        export_sequence(scene.drop_vars("depth"), root, "toy", name="other")


def test_a_new_data_set_is_checked_scored_and_on_the_command_line(toy, exported, capsys):
    root, _ = exported("toy", "orbit-03")
    report = check_dataset(root)
    assert (report.layout, report.sequences[0].name, report.problems) == ("toy", "orbit-03", ())
    assert report.sequences[0].frames == {"image": tuple(range(6)), "depth": tuple(range(6))}
    assert report.protocols == ()
    protocol = dataclasses.replace(
        PROTOCOLS["default:depth:metric"], id="mine", dataset="toy", sequences=("orbit-03",)
    )
    assert Protocol.from_json(protocol.to_json()) == protocol
    assert protocol.select(["toy_orbit-03_raw"]) == (("toy_orbit-03_raw",), ())
    args = build_parser().parse_args(["datasets", "check", str(root), "--layout", "toy"])
    assert args.run(args) == 1
    assert "toy in" in capsys.readouterr().out
