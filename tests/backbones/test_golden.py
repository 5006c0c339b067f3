"""The parity numbers in the repository are small, whole, and close enough to the official ones."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from golden.round import LEFT_OUT, TOLERANCES, rounded, tolerance_of
from golden.weights import SHAPES, read_weights
from safetensors.torch import load_file

OURS = Path(__file__).resolve().parents[1] / "golden"
SETS = sorted(path.parent for path in OURS.rglob("config.json"))


def test_all_of_it_is_small():
    files = [path for path in OURS.rglob("*") if "__pycache__" not in path.parts and path.is_file()]
    assert len(files) > 100
    assert sum(path.stat().st_size for path in files) <= 12e6


@pytest.mark.parametrize("folder", SETS, ids=lambda folder: folder.name)
def test_every_file_is_the_one_its_configuration_names(folder):
    files = json.loads((folder / "config.json").read_text())["files"]
    for name, entry in files.items():
        content = (folder / name).read_bytes()
        assert len(content) == entry["bytes"], name
        assert hashlib.sha256(content).hexdigest() == entry["sha256"], name


def test_weights_come_from_the_rule_of_each_set():
    drawn = {}
    for folder in SETS:
        said = json.loads((folder / "config.json").read_text())["weights"]
        for stem in said.get("sha256", ()) if isinstance(said, dict) else ():
            drawn[f"{folder.name}/{stem}"] = read_weights(folder, stem)
    assert {name.split("/")[0] for name in drawn} == {
        "golden", "point3r", "dust3r", "spann3r", "streamvggt",
    }  # fmt: skip
    assert all(tensor.isfinite().all() for weights in drawn.values() for tensor in weights.values())


def test_weights_that_are_not_the_official_ones_are_refused(tmp_path):
    config = json.loads((OURS / "point3r" / "config.json").read_text())
    folder = tmp_path / "point3r"
    folder.mkdir()
    (folder / SHAPES).write_bytes((OURS / "point3r" / SHAPES).read_bytes())
    config["weights"]["seed"] += 1
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="are not those of sha256"):
        read_weights(folder, "weights")


@pytest.mark.parametrize(("atol", "rtol"), sorted({row[2:] for row in TOLERANCES}))
def test_rounding_moves_nothing_by_more_than_a_tenth_of_its_tolerance(atol, rtol):
    values = np.random.default_rng(0).normal(scale=10, size=10_000).astype(np.float32)
    moved = np.abs(rounded(values, atol, rtol).astype(float) - values)
    assert (moved <= 0.1 * (atol + rtol * np.abs(values.astype(float)))).all()
    assert moved.any()


def test_the_full_set_is_what_was_rounded(shared):
    full = shared / "golden"
    absent = {(file, name) for file, names in LEFT_OUT for name in names}
    for path in sorted(full.rglob("*.npz")):
        file = path.relative_to(full).with_suffix("").as_posix()
        official, ours = (dict(np.load(root / f"{file}.npz")) for root in (full, OURS))
        assert {(file, name) for name in set(official) - set(ours)} <= absent
        for name, values in ours.items():
            given = official[name]
            assert values.dtype == given.dtype, (file, name)
            atol, rtol = tolerance_of(file, name, given) or (0, 0)
            limits = {"rtol": 0.1 * rtol, "atol": 0.1 * atol}
            np.testing.assert_allclose(values, given, **limits, err_msg=f"{file} {name}")
    for path in full.rglob("weights*.safetensors"):
        drawn = read_weights(OURS / path.parent.relative_to(full), path.stem)
        stored = load_file(path)
        assert all((stored[name].float() == drawn[name]).all() for name in stored)
        assert stored.keys() == drawn.keys()
