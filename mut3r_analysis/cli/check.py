"""``mut3r check``: whether a store is whole, from its first byte to its last."""

import argparse
from typing import Any


def add_parser(verbs: Any) -> None:
    """Add the verb to the command's parser."""
    parser = verbs.add_parser(
        "check",
        help="read all of a run's store and say what is missing or damaged",
        description="Reads every chunk of a store, or of a zip archive of one, and compares it "
        "with its checksum. The exit status is 1 where anything is missing or damaged.",
    )
    parser.add_argument("store", nargs="+", help="what was given to run --out")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry out the verb."""
    from mut3r_analysis.running.checking import check_store

    status = 0
    for store in args.store:
        problems = check_store(store)
        print(f"{store}: {f'{len(problems)} damages' if problems else 'whole'}")
        for problem in problems:
            print(f"  {problem}")
        status = max(status, bool(problems))
    return status
