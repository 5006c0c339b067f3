"""What the store costs: whole maps against raw sequential writes, and selections from 10 GB.

    python benchmarks/storage.py [--quick]

Maps of random numbers at the released size go through the writer that a run uses; no model runs.
The store of the second part declares its full size, but only what is read is really there.
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
import zarr
from measure import at_least, measure, publish

import mut3r_analysis as m3
from mut3r_analysis.attention import Capture
from mut3r_analysis.backbones import CUT3R
from mut3r_analysis.backbones.preparation import Preparation
from mut3r_analysis.backbones.random_weights import NAMED_CONFIGS
from mut3r_analysis.running.chunks import block_length, frame_bytes
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.running.inventory import RunStore, expected
from mut3r_analysis.running.new_store import create_store
from mut3r_analysis.running.provenance import FORMAT_VERSION
from mut3r_analysis.running.schema import Schema, run_schema
from mut3r_analysis.running.store import BlockWriter

SPEC, IMAGE = "random:512-dpt", (384, 512)
SITE = "image_self"
PIECE = 32 * 2**20
LIMIT = 0.70

Frame = dict[str, dict[str, np.ndarray]]


def schema_of(frames: int, capture: Capture) -> Schema:
    """Return the schema of a run at the released size, from a backbone without weights."""
    config = NAMED_CONFIGS[SPEC.removeprefix("random:")]
    with torch.device("meta"):
        backbone = CUT3R(config, update="cut3r")
    backbone.preparation = Preparation(max(config.img_size), patch=config.patch_size)
    image = np.broadcast_to(np.uint8(0), (frames, *IMAGE, 3))
    sequence = xr.Dataset(
        {"image": (("frame", "y", "x", "rgb"), image)}, {"frame": np.arange(frames)}
    )
    return run_schema(backbone, sequence, capture, ("pose",), Configuration())


def made_up(schema: Schema) -> Frame:
    """Return random numbers for one frame, in every variable."""
    random = np.random.default_rng(0)
    return {
        path: {
            name: random.random(variable.shape[1:], np.float32).astype(variable.dtype)
            for name, variable in group.variables.items()
            if variable.values is None
        }
        for path, group in schema.items()
    }


def bytes_per_frame(schema: Schema) -> int:
    return sum(
        frame_bytes(variable)
        for group in schema.values()
        for variable in group.variables.values()
        if variable.values is None
    )


def write_raw(path: Path, frame: Frame, frames: int, synced: bool) -> None:
    """Write the same bytes one after the other to one file."""
    with path.open("wb", buffering=0) as file:
        for _ in range(frames):
            for values in frame.values():
                for array in values.values():
                    view = memoryview(array.reshape(-1)).cast("B")
                    for start in range(0, len(view), PIECE):
                        file.write(view[start : start + PIECE])
    if synced:
        os.sync()


def write_store(root: zarr.Group, schema: Schema, frame: Frame, frames: int, synced: bool) -> None:
    """Write as a run does."""
    writer = BlockWriter(root, schema, block_length(schema))
    for position in range(frames):
        writer.add(position, frame)
    writer.flush()
    if synced:
        os.sync()


def throughput(folder: Path, frames: int, layers: int, heads: int, repetitions: int
               ) -> tuple[dict[str, Any], dict[str, Any]]:  # fmt: skip
    """Return the seconds of both ways to write, and their ratios."""
    capture = Capture(
        statistics=(), sites=[SITE], maps=[SITE], layers=range(layers), heads=range(heads)
    )
    schema = schema_of(frames, capture)
    frame = made_up(schema)
    amount = frames * bytes_per_frame(schema) / 1e6
    raw, store, roots = folder / "raw", folder / "store", {}

    def clear() -> None:
        # Making the store empty is done once in a run, whatever its length.
        raw.unlink(missing_ok=True)
        shutil.rmtree(store, ignore_errors=True)
        roots["new"], _ = create_store(schema, {}, store)
        os.sync()

    def write(synced: bool) -> None:
        write_store(roots["new"], schema, frame, frames, synced)

    found = measure(
        {
            "raw": lambda: write_raw(raw, frame, frames, False),
            "store": lambda: write(False),
            "raw, synced": lambda: write_raw(raw, frame, frames, True),
            "store, synced": lambda: write(True),
        },
        repetitions,
        prepare=clear,
    )
    seconds = {
        f"write {amount:.0f} MB: {name}": {"wall": item.wall, "cpu": item.cpu}
        for name, item in found.items()
    }
    ratios = {
        "throughput of maps, store / raw": at_least(found["raw"].wall / found["store"].wall, LIMIT),
        "throughput of maps, store / raw, synced to disk": at_least(
            found["raw, synced"].wall / found["store, synced"].wall, LIMIT
        ),
    }
    return seconds, ratios


def sparse_store(path: Path, layers: int, heads: int, size: float) -> tuple[int, int]:
    """Make a store of a declared size; return its frames and one whose maps are there."""
    capture = Capture(
        statistics=["entropy"], sites=[SITE], maps=[SITE], layers=range(layers), heads=range(heads)
    )
    per_frame = bytes_per_frame(schema_of(1, capture))
    frames = max(2, round(size / per_frame))
    schema = schema_of(frames, capture)
    attrs = {
        "format_version": FORMAT_VERSION,
        "frames": frames,
        "frames_complete": frames,
        "sequence": {"name": "made up"},
    }
    root, _ = create_store(schema, attrs, path)
    frame, there = made_up(schema), frames // 2
    block = block_length(schema)
    whole = range(there // block * block, there // block * block + block)
    for position, values in enumerate(rows(frame, frames, whole)):
        for name, value in values.items():
            root[name][position] = value
    store = RunStore(path)
    for group in schema:
        for key, length in expected(store, group, frames):
            if key not in store.files:
                (path / key).parent.mkdir(parents=True, exist_ok=True)
                with (path / key).open("wb") as file:
                    file.truncate(length)
    return frames, there


def rows(frame: Frame, frames: int, whole: range) -> Iterator[dict[str, np.ndarray]]:
    """Give every frame its statistic, and those of one block their maps."""
    for position in range(frames):
        values = frame[f"attention/{SITE}"]
        names = [name for name in values if name != "logits" or position in whole]
        yield {f"attention/{SITE}/{name}": values[name] for name in names}


def selections(path: Path, there: int) -> dict[str, Callable[[], Any]]:
    """Return what a person does first with a large run, each from a tree just opened."""

    def select(name: str, **labels: Any) -> Callable[[], Any]:
        run = m3.open_run(path)
        array = run[f"attention/{SITE}/{name}"]
        return lambda: array.sel(labels).values

    return {
        "open the run": lambda: m3.open_run(path),
        "one row of one map": select(
            "logits", frame=there, layer=0, head=0, token="patch", patch_row=3, patch_col=4
        ),
        "one row of weights": select(
            "weights", frame=there, layer=0, head=0, token="patch", patch_row=3, patch_col=4
        ),
        "one statistic of one frame": select("entropy", frame=there),
        "one statistic of one layer, all frames": select("entropy", layer=0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few small maps, for a rehearsal")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    frames, layers, heads, size = (2, 2, 2, 2e8) if args.quick else (2, 12, 12, 1e10)
    repetitions = 1 if args.quick else args.repetitions
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        place = Path(folder)
        seconds, ratios = throughput(place, frames, layers, heads, repetitions)
        declared, there = sparse_store(place / "large", layers, heads, size)
        array = zarr.open_group(place / "large", mode="r")[f"attention/{SITE}/logits"]
        found = measure(selections(place / "large", there), repetitions)
    result = {
        "backbone": SPEC,
        "image": list(IMAGE),
        "repetitions": repetitions,
        "seconds": seconds,
        "store": f"{array.nbytes / 1e9:.1f} GB of maps declared, {declared} frames",
        "milliseconds": {name: 1e3 * item.wall for name, item in found.items()},
        "ratios": ratios,
    }
    publish("storage", result, args.out, args.quick)


if __name__ == "__main__":
    main()
