"""``mut3r trajectory``: score one TUM file against another."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from mut3r_analysis.metrics.choices import ALIGN_KINDS, ORDERS

if TYPE_CHECKING:
    import xarray as xr


def add_parser(verbs: Any) -> None:
    """Add the verb to the command's parser."""
    parser = verbs.add_parser(
        "trajectory",
        help="ATE and RPE of one TUM trajectory file against another",
        description="Absolute trajectory error and relative pose error (delta 1 frame, all pairs), "
        "root mean square, of one TUM trajectory file against another.",
    )
    parser.add_argument("truth", metavar="TRUTH", help="TUM file of the true camera path")
    parser.add_argument("estimate", metavar="ESTIMATE", help="TUM file of the estimated path")
    parser.add_argument("--align", choices=ALIGN_KINDS, default="sim3", help="default: %(default)s")
    parser.add_argument(
        "--max-difference",
        type=float,
        default=0.01,
        metavar="SECONDS",
        help="largest difference of associated stamps (default: %(default)s)",
    )
    order = "order of its quaternion columns; default: TUM order, refused on contrary evidence"
    parser.add_argument("--quaternion", choices=ORDERS, help=f"of ESTIMATE: {order}")
    parser.add_argument("--truth-quaternion", choices=ORDERS, help=f"of TRUTH: {order}")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the scores and return 0; anything wrong with the files raises a `Mut3rError`."""
    from mut3r_analysis.metrics.trajectory import compare_trajectories

    scores = compare_trajectories(
        args.truth, args.estimate, args.align, args.max_difference, args.quaternion,
        args.truth_quaternion,
    )  # fmt: skip
    found = summary(scores)
    print(json.dumps(found, indent=2) if args.json else _text(found))
    return 0


def summary(scores: "xr.Dataset") -> dict[str, Any]:
    """Reduce the result of `compare_trajectories` to plain numbers, ready for JSON."""
    from mut3r_analysis.metrics.trajectory import POSE_METRICS

    return {
        "n": int(scores["n"]),
        **{name: float(scores[name]) for name in POSE_METRICS},
        "alignment": {
            "kind": scores.attrs["align"],
            "rotation": scores["alignment_rotation"].values.tolist(),
            "translation": scores["alignment_translation"].values.tolist(),
            "scale": float(scores["alignment_scale"]),
        },
        **{name: value for name, value in scores.attrs.items() if name != "align"},
    }


def _text(found: dict[str, Any]) -> str:
    from mut3r_analysis.metrics.trajectory import POSE_METRICS

    alignment = found["alignment"]
    lines = [
        f"poses            {found['n']} associated within {found['max_difference']:g} s "
        f"(truth {found['n_truth']}, estimate {found['n_estimate']})",
        *(f"{row.label:<17}{found[name]:.6f} {row.units}" for name, row in POSE_METRICS.items()),
        f"alignment        {alignment['kind']}, scale {alignment['scale']:.6f}",
        f"quaternions      {found['quaternion']} ({found['quaternion_evidence']})",
    ]
    if found["n_reused"]:
        lines.insert(1, f"                 {found['n_reused']} poses serve in more than one pair")
    return "\n".join(lines)
