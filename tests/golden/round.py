"""Make the small parity set of this folder from a full one of the same layout.

    python tests/golden/round.py FULL [TARGET]

Weights are left out where the rule in a folder's ``config.json`` gives them back bit for bit; dense
arrays are rounded to a tenth of their tolerance; everything else is copied.
"""

import gzip
import hashlib
import io
import json
import shutil
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from golden.weights import SHAPES, drawn_weights, tensors_sha256

# File, array, absolute and relative tolerance; the first matching line wins and what no line names
# stays exact. Only arrays that are compared within a tolerance are named: from the others something
# is decided (a rank, a merge, a mask), or they are fed in.
TOLERANCES = (
    ("dust3r/*_linear", "pts3d*", 3e-4, 0),
    ("dust3r/*_linear", "conf*", 2e-4, 0),
    ("dust3r/outputs_dpt", "*pts3d*", 5e-5, 0),
    ("dust3r/outputs_dpt", "*conf*", 1e-5, 0),
    ("dust3r/intermediates_*", "*", 2e-5, 0),
    ("easi3r/attention_pair01", "*", 2e-5, 0),
    ("easi3r/second_pass", "*pts3d*", 5e-5, 0),
    ("easi3r/second_pass", "*conf*", 1e-5, 0),
    ("easi3r/second_pass", "given_dec*", 2e-5, 0),
    ("spann3r/*", "*pts3d*", 5e-4, 0),
    ("spann3r/*", "*conf*", 5e-5, 0),
    ("spann3r/intermediates_step1", "*", 5e-5, 0),
    ("spann3r/*", "value", 5e-5, 0),
    ("spann3r/memory", "read_query", 5e-5, 0),
    ("spann3r/memory", "read_fused", 5e-5, 0),
    ("streamvggt/outputs*", "*", 1e-5, 1e-5),
    ("streamvggt/attention", "*", 1e-5, 1e-5),
    ("streamvggt/cache", "*", 1e-5, 1e-5),
    ("streamvggt/intermediates", "*", 1e-5, 1e-5),
    ("point3r/outputs", "pts3d_in_self_view", 1e-3, 1e-4),
    ("point3r/outputs", "pts3d_in_other_view", 3e-4, 1e-4),
    ("point3r/outputs", "conf*", 1e-4, 1e-4),
    ("point3r/attention", "*_logits", 1e-4, 1e-4),
    ("point3r/extra/*", "f3_*", 1e-4, 1e-4),
    ("point3r/intermediates", "*", 1e-4, 1e-4),
    ("write_rules/features", "features", 5e-5, 0),
    ("write_rules/raymap3r_*", "ray_map", 5e-5, 0),
    ("write_rules/raymap3r_*", "*depth", 1e-3, 0),
    ("write_rules/raymap3r_*", "*conf_self", 2e-4, 0),
    ("write_rules/raymap3r_*", "alpha_image", 1e-4, 0),
    ("write_rules/*", "state", 5e-5, 0),
    ("write_rules/*", "proposal", 5e-5, 0),
    ("write_rules/*", "updated", 5e-5, 0),
    ("write_rules/*", "drift_direction", 5e-5, 0),
    ("write_rules/*", "ray_state", 5e-5, 0),
    ("write_rules/*", "mem", 2e-4, 0),
    ("write_rules/*", "state_cross_logits", 1e-4, 0),
    # The focal lengths of the main runs follow from the last digits of the points in self view.
    ("outputs_*", "pts3d_in_other_view", 5e-4, 1e-4),
    ("extra/outputs_*", "*pts3d*", 5e-4, 1e-4),
    ("*outputs_*", "*conf*", 1e-4, 1e-4),
    ("*outputs_*", "*rgb", 2e-5, 0),
    ("*outputs_*", "*state", 2e-5, 0),
    ("*outputs_*", "*mem", 1e-4, 1e-4),
    ("attention_dpt", "*", 1e-4, 1e-4),
    ("intermediates_dpt", "f?_state_in", 2e-5, 0),
    ("intermediates_dpt", "f?_new_state", 2e-5, 0),
    ("intermediates_dpt", "*", 1e-4, 1e-4),
)

SMALLEST = 200
"""Arrays of fewer numbers are not worth rounding."""

LEFT_OUT = (
    ("write_rules/raymap3r_dynamic_other", ("depth", "conf_self", "ray_depth", "ray_conf_self")),
)
"""Maps that ``raymap3r_dynamic_masks`` has in the same form."""


def make(full: Path, target: Path) -> None:
    """Write the small set of every folder of ``full`` that has a config.json."""
    for path in sorted(full.rglob("config.json")):
        folder = path.parent.relative_to(full)
        config = json.loads(path.read_text())
        shapes = {}
        for file in sorted(path.parent.glob("weights*.safetensors")):
            weights = {name: tensor.float() for name, tensor in load_file(file).items()}
            shapes[file.stem] = {name: list(tensor.shape) for name, tensor in weights.items()}
            drawn = drawn_weights(folder.name, config, file.stem, shapes[file.stem])
            differing = [name for name in weights if not torch.equal(weights[name], drawn[name])]
            if differing:
                raise ValueError(f"{file}: the rule does not give back {differing[:5]}")
            config["weights"].setdefault("sha256", {})[file.stem] = tensors_sha256(weights)
        (target / folder).mkdir(parents=True, exist_ok=True)
        if shapes:
            (target / folder / SHAPES).write_bytes(
                gzip.compress(json.dumps(shapes, separators=(",", ":")).encode(), mtime=0)
            )
        config["files"] = {
            name: _copy(full / folder / name, target / folder / name, (folder / name).as_posix())
            for name in config["files"]
            if not name.endswith(".safetensors")
        }
        (target / folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def _copy(source: Path, target: Path, name: str) -> dict[str, int | str]:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix == ".npz":
        with np.load(source) as file:
            _write(target, _reduced(name.removesuffix(".npz"), dict(file)))
    else:
        shutil.copyfile(source, target)
    content = target.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _reduced(file: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    absent = {name for pattern, names in LEFT_OUT if pattern == file for name in names}
    reduced = {}
    for name, values in arrays.items():
        if name not in absent:
            tolerance = tolerance_of(file, name, values)
            reduced[name] = values if tolerance is None else rounded(values, *tolerance)
    return reduced


def tolerance_of(file: str, name: str, values: np.ndarray) -> tuple[float, float] | None:
    """Return absolute and relative tolerance of an array that is rounded, None of all others."""
    if values.dtype != np.float32 or values.size < SMALLEST:
        return None
    return next(
        (row[2:] for row in TOLERANCES if fnmatch(file, row[0]) and fnmatch(name, row[1])), None
    )


def rounded(values: np.ndarray, atol: float, rtol: float) -> np.ndarray:
    """Move no value by more than a tenth of its tolerance, to a number with few binary digits."""
    exact = values.astype(np.float64)
    step = 2.0 ** np.floor(np.log2((atol + rtol * np.abs(exact)) / 5))
    return (np.rint(exact / step) * step).astype(values.dtype)


def _write(target: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write what np.load reads, compressed as far as deflate goes and equal from run to run."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for name, values in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, values, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(entry, content.getvalue(), compresslevel=9)


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else Path(__file__).parent))
