"""Which weights are trained how, and their running average."""

import torch
from torch import Tensor, nn

from mut3r_analysis.errors import Mut3rError
from mut3r_analysis.training.recipe import Recipe

UNTRAINED = ("patch_embed_ray_map", "enc_blocks_ray_map", "enc_norm_ray_map", "masked_")
"""Beginnings of the names of weights that only ray-map input would use; they stay as they start."""


class Optimisers:
    """One or two torch optimisers that follow one schedule.

    Parameters
    ----------
    model, helpers : Module
        What is trained.
    recipe : Recipe
        Rates and rules.
    """

    def __init__(self, model: nn.Module, helpers: nn.Module, recipe: Recipe) -> None:
        self.recipe = recipe
        rule = recipe.optimiser
        matrices, others = split_weights(model, helpers)
        self.weights = [*matrices, *others]
        vectors = [each for each in others if each.ndim < 2]
        tables = [each for each in others if each.ndim >= 2]
        groups = [
            {"params": tables, "lr": rule.rate, "weight_decay": rule.weight_decay},
            {"params": vectors, "lr": rule.rate, "weight_decay": 0.0},
        ]
        if rule.matrices == "adamw":
            groups.append(
                {"params": matrices, "lr": rule.matrix_rate, "weight_decay": rule.weight_decay}
            )
        self.each: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, betas=rule.betas, eps=1e-8, fused=True)
        ]
        if rule.matrices == "muon":
            self.each.append(
                torch.optim.Muon(
                    matrices,
                    lr=rule.matrix_rate,
                    weight_decay=rule.weight_decay,
                    momentum=rule.momentum,
                    adjust_lr_fn="match_rms_adamw",
                )
            )
        for optimiser in self.each:
            for group in optimiser.param_groups:
                group["peak"] = group["lr"]

    def step(self, number: int) -> float:
        """Take the 0-based step `number` with the gradients there are; return their norm.

        Raises
        ------
        Diverged
            When the gradients are not finite; no weight has been changed then.
        """
        norm = nn.utils.clip_grad_norm_(self.weights, self.recipe.optimiser.clip or float("inf"))
        if not norm.isfinite():
            raise Diverged(
                f"the gradients of step {number} are not finite; the state that was saved last is "
                "whole. Lower the rate in the recipe, or clip gradients"
            )
        share = self.recipe.rate_at(number)
        for optimiser in self.each:
            for group in optimiser.param_groups:
                group["lr"] = share * group["peak"]
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        return float(norm)

    def state_dict(self) -> list[dict[str, object]]:
        """Return what :meth:`load_state_dict` needs to go on bit for bit."""
        return [each.state_dict() for each in self.each]

    def load_state_dict(self, states: list[dict[str, object]]) -> None:
        """Restore :meth:`state_dict`."""
        for optimiser, state in zip(self.each, states, strict=True):
            optimiser.load_state_dict(state)


class Diverged(Mut3rError, ArithmeticError):
    """A training whose gradients are no numbers any more."""


def split_weights(model: nn.Module, helpers: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Trainable weights as (matrices of attention and MLP blocks, all others)."""
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, weight in model.named_parameters():
        if name.startswith(UNTRAINED):
            weight.requires_grad_(False)
        elif weight.ndim == 2 and "_blocks" in name:
            matrices.append(weight)
        else:
            others.append(weight)
    return matrices, [*others, *helpers.parameters()]


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the averaged weights toward the current ones."""
    for kept, new in zip(average.parameters(), model.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)
