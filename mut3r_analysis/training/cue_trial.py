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

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.metrics.bootstrap import drawn_counts, percentile_bounds
from mut3r_analysis.metrics.ranking import auc_interval, weighted_auc
from mut3r_analysis.scenes import SceneDistribution
from mut3r_analysis.training.clips import Clips
from mut3r_analysis.training.cue_scenes import scenes_with_twins
from mut3r_analysis.training.evidence import without
from mut3r_analysis.training.observation import Cell, Observation, observe
from mut3r_analysis.training.patches import PatchTruth, patch_truth

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
        self,
        score: NDArray[np.floating[Any]],
        among: NDArray[np.bool_],
        half: NDArray[np.bool_] | None = None,
    ) -> list[float]:
        """AUC of moving patches among some, on the reporting half, with its interval."""
        kept = among & (self.report if half is None else half)
        return list(auc_interval(score[kept], self.moving[kept], self.sequence[kept], self.draws))


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
    deepest = max(cell.layer for cell, _ in (*DECLARED, *DECLARED_LATER))
    if model.decoder_layers <= deepest:
        raise InvalidArgument(
            f"the cue test reads decoder layers 0 to {deepest}; this model has only "
            f"{model.decoder_layers} layers"
        )
    moving = tuple(replace(each, movers=(1, max(1, each.movers[1]))) for each in distributions)
    scenes, frozen = scenes_with_twins(moving, size, clips, frames)
    truth = patch_truth(scenes, model.patch_size)
    halves = Halves(truth, truth.moving.shape[1])
    found: dict[str, Any] = {
        "setting": {
            "clips": clips,
            "frames": frames,
            "size": list(size),
            "moving_patches": int(halves.moving.sum()),
            "resting_patches": int(halves.resting.sum()),
            "distributions": [each.to_dict() for each in moving],
        }
    }
    seen, twin = observe(model, scenes.image), observe(model, frozen.image)
    found |= _tables(seen, twin, halves)
    found["cells"] = _every_cell(seen, twin, halves)

    def elsewhere(cells: tuple[tuple[Cell, int], ...], first: int) -> list[dict[str, Any]]:
        return _rows(model, scenes_with_twins(moving, size, clips, frames, first=first), cells)

    best = found["best"]
    head = -1 if best["head"] == "mean" else best["head"]
    chosen = Cell(best["kind"], best["statistic"], best["layer"], head)
    found["again"] = elsewhere(((chosen, best["sign"]),), clips)[0]
    found["declared_later"] = elsewhere(DECLARED_LATER, 2 * clips)
    untrained = _tables(observe(control, scenes.image), observe(control, frozen.image), halves)
    found["untrained"] = {"best": untrained["best"], "declared": untrained["declared"]}
    found["controls"] = {
        name: {"all": halves.auc(score, halves.any), "objects": halves.auc(score, halves.labelled)}
        for name, score in (
            ("frame difference", truth.frame_difference.ravel()),
            ("contrast", truth.nuisances["contrast"].ravel()),
            ("nearness", truth.nuisances["nearness"].ravel()),
            ("true flow", truth.nuisances["flow"].ravel()),
        )
    }
    found["probe"] = [
        {"layer": layer, **_probe(tokens, twin.tokens[layer], halves)}
        for layer, tokens in enumerate(seen.tokens)
    ]
    return found


def _tables(seen: Observation, twin: Observation, halves: Halves) -> dict[str, Any]:
    scores = seen.scores.reshape(len(seen.cells), -1)
    rested = twin.scores.reshape(len(twin.cells), -1)
    chosen = halves.labelled & halves.choose
    areas = np.array([weighted_auc(each[chosen], halves.moving[chosen])[0] for each in scores])
    index = {cell: number for number, cell in enumerate(seen.cells)}

    def row(number: int, sign: int) -> dict[str, Any]:
        return _row(seen.cells[number], sign, scores[number], rested[number], halves)

    def best(among: list[int]) -> dict[str, Any]:
        number = max(among, key=lambda each: abs(areas[each] - 0.5))
        return row(number, 1 if areas[number] >= 0.5 else -1)

    groups: dict[tuple[str, str], list[int]] = {}
    for number, cell in enumerate(seen.cells):
        groups.setdefault((cell.kind, cell.statistic), []).append(number)
    historic = [n for n, cell in enumerate(seen.cells) if cell.kind != "encoder_self"]
    return {
        "declared": [row(index[cell], sign) for cell, sign in DECLARED],
        "by_statistic": [best(group) for group in groups.values()],
        "best": best(historic),
    }


