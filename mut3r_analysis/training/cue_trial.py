"""The cue test: whether attention tells moving objects from resting ones.

It was declared before looking.

A high AUC over all patches proves nothing: objects differ from walls, and near things from far
ones, whether they move or not. So each statistic, layer and head is scored in steps that take the
easy explanations away: among object patches only; with what a place in the image predicts taken
out; with flow size, visibility, contrast, depth and place regressed out; and against the twin in
which the same object, pixel for pixel the same now, has always been at rest.

The protocol, fixed before any number was seen:

1. Clips of `frames` frames; the last frame's patches are scored.
2. The clips are split in two. On the first half the best cell of each kind and statistic, and the
   best of all, is chosen by its distance from 0.5 among object patches, and its sign; regressions
   are fitted there too. The second half reports.
3. :data:`DECLARED` cells need no choice; their sign is declared as well.
4. Intervals are 95 % percentile intervals over clips.
5. Controls: the same procedure on the untrained model; the labels applied to the frozen twins, in
   which nothing moves; the change of the image itself. For comparison, a linear probe on decoder
   tokens.

Added after the first readings, because choices differed from one state of training to the next:

6. The cell chosen among all is measured once more, on as many scenes that no choice has seen.
7. :data:`DECLARED_LATER` cells, declared from readings of earlier weights before any later ones had
   been read, are measured on as many scenes again, which had no part in declaring them.
"""

from collections.abc import Collection
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.metrics.bootstrap import drawn_counts, percentile_bounds
from mut3r_analysis.metrics.ranking import auc_interval
from mut3r_analysis.scenes import HELD_OUT_SEEDS, Scene, SceneDistribution, render_arrays
from mut3r_analysis.training.clips import Clips, clips_of
from mut3r_analysis.training.evidence import frozen, without
from mut3r_analysis.training.patches import KINDS, Cell, PatchTruth, observe, patch_truth

DECLARED: tuple[tuple[Cell, int], ...] = (
    (Cell("image_to_state", "max_weight", 2), +1),
    (Cell("image_to_state", "entropy", 2), -1),
    (Cell("image_self", "entropy", 2), +1),
    (Cell("image_self", "logit_mean", 2), -1),
    (Cell("state_to_image", "received", 2), -1),
    (Cell("state_to_image", "received_logit", 2), -1),
)
"""Cells (means over heads) and their signs: the two that a smaller model had shown,
the readings "dispersed attention means dynamic" and "weakly attended means dynamic"."""

DECLARED_LATER: tuple[tuple[Cell, int], ...] = (
    (Cell("image_self", "received_logit", 4), -1),
    (Cell("state_to_image", "received_logit", 4), -1),
    (Cell("image_self", "received_logit", 3), -1),
)
"""The same of cells that the bundled model showed at step 20,880, written down before any weights
trained since had been read: patches that others meet with low logits, past the middle of the
decoder, are moving."""

Scores = NDArray[np.floating[Any]]

FIRST_SEED = 500_000
"""Scenes of the cue test start here, apart from those of the validations."""

RESAMPLES = 300
TARGET = 0.62


class Halves:
    """One observation with its truth, flattened to patches, split by clips."""

    def __init__(self, truth: PatchTruth, patches: int) -> None:
        clips = len(truth.moving)
        self.sequence = np.repeat(np.arange(clips), patches)
        self.choose = self.sequence % 2 == 0
        self.report = ~self.choose
        self.truth = truth
        self.moving, self.resting = truth.moving.ravel(), truth.resting.ravel()
        self.labelled = self.moving | self.resting
        self.any = self.moving | truth.background.ravel() | self.resting
        place = np.tile(np.arange(patches), clips)
        self.place = (place[:, None] == np.arange(1, patches)).astype(float)
        columns = [each.ravel() for each in truth.nuisances.values()]
        squares = [each**2 for each in columns]
        self.nuisances = np.column_stack([*columns, *squares])
        self.draws = drawn_counts(clips, RESAMPLES)

    def auc(
        self, score: Scores, among: NDArray[np.bool_], half: NDArray[np.bool_] | None = None
    ) -> list[float]:
        """AUC of moving patches among some, on the reporting half, with its interval."""
        kept = among & (self.report if half is None else half)
        return list(auc_interval(score[kept], self.moving[kept], self.sequence[kept], self.draws))


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
    scenes = [
        Scene.random(HELD_OUT_SEEDS[FIRST_SEED + first + index], frames, size,
                     **distributions[index % len(distributions)].to_dict())
        for index in range(clips)
    ]  # fmt: skip

    def rendered(scenes: list[Scene]) -> Clips:
        parts = [render_arrays(scene.arrays(), frames, size) for scene in scenes]
        return clips_of({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})

    return rendered(scenes), rendered([frozen(scene, frames - 1) for scene in scenes])


