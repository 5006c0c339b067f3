"""``mut3r demo``: the quickstart, executed, with everything it makes."""

import argparse
from pathlib import Path
from typing import Any


def add_parser(verbs: Any) -> None:
    """Add the verb to the command's parser."""
    parser = verbs.add_parser(
        "demo",
        help="execute the quickstart notebook and leave its store, figures and page",
        description="Runs the bundled model on a bundled scene (or on your frames), and leaves "
        "a store, figures and an HTML page.",
    )
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder (%(default)s)")
    parser.add_argument("--sequence", help="folder of images, video, or scene name")
    parser.add_argument("--backbone", help="bundled name or path to a checkpoint")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry out the verb."""
    from mut3r_analysis.notebooks.demo import demo

    chosen = {
        name: value
        for name, value in (("sequence", args.sequence), ("backbone", args.backbone))
        if value is not None
    }
    demo(args.out, **chosen)
    return 0
