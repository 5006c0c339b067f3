"""What of a bundled scene lies outside the scenes that a backbone was trained on."""

from collections.abc import Sequence

import xarray as xr

from mut3r_analysis.scenes import Scene, SceneDistribution, load_scene, scene_names
from mut3r_analysis.scenes.arrays import ROOM_SURFACES
from mut3r_analysis.scenes.paths import RATE, SWING
from mut3r_analysis.studies.model_card.tables import find_card


def outside_training(backbone: str, sequence: xr.Dataset) -> list[str]:
    """Compare a sequence with the scenes of the last stage of training.

    Parameters
    ----------
    backbone : str
        As for :func:`~mut3r_analysis.load_backbone`.
    sequence : Dataset

    Returns
    -------
    list of str
        As :func:`differences`; empty also where the backbone has no model card, or the sequence is
        no bundled scene.
    """
    card, name = find_card(backbone), str(sequence.attrs["name"])
    if card is None or sequence.attrs.get("kind") != "scenes" or name not in scene_names():
        return []
    scenes = card["training"]["recipe"]["stages"][-1]["scenes"]
    return differences(load_scene(name), [SceneDistribution.from_dict(each) for each in scenes])


def differences(scene: Scene, seen: Sequence[SceneDistribution]) -> list[str]:
    """Say in what a scene differs from everything that distributions can draw.

    Fog, the number of objects and of moving ones, and the contrast of textures are compared, each
    by itself; the paths of camera and objects are not.

    Returns
    -------
    list of str
        One entry per difference, with what was seen in training.
    """
    moving = sum(
        any(path.array()[[RATE, SWING]].any() for path in (each.position, each.angles))
        for each in scene.objects
    )
    surfaces = [getattr(scene.room, name) for name in ROOM_SURFACES]
    contrasts = [each.contrast for each in (*surfaces, *(o.texture for o in scene.objects))]
    low, high = min(contrasts), max(contrasts)
    found = []
    if scene.light.fog not in {each.fog for each in seen}:
        fogs = ", ".join(dict.fromkeys(_fog(each.fog) for each in seen))
        found.append(f"{_fog(scene.light.fog)} (trained with {fogs})")
    most = max(each.objects for each in seen)
    if len(scene.objects) > most:
        found.append(f"{len(scene.objects)} objects (trained with at most {most})")
    if not any(each.movers[0] <= moving <= each.movers[1] for each in seen):
        movers = ", ".join(dict.fromkeys(_span(*each.movers) for each in seen))
        found.append(f"{moving} moving objects (trained with {movers})")
    ranges = [each.texture_contrast for each in seen]
    if not any(least <= low and high <= greatest for least, greatest in ranges):
        told = ", ".join(dict.fromkeys(_span(*each) for each in ranges))
        found.append(f"textures of contrast {_span(low, high)} (trained with {told})")
    return found


def _span(low: float, high: float) -> str:
    return f"{low:.2g}" if low == high else f"{low:.2g} to {high:.2g}"


def _fog(length: float | None) -> str:
    return "clear air" if length is None else f"fog of {length:g} m"
