"""From a training's folder to what ships: checkpoint, model card, cue table and curve."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mut3r_analysis.backbones.checkpoint import read_checkpoint, write_checkpoint
from mut3r_analysis.errors import MissingFile
from mut3r_analysis.training.card import make_card, write_card
from mut3r_analysis.training.folder import CURVE, LOG, read_table
from mut3r_analysis.training.recipe import read_recipe


def ship(
    run: str | Path,
    checkpoints: str | Path,
    curves: str | Path,
    *,
    notes: Sequence[str] = (),
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
        Receives ``<name>_curve.csv``.
    notes : sequence of str
        For the last section of the card.
    clips : int
        Held-out clips per number.
    cues : bool
        Whether to run the cue test and the gating test, which take minutes.

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
    target = write_checkpoint(
        checkpoints / trained.name,
        source.weights,
        source.config,
        card=f"{recipe.name}: trained from scratch on procedural scenes, averaged weights at step "
        f"{steps} of the recipe with sha256 {recipe.sha256}; see {recipe.name}.md",
        overwrite=True,
    )
    curve = pd.read_csv(run / CURVE, dtype=str, keep_default_na=False)
    curve = curve[curve["step"].astype(int) <= steps]
    # The frames seen by the recipe as it is now.
    curve["frames"] = curve["step"].astype(int).map(recipe.frames_until)
    _write(curves / f"{recipe.name}_curve.csv", curve)
    log = read_table(run / LOG)
    card = make_card(
        target,
        recipe,
        steps=steps,
        seconds=float(log["seconds"][log["step"] <= steps].max()),
        curve=curves / f"{recipe.name}_curve.csv",
        clips=clips,
        notes=tuple(notes),
        cues=cues,
    )
    cells = card.get("cue_test", {}).pop("cells", None)
    if cells:
        _write(checkpoints / f"{recipe.name}_cues.csv", pd.DataFrame(map(_flat, cells)))
    write_card(card, checkpoints)
    return target


def _flat(cell: dict[str, Any]) -> dict[str, Any]:
    flat = {name: cell[name] for name in ("kind", "statistic", "layer", "head")}
    for name in ("objects", "twin"):
        for suffix, value in zip(("", "_low", "_high"), cell[name], strict=True):
            flat[f"{name}{suffix}"] = f"{value:.4f}"
    return flat


def _write(path: Path, table: pd.DataFrame) -> None:
    table.to_csv(path, index=False, lineterminator="\n")
