"""Write benchmarks/README.md and its figure from the results that the benchmarks left.

python benchmarks/report.py outputs/benchmarks
"""

import argparse
import json
from pathlib import Path
from typing import Any

import xarray as xr
from measure import counted

from mut3r_analysis import figures

INTRODUCTION = """# Benchmarks

`make bench` runs these and writes this page; nothing here is typed by hand. Alternatives take turns
in one process on the same frames and weights, so the ratios hold where absolute times do not.
Seconds are processor seconds (all threads added up), which other work on the machine disturbs less
than wall time. Where a table has no wall time, the alternatives handed over to each other every
tenth of a second on one core, since a machine's speed changes by more than their ratios differ.
Memory is the peak resident size during a frame, above what was resident before it, unless said
otherwise.
"""

NEVER = """## gpu

Never run on a GPU: `python benchmarks/gpu.py` does it in about ten minutes, agreement with the CPU
first, and its rows join this page. What is known without one: the path for CUDA devices agrees with
the CPU on an emulated one, which counts launches and copies and computes with the CPU's kernels."""

FIGURE = "ratios.png"


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def ratio(name: str, value: float | dict[str, Any]) -> list[str]:
    if not isinstance(value, dict):
        value = {"ratio": value, "limit": None}
    if value["limit"] is None:
        return [name, number(value["ratio"]), ""]
    met = "met" if value["met"] else "**not met**"
    bound = "at least" if value.get("at_least") else "at most"
    return [name, number(value["ratio"]), f"{bound} {number(value['limit'])}, {met}"]


def number(value: float) -> str:
    return f"{value:.2f}" if value == 0 or abs(value) >= 0.01 else f"{value:.0e}"


def described(result: dict[str, Any]) -> str:
    """Say when, with what and where the numbers were measured."""
    machine, repetitions = result["machine"], result["repetitions"]
    parts = [result["backbone"]]
    if "image" in result:
        height, width = result["image"]
        parts.append(f"{width} x {height} px")
    if "store" in result:
        parts.append(result["store"])
    parts.append(
        f"{machine['device']} ({machine['processor']}, {counted(machine['cores'], 'core')}, "
        f"{counted(machine['threads'], 'thread')}), torch {machine['torch']}"
    )
    parts.append(counted(repetitions, "repetition"))
    return f"{result['date']}: {', '.join(parts)}."


def timed(seconds: dict[str, dict[str, float]]) -> dict[str, str]:
    """Return the columns of a table of times, by what they are called in a result."""
    columns = {"cpu": "cpu s", "wall": "wall s"}
    return {key: text for key, text in columns.items() if all(key in x for x in seconds.values())}


def section(name: str, result: dict[str, Any]) -> str:
    parts = [f"## {name}", described(result)]
    if "seconds_per_frame" in result:
        extra = result.get("extra_peak_megabytes", {})
        columns = timed(result["seconds_per_frame"])
        rows = [
            [key, *(f"{item[column]:.2f}" for column in columns), f"{extra.get(key, 0):+.0f}"]
            for key, item in result["seconds_per_frame"].items()
        ]
        header = ["per frame", *columns.values(), "peak memory over plain, MB"]
        parts.append(table(header, rows))
    if "parts_cpu_seconds" in result:
        rows = [[key, f"{value:.2f}"] for key, value in result["parts_cpu_seconds"].items()]
        parts.append(table(["part of a plain frame", "cpu s"], rows))
    if "seconds" in result:
        columns = timed(result["seconds"])
        rows = [
            [key, *(f"{item[column]:.2f}" for column in columns)]
            for key, item in result["seconds"].items()
        ]
        parts.append(table(["", *columns.values()], rows))
    if "milliseconds" in result:
        rows = [[key, f"{value:.1f}"] for key, value in result["milliseconds"].items()]
        parts.append(table(["", "wall ms"], rows))
    if "frames_per_second" in result:
        rows = [[key, f"{value:,.0f}"] for key, value in result["frames_per_second"].items()]
        parts.append(table(["", "frames per second"], rows))
    if "growth" in result:
        rows = [
            [
                key,
                f"{1e3 * item['cpu']:.1f}",
                f"{1e3 * item['wall']:.1f}",
                f"{item['peak'] / 1e6:.0f}",
                f"{(item['peak'] - item['before']) / 1e6:+.1f}",
            ]
            for key, item in result["growth"].items()
        ]
        header = ["", "cpu ms per frame", "wall ms per frame", "peak memory, MB", "of the run, MB"]
        parts.append(table(header, rows))
    if result.get("failed"):
        rows = [[key, value] for key, value in result["failed"].items()]
        parts.append(table(["**failed**", "why"], rows))
    parts.append(
        table(["ratio", "value", "limit"], [ratio(*it) for it in result["ratios"].items()])
    )
    return "\n\n".join(parts)


def against_limits(results: dict[str, dict[str, Any]]) -> xr.DataArray:
    """Return every ratio that has a limit, over its limit; what must not fall below, inverted."""
    found = {
        f"{name}: {text}": value["limit"] / value["ratio"]
        if value.get("at_least")
        else value["ratio"] / value["limit"]
        for name, result in results.items()
        for text, value in result["ratios"].items()
        if isinstance(value, dict) and value["limit"] is not None
    }
    return xr.DataArray(
        list(found.values()),
        dims="benchmark",
        coords={"benchmark": list(found)},
        attrs={"long_name": "share of the limit", "units": "1"},
    )


def draw(results: dict[str, dict[str, Any]], path: Path) -> bool:
    """Draw all ratios that have a limit; return whether there are any."""
    values = against_limits(results)
    if not values.size:
        return False
    dates = sorted({result["date"] for result in results.values()})
    devices = sorted({result["machine"]["device"] for result in results.values()})
    figure = figures.interval_dots(
        values,
        rows="benchmark",
        reference=1.0,
        title="Benchmarks against their limits",
        subtitle="left of the line the limit is met; limits from below are inverted",
        source=f"Source: {', '.join(devices)}; {' to '.join(dict.fromkeys([dates[0], dates[-1]]))}",
    )
    figures.save(figure, path)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--page", type=Path, default=Path(__file__).parent / "README.md")
    args = parser.parse_args()
    files = sorted(args.results.glob("*.json"))
    if not files:
        raise SystemExit(f"no results in {args.results}; run `make bench` first")
    results = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}
    parts = [INTRODUCTION.rstrip()]
    if draw(results, args.page.parent / FIGURE):
        parts.append(f"![Every ratio that has a limit, over its limit]({FIGURE})")
    parts += [section(name, result) for name, result in results.items()]
    if "gpu" not in results:
        parts.append(NEVER)
    args.page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
