"""The model that a training starts from: with starting weights, or with trained ones."""

from typing import Any

import torch

from mut3r_analysis.backbones.families import family_of
from mut3r_analysis.backbones.loading import load_backbone
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.training.recipe import Initialisation, Recipe


def starting_model(recipe: Recipe) -> Backbone:
    """Build the model that a recipe starts from; float32, on the CPU.

    Raises
    ------
    InvalidArgument
        When the weights that the recipe names are there, but are others or of another model.
    MissingFile, CheckpointError
        When they cannot be read.
    """
    if recipe.start is None:
        return initial_model(recipe.model, recipe.initialisation, recipe.seed)
    name = recipe.start.checkpoint
    model = load_backbone(name, device="cpu")
    found = model.origin.sha256
    if found != recipe.start.sha256:
        raise InvalidArgument(
            f"the recipe {recipe.name!r} starts from {name!r} with sha256 {recipe.start.sha256}, "
            f"but the weights found there have sha256 {found}; give the recipe the weights it "
            "names, or make another recipe that names these"
        )
    if model.config != recipe.model:
        raise InvalidArgument(
            f"the recipe {recipe.name!r} describes another model than its start {name!r}; copy "
            "the model section of the recipe that made these weights"
        )
    # weights mapped to a file become ordinary ones, which training may change
    trainable = family_of(model.config).model(model.config)
    trainable.load_state_dict(model.state_dict())
    return trainable


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
