"""The model that a training starts from."""

from typing import Any

import torch

from mut3r_analysis.backbones.families import family_of
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.training.recipe import Initialisation


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
