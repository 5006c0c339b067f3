"""Whether a run is what a protocol scores: frames prepared its way, and the frames it names.

A number that breaks its protocol looks like every other number, so what does not fit is refused
with the reason, before anything is computed.
"""

from dataclasses import replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mut3r_analysis.backbones.preparation import Preparation
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.metrics.protocols import Protocol

_OWN = (
    "; in Python, dataclasses.replace(protocol, id='mine', preparation='given') scores runs as "
    "they are, under a name of your own"
)


class UnmetProtocol(InvalidArgument):
    """A run that a protocol does not score: prepared otherwise, or of other frames."""


class LacksVariable(UnmetProtocol):
    """A run or a truth without a variable that a protocol scores."""


def eligible_frames(
    protocol: Protocol, run: xr.DataTree, truth: xr.Dataset | None
) -> NDArray[np.int64]:
    """Return the frames of a run that a protocol scores, as indices in the source.

    Raises
    ------
    UnmetProtocol
        The run is of another data set, prepared otherwise, or of other frames.
    """
    _check_data_set(protocol, run)
    _check_preparation(protocol, run, truth)
    return _protocol_frames(protocol, run, truth)


def recorded_preparation(run: xr.DataTree) -> Preparation | None:
    """Return how a run says its frames were prepared, as far as it says it completely."""
    fields = (run.attrs.get("backbone") or {}).get("preparation") or {}
    if None in fields.values() or not fields:
        return None
    return Preparation.from_dict(fields)


def _check_data_set(protocol: Protocol, run: xr.DataTree) -> None:
    """Refuse a run of one data set under a protocol of another.

    Frames that were opened as plain images, a video, an array or a Dataset may be of any.

    Raises
    ------
    UnmetProtocol
        Naming both.
    """
    kind = (run.attrs.get("sequence") or {}).get("kind", "")
    if protocol.is_of_another(kind):
        raise UnmetProtocol(
            f"the run is of {kind!r}, {protocol.id} scores {protocol.dataset!r}; numbers of other "
            "sequences cannot be compared with its own"
        )


def _check_preparation(protocol: Protocol, run: xr.DataTree, truth: xr.Dataset | None) -> None:
    """Refuse a run whose frames were resized or cropped otherwise than the protocol says.

    Where the resize leaves nothing to cut, as from 640 x 480 to 512 x 384, both rules give the same
    pixels and either is accepted; that takes a `truth` at source size to know.

    Raises
    ------
    UnmetProtocol
        Saying what the run did and what the protocol does.
    """
    if protocol.preparation == "given":
        return
    fields = (run.attrs.get("backbone") or {}).get("preparation") or {}
    if "rule" not in fields:
        raise UnmetProtocol(
            f"the run does not say how its frames were prepared, {protocol.id} takes "
            f"{protocol.preparation!r}; declare preparation= when importing predictions" + _OWN
        )
    if other := protocol.other_input(fields):
        raise UnmetProtocol(
            f"the run prepared its frames with {other}, {protocol.id} takes "
            f"{protocol.input_words}" + _OWN
        )
    if fields["rule"] != protocol.preparation and not (
        truth is not None and _rules_agree(protocol, truth)
    ):
        raise UnmetProtocol(
            f"the run prepared its frames with the rule {fields['rule']!r}, {protocol.id} takes "
            f"{protocol.preparation!r}: other pixels went into the network, so its numbers would "
            f"not compare; run again with a backbone whose preparation has "
            f"rule={protocol.preparation!r}" + _OWN
        )


def keeps_everything(preparation: Preparation, truth: xr.Dataset) -> bool:
    """Say whether a prepared frame shows all of the source, up to a pixel."""
    if preparation.rule == "resize":
        return True
    height, width = truth.sizes["y"], truth.sizes["x"]
    rows, columns = preparation.shape(height, width)
    return abs(rows - height * columns / width) <= 1


def _protocol_frames(
    protocol: Protocol, run: xr.DataTree, truth: xr.Dataset | None
) -> NDArray[np.int64]:
    """Return the frames of a run that a protocol scores, as indices in the source.

    A run of more frames counts when it begins with those of the protocol: a streaming backbone
    does not know what comes later, so its first frames are those of the shorter run. Without a
    `truth` that tells how many frames the source has, a run shorter than the protocol's limit is
    taken to end with the source.

    Raises
    ------
    UnmetProtocol
        Naming the first frame that is missing or superfluous.
    """
    # Predictions of pairs are of no frame; what their cue found is.
    by_pair = "pair" in run["prediction"].sizes
    frames = np.asarray(run["cue" if by_pair else "prediction"]["frame"].values, np.int64)
    if protocol.dataset == "any":
        return frames
    taken = protocol.frames
    if taken.fewest is not None:
        if truth is None:
            raise UnmetProtocol(
                f"{protocol.id} takes {taken.describe()}, which depends on how many frames the "
                "source has; pass truth=, the whole sequence"
            )
        available = int(truth["frame"].values.max()) + 1
        taken = replace(taken, step=taken.indices(available).step, fewest=None)
    count = len(frames) if taken.limit is None else min(len(frames), taken.limit)
    wanted = taken.start + taken.step * np.arange(count)
    words = f"{protocol.id} takes {taken.describe()}"
    differing = np.flatnonzero(frames[:count] != wanted)
    if differing.size:
        at = differing[0]
        raise UnmetProtocol(
            f"{words}; frame number {at} of the run is {frames[at]} of the source where the "
            f"protocol has {wanted[at]}. Open the sequence with start={taken.start}, "
            f"stride={taken.step} and run again; imported predictions get source indices from "
            "sequence="
        )
    cut = run.attrs.get("frames", count) > run.attrs.get("frames_complete", count)
    if truth is not None:
        full = taken.indices(int(truth["frame"].values.max()) + 1)
        if len(full) > count:
            raise UnmetProtocol(
                f"{words}: {len(full)} frames here; the run has the first {count} of them and "
                f"lacks {len(full) - count}, from {full[count]} on"
                + ("; it was interrupted" if cut else "")
            )
    elif cut and count != taken.limit:
        raise UnmetProtocol(
            f"{words}; the run was interrupted after {count} frames, so some are missing"
        )
    return frames[:count]


def _rules_agree(protocol: Protocol, truth: xr.Dataset) -> bool:
    """Say whether cropping and resizing make the same frames of this source."""
    if "y" not in truth.sizes or protocol.preparation not in ("crop", "resize"):
        return False
    height, width = truth.sizes["y"], truth.sizes["x"]
    rows, columns = Preparation(rule="crop", **protocol.input).shape(height, width)
    return rows * width == columns * height
