"""Write benchmarks/README.md from the results that the benchmarks left.

python benchmarks/report.py outputs/benchmarks
"""

import argparse
import json
from pathlib import Path
from typing import Any

INTRODUCTION = """# Benchmarks

`make bench` runs these and writes this page; nothing here is typed by hand. Alternatives run in
turn in one process on the same frames and weights, so the ratios hold where absolute times do not.
Seconds are processor seconds (all threads added up), which other work on the machine disturbs less
than wall time. Memory is the peak resident size during a frame, above what was resident before it.
"""


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def ratio(name: str, value: float | dict[str, Any]) -> list[str]:
    if isinstance(value, dict) and value["limit"] is None:
        value = value["ratio"]
    if isinstance(value, dict):
        met = "met" if value["met"] else "**not met**"
        return [name, f"{value['ratio']:.2f}", f"{value['limit']:.2f}, {met}"]
    return [name, f"{value:.2f}", ""]


def section(name: str, result: dict[str, Any]) -> str:
    machine = result["machine"]
    height, width = result["image"]
    described = (
        f"{result['date']}: {result['backbone']}, {width} x {height} px, "
        f"{machine['device']} ({machine['processor']}, {machine['cores']} cores, "
        f"{machine['threads']} thread(s)), torch {machine['torch']}, "
        f"median of {result['repetitions']}."
    )
    parts = [f"## {name}", described]
    if "seconds_per_frame" in result:
        extra = result.get("extra_peak_megabytes", {})
        rows = [
            [key, f"{item['cpu']:.2f}", f"{item['wall']:.2f}", f"{extra.get(key, 0):+.0f}"]
            for key, item in result["seconds_per_frame"].items()
        ]
        parts.append(table(["per frame", "cpu s", "wall s", "peak memory over plain, MB"], rows))
    if "parts_cpu_seconds" in result:
        rows = [[key, f"{value:.2f}"] for key, value in result["parts_cpu_seconds"].items()]
        parts.append(table(["part of a plain frame", "cpu s"], rows))
    if "seconds" in result:
        rows = [
            [key, f"{item['cpu']:.2f}", f"{item['wall']:.2f}"]
            for key, item in result["seconds"].items()
        ]
        parts.append(table(["", "cpu s", "wall s"], rows))
    parts.append(
        table(["ratio", "value", "limit"], [ratio(*it) for it in result["ratios"].items()])
    )
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--page", type=Path, default=Path(__file__).parent / "README.md")
    args = parser.parse_args()
    files = sorted(args.results.glob("*.json"))
    if not files:
        raise SystemExit(f"no results in {args.results}; run `make bench` first")
    sections = [section(file.stem, json.loads(file.read_text())) for file in files]
    args.page.write_text("\n\n".join([INTRODUCTION.rstrip(), *sections]) + "\n")


if __name__ == "__main__":
    main()
