"""Pairs of frames through a model that reads pairs, with motion masks and what they gate."""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.attention.recorder import Recorder, Records
from mut3r_analysis.attention.seam import observed, together
from mut3r_analysis.backbones.batching import each_tensor
from mut3r_analysis.backbones.heads import PairPrediction
from mut3r_analysis.backbones.in_memory import as_in_memory
from mut3r_analysis.backbones.precision import arithmetic
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.backbones.steps import Encoded, Frame
from mut3r_analysis.errors import AlreadyExists, BudgetExceeded, InvalidArgument
from mut3r_analysis.foundation.fields import instance_of
from mut3r_analysis.foundation.paths import user_path
from mut3r_analysis.motion.batch import CueMeasured
from mut3r_analysis.motion.cue import Cue
from mut3r_analysis.motion.pair_cue import PAIR_SITES, PairCue, PairGate
from mut3r_analysis.motion.pair_motion import (
    PairMotion,
    PairSiteGate,
    Received,
    check_partners,
    motion_of_pairs,
)
from mut3r_analysis.motion.readings import MASK
from mut3r_analysis.motion.score import mask_cells
from mut3r_analysis.running.commit import Commit
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.running.inputs import check_inputs, frame_inputs, identified
from mut3r_analysis.running.pair_graph import Graph, pair_edges
from mut3r_analysis.running.pair_tree import labelled_pairs, pair_bytes, pair_groups
from mut3r_analysis.running.provenance import provenance, timestamp


def run_pairs(
    backbone: Backbone | str | Path,
    sequence: xr.Dataset | str | Path,
    *,
    graph: Graph = "complete",
    cue: PairCue | Cue | None = None,
    gate: PairGate | None = None,
    commit: Commit | str = "rw.gg",
    capture: Capture | None = None,
    out: str | Path | None = None,
    progress: bool = True,
) -> xr.DataTree:
    """Run pairs of a sequence's frames through a model that reads pairs.

    Every frame is encoded once. With a gate all pairs are decoded twice: in the probe pass the cue
    is measured, and in the gated pass its masks act and the cue is measured again. Official Easi3R
    keeps the masks of that second measure, and here both are there. Nothing is optimised over
    pairs: official global alignment is no part of this.

    Parameters
    ----------
    backbone : Backbone, str or Path
        That reads pairs.
    sequence : xarray.Dataset, str or Path
    graph : str or iterable of (int, int)
        Which frames are paired: :func:`~mut3r_analysis.running.pair_edges` has the names.
    cue : PairCue or Cue, optional
        ``PairCue.easi3r()``, or a mask of the sequence as it is, ``Cue.oracle(pool="max")``.
    gate : PairGate, optional
        Needs a cue.
    commit : Commit or str
        Which pass is read: ``"rw.gg"`` the gated one, ``"rw.pp"`` the probe pass. Pairs write
        nothing.
    capture : Capture, optional
        Of the pass that is read, at the sites of the decoders.
    out : path, optional
        Store to write (Zarr v3, must not exist); :func:`open_pairs` opens it again.
    progress : bool
        Show a progress bar.

    Returns
    -------
    xarray.DataTree
        ``/prediction`` (pair, y, x, xyz): ``points_view1``, ``points_view2`` and their confidence,
        all in the camera of view 1; ``/attention/<site kind>`` (pair, layer, head, ...);
        ``/cue`` and ``/cue_gated`` (frame, ...): the aggregates, the maps and the mask of either
        measure; ``/truth``. Pairs have the coordinates ``view1`` and ``view2``, labels of frames.

    Raises
    ------
    InvalidArgument
        For a model that reads no pairs, and for arguments that contradict each other, before the
        first frame.
    BudgetExceeded
        When ``capture.budget`` is smaller than predictions and attention, before the first frame.
    AlreadyExists
        When `out` exists.

    Notes
    -----
    All of it is held in memory, and `out` is written at the end, whole or not at all.

    Examples
    --------
    >>> pairs = run_pairs("random:dust3r-small", sequence, graph=[(0, 1), (1, 0)], progress=False)
    >>> pairs["prediction/points_view2"].sel(view1=0, view2=1).dims
    ('y', 'x', 'xyz')
    """
    backbone, sequence = check_inputs(backbone, sequence, capture)
    backbone = as_in_memory(backbone)
    edges = pair_edges(graph, sequence.sizes["frame"])
    commit = Commit.of(commit)
    _check(backbone, sequence, edges, cue, gate, commit, capture)
    place = None if out is None else user_path(out)
    if place is not None and place.exists():
        raise AlreadyExists(f"{place} exists; choose another place, or remove it")
    sequence = identified(sequence)
    attrs = provenance(backbone, sequence, capture, Configuration(), ()) | {
        "graph": graph if isinstance(graph, str) else "given",
        "pairs": len(edges),
        "cue": cue and cue.to_json(),
        "gate": gate and gate.to_json(),
        "commit": commit.to_json(),
    }
    for name in ("frames_complete", "complete", "not_finite", "probe", "intervene", "outputs"):
        del attrs[name]
    passes = 1 if gate is None else 1 + (isinstance(cue, PairCue) or commit.read == "probe")
    total = len(edges) * passes
    with (
        arithmetic(backbone.precision, backbone.device),
        torch.no_grad(),
        tqdm(total=total, unit="pair", disable=not progress) as bar,
    ):
        pairs = _Pairs(backbone, sequence, edges, capture, bar)
        done = _passes(pairs, cue, gate, commit)
    groups = pair_groups(backbone, sequence, edges, capture, done.read, done.cues)
    tree = xr.DataTree.from_dict(
        {"/": xr.Dataset(attrs=attrs | {"finished": timestamp()})} | groups
    )
    if place is not None:
        _written(tree, place)
    return labelled_pairs(tree)


