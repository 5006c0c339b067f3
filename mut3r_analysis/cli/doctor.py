"""``mut3r doctor``: what this installation is, and whether it computes what it should."""

import argparse
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def add_parser(verbs: Any) -> None:
    """Add the verb to the command's parser."""
    parser = verbs.add_parser(
        "doctor",
        help="report versions, device, kernels and bundled data, and test parity",
        description="Prints what is installed and compares this package with the official "
        "implementation on small numbers that ship with it. Exit status 1 when they differ.",
    )
    parser.add_argument(
        "--deep",
        action="store_true",
        help="also try devices, kernels, storage and a run that is killed and resumed (a minute); "
        "the report names no person and can be pasted into a bug report",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry out the verb."""
    for name, value in _report():
        print(f"{name:<18} {value}")
    from mut3r_analysis.backbones.parity import parity

    began = time.perf_counter()
    agreements = parity()
    for item in agreements:
        word = "ok" if item.holds else "DIFFERS"
        what = f"{item.model:<10} {item.name:<16}"
        print(f"  parity {what} {item.difference:.1e} (allowed {item.tolerance:.0e})  {word}")
    held = all(item.holds for item in agreements)
    verdict = "matches the official implementation" if held else "does NOT match; results are wrong"
    print(f"{'parity':<18} {verdict} ({time.perf_counter() - began:.1f} s)")
    return 0 if held & (not args.deep or _deep()) else 1


def _deep() -> bool:
    """Print what was tried on this machine; whether all is as it should be."""
    from mut3r_analysis.cli.deep import examine

    held = True
    for finding in examine():
        print(
            f"{finding.name:<18} {finding.found}  {'ok' if finding.holds else 'WRONG'}", flush=True
        )
        held = held and finding.holds
    return held


def _report() -> Iterator[tuple[str, str]]:
    import torch

    from mut3r_analysis.backbones.families import FAMILIES
    from mut3r_analysis.foundation.bundled import data_path
    from mut3r_analysis.foundation.version import __version__

    yield "mut3r_analysis", __version__
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield "torch", f"{torch.__version__}, {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        yield "device", f"cuda: {torch.cuda.get_device_name()}"
        yield "attention kernels", ", ".join(_cuda_kernels())
    else:
        yield "device", "cpu (no CUDA device)"
        yield "attention kernels", "fused CPU kernel"
    yield "rotary embedding", "by angle in torch; no compiled extension is needed"
    yield "kinds of model", ", ".join(FAMILIES)
    folder = data_path("checkpoints")
    checkpoints = sorted(file.name for file in folder.glob("*.safetensors"))
    yield "checkpoints", ", ".join(checkpoints) or "none bundled"
    yield "bundled data", str(folder.parent).replace(str(Path.home()), "~")


def _cuda_kernels() -> Iterator[str]:
    import torch

    for name in ("flash", "mem_efficient", "math", "cudnn"):
        if getattr(torch.backends.cuda, f"{name}_sdp_enabled")():
            yield name
