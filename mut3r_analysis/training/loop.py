"""The training loop: resumable to the step, the same numbers whether interrupted or not."""

import copy
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from mut3r_analysis.backbones.checkpoint import write_checkpoint
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.training.clips import Clips, clips_from
from mut3r_analysis.training.curves import plot_training
from mut3r_analysis.training.folder import (
    CURVE,
    LOG,
    PLOT,
    append_rows,
    load_state,
    save_state,
    trim_table,
)
from mut3r_analysis.training.initialisation import starting_model
from mut3r_analysis.training.objective import (
    Helpers,
    helper_heads,
    objective_terms,
    weighted_sum,
)
from mut3r_analysis.training.optimisation import Optimisers, update_average
from mut3r_analysis.training.parallel import Peers, own_device, peers
from mut3r_analysis.training.recipe import Recipe, read_recipe
from mut3r_analysis.training.rollout import roll_out
from mut3r_analysis.training.validation import held_out_clips, score_clips


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
        model.rotate_encoder_in(None)
        helpers = helper_heads(recipe.model, recipe.seed).to(device)
        optimisers = Optimisers(model, helpers, recipe)
        return cls(recipe, model, average, helpers, optimisers)

    def advance(self, clips: Clips, among: Peers | None = None) -> dict[str, float]:
        """Take one step and return the terms of its loss and the norm of its gradient.

        Among several processes `clips` are this one's share, and what is returned is of all.
        """
        weights, stage = self.recipe.objective_at(self.step), self.recipe.stage_at(self.step)
        with torch.set_grad_enabled(stage.train == "all"):
            rollout = roll_out(self.model, clips.image, lattice=stage.lattice)
        # once per round of the turns, or each kind of batch would only ever teach its own pixels
        offset = self.step // stage.turns
        terms = objective_terms(rollout, self.helpers, clips, weights, self.recipe.model, offset)
        loss = weighted_sum(terms, weights)
        loss.backward()
        values = (among or Peers()).average(self.optimisers.weights, [loss, *terms.values()])
        norm = self.optimisers.step(self.step)
        update_average(self.average, self.model, self.recipe.average_at(self.step))
        self.step += 1
        return {**dict(zip(("loss", *terms), values, strict=True)), "norm": norm}

    def state_dict(self) -> dict[str, Any]:
        """Return what :meth:`load_state_dict` needs to go on bit for bit."""
        return {
            "recipe": self.recipe.sha256,
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "helpers": self.helpers.state_dict(),
            "optimisers": self.optimisers.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.step, self.seconds = state["step"], state["seconds"]
        for name in ("model", "average", "helpers"):
            getattr(self, name).load_state_dict(state[name])
        self.optimisers.load_state_dict(state["optimisers"])


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
        Folder of the training. It receives the recipe, ``state.pt`` to resume from, ``log.csv``
        (terms of the loss), ``curve.csv`` and ``curve.png`` (scores on held-out clips), and the
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
    folder = Path(out)
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

    It begins with the recipe, and drops what an interrupted run reported after its last save.
    """

    def __init__(self, training: Training, folder: Path) -> None:
        self.training, self.folder = training, folder
        values = training.recipe.to_dict()
        (folder / "recipe.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
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
        row = {
            "step": training.step,
            "stage": training.recipe.stage_at(training.step - 1).name,
            "frames": training.recipe.frames_until(training.step),
            "seconds": round(training.seconds, 1),
            "rate": training.recipe.rate_at(training.step - 1),
            **{name: total / self.count for name, total in self.sums.items()},
        }
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
            scores = score_clips(
                training.average, clips.to(training.model.device), lattice=stage.lattice
            )
            rows.append(
                {
                    "step": training.step,
                    "frames": training.recipe.frames_until(training.step),
                    "seconds": round(training.seconds, 1),
                    "width": size[0],
                    "length": length,
                    **scores.summary(),
                }
            )
        append_rows(self.folder / CURVE, rows)
        plot_training(self.folder / LOG, self.folder / CURVE).savefig(self.folder / PLOT, dpi=110)
