"""``mut3r convert``: an official checkpoint into a safetensors file that describes itself."""

import argparse
from typing import Any


def add_parser(verbs: Any) -> None:
    """Add the verb to the command's parser."""
    parser = verbs.add_parser(
        "convert",
        help="turn an official .pth checkpoint into safetensors",
        description="Reads a checkpoint without executing anything in it, checks every tensor "
        "against the model it describes, and writes safetensors with the configuration inside.",
    )
    parser.add_argument("source", help="official .pth or a .safetensors file")
    parser.add_argument("target", help="file to write")
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        help="how values are stored (default: float32)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing target")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry out the verb."""
    from mut3r_analysis.backbones import convert_checkpoint

    path = convert_checkpoint(args.source, args.target, dtype=args.dtype, overwrite=args.overwrite)
    print(f"wrote {path} ({path.stat().st_size:,} bytes)")
    return 0
