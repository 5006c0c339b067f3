"""The training loop, resumable to the step, and what a training leaves behind."""

import copy
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from matplotlib.figure import Figure

from mut3r_analysis.backbones import Backbone, write_checkpoint
from mut3r_analysis.backbones.precision import arithmetic
from mut3r_analysis.errors import InvalidArgument, MissingFile, UnreadableFile
from mut3r_analysis.foundation.paths import user_path
from mut3r_analysis.training.clips import Clips, clips_from
from mut3r_analysis.training.objective import Helpers, helper_heads, objective_terms, weighted_sum
from mut3r_analysis.training.optimisation import Optimisers, update_average
from mut3r_analysis.training.parallel import Peers, own_device, peers
from mut3r_analysis.training.recipe import Recipe, read_recipe
from mut3r_analysis.training.rollout import roll_out
from mut3r_analysis.training.starting import starting_model
from mut3r_analysis.training.validation import AXES, held_out_clips, score_clips

_PARTS = ("model", "average", "helpers", "optimisers")


@dataclass(eq=False)
class Training:
    """A training under way: everything that changes from step to step.

    Attributes
    ----------
    recipe : Recipe
    model, average : Backbone
        Current weights and their running average.
    helpers : Helpers
        Heads of the auxiliary tasks.
    optimisers : Optimisers
    step : int
        Steps taken.
    seconds : float
        Time they took, over all resumptions.
    """

    recipe: Recipe
    model: Backbone
    average: Backbone
    helpers: Helpers
    optimisers: Optimisers
    step: int = 0
    seconds: float = 0.0

    @classmethod
    def begin(cls, recipe: Recipe, device: torch.device) -> "Training":
        """Start a training of a recipe, on a device."""
        model = starting_model(recipe).to(device)
        average = copy.deepcopy(model).requires_grad_(False)
        # float16 rounding has no useful gradient; the average keeps it, as released models do
        model.prepare_training()
        helpers = helper_heads(recipe.model, recipe.seed).to(device)
        optimisers = Optimisers(model, helpers, recipe)
        return cls(recipe, model, average, helpers, optimisers)

    def advance(self, clips: Clips, among: Peers | None = None) -> dict[str, float]:
        """Take one step and return the terms of its loss and the norm of its gradient.

        Among several processes `clips` are this one's share, and what is returned is of all.
        """
        with arithmetic(self.model.precision, self.model.device), torch.enable_grad():
            return self._advance(clips, among or Peers())

    def _advance(self, clips: Clips, among: Peers) -> dict[str, float]:
        weights, stage = self.recipe.objective_at(self.step), self.recipe.stage_at(self.step)
        with torch.set_grad_enabled(stage.train == "all"):
            asked = [name for name in self.model.outputs if name in weights.outputs]
            rollout = roll_out(self.model, clips.image, asked, lattice=stage.lattice)
        # once per round of the turns, or each kind of batch would only ever teach its own pixels
        offset = self.step // stage.turns
        terms = objective_terms(rollout, self.helpers, clips, weights, self.recipe.model, offset)
        loss = weighted_sum(terms, weights)
        loss.backward()
        values = among.average(self.optimisers.weights, [loss, *terms.values()])
        norm = self.optimisers.step(self.step)
        update_average(self.average, self.model, self.recipe.average_at(self.step))
        self.step += 1
        return {**dict(zip(("loss", *terms), values, strict=True)), "norm": norm}

    def state_dict(self) -> dict[str, Any]:
        """Return what :meth:`load_state_dict` needs to go on bit for bit."""
        parts = {name: getattr(self, name).state_dict() for name in _PARTS}
        return {"recipe": self.recipe.sha256, "step": self.step, "seconds": self.seconds, **parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.step, self.seconds = state["step"], state["seconds"]
        for name in _PARTS:
            getattr(self, name).load_state_dict(state[name])


def train(
    recipe: Recipe | str | Path,
    *,
    steps: int | None = None,
    out: str | Path,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Path:
    """Train a model by a recipe, or go on where an earlier call stopped.

    Started by ``torchrun`` in several processes, each takes its share of every batch, on a GPU of
    its own where there are enough; the first one writes. The numbers are those of one process but
    for rounding, and for terms over visible pixels, which are means over each share.

    Parameters
    ----------
    recipe : Recipe, str or Path
        A recipe or its YAML file.
    steps : int, optional
        Stop when this many steps have been taken in all; None is all of the recipe's.
    out : str or Path
        Folder of the training. It receives the recipe, ``start.txt`` (which weights were taken from
        where, of a recipe with a start), ``state.pt`` to resume from, ``log.csv`` (terms of the
        loss), ``curve.csv`` and ``curve.png`` (scores on held-out clips), and the
        averaged weights as ``<name>.safetensors``.
    device : str or torch.device, optional
        CUDA where there is one, otherwise the CPU.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Path
        The checkpoint of the averaged weights.

    Raises
    ------
    InvalidArgument
        When the folder holds the training of another recipe, the recipe starts from other weights
        than are there, `steps` is not positive, or a batch cannot be shared evenly among the
        processes.
    MissingFile, UnreadableFile
        When the recipe or the weights it starts from cannot be read.
    """
    from tqdm.auto import tqdm

    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    last = recipe.steps if steps is None else steps
    if last < 1:
        raise InvalidArgument(f"steps must be at least 1, got {steps}")
    folder = user_path(out)
    folder.mkdir(parents=True, exist_ok=True)
    place = own_device(device)
    training = Training.begin(recipe, place)
    if state := load_state(folder, recipe.sha256):
        training.load_state_dict(state)
    with peers(place) as among:
        among.require_even_shares(recipe, training.step, last)
        reporter = Reporter(training, folder) if among.rank == 0 else None
        bar = tqdm(
            total=last,
            initial=min(training.step, last),
            disable=not progress or reporter is None,
            unit="step",
            desc=recipe.name,
        )
        coming = clips_from(recipe, training.step, last, device=place, share=among.share)
        with bar:
            for _, clips in coming:
                started = time.perf_counter()
                terms = training.advance(clips.to(place), among)
                training.seconds += time.perf_counter() - started
                if reporter is not None:
                    reporter.after_step(terms, final=training.step == last)
                bar.update()
                bar.set_postfix_str(f"loss {terms['loss']:.3f}", refresh=False)
    return folder / f"{recipe.name}.safetensors"


class Reporter:
    """Writes what a training reports, at the steps its recipe names.

    It begins with the recipe and, in ``start.txt``, what became of the weights it starts from, and
    drops what an interrupted run reported after its last save.
    """

    def __init__(self, training: Training, folder: Path) -> None:
        self.training, self.folder = training, folder
        values = training.recipe.to_dict()
        (folder / "recipe.yaml").write_text(
            yaml.safe_dump(values, sort_keys=False), encoding="utf-8"
        )
        if training.recipe.start is not None:
            report = "\n".join(training.average.origin.report)
            (folder / "start.txt").write_text(f"{report}\n", encoding="utf-8")
        for table in (LOG, CURVE):
            trim_table(folder / table, training.step)
        self.sums: dict[str, float] = {}
        self.count = 0

    def after_step(self, terms: dict[str, float], final: bool) -> None:
        """Log, validate and save where it is time."""
        step, reports = self.training.step, self.training.recipe.reports
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1
        save = final or step % reports.save == 0
        # a save closes the log's window, so that a resumed run writes the same rows
        if save or step % reports.log == 0:
            self._log()
        if final or step % reports.validate == 0:
            self._validate()
        if save:
            save_state(self.folder, self.training.state_dict())
            write_checkpoint(
                self.folder / f"{self.training.recipe.name}.safetensors",
                self.training.average.state_dict(),
                self.training.recipe.model,
                card=f"recipe {self.training.recipe.sha256}, step {step}",
                overwrite=True,
            )

    def _log(self) -> None:
        training = self.training
        means = {name: total / self.count for name, total in self.sums.items()}
        stage = training.recipe.stage_at(training.step - 1).name
        rate = training.recipe.rate_at(training.step - 1)
        row = {"step": training.step, "stage": stage, **self._progress(), "rate": rate, **means}
        append_rows(self.folder / LOG, [row])
        self.sums, self.count = {}, 0

    def _validate(self) -> None:
        training, reports = self.training, self.training.recipe.reports
        stage = training.recipe.stage_at(training.step - 1)
        scenes = training.recipe.stages[-1].scenes[0]
        size = stage.size or training.recipe.size
        rows = []
        for length in reports.frames:
            clips = held_out_clips(scenes, size, reports.clips, length, seed=length)
            clips = clips.to(training.model.device)
            scores = score_clips(training.average, clips, lattice=stage.lattice).summary()
            about = {**self._progress(), "width": size[0], "length": length}
            rows.append({"step": training.step, **about, **scores})
        append_rows(self.folder / CURVE, rows)
        plot_training(self.folder / LOG, self.folder / CURVE).savefig(self.folder / PLOT, dpi=110)

    def _progress(self) -> dict[str, float]:
        frames = self.training.recipe.frames_until(self.training.step)
        return {"frames": frames, "seconds": round(self.training.seconds, 1)}


STATE = "state.pt"
LOG = "log.csv"
CURVE = "curve.csv"
PLOT = "curve.png"


def save_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the state so that at every moment, also of a crash, one whole file is there."""
    partial = folder / f".{STATE}.partial"
    with partial.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / STATE)


def load_state(folder: Path, identity: str) -> dict[str, Any] | None:
    """Return the state to resume from, or None where there is none.

    Raises
    ------
    InvalidArgument
        When the folder holds the training of another recipe.
    UnreadableFile
        When the file is damaged.
    """
    path = folder / STATE
    if not path.is_file():
        return None
    try:
        # Optimisers and models move what they load to where they are.
        state = torch.load(path, weights_only=True, map_location="cpu")
        recipe = state["recipe"]
    except Exception as error:
        raise UnreadableFile(
            f"{path} is not the state of a training: {error}. Restore it, or delete it to begin "
            "again"
        ) from error
    if recipe != identity:
        raise InvalidArgument(
            f"{folder} holds the training of another recipe (or of this one before it was "
            f"changed); give another folder, or delete this one to begin again"
        )
    return state


def trim_table(path: Path, step: int) -> None:
    """Drop the rows of a table that were written after `step`, as a killed run may leave them."""
    if path.is_file():
        rows = _as_text(path)
        rows = rows[rows["step"].astype(int) <= step]
        if len(rows):
            write_table(path, rows)
        else:
            path.unlink()


def append_rows(path: Path, new: Iterable[Mapping[str, Any]]) -> None:
    """Append rows to a table, beginning it where there is none; new columns go to the end."""
    rows = [
        {name: f"{each:.6g}" if isinstance(each, float) else each for name, each in row.items()}
        for row in new
    ]
    old = [_as_text(path)] if path.is_file() else []
    write_table(path, pd.concat([*old, pd.DataFrame(rows, dtype=object)]))


def _as_text(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table so that a reader finds it whole, whenever the writer is killed."""
    partial = path.with_name(f".{path.name}.partial")
    table.to_csv(partial, index=False, lineterminator="\n")
    partial.replace(path)


_NOT_TERMS = ("step", "stage", "frames", "seconds", "rate", "norm", "loss")


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a table that a training writes.

    Raises
    ------
    MissingFile
        When there is none.
    """
    if not Path(path).is_file():
        raise MissingFile(f"no table at {path}; a training writes it as it goes")
    return pd.read_csv(path)


def plot_training(log: str | Path, curve: str | Path) -> Figure:
    """Plot a training's tables against the frames seen.

    Parameters
    ----------
    log, curve : str or Path
        ``log.csv`` and ``curve.csv`` of a training folder.

    Returns
    -------
    Figure
        Terms of the loss; errors as shares of the baseline's, by clip length (1 is the baseline);
        correlation of predicted and true motion between two frames.
    """
    terms, scores = read_table(log), read_table(curve)
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    losses, ratios, correlations = figure.subplots(1, 3)
    for name in map(str, terms):
        if name not in _NOT_TERMS:
            losses.plot(terms["frames"] / 1e3, terms[name], label=name.replace("_", " "), lw=1)
    losses.set(title="terms of the loss", yscale="log")
    lengths = {float(str(length)): rows for length, rows in scores.groupby("length")}
    for (length, rows), style in zip(lengths.items(), ("-", "--", ":", "-."), strict=False):
        for index, name in enumerate(("rpe_rotation", "rpe_translation", "depth")):
            label = f"{name.replace('rpe_', 'relative ')}, {length:.0f}"
            values = rows[f"{name}_ratio"]
            ratios.plot(rows["frames"] / 1e3, values, style, color=f"C{index}", label=label)
    ratios.axhline(1, color="0.7", lw=0.8)
    ratios.set(title="error / baseline, by frames per clip", ylim=(0, 1.2))
    shortest = lengths[min(lengths)]
    for name in AXES:
        correlations.plot(shortest["frames"] / 1e3, shortest[f"correlation_{name}"], label=name)
    correlations.set(title="correlation with true motion", ylim=(-0.2, 1))
    for axis in (losses, ratios, correlations):
        axis.set_xlabel("thousand frames seen")
        axis.legend(fontsize="x-small", ncols=2)
        axis.spines[["top", "right"]].set_visible(False)
    return figure
