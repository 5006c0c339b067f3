"""This package beside the code that was released, in one process: what a frame costs each of them.

    python benchmarks/released.py CUT3R

CUT3R is a checkout of https://github.com/CUT3R/CUT3R with what it needs installed. Both models have
the same random weights and take the same frames in turn, so what they predict is compared first.
The released rotation is a compiled extension; where it is not built, the one of this package stands
in for it, since the released fallback cannot place the pose token.
"""

import argparse
import sys
from contextlib import suppress
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from measure import at_most, measure, publish

from mut3r_analysis.attention import Capture
from mut3r_analysis.attention.statistics import STATISTICS
from mut3r_analysis.backbones import Backbone, load_backbone
from mut3r_analysis.backbones.rotation import rotate, rotation
from mut3r_analysis.motion.cue import Cue
from mut3r_analysis.motion.gate import Gate
from mut3r_analysis.running.streaming import run
from mut3r_analysis.sequences import open_sequence

SIZES = {"full": ("random:512-dpt", (384, 512)), "linear": ("random:224-linear", (224, 224))}
CLOSED = [name for name, row in STATISTICS.items() if row.closed_form]
AGREES = 1e-3


class Rotary(torch.nn.Module):
    """Stands in for the compiled rotation: called with tokens and their rows and columns."""

    def __init__(self, freq: float = 100.0, F0: float = 1.0) -> None:
        super().__init__()
        self.base = freq

    def forward(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return rotate(tokens, rotation(positions[0], tokens.shape[-1], self.base))


def released(folder: Path, backbone: Backbone) -> torch.nn.Module:
    """Build the released model with the weights of a backbone."""
    source = folder / "src"
    sys.path[:0] = [str(source), str(source / "croco")]
    with suppress(ImportError):
        import_module("curope")
    if "curope" not in sys.modules:
        stand_in = ModuleType("models.curope")
        stand_in.cuRoPE2D = Rotary  # type: ignore[attr-defined]
        sys.modules["models.curope"] = stand_in
    try:
        code: Any = import_module("dust3r.model")
    except ImportError as error:
        sys.exit(f"the released code needs {error.name}, which is not installed: {error}")
    own = {"feature_dim", "last_dim", "layer_dims"}  # fixed in the released code
    given = {
        item.name: getattr(backbone.config, item.name)
        for item in fields(backbone.config)
        if item.name not in own
    }
    model = code.ARCroco3DStereo(code.ARCroco3DStereoConfig(**given))
    model.load_state_dict(backbone.state_dict(), strict=False)
    return model.to(backbone.device).eval()


def views(pixels: np.ndarray, device: torch.device) -> list[dict[str, torch.Tensor]]:
    """Return frames as the released code takes them."""
    height, width = pixels.shape[1:3]
    return [
        {
            "img": ((torch.from_numpy(frame).float() / 255 - 0.5) / 0.5)
            .permute(2, 0, 1)[None]
            .to(device),
            "ray_map": torch.full((1, height, width, 6), torch.nan, device=device),
            "true_shape": torch.tensor([[height, width]]),
            "img_mask": torch.tensor([True], device=device),
            "ray_mask": torch.tensor([False], device=device),
            "update": torch.tensor([True], device=device),
            "reset": torch.tensor([False], device=device),
        }
        for frame in pixels
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--frames", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=4)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if not (args.checkout / "src" / "dust3r" / "model.py").is_file():
        sys.exit(f"{args.checkout} is not a checkout of CUT3R: it has no src/dust3r/model.py")
    spec, (height, width) = SIZES[args.size]
    backbone = load_backbone(spec)
    theirs = released(args.checkout, backbone)
    pixels = np.random.default_rng(0).integers(0, 256, (args.frames, height, width, 3), np.uint8)
    sequence, given = open_sequence(pixels, name="noise"), views(pixels, backbone.device)

    def ours(**options: Any) -> Any:
        return run(backbone, sequence, progress=False, **options)

    def official() -> Any:
        with torch.no_grad():
            return theirs.forward_recurrent(given, backbone.device)

    poses = torch.cat([view["camera_pose"] for view in official()[0]]).cpu().numpy()
    own = ours()["prediction/pose"].values[:, :3, 3]
    distance = float(np.abs(poses[:, :3] - own).max() / np.abs(own).max())
    gated = {"cue": Cue.mut3r(), "gate": Gate.mut3r()}
    found = measure(
        {
            "released code": official,
            "ours": ours,
            "ours, closed-form statistics": lambda: ours(capture=Capture(statistics=CLOSED)),
            "ours, all statistics": lambda: ours(capture=Capture()),
            "ours, gated": lambda: ours(**gated),
        },
        args.repetitions,
    )
    plain = found["released code"].cpu
    result = {
        "backbone": f"{spec} in both, {args.frames} frames",
        "image": [height, width],
        "repetitions": args.repetitions,
        "seconds": {name: {"cpu": item.cpu, "wall": item.wall} for name, item in found.items()},
        "ratios": {
            "camera positions, ours from the released code's": at_most(distance, AGREES),
            **{
                f"{name} / released code, cpu": at_most(item.cpu / plain)
                for name, item in found.items()
                if name != "released code"
            },
        },
    }
    publish("released", result, args.out, False)


if __name__ == "__main__":
    main()
