"""Policies for the depth of gating, and one state through a sequence while it changes per frame."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from mut3r_analysis.backbones.geometry import pose_matrix
from mut3r_analysis.backbones.heads import Prediction
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import one_of
from mut3r_analysis.foundation.labelling import described
from mut3r_analysis.motion import Cue, Gate
from mut3r_analysis.motion.gate import PAPER_LAYERS
from mut3r_analysis.running.batch import Batch
from mut3r_analysis.running.configuration import Configuration
from mut3r_analysis.running.inputs import frame_inputs
from mut3r_analysis.running.loop import stream
from mut3r_analysis.running.passes import EncodedFrame
from mut3r_analysis.running.recording import known_truth

Array = NDArray[np.float64]

CRITERIA = {
    "depth": ("depth error", "1"),
    "rotation": ("rotation error to the previous frame", "degree"),
    "translation": ("translation error to the previous frame", "m"),
}
"""Errors of a single frame. Depth is absolute relative after one median scale; the motion since the
frame before is compared in the camera of that frame, without any alignment."""


@dataclass(frozen=True, eq=False)
class Policy:
    """How a depth is chosen.

    Attributes
    ----------
    propose : callable
        From the spread ``(layer,)`` of the cue in the probe pass and the frame's position, one or
        more depths.
    criterion : str
        Where more than one is proposed, the depth with the lowest error of :data:`CRITERIA` is
        taken: that needs the truth and is a bound, not a method. Of equals, and where the
        criterion has no value yet (motion on a first frame), the first proposed.
    """

    propose: Callable[[Array, int], Sequence[int]]
    criterion: str = "depth"


def fixed(depth: int) -> Policy:
    """Gate the same layers in every frame."""
    return Policy(lambda spread, position: (depth,))


def drawn(depths: Sequence[int], seed: Sequence[int] = (0,)) -> Policy:
    """Draw each frame's depth from a list, whatever the frame shows; repeatable by the seed."""

    def propose(spread: Array, position: int) -> tuple[int]:
        return (int(np.random.default_rng([*seed, position]).choice(np.asarray(depths))),)

    return Policy(propose)


def oracle(depths: Sequence[int], criterion: str) -> Policy:
    """Try all depths on every frame and take the one with the lowest error there.

    It looks at one frame at a time: what the choice does to later frames through the state it
    does not see.
    """
    one_of("criterion", criterion, CRITERIA)
    return Policy(lambda spread, position: tuple(depths), criterion)


def leading(thresholds: Array, depths: Sequence[int], *, wide: bool = True) -> Policy:
    """Gate the leading layers in which the cue spreads widely, and stop at the first that does not.

    Parameters
    ----------
    thresholds : ndarray (layer,)
    depths : sequence of int
        Depths there are, 0 among them; the largest that the rule allows is taken.
    wide : bool
        False gates leading layers whose spread does not exceed the threshold instead.
    """
    offered = sorted(depths)

    def propose(spread: Array, position: int) -> tuple[int]:
        stops = spread < thresholds if wide else spread > thresholds
        allowed = int(np.argmax(stops)) if stops.any() else len(stops)
        return (max(depth for depth in offered if depth <= allowed),)

    return Policy(propose)


def thresholds(spread: xr.DataArray, quantile: float, *, wide: bool = True) -> Array:
    """Return each layer's quantile of the spread ``(..., layer)`` over everything else.

    Of the opposite rule it is counted from the other end, so that small quantiles gate much with
    both.
    """
    others = [dim for dim in spread.dims if dim != "layer"]
    found = spread.quantile(quantile if wide else 1 - quantile, dim=others, skipna=True)
    return np.asarray(found.values, np.float64)


def candidate_depths(layers: int, most: int = 7) -> tuple[int, ...]:
    """Depths to choose among: none, all, MUT3R's, and evenly spaced ones between."""
    spaced = np.linspace(0, layers, min(most, layers + 1)).round().astype(int)
    return tuple(sorted({*spaced.tolist(), paper_depth(layers)}))


def paper_depth(layers: int) -> int:
    """Return how many layers MUT3R gates in a decoder of so many."""
    return Gate(**PAPER_LAYERS).layer_range(layers).stop


