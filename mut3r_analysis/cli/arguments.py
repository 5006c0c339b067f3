"""Arguments that several verbs share, and how they become a backbone, a sequence and a capture."""

import argparse
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.attention.sites import SITE_KINDS
from mut3r_analysis.attention.statistics import STATISTICS
from mut3r_analysis.errors import InvalidArgument

if TYPE_CHECKING:
    import xarray as xr

    from mut3r_analysis.backbones.protocol import Backbone


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Add what `run` and `plan` have in common."""
    parser.add_argument(
        "sequence", help="folder of images, video file, or a name such as scenes/orbit-03"
    )
    _add_frames(parser)
    _add_capture(parser)
    _add_gating(parser)


def _add_frames(parser: argparse.ArgumentParser) -> None:
    inputs = parser.add_argument_group("backbone and frames")
    inputs.add_argument(
        "--backbone",
        default="tiny",
        help="bundled name, path to a checkpoint, or random:small | random:512-dpt | "
        "random:224-linear (default: %(default)s)",
    )
    inputs.add_argument(
        "--update", default="cut3r", help="write rule, such as ttt3r or filt3r (%(default)s)"
    )
    inputs.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: CUDA where present)")
    inputs.add_argument(
        "--precision", help="float32 (default), float32-throughout, tf32 or bfloat16"
    )
    inputs.add_argument(
        "--frames", default="::", metavar="START:STOP:STRIDE", help="frames to take (default: all)"
    )
    inputs.add_argument(
        "--protocol",
        metavar="ID",
        help="take the frames and the preparation that it scores, e.g. pose:sintel14:sim3",
    )
    inputs.add_argument(
        "--preparation",
        choices=("crop", "resize"),
        help="how frames are brought to the model's size (default: crop)",
    )
    inputs.add_argument(
        "--outputs",
        nargs="*",
        metavar="NAME",
        help="predictions to compute: pose depth points_self points_world color (default: all)",
    )


def _add_capture(parser: argparse.ArgumentParser) -> None:
    capture = parser.add_argument_group("capture")
    capture.add_argument(
        "--statistics",
        nargs="*",
        default=["all"],
        metavar="NAME",
        help=f"all (default), or any of: {' '.join(STATISTICS)}; none given captures none",
    )
    kinds = [kind.name for kind in SITE_KINDS.values() if kind.captured]
    capture.add_argument(
        "--sites",
        nargs="+",
        default=["decoder"],
        metavar="KIND",
        help=f"decoder (default), all, or kinds among: {' '.join(kinds)}",
    )
    capture.add_argument(
        "--layers", metavar="A:B", help="half-open range of layers, for example 0:6 (default: all)"
    )
    capture.add_argument(
        "--heads", nargs="+", type=int, metavar="HEAD", help="heads, 0-based (default: all)"
    )
    capture.add_argument(
        "--record",
        nargs="+",
        type=int,
        metavar="POSITION",
        help="positions, from 0 in the frames taken, at which attention is recorded (default: all)",
    )
    capture.add_argument(
        "--dtype",
        default="float32",
        metavar="TYPE",
        help="float16, float32 or float64, as which statistics and maps are stored (%(default)s)",
    )
    capture.add_argument(
        "--maps", nargs="+", default=[], metavar="KIND", help="site kinds whose maps are kept whole"
    )
    capture.add_argument(
        "--archive", action="store_true", help="keep rotated queries and keys (float16)"
    )
    capture.add_argument("--state", action="store_true", help="keep state tokens and pose memory")
    capture.add_argument("--budget", metavar="BYTES", help="refuse to store more, e.g. '2 GiB'")


def _add_gating(parser: argparse.ArgumentParser) -> None:
    gating = parser.add_argument_group("gating")
    gating.add_argument(
        "--cue",
        metavar="NAME",
        help="mut3r, mut3r-1 (its first edition), or a Cue as JSON (default: none)",
    )
    gating.add_argument(
        "--gate",
        metavar="NAME",
        help="mut3r, mut3r-1 (its first edition), easi3r, or a Gate as JSON",
    )
    gating.add_argument("--beta", type=float, help="sharpness of the gate, in place of its own")
    gating.add_argument(
        "--commit",
        default="rw.gg",
        metavar="WORDS",
        help="which pass is read and written, for example 'rw.gp warm.1' (default: %(default)s)",
    )


def read_inputs(args: argparse.Namespace) -> "tuple[Backbone, xr.Dataset, Capture]":
    """Return the backbone, sequence and capture that the arguments name."""
    from mut3r_analysis.backbones import load_backbone
    from mut3r_analysis.running.inputs import as_scored
    from mut3r_analysis.sequences import open_sequence
    from mut3r_analysis.sequences.frames import Selection

    layers = None if args.layers is None else range(*_bounds("--layers", args.layers, 2))
    capture = Capture(
        statistics=args.statistics,
        sites=args.sites,
        layers=layers,
        heads=args.heads,
        frames=args.record,
        dtype=args.dtype,
        maps=args.maps,
        archive=args.archive,
        state=args.state,
        budget=args.budget,
    )
    sequence = open_sequence(args.sequence, **asdict(Selection.parse(args.frames)))
    backbone = load_backbone(
        args.backbone, update=args.update, device=args.device, precision=args.precision
    )
    return *as_scored(backbone, sequence, args.protocol, args.preparation), capture


def read_gating(args: argparse.Namespace) -> dict[str, Any]:
    """Return the cue, gate and commit that the arguments name, as keywords of a run."""
    from mut3r_analysis.motion import Cue, Gate

    cues = {"mut3r": Cue.mut3r, "mut3r-1": partial(Cue.mut3r, edition=1)}
    gates = {
        "mut3r": Gate.mut3r,
        "mut3r-1": partial(Gate.mut3r, edition=1),
        "easi3r": Gate.easi3r,
    }
    cue = _named("--cue", args.cue, Cue.from_json, cues)
    gate = _named("--gate", args.gate, Gate.from_json, gates)
    if args.beta is not None:
        if gate is None:
            raise InvalidArgument("--beta is the sharpness of a gate; give one, as --gate mut3r")
        gate = replace(gate, beta=args.beta)
    if gate is not None and cue is None:
        cue = Cue.mut3r()
    return {"cue": cue, "gate": gate, "commit": args.commit}


def _named(flag: str, text: str | None, read: Any, presets: dict[str, Any]) -> Any:
    if text is None:
        return None
    if text in presets:
        return presets[text]()
    if not text.lstrip().startswith("{"):
        raise InvalidArgument(
            f"{flag} takes {' or '.join(presets)}, or JSON with the fields that differ from the "
            f"default; got {text!r}"
        )
    return read(text)


def _bounds(flag: str, text: str, count: int) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise InvalidArgument(f"{flag} takes a half-open range such as 0:6, got {text!r}")
    return numbers
