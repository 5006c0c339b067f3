"""``mut3r export``: a stored run as files of other programs."""

import argparse
from typing import Any


def add_parser(verbs: Any) -> None:
    """Add the verb to the command's parser."""
    parser = verbs.add_parser(
        "export",
        help="a run as point clouds, COLMAP or nerfstudio folder",
        description="Writes the background that a run reconstructed, fused over all frames without "
        "what moves, and what moves frame by frame; with cameras, images and masks in the folders "
        "of COLMAP and nerfstudio.",
    )
    parser.add_argument("run_store", metavar="RUN", help="store of a run")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="new or empty folder")
    parser.add_argument(
        "--format", choices=("ply", "colmap", "nerfstudio"), default="ply",
        help="default: %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--moving", choices=("cue", "truth", "nothing"), default="cue",
        help="who says what moves (default: the run's masks or cue)",
    )  # fmt: skip
    parser.add_argument(
        "--voxel", type=float, default=0.01, metavar="LENGTH",
        help="background points, one per cube of this edge; 0 keeps all (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--least-confidence", type=float, default=0.0, metavar="SHARE",
        help="of the least confident points of a frame that are left out (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--sequence", help="what was run, as run takes it (default: where the store says it is)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the folder and say where it is."""
    from mut3r_analysis.exporting.export import export_run
    from mut3r_analysis.running import open_run

    folder = export_run(
        open_run(args.run_store), args.sequence, args.out, args.format, moving=args.moving,
        voxel=args.voxel or None, least_confidence=args.least_confidence,
    )  # fmt: skip
    frames = len(list((folder / "moving").glob("*.ply")))
    print(f"wrote {folder}: the background, and what moves in {frames} frames")
    return 0
