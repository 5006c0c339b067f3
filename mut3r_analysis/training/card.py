"""The model card: measured, written as JSON, put into words from that alone, and shipped."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from mut3r_analysis.backbones import Backbone, Frame, load_backbone
from mut3r_analysis.backbones.checkpoint import read_checkpoint, write_checkpoint
from mut3r_analysis.errors import MissingFile
from mut3r_analysis.foundation.paths import user_path
from mut3r_analysis.foundation.text_files import read_yaml
from mut3r_analysis.scenes import SceneDistribution
from mut3r_analysis.training.card_words import TARGETS_SET, card_text
from mut3r_analysis.training.cue_trial import TARGET, cue_test
from mut3r_analysis.training.declared import declared_test, read_protocol, target_row
from mut3r_analysis.training.gating_trial import gating_test
from mut3r_analysis.training.long_trial import long_test
from mut3r_analysis.training.loop import CURVE, LOG, read_table, write_table
from mut3r_analysis.training.motion_trial import motion_test
from mut3r_analysis.training.patches import KINDS
from mut3r_analysis.training.recipe import Recipe, read_recipe
from mut3r_analysis.training.reconstruction_trial import reconstruction_test
from mut3r_analysis.training.starting import initial_model
from mut3r_analysis.training.validation import AXES, held_out_clips, score_clips

LENGTHS = (2, 4, 8, 16)
FORMAT = "mut3r_analysis model card 2"
SEED = 100_000


def make_card(
    checkpoint: str | Path,
    recipe: Recipe,
    *,
    steps: int,
    seconds: float,
    curve: str | Path | None = None,
    clips: int = 256,
    notes: tuple[str, ...] = (),
    cues: bool = True,
    motion: dict[str, Any] | None = None,
    reconstruction: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure a checkpoint.

    It is scored on scenes like those that its training ended with. Where nothing moved in those,
    objects of the default distribution move in the scenes that are said to be moving.

    Parameters
    ----------
    checkpoint : str or Path
        A ``.safetensors`` file.
    recipe : Recipe
        That made it.
    steps : int
        Steps actually taken.
    seconds : float
        Time they took.
    curve : str or Path, optional
        The ``curve.csv`` of its training.
    clips : int
        Held-out clips per length and kind of scene.
    notes : tuple of str
        What the trainer has to say: machine, what was tried, limits.
    cues : bool
        Whether to run the cue test, the gating test and the long test, which read the sites of
        `training.patches.KINDS`; a model that lacks some has none of them.
    motion, reconstruction : dict, optional
        From `motion_test` or `reconstruction_test`. Its conditions are the targets then.

    Returns
    -------
    dict
        The card, ready for JSON.
    """
    model = load_backbone(checkpoint, device="cpu")
    untrained = initial_model(recipe.model, recipe.initialisation, recipe.seed)
    untrained = untrained.eval().requires_grad_(False)
    path = Path(checkpoint)
    shown = tuple(_with_movers(each) for each in recipe.stages[-1].scenes)
    card: dict[str, Any] = {
        "format": FORMAT,
        "name": path.stem,
        "kind": type(model).__name__,
        "file": {
            "sha256": model.origin.sha256 if model.origin else "",
            "bytes": path.stat().st_size,
            "parameters": sum(each.numel() for each in model.parameters()),
        },
        "config": recipe.model.to_dict(),
        "cost": _cost(model, checkpoint, recipe.size),
        "training": {
            "recipe": recipe.to_dict(),
            "recipe_sha256": recipe.sha256,
            "steps": steps,
            "frames": recipe.frames_until(steps),
            "seconds": seconds,
            "stages": _stages(recipe, steps),
        },
        "evaluation": {"clips": clips, "first_seed": SEED, "size": list(recipe.size)},
        "scores": _scores({"model": model, "untrained": untrained}, shown[0], recipe.size, clips),
        "notes": list(notes),
    }
    if curve is not None:
        card["curve"] = _curve(curve)
    if cues:
        card |= _attention_tests(checkpoint, model, untrained, shown, recipe.size)
    card["targets"] = _targets(card)
    for name, found in (("motion_test", motion), ("reconstruction_test", reconstruction)):
        if found is not None:
            declared = [{**row, "set": TARGETS_SET[0]} for row in found["conditions"]]
            others = [{**row, "set": TARGETS_SET[-1]} for row in card["targets"]]
            card |= {name: found, "targets": [*declared, *others]}
    return card


def _attention_tests(
    checkpoint: str | Path,
    model: Backbone,
    untrained: Backbone,
    shown: tuple[SceneDistribution, ...],
    size: tuple[int, int],
) -> dict[str, Any]:
    """Run cue, gating and long test, or say which of their sites a model lacks."""
    if lacking := [kind for kind in KINDS if kind not in model.sites()]:
        return {"lacking_sites": lacking}
    return {
        "cue_test": cue_test(model, untrained, distributions=shown, size=size),
        "gating_test": {
            "trained": gating_test(model, distribution=shown[0], size=size),
            "untrained": gating_test(untrained, distribution=shown[0], size=size),
        },
        "long_test": long_test(checkpoint),
    }


