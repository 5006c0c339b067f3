"""Activation patching: what heads write, replaced by what they wrote elsewhere."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from numbers import Integral
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from mut3r_analysis.attention.seam import Observer
from mut3r_analysis.attention.sites import SITE_KINDS, Site
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import Checked, Indices, indices, names, one_of, shown, whole
from mut3r_analysis.foundation.layers import Chosen, chosen_layers
from mut3r_analysis.foundation.specification import Specification

SAME, MEAN = "same", "mean"
ROLES = ("patch", "pose", "state")

_Tokens = str | tuple[tuple[int, int], ...] | None


def _sites(name: str, given: str | Iterable[str]) -> tuple[str, ...]:
    kinds = SITE_KINDS.values()
    found = names(name, given, tuple(k.name for k in kinds if k.part == "decoder" and k.captured))
    if given == "all" or not found:
        raise InvalidArgument(f"{name} must name the sites whose heads are patched, got {given!r}")
    return found


def _tokens(name: str, given: str | Iterable[Iterable[int]] | None) -> _Tokens:
    if given is None or isinstance(given, str):
        return given and str(one_of(name, given, ROLES))
    try:
        places = tuple(sorted({(int(row), int(column)) for row, column in given}))
    except (TypeError, ValueError):
        places = ()
    if not places or min(map(min, places)) < 0:
        raise InvalidArgument(
            f"{name} must be None (all), {', '.join(ROLES)}, or pairs (row, column) of patches; "
            f"got {shown(given)}"
        )
    return places


def _frame(name: str, given: str | int) -> str | int:
    if isinstance(given, Integral):
        return whole(name, given, 0)
    return str(one_of(name, given, (SAME, MEAN)))


@dataclass(frozen=True, kw_only=True)
class Patch(Specification):
    """What heads write for some tokens, replaced by what they wrote in another run.

    Parameters
    ----------
    sites : str or collection of str
        Kinds of site of the decoder.
    layers : range, list or set of int, optional
        0-based; None is all.
    heads : collection of int, optional
        0-based; None is all.
    tokens : {"patch", "pose", "state"} or collection of (int, int), optional
        Queries whose outputs are replaced: by role, or patches by row and column; None is all.
    frames : collection of int, optional
        Positions in the sequence at which outputs are replaced; None is every frame.
    source_frame : {"same", "mean"} or int
        What they are replaced by: outputs of the same frame, their mean over the frames that the
        other run kept, or those of the frame at a position.

    Raises
    ------
    InvalidArgument
        When the specification cannot mean anything; the message says what is allowed.

    Notes
    -----
    Patching acts in the pass that is read, which is the one whose outputs a run keeps: so a run
    patched with its own outputs is that run, bit for bit.

    Examples
    --------
    >>> scene = m3.open_sequence("scenes/orbit-03", stop=2)
    >>> keep = m3.Capture(statistics=None, head_outputs="image_self:values", sites="image_self")
    >>> gates = {"cue": m3.Cue.mut3r(), "gate": m3.Gate.mut3r(), "progress": False}
    >>> twin = m3.run("tiny", scene, capture=keep, **gates)
    >>> patch = Patch(sites="image_self", layers=[2], heads=[3], tokens=[(4, 5)])
    >>> patched = m3.run("tiny", scene, intervene=patch.of(twin), progress=False)
    """

    sites: Checked[str | Iterable[str], tuple[str, ...]] = Checked(_sites)
    layers: Chosen = Checked(chosen_layers, None)
    heads: Indices = Checked(indices, None)
    tokens: Checked[str | Iterable[Iterable[int]] | None, _Tokens] = Checked(_tokens, None)
    frames: Indices = Checked(indices, None)
    source_frame: Checked[str | int, str | int] = Checked(_frame, SAME)

    def of(self, run: xr.DataTree) -> "Patching":
        """Return an intervention that takes its outputs from a run.

        Parameters
        ----------
        run : DataTree
            With ``Capture(head_outputs=["<site>:values"])``, kept in float32.

        Returns
        -------
        Patching
            For ``run(intervene=)``, ``run_batch(intervene=)`` or ``fork(intervene=)``; runs record
            it as data.

        Raises
        ------
        InvalidArgument
            When the run lacks outputs that the patch names.
        """
        return Patching(self, run)


@dataclass(frozen=True, eq=False)
class Patching:
    """A patch with the run that its outputs come from."""

    patch: Patch
    run: xr.DataTree
    _labels: list[Any] = field(init=False)

    def __post_init__(self) -> None:
        labels = self.run["prediction"].to_dataset()["frame"].values.tolist()
        object.__setattr__(self, "_labels", labels)
        for site in self.patch.sites:
            self._outputs(site)
        if isinstance(self.patch.source_frame, int):
            self._taken(self.patch.sites[0], self.patch.source_frame)

    def to_json(self) -> str:
        """Return the patch, and which run it takes from, as one line of JSON."""
        about = self.run.attrs
        kept = ("sequence", "cue", "gate", "commit", "intervene")
        source = {name: about.get(name) for name in kept}
        source["weights"] = about["backbone"]["sha256"]
        return json.dumps({"patch": self.patch.to_dict(), "from": source}, sort_keys=True)

    def at(self, position: int) -> Observer | None:
        """Return what replaces outputs in the frame at a position; None where nothing is."""
        patch = self.patch
        if patch.frames is not None and position not in patch.frames:
            return None

        @cache
        def values(site: str) -> xr.Dataset:
            return self._taken(site, position).load()

        def replace(site: Site, q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> Tensor | None:
            layers = patch.layers
            if site.kind not in patch.sites or not (layers is None or site.layer in layers):
                return None
            return _replaced(values(site.kind), site, patch, out)

        return replace

    def _outputs(self, site: str) -> xr.Dataset:
        """Return what the run kept of a site's outputs (frame, layer, head, query, channel)."""
        attention = self.run.children.get("attention")
        kept = attention.children.get(site) if attention is not None else None
        if kept is None or "output" not in kept:
            raise InvalidArgument(
                f"the run that outputs are taken from did not keep those of {site}; run it with "
                f"capture=Capture(head_outputs={site + ':values'!r}, ...)"
            )
        found = kept.to_dataset()[["output"]]
        if found["output"].dtype != np.float32:
            raise InvalidArgument(
                f"the outputs of {site} were kept as {found['output'].dtype}; keep them exactly, "
                "with Capture(dtype='float32', ...)"
            )
        for name in ("layer", "head"):
            chosen = getattr(self.patch, f"{name}s") or ()
            missing = [each for each in chosen if each not in found[name].values]
            if missing:
                raise InvalidArgument(f"the run kept no {name} {missing} of {site}")
        return found

    def _taken(self, site: str, position: int) -> xr.Dataset:
        """Return the outputs (layer, head, query, channel) that stand for those of a frame."""
        found, wanted = self._outputs(site), self.patch.source_frame
        if wanted == MEAN:
            return found.mean("frame", keep_attrs=True)
        at = position if wanted == SAME else int(wanted)
        kept = found["frame"].values.tolist()
        if at >= len(self._labels) or self._labels[at] not in kept:
            held = [self._labels.index(label) for label in kept]
            raise InvalidArgument(
                f"the run that outputs are taken from did not keep those of frame {at} (it has "
                f"positions {shown(held)}); give frames= or source_frame= among them, or capture "
                "more"
            )
        return found.sel(frame=self._labels[at])


