"""Entry point: one verb per module, errors in one line, exit status that scripts can use."""

import argparse
import re
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from typing import Any, NoReturn

from mut3r_analysis.errors import Mut3rError
from mut3r_analysis.foundation.version import __version__

_COMMANDS = (
    "mut3r_analysis.cli.demo",
    "mut3r_analysis.cli.run",
    "mut3r_analysis.cli.plan",
    "mut3r_analysis.cli.check",
    "mut3r_analysis.cli.convert",
    "mut3r_analysis.cli.datasets",
    "mut3r_analysis.cli.doctor",
    "mut3r_analysis.cli.notebooks",
    "mut3r_analysis.cli.paper",
    "mut3r_analysis.cli.protocols",
    "mut3r_analysis.evaluation.command",
    "mut3r_analysis.explaining.command",
    "mut3r_analysis.exporting.command",
    "mut3r_analysis.cli.trajectory",
    "mut3r_analysis.sweeps.command",
    "mut3r_analysis.training.command",
)
"""Modules that add a verb: ``add_parser(subparsers)``, whose parser sets ``run=`` for its args."""


class _Parser(argparse.ArgumentParser):
    """Says of a wrong choice which one is likely meant."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and leave."""
        wrong = re.search(r"invalid choice: '([^']+)' \(choose from (.+)\)", message)
        if wrong:
            from mut3r_analysis.foundation.fields import meant

            message += meant([wrong[1]], re.findall(r"[\w.-]+", wrong[2]))
        super().error(message)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command."""
    parser = _Parser(
        prog="mut3r",
        description="A microscope for streaming 3D transformers: capture what every attention "
        "layer of a CUT3R-family model does on a video, without a notebook.",
    )
    parser.add_argument("--version", action="version", version=f"mut3r {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for module in _COMMANDS:
        import_module(module).add_parser(verbs)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 done, 1 failed, 130 interrupted."""
    args = build_parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # Names and numbers may hold characters that the locale has no bytes for.
            stream.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            return args.run(args)
    except (Mut3rError, OSError) as error:
        # The library says it in its own words.
        said = str(error).replace("pass truth=", "give --truth")
        print(f"mut3r: error: {said}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("mut3r: interrupted; what was written whole is kept", file=sys.stderr)
        return 130


def _warn(message: Warning | str, *where: Any, **more: Any) -> None:
    """Print a warning as this command's; where in the code it arose is no reader's concern."""
    print(f"mut3r: warning: {message}", file=sys.stderr)