def _with_movers(scenes: SceneDistribution) -> SceneDistribution:
    return scenes if scenes.movers[1] else replace(scenes, movers=SceneDistribution().movers)


def write_card(card: dict[str, Any], folder: str | Path) -> tuple[Path, Path]:
    """Write ``<name>.json`` and, from it, ``<name>.md``."""
    folder = user_path(folder)
    data, text = (folder / f"{card['name']}.{suffix}" for suffix in ("json", "md"))
    data.write_text(json.dumps(_rounded(card), indent=1) + "\n", encoding="utf-8")
    text.write_text(card_text(json.loads(data.read_text(encoding="utf-8"))), encoding="utf-8")
    return data, text


def _scores(
    models: dict[str, Backbone], shown: SceneDistribution, size: tuple[int, int], clips: int
) -> dict[str, Any]:
    """Kind of scene -> length of clip -> model -> scores on held-out clips, with intervals."""
    kinds = {
        "resting": replace(shown, movers=(0, 0)),
        "moving": shown,
        "moving, no fog": replace(shown, fog=None),
    }
    scores: dict[str, Any] = {}
    for kind, distribution in kinds.items():
        scores[kind] = {}
        for length in LENGTHS:
            scenes = held_out_clips(distribution, size, clips, length, seed=SEED + length)
            scores[kind][str(length)] = {
                name: score_clips(model, scenes).intervals() for name, model in models.items()
            }
    return scores


def _cost(model: Backbone, checkpoint: str | Path, size: tuple[int, int]) -> dict[str, float]:
    """Seconds to load, and frames per second one by one with the threads torch has now."""
    started = time.perf_counter()
    load_backbone(checkpoint, device="cpu")
    loading = time.perf_counter() - started
    image = torch.zeros(1, 3, size[1], size[0])
    state = model.step(Frame(image)).state
    started = time.perf_counter()
    for _ in range(20):
        state = model.step(Frame(image), state).state
    return {
        "load_seconds": loading,
        "frames_per_second": 20 / (time.perf_counter() - started),
        "threads": torch.get_num_threads(),
    }


def _stages(recipe: Recipe, steps: int) -> list[dict[str, Any]]:
    rows, begun = [], 0
    for number, stage in enumerate(recipe.stages):
        left = steps - begun
        taken = left if number == len(recipe.stages) - 1 else min(stage.steps, left)
        seen = recipe.frames_until(begun + taken) - recipe.frames_until(begun)
        begun += taken
        if taken:
            row = {"name": stage.name, "steps": taken, "size": list(stage.size or recipe.size)}
            row["frames_per_clip"] = [frames for _, frames in stage.batches]
            rows.append(row | {"frames": seen, "scenes": [e.to_dict() for e in stage.scenes]})
    return rows


def _curve(path: str | Path) -> list[dict[str, float]]:
    names = [
        *("step", "frames", "length", "rpe_rotation_ratio", "rpe_translation_ratio"),
        *("depth_ratio", "ate_ratio"),
        *(f"correlation_{axis}" for axis in AXES),
    ]
    rows = read_table(path)[names].astype(float).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def _targets(card: dict[str, Any]) -> list[dict[str, Any]]:
    """Every target with its number; the clips are those with moving objects.

    ``set`` is one of :data:`TARGETS_SET`, when what is measured was named. Only the first are
    targets; what was named later is held against the same bounds.
    """
    rows: list[dict[str, Any]] = []

    def add(target: str, value: list[float], bound: float, **found: Any) -> None:
        row = target_row(target, value, bound, value[0] <= bound)
        rows.append(row | {"set": TARGETS_SET[0]} | found)

    pair, eight = (card["scores"]["moving"][length]["model"] for length in ("2", "8"))
    add("depth error at most half of a constant depth's, T = 2", pair["depth_ratio"], 0.5)
    for axis in AXES:
        value = pair[f"correlation_{axis}"]
        target = f"correlation of predicted and true {axis} above 0.8, T = 2"
        add(target, value, 0.8, above=True, reached=value[0] > 0.8)
    for part in ("rotation", "translation"):
        name = f"rpe_{part}_ratio"
        add(f"relative {part} error at most 0.45 of constant pose's, T = 2", pair[name], 0.45)
        add(f"relative {part} error below 0.6 of constant pose's, T = 8", eight[name], 0.6)
    add("trajectory error below the straight line's, T = 8", eight["ate_ratio"], 1.0)
    if "cue_test" in card:
        test = card["cue_test"]
        origins = ("declared cell", "cell declared later", "cell chosen on the other half")
        cells = strongest(test["declared"]), strongest(test["declared_later"]), test["best"]
        for origin, cell, when in zip(origins, cells, TARGETS_SET[:3], strict=True):
            name = f"{cell['kind']} {cell['statistic']} {cell['layer']}/{cell['head']}"
            for which, words, bound in (
                ("objects", "moving against resting objects", TARGET),
                ("twin", "against the frozen twin", TARGET),
                ("objects_without_nuisances", "against resting, nuisances regressed out", 0.5),
            ):
                value = cell[which]
                target = f"AUC of a {origin} ({name}) {words} above {bound}, interval above 0.5"
                reached = value[0] > bound and value[1] > 0.5
                add(target, value, bound, above=True, reached=reached, set=when)
    return rows


