"""``mut3r explain``: two stored runs of a sequence to where the second went wrong."""

import argparse
from typing import Any

_KEPT = 5


def add_parser(verbs: Any) -> None:
    """Add the verb to the command's parser."""
    parser = verbs.add_parser(
        "explain",
        help="find where a worse number comes from: frame, patch, site, layer, head",
        description="Ranks frames and patches by how much the second run's error is above the "
        "first's, then runs the sequence again with the second run's gate switched off part by "
        "part, and says how much of the harm goes with each.",
    )
    parser.add_argument("plain", metavar="A", help="store of the run without the treatment")
    parser.add_argument("gated", metavar="B", help="store of the run with it")
    parser.add_argument(
        "--sequence",
        help="what was run, as run takes it (default: where the store says it is)",
    )
    parser.add_argument("--protocol", default="default", metavar="ID", help="(%(default)s)")
    parser.add_argument(
        "--backbone", help="bundled name or path of the checkpoint (default: what the store says)"
    )
    parser.add_argument(
        "--budget",
        type=int,
        default=96,
        metavar="RUNS",
        help="most runs that are run again; 0 checks nothing (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the answer, and the frames, patches and parts that lead in each ranking."""
    from mut3r_analysis.explaining.explanation import explain

    found = explain(
        args.plain,
        args.gated,
        args.sequence,
        protocol=args.protocol,
        backbone=args.backbone,
        budget=args.budget,
    )
    print(found.attrs["answer"])
    for name in ("frame_harm", "patch_harm", "frame_undone", "site_undone", "layer_undone",
                 "head_undone", "writes", "reads"):  # fmt: skip
        if name in found:
            ranked = found[name].to_series().dropna().sort_values(ascending=False).head(_KEPT)
            if ranked.empty:
                continue
            of, units = (found[name].attrs.get(key, "") for key in ("long_name", "units"))
            by = ", ".join(str(dim) for dim in found[name].dims)
            print(f"\n{of or name}{f' ({units})' if units not in ('', '1') else ''}, by {by}")
            print(ranked.to_string(header=False, float_format="{:.3g}".format))
    if "signature" in found.dims:
        print("\nsignatures of known failures")
        for each in found["signature"].values:
            sign = found.sel(signature=each)
            mark = "yes" if sign["signature_shown"] else "no "
            print(f"{mark}  {each}: {sign['signature_evidence'].item()}")
    return 0
