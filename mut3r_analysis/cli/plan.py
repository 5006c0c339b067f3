"""``mut3r plan``: the price of a run, before it runs."""

import argparse
from typing import Any

from mut3r_analysis.cli.arguments import add_inputs, read_gating, read_inputs


def add_parser(verbs: Any) -> None:
    """Add the verb to the command's parser."""
    parser = verbs.add_parser(
        "plan",
        help="print shapes, bytes and operations of a run without running it",
        description="Takes what `mut3r run` takes and prints what it would store and cost.",
    )
    add_inputs(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry out the verb."""
    from mut3r_analysis.running.planning import plan

    backbone, sequence, capture = read_inputs(args)
    print(plan(backbone, sequence, capture=capture, outputs=args.outputs, **read_gating(args)))
    return 0
