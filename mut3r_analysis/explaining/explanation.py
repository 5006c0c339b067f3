"""What made a number worse: found by the error that was scored, and checked by switching it off."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.attention.seam import Observer
from mut3r_analysis.attention.sites import SITE_KINDS
from mut3r_analysis.backbones import load_backbone
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.evaluation.eligibility import UnmetProtocol
from mut3r_analysis.evaluation.harm import DIFFERENCE, ERRORS, depth_difference, patch_harm
from mut3r_analysis.evaluation.scores import named_protocols
from mut3r_analysis.evaluation.tasks import score_run
from mut3r_analysis.explaining.undoing import Part, undone
from mut3r_analysis.metrics.protocols import Protocol, measure_label
from mut3r_analysis.motion.attention_change import attention_change
from mut3r_analysis.running import Configuration, run_batch
from mut3r_analysis.running.forking import check_same
from mut3r_analysis.running.provenance import callable_name

LEAST = 0.01
"""Share of the plain run's mean error by which a frame's error has to rise to be called worse."""

_EARLIER = 8
"""So many frames up to the worst one are tried as the one where the harm begins."""

Measure = Callable[[xr.DataTree], xr.DataArray]


def explain(
    plain: xr.DataTree,
    gated: xr.DataTree,
    sequence: xr.Dataset,
    *,
    protocol: str | Protocol = "default",
    backbone: Backbone | str | Path | None = None,
    intervene: Observer | None = None,
    budget: int = 96,
    least: float = LEAST,
) -> xr.Dataset:
    """Find the frame, the patch, the site, the layer and the head that a worse number comes from.

    Frames and patches are ranked by the error that was scored, aligned as it was. The treatment is
    then switched off frame by frame, site by site, layer by layer, head by head and patch by patch,
    and what counts is the share of the harm that goes with it.

    Parameters
    ----------
    plain, gated : DataTree
        Two runs of one sequence: without and with the treatment. Both may be gated.
    sequence : Dataset
        The sequence that was run, with the frames that were run.
    protocol : str or Protocol
        Under which the number is worse; its first error metric counts, depth before poses.
    backbone : Backbone, str or Path, optional
        That of the runs; by default it is loaded by the name that they have for it.
    intervene : callable, optional
        That of the gated run, where it had one. It is run again as often as `budget` says, always
        from the first frame to the last, and shown several runs at once.
    budget : int
        At most so many runs are run again, in batches; 0 checks nothing.
    least : float
        By which share of the plain run's mean error a frame must be worse to be worth a cause.

    Returns
    -------
    Dataset
        - ``frame_harm`` (frame) and ``patch_harm`` (frame, patch_row, patch_col): the error of the
          gated run minus that of the plain one; without truth how far the runs differ;
        - ``undone`` (), ``frame_undone`` (frame), ``site_undone`` (site), ``layer_undone`` (site,
          layer), ``head_undone`` (site, layer, head), ``patch_undone`` (patch_row, patch_col):
          share of the worst frame's harm that goes when the treatment is switched off there, for a
          patch in what it reads in the frame and head that were found; NaN where that was not
          tried. ``undone`` is of the intervention as a whole;
        - ``reads``, ``writes`` (site, layer, head): change of attention at the worst patch, from
          :func:`~mut3r_analysis.motion.attention_change`, captured in two runs more.

        Attributes: ``answer``, a sentence; ``frame``, ``patch_row``, ``patch_col``, ``site``,
        ``layer``, ``head`` as far as they were found; ``metric``, ``checked`` (how often it was run
        again) and ``not_checked``, why something was not.

    Raises
    ------
    InvalidArgument
        For runs of different sequences, or a backbone or sequence that is not theirs.

    Notes
    -----
    Where both runs are gated and nothing intervenes, the difference of the gates cannot be
    switched off site by site; causes are then ranked by the change of attention alone. Nor is a
    difference of commits. The frame where harm begins is not tried for a model that looks ahead.
    """
    if plain.attrs["sequence"] != gated.attrs["sequence"]:
        raise InvalidArgument("the runs are of different sequences or frames; give two of one")
    metric, measure = _measure(plain, gated, sequence, protocol)
    before, after = measure(plain), measure(gated)
    truth = _source_truth(protocol, sequence)
    found = xr.Dataset({"frame_harm": after - before})
    found["patch_harm"] = patch_harm(plain, gated, protocol, truth=truth)
    found.attrs = {"metric": metric, "checked": 0, "not_checked": ""}
    harm, floor = found["frame_harm"], least * float(before.mean())
    if not float(harm.max()) > floor:
        return found.assign_attrs(answer=_nothing(metric, harm))
    worst = int(harm["frame"][int(harm.argmax("frame"))])
    model = _backbone_of(plain, backbone)
    check_same(plain, model, sequence)
    trial = _Trial(found, plain, gated, model, sequence, intervene, budget, measure, worst)
    trial.find_frame()
    trial.find_site()
    trial.find_patch()
    trial.find_attention()
    return found.assign_attrs(answer=_answer(found, worst))


class _Trial:
    """The walk from the worst frame to the head; what it finds is put into a Dataset."""

    def __init__(
        self,
        found: xr.Dataset,
        plain: xr.DataTree,
        gated: xr.DataTree,
        backbone: Backbone,
        sequence: xr.Dataset,
        intervene: Observer | None,
        budget: int,
        measure: Measure,
        worst: int,
    ) -> None:
        self.found, self.plain, self.gated = found, plain, gated
        self.backbone, self.sequence, self.intervene = backbone, sequence, intervene
        self.left, self.worst = budget, worst
        self.base, self.treated = (Configuration.of_run(run.attrs) for run in (plain, gated))
        self.labels = sequence["frame"].values.tolist()
        self.outputs = [name for name in gated["prediction"] if name in backbone.outputs]
        self.gate = self.treated.gate is not None and self.base.gate is None
        harm = float(found["frame_harm"].sel(frame=worst))
        zero = float(measure(gated).sel(frame=worst)) - harm

        def share(run: xr.DataTree) -> float:
            return 1 - (float(measure(run).sel(frame=worst)) - zero) / harm

        self.share = share
        self.reason = self._why_not()
        found.attrs["not_checked"] = self.reason

    def _why_not(self) -> str:
        """Say why nothing can be switched off; empty where it can."""
        name = self.gated.attrs.get("intervene")
        if self.plain.attrs.get("intervene") is not None:
            return "the plain run had an intervention of its own"
        if name != callable_name(self.intervene):
            return f"the gated run was made with intervene = {name}; give it as intervene="
        if not self.gate and self.intervene is None:
            return "both runs are gated, or neither: no gate can be switched off site by site"
        return ""

    def undo(self, parts: list[Part]) -> list[float]:
        """Return the share of harm that goes without each part; NaN beyond the budget."""
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


_WORDS = {"long_name": "share of the worst frame's harm that goes without it", "units": "1"}


def _measure(
    plain: xr.DataTree, gated: xr.DataTree, sequence: xr.Dataset, protocol: str | Protocol
) -> tuple[str, Measure]:
    """Return what of a run is compared frame by frame, and its name."""
    for chosen in named_protocols(protocol):
        metric = next((name for name in ERRORS if name in chosen.metrics), None)
        if metric is None:
            continue
        truth = _source_truth(chosen, sequence)

        def measure(
            run: xr.DataTree, chosen: Protocol = chosen, metric: str = metric, truth: Any = truth
        ) -> xr.DataArray:
            return score_run(chosen, run, truth)[f"frame_{metric}"]

        try:
            measure(plain), measure(gated)
        except UnmetProtocol:
            continue
        return measure_label(metric, chosen.align), measure

    def apart(run: xr.DataTree) -> xr.DataArray:
        return depth_difference(plain, run).median(["y", "x"])

    return DIFFERENCE, apart


def _source_truth(protocol: str | Protocol, sequence: xr.Dataset) -> xr.Dataset | None:
    """Return the sequence where a protocol compares at source size; a run holds the rest."""
    given = all(one.preparation == "given" for one in named_protocols(protocol))
    return None if given else sequence


def _backbone_of(run: xr.DataTree, given: Backbone | str | Path | None) -> Backbone:
    if isinstance(given, Backbone):
        return given
    about: Mapping[str, Any] = run.attrs["backbone"]
    return load_backbone(about["name"] if given is None else given, update=about["update"])


def _nothing(metric: str, harm: xr.DataArray) -> str:
    if metric == DIFFERENCE:
        return "The runs do not differ."
    frame = int(harm["frame"][int(harm.argmax("frame"))])
    return (
        f"Nothing got worse: by {metric}, no frame rises by enough to look for a cause (the most, "
        f"{float(harm.max()):+.3g}, is in frame {frame}; the mean over frames changes by "
        f"{float(harm.mean()):+.3g})."
    )


def _answer(found: xr.Dataset, worst: int) -> str:
    about = found.attrs
    harm = float(found["frame_harm"].sel(frame=worst))
    patch = f"patch ({about['patch_row']}, {about['patch_col']})"
    if about["metric"] == DIFFERENCE:
        text = f"No ground truth: the runs differ most in frame {worst}, by {harm:.3g} % of depth"
    else:
        text = f"{about['metric']} rises most in frame {worst}, by {harm:.3g}"
    if about["frame"] != worst:
        text += f"; it begins in frame {about['frame']}"
    text += f", most at {patch}."
    where = [("site", ""), ("layer", "layer "), ("head", "head ")]
    named = [f"{word}{about[name]}" for name, word in where if name in about]
    if named:
        last = where[len(named) - 1][0]
        share = float(found[f"{last}_undone"].max())
        text += f" Without {', '.join(named)}, {share:.0%} of that goes."
    else:
        top = found["writes"].stack(cell=("site", "layer", "head")).idxmax("cell").item()
        text += f" What is written changed most at {top[0]}, layer {top[1]}, head {top[2]}."
    return text + (f" Not checked: {about['not_checked']}." if about["not_checked"] else "")
