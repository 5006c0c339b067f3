"""What fine-tuning will cost, said before it runs, and what is said where it did not run."""

import numpy as np
import xarray as xr

from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.running.planning import human_bytes, plan
from mut3r_analysis.sequences import open_sequence
from mut3r_analysis.studies.finding import Finding, Row
from mut3r_analysis.studies.supervision.fine_tuning import ARMS, ORIGINAL, FineTuning, clip_size
from mut3r_analysis.studies.supervision.scores import QUESTION

_BACKWARD = 2
"""A backward pass in forward passes."""

_COPIES = 5
"""Weights, gradients, the two moments of AdamW, and the average; float32 each."""


def price(backbone: Backbone, tuning: FineTuning) -> xr.Dataset:
    """Price fine-tuning all trained arms at the backbone's size.

    Parameters
    ----------
    backbone : Backbone
    tuning : FineTuning

    Returns
    -------
    Dataset
        ``parameters``; ``operations`` of all trained arms together, FLOP; ``memory`` of one arm's
        weights, gradients, moments and average, byte, to which the activations of a clip add.
    """
    width, height = clip_size(backbone)
    frame = open_sequence(np.zeros((1, height, width, 3), np.uint8), name="one frame")
    forward = sum(plan(backbone, frame).flops.values())
    count = sum(weight.numel() for weight in backbone.parameters())
    frames = tuning.steps * tuning.clips * tuning.frames
    arms = len([arm for arm in ARMS if arm != ORIGINAL])
    values = {
        "parameters": (count, "weights of the backbone", "1"),
        "operations": ((1 + _BACKWARD) * forward * frames * arms, "operations of all arms", "FLOP"),
        "memory": (_COPIES * 4 * count, "weights and what belongs to them, one arm", "byte"),
    }
    return xr.Dataset(
        {
            name: ((), float(value), {"long_name": text, "units": units})
            for name, (value, text, units) in values.items()
        },
        attrs={"backbone": backbone.origin.name, "clip": f"{width} x {height} px"},
    )


def formatted_price(priced: xr.Dataset) -> str:
    """Say a price in a sentence."""
    return (
        f"{priced.attrs['backbone']} has {float(priced['parameters']) / 1e6:,.1f} million weights; "
        f"on clips of {priced.attrs['clip']} all arms together take "
        f"{_flop(float(priced['operations']))}, and one arm holds "
        f"{human_bytes(int(priced['memory']))} before activations"
    )


def _flop(operations: float) -> str:
    for unit, size in (("EFLOP", 1e18), ("PFLOP", 1e15), ("TFLOP", 1e12)):
        if operations >= size:
            return f"{operations / size:.3g} {unit}"
    return f"{operations / 1e9:.3g} GFLOP"


def not_run(priced: xr.Dataset, largest: int) -> Finding:
    """Say that nothing was trained, and what it would take."""
    table = []
    for each in priced.data_vars.values():
        unit = each.attrs["units"].strip("1")
        table.append(Row(each.attrs["long_name"], float(each), unit=unit, reference=None))
    note = (
        f"Not answered here: {formatted_price(priced)}. Backbones of more than {largest / 1e6:g} "
        "million weights are priced and not trained unless asked for."
    )
    return Finding(QUESTION, table, note=note, lead=0)