def walk(
    backbone: Backbone,
    sequence: xr.Dataset,
    policies: Mapping[str, Policy],
    *,
    cue: Cue,
    gate: Gate,
) -> xr.Dataset:
    """Run a sequence once per policy, each with one state of its own.

    In every frame a policy's state first meets a probe pass without gates. From its statistics come
    the score, as in :func:`mut3r_analysis.run`, and the spread that the policy sees. Then a gated
    pass runs from the same state, gated in layers [0, depth): the passes of all policies as one
    batch. A policy that proposes several depths has as many gated passes; the one chosen is what
    is read and written, the others leave no trace. A policy that always proposes one depth is
    therefore a run with that gate.

    Parameters
    ----------
    backbone : Backbone
    sequence : Dataset
    policies : mapping of str to Policy
    cue : Cue
        Read from attention of all layers of its site, with source ``two_pass``.
    gate : Gate
        Its range of layers is replaced.

    Returns
    -------
    Dataset
        (policy, frame) ``chosen``, the number of gated layers, and the error of each criterion,
        such as ``depth_error``, NaN where the truth is not known; ``spread`` (policy, frame,
        layer), the variance of the cue's reading over patches in the probe pass; ``depth_map``
        (policy, frame, y, x) and ``pose`` (policy, frame, row, col).

    Raises
    ------
    InvalidArgument
        For a cue or gate that this walk does not do, a depth the backbone does not have, or a
        choice by truth without truth.
    """
    _check(cue, gate)
    choosing = DepthChoice(backbone, sequence, policies, gate)
    batch = Batch(
        backbone,
        [Configuration(cue=cue, gate=gate)] * len(policies),
        outputs=("pose", "depth"),
        policy=choosing,
    )
    for _ in stream([batch], frame_inputs(backbone, sequence, batch.configurations)):
        pass
    return _labelled(choosing.rows, list(policies), sequence, cue, gate)


class DepthChoice:
    """Gates the first layers of every policy's state, as many as the policy says.

    Parameters
    ----------
    backbone : Backbone
    sequence : Dataset
        Whose truth policies may choose by.
    policies : mapping of str to Policy
    gate : Gate
        Its range of layers is replaced.

    Attributes
    ----------
    rows : list of dict
        Per frame, arrays with a leading policy.
    """

    def __init__(
        self,
        backbone: Backbone,
        sequence: xr.Dataset,
        policies: Mapping[str, Policy],
        gate: Gate,
    ) -> None:
        self._backbone, self._sequence = backbone, sequence
        self._policies, self._gate = policies, gate
        self._before: tuple[Array, Array] | None = None
        self._depths: list[int] = []
        self.rows: list[dict[str, Array]] = []

    def propose(self, frame: EncodedFrame, readings: Sequence[Tensor | None]) -> list[list[Gate]]:
        """Return per policy the gates to try."""
        raw = torch.stack([reading for reading in readings if reading is not None])
        spread = raw.flatten(2).double().var(dim=-1, correction=0).cpu().numpy()
        position, layers = frame.given.position, self._backbone.decoder_layers
        proposed = [
            _proposed(policy, spread[row], position, layers)
            for row, policy in enumerate(self._policies.values())
        ]
        self._depths = [depth for depths in proposed for depth in depths]
        self.rows.append({"spread": spread})
        return [
            [replace(self._gate, layers=(0, depth), of_depth=None) for depth in depths]
            for depths in proposed
        ]

    def choose(self, frame: EncodedFrame, found: Prediction, samples: Sequence[int]) -> list[int]:
        """Return per policy the pass with the lowest error of its criterion, if it has a choice."""
        assert found.points_self is not None
        assert found.pose is not None
        depth = found.points_self[..., 2].double().cpu().numpy()
        pose = pose_matrix(found.pose.double()).cpu().numpy()
        truth = known_truth(self._backbone, self._sequence.isel(frame=frame.given.position))
        errors = _errors(depth, pose, samples, truth, self._before)
        chosen = [
            _chosen(name, policy, [i for i, row in enumerate(samples) if row == index], errors)
            for index, (name, policy) in enumerate(self._policies.items())
        ]
        if "pose" in truth:
            self._before = pose[chosen], np.asarray(truth["pose"], np.float64)
        self.rows[-1] |= {f"{name}_error": values[chosen] for name, values in errors.items()}
        self.rows[-1] |= {"depth_map": depth[chosen], "pose": pose[chosen]}
        self.rows[-1]["chosen"] = np.array(self._depths)[chosen]
        return chosen


