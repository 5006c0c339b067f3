"""Streaming backbones: a frame and a state in, a prediction and a new state out."""

from typing import TYPE_CHECKING

from mut3r_analysis.lazy import lazy_names

if TYPE_CHECKING:
    from mut3r_analysis.backbones.checkpoint import (
        convert_checkpoint,
        read_checkpoint,
        write_checkpoint,
    )
    from mut3r_analysis.backbones.config import CUT3RConfig
    from mut3r_analysis.backbones.cut3r import CUT3R, Frame, State, Step
    from mut3r_analysis.backbones.loading import load_backbone
    from mut3r_analysis.backbones.preparation import Preparation

__all__ = [
    "CUT3R",
    "CUT3RConfig",
    "Frame",
    "Preparation",
    "State",
    "Step",
    "convert_checkpoint",
    "load_backbone",
    "read_checkpoint",
    "write_checkpoint",
]

__getattr__ = lazy_names(
    __name__,
    {
        "CUT3R": "mut3r_analysis.backbones.cut3r",
        "CUT3RConfig": "mut3r_analysis.backbones.config",
        "Frame": "mut3r_analysis.backbones.cut3r",
        "Preparation": "mut3r_analysis.backbones.preparation",
        "State": "mut3r_analysis.backbones.cut3r",
        "Step": "mut3r_analysis.backbones.cut3r",
        "convert_checkpoint": "mut3r_analysis.backbones.checkpoint",
        "load_backbone": "mut3r_analysis.backbones.loading",
        "read_checkpoint": "mut3r_analysis.backbones.checkpoint",
        "write_checkpoint": "mut3r_analysis.backbones.checkpoint",
    },
)
