"""``mut3r notebooks``: execute the studies, and write the page that says what they found."""

import argparse
import ast
import os
import sys
from pathlib import Path
from typing import Any

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import meant


def add_parser(verbs: Any) -> None:
    """Add the verb to the command's parser."""
    parser = verbs.add_parser(
        "notebooks",
        help="execute the project's notebooks and keep them as pages",
        description="Execute notebooks with their own parameters, or with some in their place, and "
        "write each as a page that needs no network. Exit status 1 when a cell fails.",
    )
    parser.add_argument("names", nargs="*", help="notebooks, for example 02 08 (default: all)")
    parser.add_argument("--out", default="outputs/notebooks", help="folder (default: %(default)s)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter, for example backbone=/data/cut3r_512_dpt_4_64.pth, or "
        "sequences=\"['sintel:/data/sintel/training#alley_2']\"",
    )
    parser.add_argument("--workers", type=int, default=1, help="notebooks at a time")
    parser.add_argument(
        "--map",
        metavar="FILE",
        help="also write the table of all findings, as Markdown; what it says of notebooks "
        "that were never executed here stays",
    )
    parser.add_argument(
        "--thumbnails",
        metavar="FOLDER",
        help="for the small pictures on that page (default: thumbnails, beside it)",
    )
    parser.add_argument(
        "--beside",
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="executed with another backbone (--set backbone=...), for answers below the table",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry out the verb."""
    from tqdm.auto import tqdm

    from mut3r_analysis.notebooks.execution import (
        find_notebook,
        notebook_names,
        notebook_parameters,
    )
    from mut3r_analysis.notebooks.overview import execute_all, notebook_map

    known = notebook_names()
    names = [name for name in known if not args.names or name.startswith(tuple(args.names))]
    lost = [given for given in args.names if not any(name.startswith(given) for name in known)]
    if lost:
        raise InvalidArgument(
            f"no notebook begins with {' or '.join(lost)}; there are {', '.join(known)}"
        )
    parameters = dict(_assignment(text) for text in args.set)
    held = {parameter for name in names for parameter in notebook_parameters(find_notebook(name))}
    if unknown := sorted(set(parameters) - held):
        raise InvalidArgument(
            f"none of these notebooks has the parameter {unknown}{meant(unknown, held)}; they have "
            f"{sorted(held)}"
        )
    failed = []
    with tqdm(total=len(names), desc="notebooks", unit="notebook") as bar:
        for ended in execute_all(names, args.out, parameters, workers=args.workers):
            bar.update()
            state = f"failed: {ended.error}" if ended.error else f"{args.out}/{ended.name}.html"
            tqdm.write(f"{ended.name}  {ended.seconds / 60:.1f} min  {state}", file=sys.stdout)
            failed += [ended.name] if ended.error else []
    if failed:
        print(f"{len(failed)} of {len(names)} notebooks failed: {', '.join(failed)}")
        return 1
    if args.map:
        page = Path(args.map).resolve()
        pictures = Path(args.thumbnails or page.parent / "thumbnails").resolve()
        place = os.path.relpath(pictures, page.parent).replace(os.sep, "/")
        text = notebook_map(
            args.out,
            [Path(each) for each in args.beside],
            thumbnails=pictures,
            place=place,
            kept=page.read_text(encoding="utf-8") if page.is_file() else "",
        )
        page.write_text(text, encoding="utf-8")
        print(f"wrote {args.map}")
    return 0


def _assignment(text: str) -> tuple[str, Any]:
    name, mark, value = text.partition("=")
    if not mark or not name.isidentifier():
        raise InvalidArgument(f"--set takes NAME=VALUE, got {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value
