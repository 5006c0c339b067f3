"""The weights a training starts from: a recipe's own beginnings, or weights trained before."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from mut3r_analysis.backbones import Backbone, Origin, load_backbone
from mut3r_analysis.backbones.families import family_of
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.training.recipe import Initialisation, Recipe, Start


def starting_model(recipe: Recipe) -> Backbone:
    """Build the model that a recipe starts from; float32, on the CPU.

    Where the weights are of another kind of model, those are taken that fit in name and shape, and
    the others begin as `initialisation` says; the report of the model's origin has a line for each.

    Raises
    ------
    InvalidArgument
        When the weights that the recipe names are there, but are others, of another model of the
        same kind, or when none fits.
    MissingFile, CheckpointError
        When they cannot be read.
    """
    model = initial_model(recipe.model, recipe.initialisation, recipe.seed)
    if recipe.start is None:
        return model
    name = recipe.start.checkpoint
    trained = load_backbone(name, device="cpu")
    found = trained.origin.sha256 if trained.origin else None
    if found != recipe.start.sha256:
        raise InvalidArgument(
            f"the recipe {recipe.name!r} starts from {name!r} with sha256 {recipe.start.sha256}, "
            f"but the weights found there have sha256 {found}; give the recipe the weights it "
            "names, or make another recipe that names these"
        )
    same_kind = trained.config.family == recipe.model.family
    if same_kind and trained.config != recipe.model:
        raise InvalidArgument(
            f"the recipe {recipe.name!r} describes another model than its start {name!r}; copy "
            "the model section of the recipe that made these weights"
        )
    taken = fitting_weights(trained.state_dict(), model.state_dict(), recipe.start)
    model.load_state_dict({own: trained.state_dict()[old] for own, old in taken.items()}, False)
    model.origin = Origin(name, sha256=found, report=tuple(_report(model.state_dict(), taken)))
    return model


def fitting_weights(
    trained: Mapping[str, Tensor], own: Mapping[str, Tensor], start: Start
) -> dict[str, str]:
    """Return which trained weight each of a model's own weights takes: the names of both.

    Raises
    ------
    InvalidArgument
        When none fits, or when a renaming or an exception of the start concerns none.
    """
    taken: dict[str, str] = {}
    used: set[str | None] = set()
    for name, weight in own.items():
        left = {each for each in start.new if fnmatchcase(name, each)}
        prefix = next((each for each in start.renamed if name.startswith(each)), None)
        old = name if prefix is None else start.renamed[prefix] + name.removeprefix(prefix)
        if old in trained and trained[old].shape == weight.shape:
            used |= left or {prefix}
            if not left:
                taken[name] = old
    if unused := [each for each in (*start.new, *start.renamed) if each not in used]:
        raise InvalidArgument(f"no weight of {start.checkpoint!r} fits what start says of {unused}")
    if not taken:
        raise InvalidArgument(f"no weight of {start.checkpoint!r} fits the model in name and shape")
    return taken


def _report(own: Mapping[str, Tensor], taken: Mapping[str, str]) -> list[str]:
    rows = []
    for name, weight in own.items():
        said = "new" if name not in taken else f"from {taken[name]}"
        rows.append(f"{name} {tuple(weight.shape)}: {said}")
    return rows


def initial_model(config: Any, start: Initialisation, seed: int) -> Backbone:
    """Build a model with the starting weights of a recipe; float32, on the CPU.

    Parameters
    ----------
    config
        Of a backbone.
    start : Initialisation
    seed : int
        The same seed gives the same weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = family_of(config).model(config)
        model.start_weights(start)
    return model
