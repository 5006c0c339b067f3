"""``mut3r evaluate``: runs or imported predictions to scores."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mut3r_analysis.metrics.choices import ORDERS

if TYPE_CHECKING:
    import xarray as xr


def add_parser(verbs: Any) -> None:
    """Add the verb to the command's parser."""
    parser = verbs.add_parser(
        "evaluate",
        help="score runs under a named protocol",
        description="Scores runs of one system, one per sequence, under a named protocol, and "
        "prints every sequence, the mean with its interval, and what was skipped and why. Exit "
        "status 0 only when that is the protocol's number: all of its frames, and every run scored "
        "on which the metric has a value.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="store of a run, or with --layout "
                        "a folder of predictions of one sequence")  # fmt: skip
    parser.add_argument(
        "--protocol",
        default="default",
        metavar="ID",
        help="for example pose:sintel14:sim3; an unknown one lists its neighbours "
        "(default: %(default)s, depth and pose of the runs' own truth)",
    )
    parser.add_argument(
        "--truth",
        metavar="SEQUENCE",
        help="ground truth at source size: a sequence, or a data set such as sintel:ROOT in which "
        "the runs' sequences are found by name (default: what the runs hold)",
    )
    imported = parser.add_argument_group("predictions of other code")
    imported.add_argument(
        "--layout", metavar="NAME", help="cut3r-demo, cut3r-depth, cut3r-pose, or auto"
    )
    imported.add_argument(
        "--quaternion", choices=ORDERS, help="order in pred_traj.txt (default: detected)"
    )
    imported.add_argument(
        "--preparation",
        choices=("crop", "resize"),
        help="how frames were made the network's input (default: what the layout's code does)",
    )
    files = parser.add_argument_group("files")
    files.add_argument("--csv", type=Path, metavar="FILE", help="write the table per sequence")
    files.add_argument("--csv-frames", type=Path, metavar="FILE", help="write values per frame")
    files.add_argument(
        "--json", type=Path, metavar="FILE", help="write scores, alignments, protocol and origin"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print and write scores; 1 when a run was not scored or the protocol has more frames."""
    from mut3r_analysis.evaluation.report import print_scores
    from mut3r_analysis.evaluation.scores import evaluate
    from mut3r_analysis.evaluation.tables import record, table

    if args.layout is None:
        if args.quaternion or args.preparation:
            from mut3r_analysis.errors import InvalidArgument

            raise InvalidArgument("--quaternion and --preparation belong to --layout")
        scores = evaluate(args.runs, args.protocol, truth=args.truth)
    else:
        scores = _evaluate_folders(args)
    print_scores(scores)
    for path, text in (
        (args.csv, lambda: table(scores).to_csv()),
        (args.csv_frames, lambda: table(scores, per="frame").to_csv()),
        (args.json, lambda: json.dumps(record(scores), indent=2) + "\n"),
    ):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text(), encoding="utf-8")
    left_out = (scores["skipped"] != "") & ~scores["undefined"]
    return int(bool(left_out.any()) or scores.attrs["incomplete"] != "")


def _evaluate_folders(args: argparse.Namespace) -> "xr.Dataset":
    """Import folders named as their sequences are, with the truth's frames of the protocol."""
    from mut3r_analysis.evaluation.predictions import import_predictions
    from mut3r_analysis.evaluation.scores import evaluate, named_protocols
    from mut3r_analysis.evaluation.truth import Truths
    from mut3r_analysis.sequences.layouts.catalogue import canonical_sequence

    first = named_protocols(args.protocol)[0]
    folders = {canonical_sequence(first.dataset, Path(folder).name): folder for folder in args.runs}
    truths = Truths(args.truth, list(folders))
    runs, held = [], {}
    for name, folder in folders.items():
        truth = predicted = truths.of(name)
        if truth is not None:
            held[name] = truth
            predicted = truth.isel(frame=list(first.frames.indices(truth.sizes["frame"])))
        runs.append(
            import_predictions(
                folder,
                None if args.layout == "auto" else args.layout,
                quaternion=args.quaternion,
                preparation=args.preparation,
                sequence=predicted,
                name=name,
            )
        )
    return evaluate(runs, args.protocol, truth=held or None)
