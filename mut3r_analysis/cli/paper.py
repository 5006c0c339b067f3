"""``mut3r paper``: the paper's tables, own numbers beside the published ones."""

import argparse
from pathlib import Path
from typing import Any

from mut3r_analysis.errors import InvalidArgument


def add_parser(verbs: Any) -> None:
    """Add the verb to the command's parser."""
    parser = verbs.add_parser(
        "paper",
        help="the paper's tables with own numbers beside the published ones",
        description="Check data sets, price and run what the tables of MUT3R's paper need, and put "
        "own numbers beside the published ones. Started again, it continues where it stopped. What "
        "is no comparison is an empty cell with its reason; the exit status is 0 only when there "
        "is none for the data sets given.",
    )
    parser.add_argument(
        "--table", nargs="+", default=["1", "2", "4"], metavar="TABLE",
        help="1 depth, 2 pose, 3 reconstruction, 4 ablation, long: TTT3R's long sequences, with "
        "resets (default: 1 2 4)",
    )  # fmt: skip
    parser.add_argument("--backbone", required=True, help="path of a CUT3R checkpoint")
    parser.add_argument(
        "--data", nargs="*", default=[], metavar="NAME=FOLDER",
        help="where data sets lie: sintel=/data/sintel/training bonn=... tum=...",
    )  # fmt: skip
    parser.add_argument(
        "--systems", nargs="+", default=["cut3r", "ttt3r", "mut3r"], metavar="NAME",
        help="cut3r, ttt3r, mut3r (default: all; ablations and resets come with them)",
    )  # fmt: skip
    parser.add_argument("--beta", type=float, default=1.0, help="of MUT3R's gates (%(default)s)")
    parser.add_argument(
        "--edition", type=int, choices=(1, 2), default=2, help="of MUT3R's gates (%(default)s)"
    )
    parser.add_argument("--out", default="outputs/paper", help="folder of runs (%(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="processes (default: this one)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster")
    parser.add_argument(
        "--plan", action="store_true", help="only check the data and price the work"
    )
    parser.add_argument(
        "--save", nargs="+", default=[], type=Path, metavar="FILE",
        help="write the table: .html, .csv, .tex or .txt",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry out the verb; 1 when a number of a data set that was given has none beside it."""
    from mut3r_analysis.studies.paper_tables import table
    from mut3r_analysis.sweeps.executors import dask_distributed

    names = table.table_names(args.table)
    systems = table.system_names(args.systems)
    work = table.paper_work(
        names, args.backbone, _data(args.data), systems, beta=args.beta, edition=args.edition,
        out=args.out,
    )  # fmt: skip
    print(work)
    if args.plan:
        return 0
    client = dask_distributed().Client(args.scheduler) if args.scheduler else None
    work.carry_out(args.workers, client, not args.quiet)
    found = table.numbers(names, systems, work)
    print(found)
    for path in args.save:
        found.save(path)
    return int(bool(found.empty(work.locations)))


def _data(given: list[str]) -> dict[str, str]:
    """Read ``NAME=FOLDER``, or ``NAME:FOLDER`` as sequences are named."""
    found = {}
    for text in given:
        name, mark, place = text.partition("=")
        if not mark:
            name, mark, place = text.partition(":")
        if not (name and mark and place):
            raise InvalidArgument(f"--data takes NAME=FOLDER, as sintel=/data/sintel; got {text!r}")
        found[name] = place
    return found
