"""Scenes of the cue test and their frozen twins."""

import numpy as np

from mut3r_analysis.scenes import HELD_OUT_SEEDS, Scene, SceneDistribution, render_arrays
from mut3r_analysis.training.clips import Clips, clips_of
from mut3r_analysis.training.evidence import frozen

FIRST_SEED = 500_000
"""Scenes of the cue test start here, apart from those of the validations."""


def scenes_with_twins(
    distributions: tuple[SceneDistribution, ...],
    size: tuple[int, int],
    clips: int,
    frames: int,
    first: int = 0,
) -> tuple[Clips, Clips]:
    """Render scenes, and the same scenes with everything at rest where the last frame shows it.

    The last frames are identical pixel by pixel; only their histories differ. `first` is the
    number of the first scene; other numbers are other scenes.
    """
    moving, resting = [], []
    for index in range(clips):
        options = distributions[index % len(distributions)].to_dict()
        scene = Scene.random(HELD_OUT_SEEDS[FIRST_SEED + first + index], frames, size, **options)
        twin = frozen(scene, frames - 1)
        moving.append(render_arrays(scene.arrays(), frames, size))
        resting.append(render_arrays(twin.arrays(), frames, size))
    return _together(moving), _together(resting)


def _together(parts: list[dict[str, np.ndarray]]) -> Clips:
    return clips_of({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
