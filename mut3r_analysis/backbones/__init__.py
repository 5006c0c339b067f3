"""Streaming backbones: a frame and a state in, a prediction and a new state out."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "CUT3R": "mut3r_analysis.backbones.cut3r",
    "CUT3RConfig": "mut3r_analysis.backbones.config",
    "Preparation": "mut3r_analysis.backbones.preparation",
    "convert_checkpoint": "mut3r_analysis.backbones.checkpoint",
    "load_backbone": "mut3r_analysis.backbones.loading",
    "read_checkpoint": "mut3r_analysis.backbones.checkpoint",
}

__all__ = list(_HOME)  # noqa: PLE0605

if TYPE_CHECKING:
    from mut3r_analysis.backbones.checkpoint import convert_checkpoint, read_checkpoint
    from mut3r_analysis.backbones.config import CUT3RConfig
    from mut3r_analysis.backbones.cut3r import CUT3R
    from mut3r_analysis.backbones.loading import load_backbone
    from mut3r_analysis.backbones.preparation import Preparation


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
