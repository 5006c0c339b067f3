"""``mut3r sweep``: a declared sweep from a file, and how far one is."""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from mut3r_analysis.errors import InvalidArgument


def add_parser(verbs: Any) -> None:
    """Add the verb to the command's parser."""
    parser = verbs.add_parser(
        "sweep",
        help="run and score many configurations on many sequences",
        description="Run every configuration of a YAML file on every sequence, share the encoder "
        "between configurations, skip what is finished, and write a table. Started again, it goes "
        "on where it stopped.",
    )
    parser.add_argument(
        "specification",
        nargs="?",
        help="YAML file with backbone, sequences, grid or configurations, out ...",
    )
    parser.add_argument("--out", help="folder of the sweep, in place of the file's")
    parser.add_argument(
        "--protocol", metavar="ID", help="how runs are scored, with its frames and preparation"
    )
    parser.add_argument(
        "--preparation", choices=("crop", "resize"), help="how frames are brought to size"
    )
    parser.add_argument("--workers", type=int, default=0, help="processes (default: this one)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster")
    parser.add_argument("--plan", action="store_true", help="only say what it would cost")
    parser.add_argument("--status", action="store_true", help="only say how far it is")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry out the verb; 1 when a run failed, is missing or lacks the score that was asked for."""
    from mut3r_analysis.sweeps import open_sweep, plan, sweep
    from mut3r_analysis.sweeps.executors import dask_distributed
    from mut3r_analysis.sweeps.specification import read_specification

    given = {} if args.specification is None else read_specification(args.specification)
    declared = given.pop("out", None)
    out = args.out or declared
    if out is None:
        raise InvalidArgument("a sweep needs a folder: --out FOLDER, or out: in the file")
    if args.status:
        return _report(open_sweep(out), out)
    if not given:
        raise InvalidArgument("give the YAML file that declares the sweep, or --status")
    for name, value in (("protocol", args.protocol), ("preparation", args.preparation)):
        if value is not None:
            given[name] = value
    if args.plan:
        print(plan(given.pop("backbone"), given.pop("sequences"), out=out, **given))
        return 0
    client = dask_distributed().Client(args.scheduler) if args.scheduler else None
    table = sweep(**given, out=out, workers=args.workers, client=client, progress=not args.quiet)
    return _report(table, out)


def _report(table: Any, out: str) -> int:
    """Print how far a sweep is and what it found, and write the table as CSV."""
    counts = Counter(table["status"].values.ravel().tolist())
    print(f"{out}: " + ", ".join(f"{count} {status}" for status, count in sorted(counts.items())))
    failed = table["error"].where(table["status"] == "failed", drop=True)
    for text in sorted({str(line) for line in failed.values.ravel() if line}):
        print(f"  failed: {text.splitlines()[0]}")
    unscored = ~table["scored"] & ~table["undefined"]
    reasons = table["skipped"].where(unscored & (table["status"] == "done"), "")
    for text in sorted({" ".join(str(line).split()) for line in reasons.values.ravel()} - {""}):
        print(f"  not scored: {text}")
    dims = table["status"].dims
    single = [str(n) for n, v in table.data_vars.items() if v.dims == dims]
    frame = table[single].to_dataframe()[single]
    target = Path(out) / "table.csv"
    frame.to_csv(target)
    numbers = [n for n in single if "protocol" in table[n].attrs]
    if numbers:
        means = frame[numbers].groupby([dim for dim in dims if dim != "sequence"] or "sequence",
                                       sort=False).mean()  # fmt: skip
        print(means.to_string(float_format=lambda x: f"{x:.4g}"))
    print(f"per sequence in {target}")
    # The default scores what there is truth for; a protocol that was named asks for all of it.
    lacking = unscored if table.attrs["protocol"] != "default" else table["status"] != "done"
    return int(bool(lacking.any()))
