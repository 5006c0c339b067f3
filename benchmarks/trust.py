"""Try what docs/trust.md promises, and write what was found into its table.

    python benchmarks/trust.py [--cases 2000]

Every figure of the table is counted or measured here. Figures of load come from
``outputs/benchmarks/load.json``, which benchmarks/load.py leaves.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from measure import machine

import mut3r_analysis as m3
from mut3r_analysis.backbones.parity import parity
from mut3r_analysis.cli.deep import killed_and_resumed
from mut3r_analysis.running import chunks
from mut3r_analysis.running.agreement import differences
from mut3r_analysis.running.checking import check_store

ROOT = Path(__file__).parents[1]
PAGE, LOAD = ROOT / "docs" / "trust.md", ROOT / "outputs" / "benchmarks" / "load.json"
BEGIN, END = "<!-- figures: written by make trust -->", "<!-- end of figures -->"
FRAMES, BLOCK = 10, 4

Row = tuple[str, str]


def quiet(sequence: xr.Dataset, **more: Any) -> xr.DataTree:
    return m3.run(m3.load_backbone("tiny", device="cpu"), sequence, progress=False, **more)


def scene() -> xr.Dataset:
    return m3.open_sequence("scenes/orbit-03", stop=FRAMES)


def agreeing() -> Row:
    found = parity()
    worst = max(found, key=lambda each: each.difference / each.tolerance)
    held = sum(each.holds for each in found)
    words = f"{held} of {len(found)}; the largest difference is {worst.difference:.0e}"
    return "arrays that agree with official implementations", f"{words} ({worst.name})"


def damaged(folder: Path) -> Row:
    """Damage every file of a store that holds numbers or describes them, and look for it."""
    quiet(scene(), out=folder / "whole", capture=m3.Capture(statistics=["entropy"]))
    ways = (
        lambda file, content: file.unlink(),
        lambda file, content: file.write_bytes(content[:-3]),
        lambda file, content: file.write_bytes(b""),
        lambda file, content: file.write_bytes(bytes([content[0] ^ 1]) + content[1:]),
    )  # fmt: skip
    files = [file for file in sorted((folder / "whole").rglob("*")) if file.is_file()]
    files = [file for file in files if file.parent != folder / "whole"]
    found = 0
    for index, file in enumerate(files):
        content = file.read_bytes()
        ways[index % len(ways)](file, content)
        found += bool(check_store(folder / "whole"))
        file.write_bytes(content)
    assert not check_store(folder / "whole")
    return "files of a store removed, cut, emptied or with one wrong bit, and found", (
        f"{found} of {len(files)}"
    )


def interrupted(folder: Path) -> Row:
    """Stop a run in each of its frames, go on with it, and compare with one left alone."""
    chunks.MOST_FRAMES = BLOCK
    expected, equal = quiet(scene()), 0
    backbone = m3.load_backbone("tiny", device="cpu")
    for stop in range(FRAMES):
        frames = iter(range(stop))

        def observe(*_: Any, frames: Iterator[int] = frames) -> None:
            if next(frames, None) is None:
                raise KeyboardInterrupt

        hook = backbone.dec_blocks[0].register_forward_pre_hook(observe)
        out = folder / f"stopped-{stop}"
        with suppress(KeyboardInterrupt):
            m3.run(backbone, scene(), out=out, progress=False)
        hook.remove()
        resumed = m3.run(backbone, scene(), out=out, resume=True, progress=False)
        equal += not any(differences(resumed, expected).values())
    return "runs stopped in each of their frames, resumed, and equal bit for bit", (
        f"{equal} of {FRAMES}"
    )


def killed(folder: Path) -> Row:
    found, holds = killed_and_resumed(folder)
    return "a process killed while it writes", found if holds else f"**wrong**: {found}"


def repeated() -> Iterator[Row]:
    """Run with as many threads again, and with more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    first, again = quiet(scene()), quiet(scene())
    words = "**differ**" if any(differences(again, first).values()) else "equal bit for bit"
    yield "two runs with the same number of threads", words
    torch.set_num_threads(2)
    yield "runs of the bundled model with one and with two threads", apart(first, quiet(scene()))
    torch.set_num_threads(threads)
    noise = np.random.default_rng(0).integers(0, 256, (2, 384, 512, 3), np.uint8)
    frames = m3.open_sequence(noise, name="noise")
    large = m3.load_backbone("random:512-dpt", device="cpu")
    runs = []
    for count in (1, 2):
        torch.set_num_threads(count)
        runs.append(m3.run(large, frames, progress=False))
    torch.set_num_threads(threads)
    yield "two frames of a model of the released size with one and with two threads", apart(*runs)


def apart(one: xr.DataTree, other: xr.DataTree) -> str:
    """Say how far two runs are from each other."""
    return f"at most {max(differences(other, one).values()):.0e} of the largest value apart"


def fuzzed(cases: int) -> Row:
    """Give every parser so many inputs."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0",
               str(ROOT / "tests" / "test_fuzz.py"), "-k", "read_or_refused"]  # fmt: skip
    environment = os.environ | {"FUZZ_CASES": str(cases), "HYPOTHESIS_PROFILE": "search"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    said = done.stdout.splitlines()[-1]
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed)", said)}
    passed, failed = counts.get("passed", 0), counts.get("failed", 0)
    return "inputs to parsers that gave a value or one error of ours", (
        f"{passed * cases:,} to {passed} of {passed + failed} parsers, up to {cases:,} each"
    )


def loaded() -> Iterator[Row]:
    """Repeat what benchmarks/load.py measured last."""
    if LOAD.is_file():
        found = json.loads(LOAD.read_text(encoding="utf-8"))
        for name, value in found["milliseconds"].items():
            yield name, f"{value:,.0f} ms" if value >= 100 else f"{value:.1f} ms"
        for name, item in found["ratios"].items():
            if "seconds" not in name:
                yield name, f"{item['ratio']:.2f}"


def rows(cases: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        yield agreeing()
        yield fuzzed(cases)
        yield damaged(folder)
        yield interrupted(folder)
        yield killed(folder)
        yield from repeated()
    yield from loaded()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2000, help="inputs to each parser")
    parser.add_argument("--page", type=Path, default=PAGE)
    args = parser.parse_args()
    page = args.page.read_text(encoding="utf-8")
    before, after = page.index(BEGIN) + len(BEGIN), page.index(END)
    kind = machine()
    where = f"{kind['device']}, {kind['cores']} cores, torch {kind['torch']}"
    lines = [f"{datetime.now(UTC).date()}: {where}.", "", "| tried | found |", "| --- | --- |"]
    for name, found in rows(args.cases):
        print(f"{name}: {found}", flush=True)
        lines.append(f"| {name} | {found} |")
    table = "\n".join(lines)
    args.page.write_text(f"{page[:before]}\n\n{table}\n\n{page[after:]}", encoding="utf-8")


if __name__ == "__main__":
    main()
