"""``mut3r protocols``: what numbers can be computed, and as which released script computes them."""

import argparse
from typing import Any


def add_parser(verbs: Any) -> None:
    """Add the verb to the command's parser."""
    parser = verbs.add_parser(
        "protocols",
        help="list the protocols by which runs are scored",
        description="List protocols: data, frames, alignment, where each was read, and the flags "
        "of the released script that it equals. A single one is printed as a card.",
    )
    parser.add_argument(
        "prefix",
        nargs="?",
        default="*",
        metavar="PREFIX",
        help="beginning of an id or a pattern, for example pose or 'video-depth:*:scale_irls'",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry out the verb."""
    from mut3r_analysis.metrics import list_protocols

    found = list_protocols(args.prefix)
    print(found[0].describe() if len(found) == 1 else found)
    return 0