def _check(cue: Cue, gate: Gate) -> None:
    if not cue.measured or cue.source != "two_pass" or cue.layers is not None or cue.control:
        raise InvalidArgument(
            "the depth is chosen from a cue that is measured in all layers of a probe pass, such "
            f"as Cue.mut3r(); got {cue}"
        )
    one_of("the cue's site", cue.site, ("image_self", "image_to_state", "state_to_image"))
    if gate.writes:
        raise InvalidArgument("this walk does not multiply the write rate by the static mass (B3)")


def _proposed(policy: Policy, spread: Array, position: int, layers: int) -> Sequence[int]:
    depths = [int(depth) for depth in policy.propose(spread, position)]
    if not depths or min(depths) < 0 or max(depths) > layers:
        raise InvalidArgument(f"depths go from 0 to {layers} here; a policy proposed {depths}")
    return depths


def _chosen(name: str, policy: Policy, tried: list[int], errors: Mapping[str, Array]) -> int:
    if len(tried) == 1:
        return tried[0]
    if policy.criterion not in errors:
        raise InvalidArgument(
            f"policy {name!r} chooses by the {policy.criterion} error, whose truth is not known "
            "for this sequence; leave it out"
        )
    values = errors[policy.criterion][tried]
    return tried[0] if np.isnan(values).all() else tried[int(np.nanargmin(values))]


def _errors(
    depth: Array,
    pose: Array,
    places: Sequence[int],
    truth: Mapping[str, Array],
    before: tuple[Array, Array] | None,
) -> dict[str, Array]:
    """Errors of every pass ``(row,)``, as far as the truth is known."""
    found: dict[str, Array] = {}
    if "depth" in truth:
        true = np.asarray(truth["depth"], np.float64)
        known = np.isfinite(true) & (true > 0)
        if known.any():
            values, true = depth[:, known], true[known]
            scale = np.median(true) / np.maximum(np.median(values, axis=1), 1e-6)
            found["depth"] = (np.abs(scale[:, None] * values - true) / true).mean(axis=1)
        else:
            found["depth"] = np.full(len(depth), np.nan)
    if "pose" in truth:
        found["rotation"], found["translation"] = np.full((2, len(depth)), np.nan)
        true = np.asarray(truth["pose"], np.float64)
        if before is not None and np.isfinite(true).all() and np.isfinite(before[1]).all():
            own = np.linalg.inv(before[0][list(places)]) @ pose
            wanted = np.linalg.inv(before[1]) @ true
            # The chord of a rotation is 2 sqrt(2) sin(angle / 2): exact also for small angles.
            chord = np.linalg.norm((own - wanted)[:, :3, :3], axis=(1, 2)) / 8**0.5
            found["rotation"] = np.degrees(2 * np.arcsin(np.minimum(chord, 1)))
            found["translation"] = np.linalg.norm((own - wanted)[:, :3, 3], axis=1)
    return found


def _labelled(
    rows: list[dict[str, Array]], policies: list[str], sequence: xr.Dataset, cue: Cue, gate: Gate
) -> xr.Dataset:
    dims = {"spread": ("layer",), "depth_map": ("y", "x"), "pose": ("row", "col")}
    texts = {
        **{f"{name}_error": text for name, text in CRITERIA.items()},
        "chosen": ("gated layers", "1"),
        "spread": (f"variance of {cue.reading.replace('_', ' ')} over patches", "nat2"),
        "depth_map": ("depth along the optical axis", "m"),
        "pose": ("camera-to-world transform", "m"),
    }
    missing = np.full(len(policies), np.nan)
    stacked = {name: np.stack([row.get(name, missing) for row in rows], axis=1) for name in texts}
    variables = {
        name: (("policy", "frame", *dims.get(name, ())), each) for name, each in stacked.items()
    }
    layers = ("layer", np.arange(rows[0]["spread"].shape[-1]), {"long_name": "decoder layer"})
    coords = {"policy": policies, "frame": sequence["frame"].values, "layer": layers}
    attrs = {"sequence": sequence.attrs.get("name", ""), "cue": str(cue), "gate": str(gate)}
    return described(xr.Dataset(variables, coords, attrs), texts)
