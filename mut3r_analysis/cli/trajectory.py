"""``mut3r trajectory``: score trajectory files against a true one."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mut3r_analysis.metrics.choices import ALIGN_KINDS, ORDERS

if TYPE_CHECKING:
    import xarray as xr

_PRINTED = ("rmse", "mean", "median", "std", "min", "max")


def add_parser(verbs: Any) -> None:
    """Add the verb to the command's parser."""
    parser = verbs.add_parser(
        "trajectory",
        help="ATE and RPE of trajectory files against a true one",
        description="Absolute trajectory error and relative pose error of camera paths against a "
        "true one, in files of TUM, KITTI or EuRoC. Of several estimates, one table.",
    )
    parser.add_argument("truth", metavar="TRUTH", help="file of the true camera path")
    parser.add_argument("estimates", nargs="+", metavar="ESTIMATE", help="of the estimated paths")
    parser.add_argument("--align", choices=ALIGN_KINDS, default="sim3", help="default: %(default)s")
    parser.add_argument(
        "--delta", type=int, default=1, metavar="FRAMES",
        help="between the poses of a relative error (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--all-pairs", action="store_true",
        help="relative errors over all pairs --delta apart, not only those that follow each other",
    )  # fmt: skip
    parser.add_argument(
        "--max-difference",
        type=float,
        default=0.01,
        metavar="SECONDS",
        help="largest difference of associated stamps (default: %(default)s)",
    )
    order = "order of its quaternion columns; default: TUM order, refused on contrary evidence"
    parser.add_argument("--quaternion", choices=ORDERS, help=f"of each ESTIMATE: {order}")
    parser.add_argument("--truth-quaternion", choices=ORDERS, help=f"of TRUTH: {order}")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE",
        help="draw the aligned paths and their errors over time; .png, .pdf or .svg",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON; of several, by file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the scores and return 0; anything wrong with the files raises a `Mut3rError`."""
    from mut3r_analysis.foundation.aligned import aligned
    from mut3r_analysis.metrics.trajectory import compare_trajectories

    scores = {
        estimate: compare_trajectories(
            args.truth, estimate, args.align, args.max_difference, args.quaternion,
            args.truth_quaternion, delta=args.delta, all_pairs=args.all_pairs,
        )
        for estimate in args.estimates
    }  # fmt: skip
    if args.plot is not None:
        from mut3r_analysis.figures import save, trajectories

        save(trajectories(_by_short_name(scores)), args.plot)
    found = {estimate: summary(each) for estimate, each in scores.items()}
    alone = next(iter(found.values()))
    if args.json:
        print(json.dumps(alone if len(found) == 1 else found, indent=2))
    elif len(found) == 1:
        print(_text(alone))
    else:
        print(aligned(_rows(found)))
    return 0


def _by_short_name(scores: "dict[str, xr.Dataset]") -> "dict[str, xr.Dataset]":
    """Name estimates by their files, with their folders where two have one name."""
    names = [Path(path).name for path in scores]
    alone = len(set(names)) == len(names)
    return dict(zip(names if alone else scores, scores.values(), strict=True))


def summary(scores: "xr.Dataset") -> dict[str, Any]:
    """Reduce the result of `compare_trajectories` to plain numbers, ready for JSON."""
    from mut3r_analysis.metrics.trajectory import POSE_METRICS

    return {
        "n": int(scores["n"]),
        **{name: float(scores[name]) for name in POSE_METRICS},
        "statistics": {
            name: {
                statistic: float(scores["statistics"].sel(error=name, statistic=statistic))
                for statistic in scores["statistic"].values.tolist()
            }
            for name in POSE_METRICS
        },
        "alignment": {
            "kind": scores.attrs["align"],
            "rotation": scores["alignment_rotation"].values.tolist(),
            "translation": scores["alignment_translation"].values.tolist(),
            "scale": float(scores["alignment_scale"]),
        },
        **{name: value for name, value in scores.attrs.items() if name != "align"},
    }


def _text(found: dict[str, Any]) -> str:
    from mut3r_analysis.foundation.aligned import aligned
    from mut3r_analysis.metrics.trajectory import POSE_METRICS

    alignment = found["alignment"]
    table = [("", *_PRINTED)] + [
        (
            f"{row.label}, {row.units}",
            *(f"{found['statistics'][name][each]:.6f}" for each in _PRINTED),
        )
        for name, row in POSE_METRICS.items()
    ]
    frames = f"{found['delta']} frame{'s' * (found['delta'] != 1)}"
    lines = [
        f"poses            {found['n']} associated within {found['max_difference']:g} s "
        f"(truth {found['n_truth']}, estimate {found['n_estimate']})",
        aligned(table),
        f"pairs            {found['pairs']}, {frames} apart",
        f"alignment        {alignment['kind']}, scale {alignment['scale']:.6f}",
        f"quaternions      {found['quaternion']} ({found['quaternion_evidence']})",
    ]
    if found["n_reused"]:
        lines.insert(1, f"                 {found['n_reused']} poses serve in more than one pair")
    if found["undetermined"]:
        lines.append(f"undetermined     {found['undetermined']}")
    return "\n".join(lines)


def _rows(found: dict[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    """Lay out several estimates: a row each, root mean squares."""
    from mut3r_analysis.metrics.trajectory import POSE_METRICS

    titles = [f"{row.label}, {row.units}" for row in POSE_METRICS.values()]
    rows = [("estimate", "poses", *titles, "scale")]
    for path, one in found.items():
        numbers = [f"{one[name]:.6f}" for name in POSE_METRICS]
        scale = f"{one['alignment']['scale']:.6f}"
        rows.append((Path(path).name, str(one["n"]), *numbers, scale))
    return rows
