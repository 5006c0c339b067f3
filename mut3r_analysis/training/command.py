"""``mut3r train``: train a model by a recipe, or go on where it stopped."""

import argparse

from mut3r_analysis.data import data_path
from mut3r_analysis.errors import MissingFile


def add_parser(
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Add the ``train`` command; ``args.run(args)`` executes it."""
    parser = subparsers.add_parser(
        "train",
        help="train a model by a recipe; call again to go on where it stopped",
        description="Train a model by a recipe. The folder holds all that is needed to go on after "
        "an interruption, with the same numbers as without one. With several processors: torchrun "
        "--nproc-per-node 2 --no-python mut3r train ..., where each process takes its share of "
        "every batch (on a GPU of its own where there are enough).",
    )
    parser.add_argument(
        "--recipe",
        default="tiny",
        metavar="FILE",
        help="YAML file, or a bundled name (tiny, tiny-static)",
    )
    parser.add_argument("--steps", type=int, metavar="N", help="stop at this step; default: all")
    parser.add_argument("--out", metavar="FOLDER", help="default: runs/train-<name of the recipe>")
    parser.add_argument("--device", help="cpu or cuda; default: cuda where there is one")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Train and return 0; anything wrong with the arguments raises a `Mut3rError`."""
    from mut3r_analysis.training.loop import train
    from mut3r_analysis.training.parallel import is_first
    from mut3r_analysis.training.recipe import read_recipe

    recipe = read_recipe(_recipe_path(args.recipe))
    out = args.out or f"runs/train-{recipe.name}"
    checkpoint = train(
        recipe, steps=args.steps, out=out, device=args.device, progress=not args.quiet
    )
    if is_first():
        print(f"averaged weights: {checkpoint}")
    return 0


def _recipe_path(given: str) -> str:
    if given.endswith((".yaml", ".yml")):
        return given
    try:
        return str(data_path("training", f"{given}.yaml"))
    except MissingFile as error:
        raise MissingFile(f"no recipe {given!r}; give a YAML file. ({error})") from error
