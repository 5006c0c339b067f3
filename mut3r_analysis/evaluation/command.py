"""``mut3r evaluate``: runs or imported predictions to scores."""

import argparse
import json
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mut3r_analysis.metrics.choices import ORDERS

if TYPE_CHECKING:
    import xarray as xr

    from mut3r_analysis.metrics.protocols import Protocol


def add_parser(verbs: Any) -> None:
    """Add the verb to the command's parser."""
    parser = verbs.add_parser(
        "evaluate",
        help="score runs under a named protocol",
        description="Scores runs of a system, one per sequence, or of several by name, under a "
        "named protocol, and prints every sequence, the mean with its interval, and what was "
        "skipped and why. Exit status 0 only when that is the protocol's number: all of its "
        "frames, and every run scored on which the metric has a value.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="store of a run, or folder of "
                        "predictions: of one sequence, or the results of a released script as "
                        "they lie there; NAME=RUN where there are several systems, with a pattern "
                        "for several sequences, as 'plain=runs/*.zarr'")  # fmt: skip
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
        "--layout",
        metavar="NAME",
        help="cut3r-demo, cut3r-depth, cut3r-pose or cut3r-mono (default: what the files say)",
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
    from mut3r_analysis.evaluation.tables import record, table

    systems = _by_name(args.runs)
    found = {name: _scores(args, own) for name, own in systems.items()}
    scores = found.get("", found)
    print_scores(scores)
    records = {name: record(each) for name, each in found.items()}
    for path, text in (
        (args.csv, lambda: table(scores).to_csv()),
        (args.csv_frames, lambda: table(scores, per="frame").to_csv()),
        (args.json, lambda: json.dumps(records.get("", records), indent=2) + "\n"),
    ):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text(), encoding="utf-8")
    return int(any(map(_falls_short, found.values())))


def _by_name(runs: list[str]) -> dict[str, list[str]]:
    """Collect the runs of each name, or all under an empty one where no names are given."""
    systems: dict[str, list[str]] = {}
    for text in runs:
        name, _, run = text.partition("=")
        if not (name and run) or "/" in name or Path(text).exists():
            name, run = "", text
        # A shell expands no pattern behind a name.
        systems.setdefault(name, []).extend((name and sorted(glob(run))) or [run])
    unnamed = systems.get("")
    if unnamed and len(systems) > 1:
        from mut3r_analysis.errors import InvalidArgument

        raise InvalidArgument(
            f"{unnamed[0]} has no name, and other runs have one; give each as NAME=RUN"
        )
    return systems


def _scores(args: argparse.Namespace, runs: list[str]) -> "xr.Dataset":
    from mut3r_analysis.evaluation.scores import evaluate

    if args.layout or any(_holds_predictions(Path(run)) for run in runs):
        return _evaluate_folders(args, runs)
    if args.quaternion or args.preparation:
        from mut3r_analysis.errors import InvalidArgument

        raise InvalidArgument(
            "--quaternion and --preparation belong to predictions of other code, and these are runs"
        )
    return evaluate(runs, args.protocol, truth=args.truth)


def _falls_short(scores: "xr.Dataset") -> bool:
    left_out = (scores["skipped"] != "") & ~scores["undefined"]
    return bool(left_out.any()) or scores.attrs["incomplete"] != ""


def _holds_predictions(path: Path) -> bool:
    from mut3r_analysis.errors import MissingFile
    from mut3r_analysis.evaluation.folders import prediction_folders

    try:
        return bool(prediction_folders(path))
    except MissingFile as error:
        if path.is_dir() and not (path / "zarr.json").is_file():
            raise MissingFile(f"{path} is not the store of a run, and {error}") from error
        return False


def _sequences(runs: list[str], protocol: "Protocol") -> dict[str, Path]:
    """Find the folder of each sequence; of a folder of results, those that the protocol scores."""
    from mut3r_analysis.evaluation.folders import prediction_folders
    from mut3r_analysis.sequences.layouts.catalogue import canonical_sequence

    found: dict[str, Path] = {}
    for path in map(Path, runs):
        folders = prediction_folders(path)
        names = [canonical_sequence(protocol.dataset, folder.name) for folder in folders]
        if folders == [path] and len(protocol.sequences) == 1:
            # All images of a data set are one sequence, and the folder has a name of its own.
            names = list(protocol.sequences)
        given = dict(zip(names, folders, strict=True))
        if folders != [path] and (scored := protocol.select(names)[0]):
            given = {name: given[name] for name in scored}
        found |= given
    return found


def _evaluate_folders(args: argparse.Namespace, runs: list[str]) -> "xr.Dataset":
    """Import folders named as their sequences are, with the truth's frames of the protocol."""
    from mut3r_analysis.evaluation.predictions import import_predictions
    from mut3r_analysis.evaluation.scores import evaluate, named_protocols
    from mut3r_analysis.evaluation.truth import Truths

    first = named_protocols(args.protocol)[0]
    folders = _sequences(runs, first)
    truths = Truths(args.truth, list(folders))
    imported, held = [], {}
    for name, folder in folders.items():
        truth = predicted = truths.of(name)
        if truth is not None:
            held[name] = truth
            predicted = truth.isel(frame=list(first.frames.indices(truth.sizes["frame"])))
        imported.append(
            import_predictions(
                folder,
                None if args.layout == "auto" else args.layout,
                quaternion=args.quaternion,
                preparation=args.preparation,
                sequence=predicted,
                name=name,
            )
        )
    return evaluate(imported, args.protocol, truth=held or None)