def acting(given: Observer | Patching | None, position: int | None) -> Observer | None:
    """Return what replaces outputs in a pass over a frame.

    Parameters
    ----------
    given : callable, Patching or None
    position : int, optional
        Of the frame, in the pass over it that is read; None elsewhere, where patches do not act.
    """
    if not isinstance(given, Patching):
        return given
    return None if position is None else given.at(position)


def _replaced(values: xr.Dataset, site: Site, patch: Patch, out: Tensor) -> Tensor:
    """Return outputs ``(batch, head, query, channel)`` with those of a patch in their places."""
    mine = values["output"].sel(layer=site.layer)
    heads = mine["head"].values.tolist() if patch.heads is None else list(patch.heads)
    new = torch.from_numpy(
        mine.sel(head=heads).transpose("head", "query", "output_channel").values.copy()
    )
    if new.shape[1:] != out.shape[2:]:
        raise InvalidArgument(
            f"{site} writes {tuple(out.shape[2:])} (query, channel) here and wrote "
            f"{tuple(new.shape[1:])} in the run that is patched from; patch runs of the same tokens"
        )
    queries = torch.from_numpy(np.flatnonzero(_chosen(mine, patch.tokens)))
    if not len(queries):
        raise InvalidArgument(f"no query of {site} is among the tokens {shown(patch.tokens)}")
    found = out.clone()
    index = torch.tensor(heads, device=out.device)
    there = queries.to(out.device)
    found[:, index[:, None], there] = new[:, queries].to(out)
    return found


def _chosen(values: xr.DataArray, tokens: _Tokens) -> np.ndarray:
    """Mark the queries that a patch names."""
    if tokens is None:
        return np.ones(values.sizes["query"], bool)
    roles = values["token"].values
    if isinstance(tokens, str):
        return np.asarray(roles == tokens)
    places = zip(values["patch_row"].values, values["patch_col"].values, strict=True)
    return np.array([place in tokens for place in places]) & (roles == "patch")