def _check_depth(model: Backbone) -> None:
    deepest = max(cell.layer for cell, _ in (*DECLARED, *DECLARED_LATER))
    if model.decoder_layers <= deepest:
        raise InvalidArgument(
            f"the cue test reads decoder layers 0 to {deepest}; this model has only "
            f"{model.decoder_layers} layers"
        )


def cue_test(
    model: Backbone,
    control: Backbone,
    *,
    distributions: tuple[SceneDistribution, ...] = (SceneDistribution(),),
    size: tuple[int, int] = (64, 48),
    clips: int = 384,
    frames: int = 4,
) -> dict[str, Any]:
    """Run the cue test.

    Parameters
    ----------
    model, control : Backbone
        The trained model, and the same before training.
    distributions : tuple of SceneDistribution
        What the clips show; clips take turns. Every clip gets at least one moving object.
    size : (int, int)
        Width and height, px.
    clips, frames : int

    Returns
    -------
    dict
        ``setting``; ``declared``, ``by_statistic`` and ``best``, rows of one cell each; ``again``,
        the cell of ``best`` on other scenes; ``declared_later``, rows measured on others yet; the
        first and the best rows of the ``untrained`` model;
        ``controls``; ``probe``; ``cells``, every cell without choice.
        An entry ``[value, low, high]`` has its interval.

    Raises
    ------
    InvalidArgument
        When the model has too few decoder layers for the declared cells.
    """
    _check_depth(model)
    moving = tuple(replace(each, movers=(1, max(1, each.movers[1]))) for each in distributions)
    pair = scenes_with_twins(moving, size, clips, frames)
    watched, untrained = Watched(model, pair), Watched(control, pair)
    halves = watched.halves

    def elsewhere(cells: tuple[tuple[Cell, int], ...], first: int) -> list[dict[str, Any]]:
        """Measure cells with their signs on clips and twins that had no part in their choice."""
        others = scenes_with_twins(moving, size, clips, frames, first=first)
        other = Watched(model, others, sorted({cell.kind for cell, _ in cells}))
        return [other.row(*each) for each in cells]

    best = watched.best(watched.with_history)
    return {
        "setting": {
            "clips": clips,
            "frames": frames,
            "size": list(size),
            "moving_patches": int(halves.moving.sum()),
            "resting_patches": int(halves.resting.sum()),
            "distributions": [each.to_dict() for each in moving],
        },
        "declared": [watched.row(*each) for each in DECLARED],
        "by_statistic": [
            watched.row(*watched.best(list(cells)))
            for _, cells in groupby(watched.seen.cells, lambda cell: (cell.kind, cell.statistic))
        ],
        "best": watched.row(*best),
        "cells": [watched.unchosen(cell) for cell in watched.seen.cells],
        "again": elsewhere((best,), clips)[0],
        "declared_later": elsewhere(DECLARED_LATER, 2 * clips),
        "untrained": {
            "best": untrained.row(*untrained.best(untrained.with_history)),
            "declared": [untrained.row(*each) for each in DECLARED],
        },
        "controls": _controls(halves),
        "probe": [
            {"layer": layer, **_probe(tokens, rested, halves)}
            for layer, (tokens, rested) in enumerate(
                zip(watched.seen.tokens, watched.twin.tokens, strict=True)
            )
        ],
    }


def _controls(halves: Halves) -> dict[str, dict[str, list[float]]]:
    """Score what needs no model."""
    truth = halves.truth
    controls = {
        "frame difference": truth.frame_difference,
        **{name: truth.nuisances[name] for name in ("contrast", "nearness")},
        "true flow": truth.nuisances["flow"],
    }
    return {
        name: {
            "all": halves.auc(score.ravel(), halves.any),
            "objects": halves.auc(score.ravel(), halves.labelled),
        }
        for name, score in controls.items()
    }


