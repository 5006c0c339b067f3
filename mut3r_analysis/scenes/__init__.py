"""Procedural scenes with exact truth: specification, renderers, twins and training batches."""

from mut3r_analysis.scenes.arrays import SceneArrays
from mut3r_analysis.scenes.batches import MOTION_THRESHOLD, random_batch, render_arrays
from mut3r_analysis.scenes.bundled import load_scene, open_scene, scene_names
from mut3r_analysis.scenes.distribution import (
    HELD_OUT_SEEDS,
    TRAINING_SEEDS,
    SceneDistribution,
    draw,
)
from mut3r_analysis.scenes.figures import contact_sheet
from mut3r_analysis.scenes.parts import Camera, Light, Path, Room, SceneObject, Texture
from mut3r_analysis.scenes.specification import Scene

__all__ = [
    "HELD_OUT_SEEDS",
    "MOTION_THRESHOLD",
    "TRAINING_SEEDS",
    "Camera",
    "Light",
    "Path",
    "Room",
    "Scene",
    "SceneArrays",
    "SceneDistribution",
    "SceneObject",
    "Texture",
    "contact_sheet",
    "draw",
    "load_scene",
    "open_scene",
    "random_batch",
    "render_arrays",
    "scene_names",
]
