"""``mut3r train``, the tests that protocols declare, and ``mut3r ship``: to a bundled model."""

import argparse
from pathlib import Path
from typing import Any

from mut3r_analysis.errors import InvalidArgument, MissingFile
from mut3r_analysis.foundation.bundled import data_path
from mut3r_analysis.foundation.fields import meant


def add_parser(verbs: Any) -> None:
    """Add the verbs to the command's parser."""
    _add_tests(verbs)
    _add_ship(verbs)
    parser = verbs.add_parser(
        "train",
        help="train a model by a recipe; call again to continue where it stopped",
        description="Train a model by a recipe. The folder holds all that is needed to go on after "
        "an interruption, with the same numbers as without one. With several processors: torchrun "
        "--nproc-per-node 2 --no-python mut3r train ..., where each process takes its share of "
        "every batch (on a GPU of its own where there are enough).",
    )
    parser.add_argument(
        "--recipe",
        default="tiny",
        metavar="FILE",
        help="YAML file, or a bundled name such as tiny, tiny-static or tiny-bank",
    )
    parser.add_argument("--steps", type=int, metavar="N", help="stop at this step; default: all")
    parser.add_argument("--out", metavar="FOLDER", help="default: runs/train-<name of the recipe>")
    parser.add_argument("--device", help="cpu or cuda; default: cuda where there is one")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train and return 0; anything wrong with the arguments raises a `Mut3rError`."""
    from mut3r_analysis.training.loop import train
    from mut3r_analysis.training.parallel import is_first
    from mut3r_analysis.training.recipe import read_recipe

    recipe = read_recipe(_bundled_file(args.recipe))
    out = args.out or f"runs/train-{recipe.name}"
    checkpoint = train(
        recipe, steps=args.steps, out=out, device=args.device, progress=not args.quiet
    )
    if is_first():
        print(f"averaged weights: {checkpoint}")
    return 0


def _bundled_file(given: str, suffix: str = "") -> str:
    if given.endswith((".yaml", ".yml")):
        return given
    # Recipes are bundled with notes and protocols, which add to their names.
    bundled = sorted(path.stem for path in data_path("training").glob("*.yaml"))
    stems = [name.removesuffix(suffix) for name in bundled if name.endswith(suffix)]
    known = [name for name in stems if "_" not in name]
    if f"{given}{suffix}" not in bundled:
        what = suffix.removeprefix("_") or "recipe"
        raise MissingFile(
            f"no {what} {given!r}{meant([given], known)}; bundled are {', '.join(known)}; or give "
            "a YAML file"
        )
    return str(data_path("training", f"{given}{suffix}.yaml"))


def _add_tests(verbs: Any) -> None:
    motion = _add_test(
        verbs,
        "motion-test",
        "tiny-static",
        help="measure what motion costs two models, and what gates change",
        description="Measures a model beside a reference as a protocol declares it, and prints the "
        "conditions and findings as Markdown. With --keep an interrupted test goes on.",
    )
    motion.add_argument("--keep", metavar="FILE", help="JSON file of the parts measured so far")
    motion.set_defaults(run=run_motion_test)
    reconstruction = _add_test(
        verbs,
        "reconstruction-test",
        "tiny-pointers",
        help="go or no-go: poses and depth of a model beside baselines and a reference",
        description="Measures a model as a protocol declares it, and prints the conditions and "
        "findings as Markdown.",
    )
    reconstruction.set_defaults(run=run_reconstruction_test)


def _add_test(verbs: Any, verb: str, protocol: str, **words: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(verb, **words)
    parser.add_argument("model", help="bundled name or file")
    parser.add_argument("--reference", help="of the other model; default: the protocol's")
    parser.add_argument(
        "--protocol", default=protocol, metavar="FILE", help="YAML file, or a bundled name"
    )
    parser.add_argument("--clips", type=int, metavar="N", help="fewer clips, for a look")
    return parser


def run_motion_test(args: argparse.Namespace) -> int:
    """Measure, print and return 0."""
    from mut3r_analysis.training.card_words import conditions_text, motion_text
    from mut3r_analysis.training.motion_trial import motion_test

    model, reference, protocol = _declared(args, "motion")
    found = motion_test(model, reference, protocol, clips=args.clips, keep=args.keep)
    print(conditions_text(found), motion_text(found), sep="\n\n")
    return 0


def run_reconstruction_test(args: argparse.Namespace) -> int:
    """Measure, print and return 0."""
    from mut3r_analysis.training.card_words import conditions_text, reconstruction_text
    from mut3r_analysis.training.reconstruction_trial import reconstruction_test

    model, reference, protocol = _declared(args, "reconstruction")
    found = reconstruction_test(model, reference, protocol, clips=args.clips)
    print(conditions_text(found), reconstruction_text(found), sep="\n\n")
    return 0


def _declared(args: argparse.Namespace, test: str) -> tuple[Any, Any, dict[str, Any]]:
    """Load the two models of a test and what it declares."""
    from mut3r_analysis.backbones.loading import load_backbone
    from mut3r_analysis.training.declared import declared_test, read_protocol

    protocol = read_protocol(_bundled_file(args.protocol, "_protocol"))
    if (declared := declared_test(protocol)) != test:
        raise InvalidArgument(
            f"the protocol {args.protocol!r} declares a {declared} test: mut3r {declared}-test"
        )
    for role in ("model", "reference"):
        protocol[role] = getattr(args, role) or protocol[role]
    model, reference = (
        load_backbone(protocol[role], device="cpu") for role in ("model", "reference")
    )
    return model, reference, protocol


def _add_ship(verbs: Any) -> None:
    parser = verbs.add_parser(
        "ship",
        help="measure what a training made and write checkpoint, card and curve",
        description="Measures the averaged weights of a training and writes checkpoint, model card "
        "and curve into a data folder; notes and protocol are read from there.",
    )
    parser.add_argument("training", metavar="FOLDER", help="what mut3r train wrote")
    parser.add_argument("--data", default="data", metavar="FOLDER", help="default: data")
    parser.set_defaults(run=run_ship)


def run_ship(args: argparse.Namespace) -> int:
    """Ship and return 0."""
    from mut3r_analysis.training.card import ship

    data = Path(args.data)
    target = ship(args.training, data / "checkpoints", data / "training")
    print(f"{target}; its card is {target.with_suffix('.md')}")
    return 0
