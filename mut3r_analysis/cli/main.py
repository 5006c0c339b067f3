"""Entry point: one verb per module, errors in one line, exit status that scripts can use."""

import argparse
import re
import sys
import warnings
from collections.abc import Collection, Sequence
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

_KEYWORD = re.compile(
    r"\w\([^()]*\)|\b(?P<name>[a-z_]+)=(?P<value>True\b|\([^)]*\)|\[[^]]*\]|'[^']*')?"
)
"""An argument as the library's messages write it, with its value where they give one; or a call."""


class _Parser(argparse.ArgumentParser):
    """Says of a wrong choice or option which one is likely meant."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse unknown options here, where those of the verb are known."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Print the usage and leave."""
        from mut3r_analysis.foundation.fields import meant

        wrong = re.search(r"invalid choice: '([^']+)' \(choose from (.+)\)", message)
        if wrong:
            message += meant([wrong[1]], re.findall(r"[\w.-]+", wrong[2]))
        elif message.startswith("unrecognized"):
            options = set(re.findall(r"--[a-z-]+", self.format_usage()))
            given = re.findall(r"--[a-z-]+", message)
            if "--frames" in options and {"--start", "--stop", "--stride"} & set(given):
                message += "; frames are taken with --frames START:STOP:STRIDE, as --frames :8"
            else:
                message += meant(given, options)
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
        print(f"mut3r: error: {as_options(str(error), vars(args))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("mut3r: interrupted; what was written whole is kept", file=sys.stderr)
        return 130


def as_options(said: str, known: Collection[str]) -> str:
    """Return what the library said of its arguments as said of the options of a verb."""
    said = said.replace("open it without start, stop and stride", "run it without --frames")

    def option(found: re.Match[str]) -> str:
        if found["name"] not in known:
            return found[0]
        value = (found["value"] or "").replace("True", "")
        if value[:1] in ("(", "["):
            value = re.sub(r"[(),'\[\]]", "", value)
        return f"--{found['name'].replace('_', '-')} {value}".rstrip()

    return re.sub(_KEYWORD, option, said)


def _warn(message: Warning | str, *where: Any, **more: Any) -> None:
    """Print a warning as this command's; where in the code it arose is no reader's concern."""
    print(f"mut3r: warning: {message}", file=sys.stderr)