@dataclass(eq=False)
class Decoded:
    """What one pass over all pairs gave.

    Attributes
    ----------
    predictions : list of PairPrediction
    attention : list of dict
        What was recorded of each pair.
    received : (Tensor, Tensor), optional
        ``(pair, row, column, layer, head)`` of the patches of view 2, and of those of view 1.
    """

    predictions: list[PairPrediction] = field(default_factory=list)
    attention: list[Records] = field(default_factory=list)
    received: tuple[Tensor, Tensor] | None = None


@dataclass(eq=False)
class Done:
    """The pass that is read, and by group what the cue found: its motion, or cells of a mask."""

    read: Decoded
    cues: dict[str, PairMotion | Tensor]


class _Pairs:
    """Frames that are encoded once, and passes over their pairs."""

    def __init__(
        self,
        backbone: Backbone,
        sequence: xr.Dataset,
        edges: Sequence[tuple[int, int]],
        capture: Capture | None,
        bar: Any,
    ) -> None:
        self.backbone, self.sequence, self.edges = backbone, sequence, edges
        self._capture, self._bar = capture, bar
        self._sites = pair_sites(backbone)
        self.encoded: list[Encoded] = [
            backbone.encode(Frame(given.image)) for given in frame_inputs(backbone, sequence)
        ]
        self.grid = self.encoded[0].grid
        self._axes = backbone.axes(self.grid)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames, px."""
        patch = self.backbone.patch_size
        return self.grid[0] * patch, self.grid[1] * patch

    def motion(self, cue: PairCue, received: tuple[Tensor, Tensor]) -> PairMotion:
        """Make the masks of all frames."""
        tokens = [each.features[0].float().cpu().unflatten(0, self.grid) for each in self.encoded]
        return motion_of_pairs(cue, received, self.edges, torch.stack(tokens), self.size)

    def masks(self, cue: Cue) -> Tensor:
        """Return the cells ``(frame, row, column)`` of a mask of the sequence."""
        mask = torch.stack(
            [
                torch.from_numpy(self.backbone.preparation.mask(values))
                for values in self.sequence[str(cue.of)].values
            ]
        )
        return mask_cells(mask, self.grid, cue.pool)[:, 0]

    def decode(
        self,
        gate: PairGate | None = None,
        cells: Tensor | None = None,
        *,
        measure: bool = False,
        keep: bool = False,
    ) -> Decoded:
        """Decode all pairs; what is not kept ends with the last site that is measured."""
        done, measured = Decoded(), []
        depth = self._sites["view2_to_view1"].layers
        for a, b in self.edges:
            received = Received((self.grid, self.grid), None if keep else depth)
            recorder = None
            if keep and self._capture is not None:
                recorder = Recorder(self._capture, self._sites, self._axes)
            acting = None
            if gate is not None and cells is not None:
                acting = PairSiteGate(gate, cells[a], cells[b])
            shown = recorder.output if recorder and recorder.watches_outputs else None
            with suppress(CueMeasured):
                pair = self.backbone.decode_pair(
                    self.encoded[a],
                    self.encoded[b],
                    gate=observed(acting, shown),
                    probe=together(received if measure else None, recorder),
                )
                done.predictions.append(pair)
            records = recorder.take() if recorder else {}
            done.attention.append(each_tensor(lambda values: values.cpu(), records))
            measured.append(received)
            self._bar.update()
        if measure:
            views = [[each.of(view) for each in measured] for view in ("view2", "view1")]
            done.received = torch.stack(views[0]), torch.stack(views[1])
        return done


def _passes(
    pairs: _Pairs, cue: PairCue | Cue | None, gate: PairGate | None, commit: Commit
) -> Done:
    """Run the passes that a cue and a gate need."""
    if not isinstance(cue, PairCue):
        cells = None if cue is None else pairs.masks(cue)
        acts = gate is not None and commit.read == "gated"
        read = pairs.decode(gate if acts else None, cells, keep=True)
        return Done(read, {} if cells is None else {"cue": cells})
    reads_probe = gate is None or commit.read == "probe"
    probe = pairs.decode(measure=True, keep=reads_probe)
    assert probe.received is not None
    found: dict[str, PairMotion | Tensor] = {"cue": (first := pairs.motion(cue, probe.received))}
    if gate is None:
        return Done(probe, found)
    gated = pairs.decode(gate, first.cells, measure=True, keep=not reads_probe)
    assert gated.received is not None
    found["cue_gated"] = pairs.motion(cue, gated.received)
    return Done(probe if reads_probe else gated, found)


def pair_sites(backbone: Backbone) -> dict[str, Any]:
    """Layers, heads and head width of the sites that a pair passes."""
    sites = backbone.sites()
    return {kind: sites[kind] for kind in PAIR_SITES}


def _check(
    backbone: Backbone,
    sequence: xr.Dataset,
    edges: Sequence[tuple[int, int]],
    cue: Any,
    gate: Any,
    commit: Commit,
    capture: Capture | None,
) -> None:
    """Refuse what pairs cannot do."""
    if not backbone.reads_pairs:
        raise InvalidArgument(
            f"{backbone.family} reads the frames of a sequence one after another and no pairs; "
            "pairs are read by a DUSt3R or MonST3R, such as load_backbone('random:dust3r-small')"
        )
    if gate is not None:
        instance_of("the gate of pairs", gate, PairGate, " such as PairGate.easi3r(), or None")
    if gate is not None and cue is None:
        raise InvalidArgument("a gate needs masks: give a cue, such as PairCue.easi3r()")
    if isinstance(cue, PairCue):
        check_partners(cue, edges, sequence.sizes["frame"])
    elif isinstance(cue, Cue):
        _check_mask(cue, sequence)
    elif cue is not None:
        raise InvalidArgument(f"a cue of pairs is a PairCue or a mask; got {cue!r}")
    if commit not in (Commit.parse("rw.gg"), Commit.parse("rw.pp")):
        raise InvalidArgument(
            f"commit {str(commit)!r} says which state is written, and pairs have no state; give "
            "'rw.gg' to read the gated pass, or 'rw.pp' to read the probe pass"
        )
    if capture is None:
        return
    named = capture.sites if isinstance(capture.sites, tuple) else ()
    other = [kind for kind in named if kind not in PAIR_SITES]
    if other or capture.frames is not None or capture.state:
        what = f"the sites {', '.join(other)}" if other else "frames or a state"
        raise InvalidArgument(
            f"capture names {what}, which pairs do not have; a pair passes "
            f"{', '.join(PAIR_SITES)}, and graph= chooses the pairs"
        )
    size = backbone.preparation.shape(sequence.sizes["y"], sequence.sizes["x"])
    held = pair_bytes(backbone, capture, size, len(edges))
    if capture.budget is not None and held > capture.budget:
        raise BudgetExceeded(
            f"{len(edges)} pairs would hold {held:,} bytes, the budget is {capture.budget:,}; "
            "nothing was run. Capture fewer layers, sites or statistics, or pair fewer frames"
        )


def _check_mask(cue: Cue, sequence: xr.Dataset) -> None:
    plain = Cue.oracle(str(cue.of), pool=cue.pool)
    if cue.reading != MASK or cue != plain:
        raise InvalidArgument(
            "a cue of pairs is PairCue.easi3r(), or a mask of the sequence as it is: "
            f"Cue.oracle('motion_mask', pool='max'); got {cue!r}"
        )
    if cue.of not in sequence:
        raise InvalidArgument(f"the cue reads the mask {cue.of!r}, which this sequence lacks")


def _written(tree: xr.DataTree, place: Path) -> None:
    """Write a store whole or not at all."""
    partial = place.with_name(place.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    tree.to_zarr(partial, zarr_format=3, consolidated=False)
    partial.rename(place)