def strongest(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the row of a cue test whose lesser AUC of the two that count is highest."""
    return max(cells, key=lambda row: min(row["objects"][0], row["twin"][0]))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return value


def ship(
    run: str | Path,
    checkpoints: str | Path,
    curves: str | Path,
    *,
    notes: Sequence[str] | None = None,
    clips: int = 256,
    cues: bool = True,
) -> Path:
    """Measure the averaged weights of a training and put everything in its place.

    Parameters
    ----------
    run : str or Path
        A folder that :func:`~mut3r_analysis.training.train` wrote.
    checkpoints : str or Path
        Receives ``<name>.safetensors``, ``<name>.json``, ``<name>.md`` and ``<name>_cues.csv``.
    curves : str or Path
        Receives ``<name>_curve.csv``. What ``<name>_notes.yaml`` and ``<name>_protocol.yaml`` there
        hold enters the card.
    notes : sequence of str, optional
        For the last section of the card, in the place of that file's.
    clips : int
        Held-out clips per number.
    cues : bool
        Whether to run the cue test, the gating test and the long test, which take minutes. The test
        that a protocol declares is run where there is one; a motion test takes an hour, and its
        parts are kept in the folder `run`.

    Returns
    -------
    Path
        The checkpoint.

    Raises
    ------
    MissingFile
        When the folder holds no training.
    """
    run, checkpoints, curves = Path(run), Path(checkpoints), Path(curves)
    recipe = read_recipe(run / "recipe.yaml")
    trained = run / f"{recipe.name}.safetensors"
    if not trained.is_file():
        raise MissingFile(f"{run} holds no averaged weights {trained.name} yet; train on")
    source = read_checkpoint(trained)
    steps = int((source.card or "").split()[-1])
    begun = f"onward from {recipe.start.checkpoint}" if recipe.start else "from scratch"
    target = write_checkpoint(
        checkpoints / trained.name,
        source.weights,
        source.config,
        card=f"{recipe.name}: trained {begun} on procedural scenes, averaged weights at step "
        f"{steps} of the recipe with sha256 {recipe.sha256}; see {recipe.name}.md",
        overwrite=True,
    )
    curve = pd.read_csv(run / CURVE, dtype=str, keep_default_na=False)
    curve = curve[curve["step"].astype(int) <= steps]
    # The frames seen by the recipe as it is now.
    curve["frames"] = curve["step"].astype(int).map(recipe.frames_until)
    write_table(curves / f"{recipe.name}_curve.csv", curve)
    log = read_table(run / LOG)
    said = curves / f"{recipe.name}_notes.yaml"
    if notes is None:
        notes = read_yaml(said) if said.is_file() else ()
    declared = curves / f"{recipe.name}_protocol.yaml"
    card = make_card(
        target,
        recipe,
        steps=steps,
        seconds=float(log["seconds"][log["step"] <= steps].max()),
        curve=curves / f"{recipe.name}_curve.csv",
        clips=clips,
        notes=tuple(notes),
        cues=cues,
        **(_declared_test(target, declared, run) if declared.is_file() else {}),
    )
    cells = card.get("cue_test", {}).pop("cells", None)
    if cells:
        write_table(checkpoints / f"{recipe.name}_cues.csv", pd.DataFrame(map(_flat, cells)))
    write_card(card, checkpoints)
    return target


def _declared_test(checkpoint: Path, declared: Path, run: Path) -> dict[str, Any]:
    """Run the test that a protocol declares; returns it under its name in :func:`make_card`."""
    protocol = read_protocol(declared)
    model, reference = (
        load_backbone(each, device="cpu") for each in (checkpoint, protocol["reference"])
    )
    if declared_test(protocol) == "reconstruction":
        return {"reconstruction": reconstruction_test(model, reference, protocol)}
    keep = run / "motion_test.json"
    return {"motion": motion_test(model, reference, protocol, keep=keep)}


def _flat(cell: dict[str, Any]) -> dict[str, Any]:
    flat = {name: cell[name] for name in ("kind", "statistic", "layer", "head")}
    for name in ("objects", "twin"):
        for suffix, value in zip(("", "_low", "_high"), cell[name], strict=True):
            flat[f"{name}{suffix}"] = f"{value:.4f}"
    return flat
