"""What each realisation of a gate does to the weights of one site."""

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from mut3r_analysis.attention import Site
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.motion import DIRECTIONS, REALISATIONS, Gate, GatePlan

_NEEDS_EARLIER = "pair_state"
"""Reads what the state read one layer before, which one site does not tell."""


def weight_table(
    model: Backbone, plain: xr.DataTree, score: xr.DataArray, beta: float, edition: int = 2
) -> pd.DataFrame:
    """Read total weight and motion with every realisation, in the first layer of the first frame.

    Every key carries its own motion score as its value: the output is then the motion that is read,
    and with the value 1 the total weight, which is 1 for plain attention. The state has no score of
    its own.

    Parameters
    ----------
    model : Backbone
    plain : DataTree
        A run without gates, with an archive of queries and keys.
    score : DataArray
        (patch_row, patch_col), motion scores of the first frame.
    beta : float
        Sharpness of the gates.
    edition : {2, 1}
        Of :meth:`Gate.mut3r`.

    Returns
    -------
    DataFrame
        One row per site and realisation, the plain one first; means over queries: static and
        dynamic patches have a score below and from one half on.
    """
    scores = torch.from_numpy(score.values)
    g = pad(scores.flatten(), (1, 0))
    static = (g < 0.5).numpy()
    rows = []
    for kind in DIRECTIONS:
        names = [item for item in REALISATIONS[kind].values() if item.name != _NEEDS_EARLIER]
        gates = {"plain": Gate(layers=(0, 0))} | {
            f"{item.code} {item.name}": Gate.mut3r(
                beta=beta, edition=edition, directions=[kind], **{kind: item.name}
            )
            for item in names
        }
        of_image = kind != "state_to_image"
        groups = {"static": static, "dynamic": ~static} if of_image else {"all": slice(None)}
        for name, gate in gates.items():
            out = _read(model, plain, scores, g, gate, kind)
            row = {"site": kind, "": name}
            for group, which in groups.items():
                row[f"total weight, {group}"], motion = out[which].mean(axis=0)
                if kind != "image_to_state":
                    row[f"motion read, {group}"] = motion
            rows.append(row)
    return pd.DataFrame(rows).set_index(["site", ""])


def _read(
    model: Backbone, plain: xr.DataTree, scores: Tensor, g: Tensor, gate: Gate, kind: str
) -> np.ndarray:
    """Total weight and motion read ``(query, 2)``, averaged over heads."""
    archived = (
        plain[f"attention/{kind}/rotated_{side}"].isel(frame=0, layer=0)
        for side in ("query", "key")
    )
    q, k = (torch.from_numpy(np.asarray(each, np.float32))[None] for each in archived)
    carried = g if len(g) == k.shape[2] else torch.zeros(k.shape[2])
    v = torch.stack([torch.ones(k.shape[2]), carried], dim=-1).expand(*k.shape[:2], -1, -1)
    acting = GatePlan(gate, model.sites()).of_frame(
        scores[None], model.axes((scores.shape[0], scores.shape[1]))
    )
    out = acting(Site(kind, 0), q, k, v)
    out = scaled_dot_product_attention(q, k, v) if out is None else out
    return out[0].mean(dim=0).numpy()
