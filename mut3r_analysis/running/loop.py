"""The loop over frames, which everything that streams goes through."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from torch import Tensor

from mut3r_analysis.attention.seam import Probe, together
from mut3r_analysis.attention.sites import Site
from mut3r_analysis.backbones.steps import Frame
from mut3r_analysis.motion.batch import CueBatchProbe
from mut3r_analysis.running.batch import Batch
from mut3r_analysis.running.moments import Moment
from mut3r_analysis.running.passes import BatchState, EncodedFrame, FrameInput, FrameResult


def stream(
    batches: Sequence[Batch],
    frames: Iterable[FrameInput],
    carried: Sequence[BatchState] | None = None,
    *,
    write_last: bool = True,
) -> Iterator[list[FrameResult]]:
    """Take batches of one backbone through frames: each is encoded once for all of them.

    A model that looks ahead meets each frame together with the next one, which is encoded, and
    shown to observers of the encoder, before the frame itself is decoded.

    Parameters
    ----------
    batches : sequence of Batch
    frames : iterable of FrameInput
        Read one by one, when their turn comes. One that is only looked ahead to ends the walk.
    carried : sequence of BatchState, optional
        What each batch starts from; the beginning unless given.
    write_last : bool
        Whether the last frame is committed.

    Yields
    ------
    list of FrameResult
        Of one frame, one per batch.
    """
    states = [batch.start() for batch in batches] if carried is None else list(carried)
    looks_ahead = any(batch.backbone.looks_ahead for batch in batches)
    reads_on = looks_ahead or not write_last
    device = batches[0].backbone.device
    coming, began = iter(frames), Moment(device)
    given, encoded = next(coming, None), None
    while given is not None and not given.ahead:
        following = next(coming, None) if reads_on else None
        frame = encoded or encode_frame(batches, given)
        if looks_ahead and following is not None:
            encoded = encode_frame(batches, following)
            frame = replace(frame, encoded=replace(frame.encoded, following=encoded.encoded))
        shared = began, Moment(device)
        results = [
            replace(
                batch.step(frame, state, number=number, write=write_last or following is not None),
                shared=shared,
            )
            for number, (batch, state) in enumerate(zip(batches, states, strict=True))
        ]
        states = [result.carried for result in results]
        yield results
        began = Moment(device)
        given = following if reads_on else next(coming, None)


def encode_frame(batches: Sequence[Batch], given: FrameInput) -> EncodedFrame:
    """Encode a frame once for several batches of one backbone."""
    backbone = batches[0].backbone
    grid = backbone.patch_grid(*given.image.shape[-2:])
    axes = backbone.axes(grid, given.position + 1)
    measured = [batch.encoder_probe(grid, axes) for batch in batches]
    if given.encoded is not None:
        return EncodedFrame(given, given.encoded, axes, measured, {})
    first = batches[0]
    recorder = first.recorder(given, axes, "encoder")
    probes = [
        _widened(probe, batch.size)
        for batch, probe in zip(batches, measured, strict=True)
        if probe is not None
    ]
    with first.computing():
        encoded = backbone.encode(
            Frame(given.image),
            gate=first.seen(None, recorder),
            probe=together(recorder, *probes),
        )
    return EncodedFrame(given, encoded, axes, measured, recorder.take() if recorder else {})


def _widened(probe: CueBatchProbe, size: int) -> Probe:
    """Show the encoder's samples to cues of a whole batch."""

    def widened(site: Site, q: Tensor, k: Tensor) -> None:
        probe(site, q.expand(size, -1, -1, -1), k.expand(size, -1, -1, -1))

    return widened
