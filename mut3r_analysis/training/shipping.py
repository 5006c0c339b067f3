"""From a training's folder to what ships: checkpoint, model card, cue table and curve."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from mut3r_analysis.backbones.checkpoint import read_checkpoint, write_checkpoint
from mut3r_analysis.backbones.loading import load_backbone
from mut3r_analysis.errors import MissingFile
from mut3r_analysis.training.card import make_card, write_card
from mut3r_analysis.training.curves import read_table
from mut3r_analysis.training.folder import CURVE, LOG
from mut3r_analysis.training.motion_trial import motion_test, read_protocol
from mut3r_analysis.training.recipe import read_recipe


def ship(
    run: str | Path,
    checkpoints: str | Path,
    curves: str | Path,
    *,
    notes: Sequence[str] | None = None,
    clips: int = 256,
    cues: bool = True,
    motion: bool = True,
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
        Whether to run the cue test and the gating test, which take minutes.
    motion : bool
        Whether to run the motion test where there is a protocol, which takes an hour. Its parts are
        kept in the training's folder.

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
    curve = _recounted(run / CURVE, recipe.frames_until, steps)
    _write_rows(curves / f"{recipe.name}_curve.csv", curve)
    log = read_table(run / LOG)
    card = make_card(
        target,
        recipe,
        steps=steps,
        seconds=float(log["seconds"][log["step"] <= steps].max()),
        curve=curves / f"{recipe.name}_curve.csv",
        clips=clips,
        notes=_notes(curves / f"{recipe.name}_notes.yaml") if notes is None else tuple(notes),
        cues=cues,
        motion=_motion(target, curves / f"{recipe.name}_protocol.yaml", run) if motion else None,
    )
    cells = card.get("cue_test", {}).pop("cells", None)
    if cells:
        _write_rows(checkpoints / f"{recipe.name}_cues.csv", [_flat(cell) for cell in cells])
    write_card(card, checkpoints)
    return target


def _notes(path: Path) -> tuple[str, ...]:
    return tuple(yaml.safe_load(path.read_text())) if path.is_file() else ()


def _motion(checkpoint: Path, path: Path, run: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    protocol = read_protocol(path)
    model, reference = (
        load_backbone(each, device="cpu") for each in (checkpoint, protocol["reference"])
    )
    return motion_test(model, reference, protocol, keep=run / "motion_test.json")


def _recounted(path: Path, frames_until: Any, steps: int) -> list[dict[str, Any]]:
    """Rows of a curve up to a step, with the frames seen by the recipe as it is now."""
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["step"]) <= steps]
    return [{**row, "frames": frames_until(int(row["step"]))} for row in rows]


def _flat(cell: dict[str, Any]) -> dict[str, Any]:
    flat = {name: cell[name] for name in ("kind", "statistic", "layer", "head")}
    for name in ("objects", "twin"):
        for suffix, value in zip(("", "_low", "_high"), cell[name], strict=True):
            flat[f"{name}{suffix}"] = f"{value:.4f}"
    return flat


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
