"""A microscope for streaming 3D transformers.

Names are loaded on first use, so that importing the package costs milliseconds: torch and
matplotlib are imported by the functions that need them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "load_backbone": "mut3r_analysis.backbones",
    "open_sequence": "mut3r_analysis.sequences",
    "Capture": "mut3r_analysis.attention",
    "run": "mut3r_analysis.running",
    "plan": "mut3r_analysis.running",
    "open_run": "mut3r_analysis.running",
}
_SUBPACKAGES = ("attention", "backbones", "errors", "figures", "running", "sequences")

__all__ = [*_HOME, *_SUBPACKAGES, "__version__"]  # noqa: PLE0604

if TYPE_CHECKING:
    from mut3r_analysis.attention import Capture
    from mut3r_analysis.backbones import load_backbone
    from mut3r_analysis.running import open_run, plan, run
    from mut3r_analysis.sequences import open_sequence


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in _SUBPACKAGES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
