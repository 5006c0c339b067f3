"""``mut3r datasets``: check a data set on disk, or write a sequence in its layout."""

import argparse
import json
from typing import TYPE_CHECKING

from mut3r_analysis.sequences.layouts.catalogue import LAYOUTS

if TYPE_CHECKING:
    from mut3r_analysis.evaluation.check import DatasetReport


def add_parser(
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Add the ``datasets`` command; ``args.run(args)`` executes it."""
    parser = subparsers.add_parser(
        "datasets",
        help="check a data set on disk, or export a sequence in its layout",
        description="Work with data sets in the layouts they are published in: "
        + ", ".join(LAYOUTS) + ".",
    )  # fmt: skip
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser(
        "check",
        help="say what is there, what is missing and which protocols can be run",
        description="Say what a folder holds of a data set, what is missing, which protocols it "
        "satisfies and where to get the rest. The exit status is 0 when at least one of the "
        "protocols asked about can be run and no file is damaged.",
    )
    check.add_argument("path", metavar="PATH", help="folder of the data set")
    check.add_argument(
        "--layout", choices=tuple(LAYOUTS), help="default: the one that is recognised"
    )
    check.add_argument("--protocol", metavar="ID", help="only protocols whose id begins so")
    check.add_argument("--frames", action="store_true", help="print the protocols' frame lists too")
    check.add_argument("--json", action="store_true", help="print JSON, frame lists included")
    check.set_defaults(run=run)
    export = actions.add_parser(
        "export",
        help="write a sequence in the layout of a data set",
        description="Write a sequence with ground truth, such as scenes/orbit-03, in the layout of "
        "a data set, and print the name that opens it.",
    )
    export.add_argument("sequence", metavar="SEQUENCE", help="as open_sequence takes it")
    export.add_argument("path", metavar="PATH", help="folder of the data set, made if need be")
    export.add_argument(
        "--layout", choices=tuple(LAYOUTS), default="sintel", help="default: %(default)s"
    )
    export.add_argument("--name", help="default: the sequence's own")
    export.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Execute either action; anything wrong with arguments raises a `Mut3rError`."""
    # Imported here so that the command line starts without loading arrays.
    if args.action == "export":
        from mut3r_analysis.sequences.layouts.export import export_sequence
        from mut3r_analysis.sequences.opening import open_sequence

        sequence = open_sequence(args.sequence)
        print(export_sequence(sequence, args.path, args.layout, name=args.name))
        return 0
    from mut3r_analysis.evaluation.check import check_dataset

    report = check_dataset(args.path, args.layout, protocol=args.protocol)
    if args.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        print(report)
        if args.frames:
            print(_frame_lists(report))
    return 0 if report.satisfied and not report.problems else 1


def _frame_lists(report: "DatasetReport") -> str:
    lines = ["frame lists"]
    for group in report.protocols:
        lines.append(f"  {group.name}")
        for name, files in group.frame_lists.items():
            lines.append(f"    {name} ({len(files)}): {' '.join(files)}")
    return "\n".join(lines)
