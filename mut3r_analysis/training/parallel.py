"""One training on several processors: each computes the gradient of its share of every batch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor

from mut3r_analysis.backbones.loading import usable_device
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.training.recipe import Recipe


@dataclass(frozen=True)
class Peers:
    """The processes of a training and this one's place among them.

    Attributes
    ----------
    rank, count : int
        This process, from 0, and how many there are. The first one writes.
    """

    rank: int = 0
    count: int = 1

    @property
    def share(self) -> slice | None:
        """Clips of every batch that this process renders and learns from; None is all."""
        return slice(self.rank, None, self.count) if self.count > 1 else None

    def require_even_shares(self, recipe: Recipe, first: int, last: int) -> None:
        """Refuse steps ``range(first, last)`` whose clips cannot be shared evenly.

        Raises
        ------
        InvalidArgument
            When a batch of these steps is no multiple of the number of processes.
        """
        for step in range(first, last):
            stage = recipe.stage_at(step)
            clips, _ = stage.batch_at(step)
            if clips % self.count:
                raise InvalidArgument(
                    f"stage {stage.name!r} has {clips} clips per batch, which {self.count} "
                    f"processes cannot share evenly; use a number of processes that divides it"
                )

    def average(self, weights: list[Tensor], values: list[Tensor]) -> list[float]:
        """Replace the gradients of `weights` by their means over the processes.

        Parameters
        ----------
        weights : list of Tensor
            Whose gradients are averaged, where they have one.
        values : list of Tensor
            Single numbers to average along with them.

        Returns
        -------
        list of float
            The means of `values`.
        """
        if self.count == 1:
            return [float(each.detach()) for each in values]
        held = [each.grad for each in weights if each.grad is not None]
        parts = [*(each.flatten() for each in held), torch.stack(values).detach()]
        together = torch.cat(parts)
        torch.distributed.all_reduce(together)
        together /= self.count
        *gradients, means = together.split([len(each) for each in parts])
        for gradient, mean in zip(held, gradients, strict=True):
            gradient.copy_(mean.view_as(gradient))
        return means.tolist()


def own_device(device: str | torch.device | None = None) -> torch.device:
    """Return the device of this process: without one named, a GPU where there is one."""
    place = usable_device(device)
    rank = os.environ.get("LOCAL_RANK")
    if rank is not None and place == torch.device("cuda"):
        return torch.device("cuda", int(rank) % torch.cuda.device_count())
    return place


def is_first() -> bool:
    """Whether this process is the first of its training; one alone is."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def peers(device: torch.device) -> Iterator[Peers]:
    """Join the other processes where ``torchrun`` has started this one; otherwise be alone."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Peers()
        return
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Peers(torch.distributed.get_rank(), count)
    finally:
        torch.distributed.destroy_process_group()
