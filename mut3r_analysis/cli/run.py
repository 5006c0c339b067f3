"""``mut3r run``: a sequence through a backbone, into a store."""

import argparse
from typing import Any

from mut3r_analysis.cli.arguments import add_inputs, read_gating, read_inputs


def add_parser(verbs: Any) -> None:
    """Add the verb to the command's parser."""
    parser = verbs.add_parser(
        "run",
        help="run a backbone over frames and store what its attention does",
        description="Stream frames through a backbone and write predictions, attention "
        "statistics and state statistics to one Zarr store, which xarray and open_run read.",
    )
    add_inputs(parser)
    parser.add_argument("--out", required=True, help="store to write, for example runs/room.zarr")
    parser.add_argument(
        "--resume", action="store_true", help="continue a run to this store that was stopped"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry out the verb."""
    from mut3r_analysis.running import run as run_backbone

    backbone, sequence, capture = read_inputs(args)
    for line in backbone.origin.report:
        print(f"note: {line}")
    tree = run_backbone(
        backbone,
        sequence,
        capture=capture,
        outputs=args.outputs,
        **read_gating(args),
        out=args.out,
        resume=args.resume,
        progress=not args.quiet,
    )
    print(f"{tree.attrs['frames_complete']} frames in {args.out}; read it with")
    print(f"    import mut3r_analysis as m3; run = m3.open_run({args.out!r})")
    return 0