def _rows(
    model: Backbone, clips_and_twins: tuple[Clips, Clips], cells: tuple[tuple[Cell, int], ...]
) -> list[dict[str, Any]]:
    """Measure cells with their signs on clips and twins that had no part in their choice."""
    scenes, frozen = clips_and_twins
    kinds = sorted({cell.kind for cell, _ in cells})
    seen, twin = (observe(model, each.image, kinds) for each in (scenes, frozen))
    truth = patch_truth(scenes, model.patch_size)
    halves = Halves(truth, truth.moving.shape[1])
    rows = []
    for cell, sign in cells:
        number = seen.cells.index(cell)
        rows.append(
            _row(cell, sign, seen.scores[number].ravel(), twin.scores[number].ravel(), halves)
        )
    return rows


def _every_cell(seen: Observation, twin: Observation, halves: Halves) -> list[dict[str, Any]]:
    """Score every cell on all clips; without a choice there is nothing to hold out."""
    everywhere = np.ones_like(halves.report)
    return [
        {
            **_identity(cell),
            "objects": halves.auc(score.ravel(), halves.labelled, everywhere),
            "twin": _twin(score.ravel(), rest.ravel(), halves, everywhere)["twin"],
        }
        for cell, score, rest in zip(seen.cells, seen.scores, twin.scores, strict=True)
    ]


def _identity(cell: Cell) -> dict[str, Any]:
    return {
        "kind": cell.kind,
        "statistic": cell.statistic,
        "layer": cell.layer,
        "head": "mean" if cell.head < 0 else cell.head,
    }


def _row(
    cell: Cell,
    sign: int,
    score: NDArray[np.floating[Any]],
    rested: NDArray[np.floating[Any]],
    halves: Halves,
) -> dict[str, Any]:
    score, rested = sign * score, sign * rested
    fit = halves.choose
    unplaced = without(score, halves.place, fit)
    explained = without(score, halves.nuisances, fit & halves.labelled)
    return {
        **_identity(cell),
        "sign": sign,
        "all": halves.auc(score, halves.any),
        "objects": halves.auc(score, halves.labelled),
        "objects_without_place": halves.auc(unplaced, halves.labelled),
        "objects_without_nuisances": halves.auc(explained, halves.labelled),
        "at_rest": halves.auc(rested, halves.labelled),
        **_twin(score, rested, halves, halves.report),
    }


def _twin(
    score: NDArray[np.floating[Any]],
    rested: NDArray[np.floating[Any]],
    halves: Halves,
    among: NDArray[np.bool_],
) -> dict[str, Any]:
    """Compare moving patches with the same patches of the frozen twin."""
    kept = halves.moving & among
    own, other = score[kept], rested[kept]
    sequence = halves.sequence[kept]
    both = np.concatenate([own, other])
    labels = np.arange(len(both)) < len(own)
    twice = np.concatenate([sequence, sequence])
    change = own - other
    spread = change.std()
    clips = halves.draws.shape[1]
    total = np.bincount(sequence, change, clips)
    count = np.bincount(sequence, minlength=clips)
    per_draw = (halves.draws @ total) / np.maximum(halves.draws @ count, 1)
    low, high = percentile_bounds(per_draw)
    paired = [change.mean(), low, high] if spread > 0 else [0.0, 0.0, 0.0]
    return {
        "twin": list(auc_interval(both, labels, twice, halves.draws)),
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