class Watched:
    """Clips and their twins as one model sees them, with their truth."""

    def __init__(
        self, model: Backbone, pair: tuple[Clips, Clips], kinds: Collection[str] = KINDS
    ) -> None:
        self.seen, self.twin = (observe(model, each.image, kinds) for each in pair)
        truth = patch_truth(pair[0], model.patch_size)
        self.halves = Halves(truth, truth.moving.shape[1])

    @property
    def with_history(self) -> list[Cell]:
        """Cells that can know more than one frame."""
        return [cell for cell in self.seen.cells if cell.kind != "encoder_self"]

    def scores(self, cell: Cell) -> tuple[Scores, Scores]:
        """Return what a cell says of the clips and of their twins, ``(clip * patch,)``."""
        place = self.seen.cells.index(cell)
        return self.seen.scores[place].ravel(), self.twin.scores[place].ravel()

    def best(self, among: list[Cell]) -> tuple[Cell, int]:
        """Choose the cell farthest from chance among objects, and its sign, on the first half."""
        from sklearn.metrics import roc_auc_score

        halves = self.halves
        kept = halves.labelled & halves.choose
        areas = {
            cell: roc_auc_score(halves.moving[kept], self.scores(cell)[0][kept]) for cell in among
        }
        found = max(areas, key=lambda cell: abs(areas[cell] - 0.5))
        return found, 1 if areas[found] >= 0.5 else -1

    def row(self, cell: Cell, sign: int) -> dict[str, Any]:
        """Measure a cell with its sign on the half that reports."""
        halves = self.halves
        score, rested = (sign * each for each in self.scores(cell))
        fit = halves.choose
        among = {
            "all": (score, halves.any),
            "objects": (score, halves.labelled),
            "objects_without_place": (without(score, halves.place, fit), halves.labelled),
            "objects_without_nuisances": (
                without(score, halves.nuisances, fit & halves.labelled),
                halves.labelled,
            ),
            "at_rest": (rested, halves.labelled),
        }
        areas = {name: halves.auc(*each) for name, each in among.items()}
        twins = _twin(score, rested, halves, halves.report)
        return {**cell.to_dict(), "sign": sign, **areas, **twins}

    def unchosen(self, cell: Cell) -> dict[str, Any]:
        """Score a cell on all clips; without a choice there is nothing to hold out."""
        halves, (score, rested) = self.halves, self.scores(cell)
        everywhere = np.ones_like(halves.report)
        return {
            **cell.to_dict(),
            "objects": halves.auc(score, halves.labelled, everywhere),
            "twin": _twin(score, rested, halves, everywhere)["twin"],
        }


def _twin(
    score: Scores, rested: Scores, halves: Halves, among: NDArray[np.bool_]
) -> dict[str, Any]:
    """Compare moving patches with the same patches of the frozen twin."""
    kept = halves.moving & among
    own, other, sequence = score[kept], rested[kept], halves.sequence[kept]
    labels, twice = np.repeat([True, False], len(own)), np.tile(sequence, 2)
    change = own - other
    spread = change.std()
    clips = halves.draws.shape[1]
    total, count = np.bincount(sequence, change, clips), np.bincount(sequence, minlength=clips)
    drawn = (halves.draws @ total) / np.maximum(halves.draws @ count, 1)
    paired = [change.mean(), *percentile_bounds(drawn)]
    areas = auc_interval(np.concatenate([own, other]), labels, twice, halves.draws)
    return {
        "twin": list(areas),
        "twin_change": [float(each / spread) if spread > 0 else 0.0 for each in paired],
    }


def _probe(
    tokens: NDArray[np.float32], rested: NDArray[np.float32], halves: Halves
) -> dict[str, Any]:
    """Score a linear classifier of tokens, fitted on one half, on the other."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    flat, still = (each.reshape(-1, each.shape[-1]).astype(np.float64) for each in (tokens, rested))
    fit = halves.labelled & halves.choose
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    probe.fit(flat[fit], halves.moving[fit])
    score, twin = probe.decision_function(flat), probe.decision_function(still)
    return {
        "objects": halves.auc(score, halves.labelled),
        "at_rest": halves.auc(twin, halves.labelled),
        **_twin(score, twin, halves, halves.report),
    }
