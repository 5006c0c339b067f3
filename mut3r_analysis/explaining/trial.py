"""The walk from the worst frame down to the head: runs again, with the treatment off in part."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.attention.seam import Observer
from mut3r_analysis.attention.sites import SITE_KINDS
from mut3r_analysis.backbones import load_backbone
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.explaining.measuring import Measure
from mut3r_analysis.explaining.signatures import PROBE_WRITE, SOFTER
from mut3r_analysis.explaining.undoing import Part, Undo, undone
from mut3r_analysis.motion.attention_change import attention_change
from mut3r_analysis.motion.patch import Patching
from mut3r_analysis.running import Configuration, run_batch
from mut3r_analysis.running.forking import check_same
from mut3r_analysis.running.provenance import callable_name

_EARLIER = 8
"""So many frames up to the worst one are tried as the one where the harm begins."""

_WORDS = {"long_name": "share of the worst frame's harm that goes without it", "units": "1"}


class Trial:
    """The walk from the worst frame to the head; what it finds is put into a Dataset."""

    def __init__(
        self,
        found: xr.Dataset,
        plain: xr.DataTree,
        gated: xr.DataTree,
        backbone: Backbone | str | Path | None,
        sequence: xr.Dataset,
        intervene: Observer | Patching | None,
        budget: int,
        measure: Measure,
        worst: int,
    ) -> None:
        self.found, self.plain, self.gated = found, plain, gated
        self.sequence, self.intervene = sequence, intervene
        self.left, self.worst = budget, worst
        self._given = backbone
        self.base, self.treated = (Configuration.of_run(run.attrs) for run in (plain, gated))
        self.labels = sequence["frame"].values.tolist()
        self.gate = self.treated.gate is not None and self.base.gate is None
        self.looked: xr.DataTree | None = None
        harm = float(found["frame_harm"].sel(frame=worst))
        zero = float(measure(gated).sel(frame=worst)) - harm

        def share(run: xr.DataTree) -> float:
            return 1 - (float(measure(run).sel(frame=worst)) - zero) / harm

        self.share = share
        self.reason = self._why_not()
        found.attrs["not_checked"] = self.reason

    @cached_property
    def backbone(self) -> Backbone:
        """The backbone of the runs, loaded when first something is run again."""
        model = _backbone_of(self.plain, self._given)
        check_same(self.plain, model, self.sequence)
        return model

    @property
    def outputs(self) -> list[str]:
        """What the treated run predicted."""
        return [name for name in self.gated["prediction"] if name in self.backbone.outputs]

    def _why_not(self) -> str:
        """Say why nothing can be switched off; empty where it can."""
        name = self.gated.attrs.get("intervene")
        if self.plain.attrs.get("intervene") is not None:
            return "the plain run had an intervention of its own"
        if name != callable_name(self.intervene):
            return f"the gated run was made with intervene = {name}; give it as intervene="
        if isinstance(self.intervene, Patching):
            return (
                "a patch is not switched off in part; patch fewer layers, heads or tokens instead"
            )
        if not self.gate and self.intervene is None:
            return "both runs are gated, or neither: no gate can be switched off site by site"
        return ""

    def undo(self, parts: list[Part]) -> list[float]:
        """Return the share of harm that goes without each part; NaN beyond the budget."""
        if isinstance(self.intervene, Patching):
            return [np.nan] * len(parts)
        tried = [] if self.reason else parts[: self.left]
        self.left -= len(tried)
        self.found.attrs["checked"] += len(tried)
        shares = undone(
            tried, self.treated, self.backbone, self.sequence, intervene=self.intervene,
            gate=self.gate, outputs=self.outputs, measure=self.share,
        )  # fmt: skip
        if len(tried) < len(parts) and not self.reason:
            self.found.attrs["not_checked"] = "the budget was spent"
        return shares + [np.nan] * (len(parts) - len(tried))

    def again(self, way: str) -> xr.DataTree | None:
        """Run the treated run again in one of the ways of signatures; None where that cannot be."""
        gate = self.treated.gate
        intervene = self.intervene
        if isinstance(intervene, Patching) or self.reason or self.left < 1:
            return None
        if gate is None and way in (SOFTER, PROBE_WRITE):
            return None
        configuration = self.treated
        if way == SOFTER and gate is not None:
            configuration = replace(configuration, gate=replace(gate, beta=gate.beta / 2))
        elif way == PROBE_WRITE:
            configuration = replace(
                configuration, commit=replace(configuration.commit, write="probe")
            )
        else:
            intervene = Undo([Part(stream="state")], intervene, self.gate)
        self.left -= 1
        self.found.attrs["checked"] += 1
        (found,) = run_batch(
            self.backbone, self.sequence, [configuration], outputs=self.outputs,
            intervene=intervene, progress=False,
        )  # fmt: skip
        return found

    def find_frame(self) -> None:
        """Find the frame without which most of the harm is gone."""
        last = self.labels.index(self.worst)
        places = [] if self.backbone.looks_ahead else list(range(last, -1, -1))[:_EARLIER]
        whole, *shares = self.undo([Part(), *(Part(frame=place) for place in places)])
        values = np.full(len(self.labels), np.nan)
        values[places] = shares
        labels = {"frame": self.labels}
        self.found["undone"] = ((), whole, _WORDS)
        self.found["frame_undone"] = xr.DataArray(values, labels, attrs=_WORDS)
        known = np.isfinite(values).any()
        frame = self.labels[int(np.nanargmax(values))] if known else self.worst
        self.found.attrs["frame"] = frame

    def find_attention(self) -> None:
        """Compare attention at the patch, captured in runs of their own."""
        frame, row, column = (
            self.found.attrs[name] for name in ("frame", "patch_row", "patch_col")
        )
        capture = Capture(head_outputs="all", frames=[self.labels.index(frame)])
        again = partial(
            run_batch, self.backbone, self.sequence, outputs=self.outputs, capture=capture,
            progress=False,
        )  # fmt: skip
        ((first,), (second,)) = (
            again([self.base]),
            again([self.treated], intervene=self.intervene),
        )
        self.looked = first
        changed = attention_change(first, second, frame, row, column)
        reads = changed["reads"]
        self.found["reads"] = reads.mean("statistic").assign_attrs(reads.attrs)
        self.found["writes"] = changed["writes"]

    def find_site(self) -> None:
        """Walk from sites to layers to heads, each time into the part that undoes most."""
        sizes = self.backbone.sites()
        kinds = [kind for kind in sizes if SITE_KINDS[kind].part == "decoder"]
        layers = range(max(sizes[kind].layers for kind in kinds))
        heads = range(max(sizes[kind].heads for kind in kinds))
        axes: dict[str, list[Any]] = {"site": kinds, "layer": list(layers), "head": list(heads)}
        place: dict[str, Any] = {}
        for depth, dim in enumerate(axes, start=1):
            dims = list(axes)[:depth]
            shape = [len(axes[each]) for each in dims]
            shares = xr.DataArray(np.full(shape, np.nan), {d: axes[d] for d in dims}, attrs=_WORDS)
            values: list[Any] = kinds
            if dim != "site":
                size = sizes[place["site"]]
                values = list(range(size.layers if dim == "layer" else size.heads))
            tried = self.undo([Part(**place, **{dim: value}) for value in values])
            shares.loc[place | {dim: values}] = tried
            self.found[f"{dim}_undone"] = shares
            if not np.isfinite(tried).any():
                break
            place[dim] = values[int(np.nanargmax(tried))]
        self.found.attrs |= place

    def _patch_queries(self) -> np.ndarray:
        """Return where patches stand among the queries of the site that was found."""
        _, rows, columns = self.found["patch_harm"].shape
        axis = self.backbone.axes((rows, columns))[SITE_KINDS[self.found.attrs["site"]].queries]
        return np.arange(len(axis))[axis.patches]

    def find_patch(self) -> None:
        """Find the patch of that frame and head without which most of the harm is gone.

        Patches are tried in the order of their harm. That of the greatest harm stands where none
        can be: where the queries are no patches, and where no head was found.
        """
        about = self.found.attrs
        harm = self.found["patch_harm"].sel(frame=about["frame"]).fillna(-np.inf)
        ranked = np.argsort(-harm.values, axis=None, kind="stable")[: self.left]
        undone = xr.full_like(harm, np.nan).assign_attrs(_WORDS)
        queries = self._patch_queries() if "head" in about else np.array([])
        if len(queries) == harm.size:
            place = {dim: about[dim] for dim in ("site", "layer", "head")}
            frame = self.labels.index(about["frame"])
            undone.values.flat[ranked] = self.undo(
                [Part(frame, **place, query=int(queries[index])) for index in ranked]
            )
            self.found["patch_undone"] = undone
        best = undone if np.isfinite(undone).any() else harm
        chosen = best.fillna(-np.inf).argmax(...)
        self.found.attrs |= {str(dim): int(chosen[dim]) for dim in harm.dims}


def _backbone_of(run: xr.DataTree, given: Backbone | str | Path | None) -> Backbone:
    if isinstance(given, Backbone):
        return given
    about: Mapping[str, Any] = run.attrs["backbone"]
    return load_backbone(about["name"] if given is None else given, update=about["update"])
