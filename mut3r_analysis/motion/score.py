"""From a cue's reading to the motion score of a frame, and what has to be remembered for it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mut3r_analysis.attention.sites import Site
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.calls import parse_call
from mut3r_analysis.motion.cue import Cue
from mut3r_analysis.motion.history import CueHistory, per_sample
from mut3r_analysis.motion.normalisers import check_contrast, location_and_scale, normalise
from mut3r_analysis.motion.probe import CueProbe
from mut3r_analysis.motion.ray_map import RAY_MAP
from mut3r_analysis.motion.readings import INSTABILITY, MASK
from mut3r_analysis.motion.sources import Source

Score = Callable[[Site], Tensor | None]
"""Motion score ``(batch, patch_row, patch_col)`` to use at a site; None where there is none yet."""


@dataclass(frozen=True, eq=False)
class Motion:
    """What a cue found in one frame.

    Attributes
    ----------
    score : Tensor
        ``(batch, patch_row, patch_col)`` in [0, 1], 1 = dynamic.
    raw : Tensor, optional
        ``(batch, layer, patch_row, patch_col)`` the reading behind it; None for controls that
        replace it.
    """

    score: Tensor
    raw: Tensor | None


def motion_score(
    cue: Cue,
    raw: Tensor | None,
    history: CueHistory,
    *,
    grid: tuple[int, int],
    position: int = 0,
) -> tuple[Motion, CueHistory]:
    """Score one frame.

    Parameters
    ----------
    cue : Cue
    raw : Tensor or None
        ``(batch, layer, patch_row, patch_col)``: :meth:`CueProbe.raw`, or :func:`mask_cells` with a
        layer dimension of one. None only for cues that are not measured.
    history : CueHistory
        From the previous frame, or :meth:`CueHistory.start`.
    grid : (int, int)
        Rows and columns of patches of this frame.
    position : int
        Position of the frame in its sequence: seeds the random controls.

    Returns
    -------
    motion : Motion
        A cue that has seen nothing it could score yet (``instability``, ``ray_map`` and
        ``gram_...`` on a first frame, ``shift`` before frame t) scores 0: no evidence of motion.
    history : CueHistory
        To pass with the next frame.

    Raises
    ------
    InvalidArgument
        For a cue without contrast, a raw value that does not fit, or another grid.

    Examples
    --------
    >>> import torch
    >>> cue = m3.Cue(reading="entropy", normaliser="rank")
    >>> raw = torch.tensor([0.0, 1.0, 2.0, 9.0]).reshape(1, 1, 2, 2)
    >>> motion, _ = motion_score(cue, raw, m3.motion.CueHistory.start(), grid=(2, 2))
    >>> motion.score.shape
    torch.Size([1, 2, 2])
    """
    if raw is not None and tuple(raw.shape[-2:]) != tuple(grid):
        raise InvalidArgument(
            f"the cue's values have a grid of {tuple(raw.shape[-2:])} patches, the frame {grid}; "
            "measure the cue on the frame it is used for"
        )
    control, number = parse_call(cue.control) if cue.control else ("", None)
    known = history.frames > 0
    if control in ("const", "random"):
        score = _made_up(control, number, _generator(cue, position), (len(known), *grid))
        score = score.to(known.device)
        raw = None
    elif raw is None:
        raise InvalidArgument(
            f"the cue {cue.reading!r} was not measured: no site it reads was seen"
        )
    else:
        values = raw
        if cue.across_frames:
            ready = known
        elif cue.reading == RAY_MAP:  # a state that has read nothing knows nothing
            ready, values = known, torch.where(per_sample(known, raw), raw, 0.0)
        elif cue.reading == INSTABILITY:
            values, history = _instability(cue, raw, history)
            ready = known
        else:
            ready = torch.ones_like(known)
        score, history = _normalised(cue, values.mean(dim=1), history, ready)
        raw = values
    if control == "shuffle":
        order = torch.randperm(score[0].numel(), generator=_generator(cue, position))
        score = score.flatten(1)[:, order.to(score.device)].unflatten(1, grid)
    elif control == "invert":
        score = 1 - score
    elif control == "shift":
        score, history = _shifted(score, int(number or 1), history)
    history = replace(
        history, frames=history.frames + 1, carried=_carry(cue, score, history.carried, known)
    )
    return Motion(score, raw), history


def live_score(cue: Cue, probe: CueProbe, history: CueHistory, *, position: int = 0) -> Score:
    """Score that grows while a pass runs, for the sources ``layer_causal`` and ``same_site``.

    The probe has to look at the same pass. At each site the score uses the layers read so far:
    strictly before the gated one for ``layer_causal``, up to it for ``same_site``. An image block
    runs before the state block of its layer, so state-to-image gates may use it.

    Examples
    --------
    >>> import torch
    >>> backbone, grid = m3.load_backbone("tiny"), (3, 4)
    >>> cue = m3.Cue(source="same_site")
    >>> probe = m3.motion.CueProbe(cue, grid, backbone.sites(), backbone.axes(grid))
    >>> live = live_score(cue, probe, m3.motion.CueHistory.start())
    >>> q, k = torch.randn(1, 4, 13, 16), torch.randn(1, 4, 13, 16)
    >>> probe(m3.attention.Site("image_self", 0), q, k)
    >>> live(m3.attention.Site("state_to_image", 0)).shape
    torch.Size([1, 3, 4])
    """
    causal = Source.parse(cue.source).name == "layer_causal"
    latest: tuple[int, Tensor] | None = None

    def score(site: Site) -> Tensor | None:
        nonlocal latest
        raw = probe.raw(history, before=site.layer if causal else None)
        if raw is None and cue.measured:
            return None
        layers = 0 if raw is None else raw.shape[1]
        if latest is None or latest[0] != layers:
            motion, _ = motion_score(cue, raw, history, grid=probe.grid, position=position)
            latest = layers, motion.score
        return latest[1]

    return score


def mask_cells(mask: Tensor, grid: tuple[int, int], pool: str = "mean") -> Tensor:
    """Pool a mask to one value per patch.

    Parameters
    ----------
    mask : Tensor
        ``(batch, y, x)``, boolean or in [0, 1], at the size the backbone sees: a whole number of
        pixels per patch, the same down and across.
    grid : (int, int)
    pool : {"mean", "max"}

    Returns
    -------
    Tensor
        ``(batch, 1, patch_row, patch_col)``, to be used as a cue's raw value.

    Raises
    ------
    InvalidArgument
        For another size, or values outside [0, 1].

    Examples
    --------
    >>> import torch
    >>> mask = torch.zeros(1, 4, 4)
    >>> mask[:, :2, :2] = 1
    >>> mask_cells(mask, grid=(2, 2)).flatten().tolist()
    [1.0, 0.0, 0.0, 0.0]
    """
    height, width = mask.shape[-2:]
    rows, columns = grid
    if mask.dim() != 3 or height % rows or width % columns or height // rows != width // columns:
        raise InvalidArgument(
            f"a mask of {height} x {width} pixels does not fit a grid of {rows} x {columns} square "
            f"patches; prepare it like the image, to {rows} s x {columns} s pixels for some s"
        )
    cells = mask.to(torch.float32).unflatten(-1, (columns, -1)).unflatten(-3, (rows, -1))
    if not bool(((cells >= 0) & (cells <= 1)).all()):
        raise InvalidArgument(
            "a mask used as a cue must be boolean or hold values in [0, 1]; "
            f"this one reaches from {float(cells.min()):.3g} to {float(cells.max()):.3g}"
        )
    pooled = cells.amax(dim=(-3, -1)) if pool == "max" else cells.mean(dim=(-3, -1))
    return pooled[:, None]


def _made_up(
    control: str, number: float | None, generator: torch.Generator, shape: tuple[int, int, int]
) -> Tensor:
    if control == "const":
        return torch.full(shape, 0.5 if number is None else number)
    return torch.rand(shape[1:], generator=generator).expand(shape)


def _generator(cue: Cue, position: int) -> torch.Generator:
    """Random numbers of one frame: the same for all samples, on every device, in every order."""
    return torch.Generator().manual_seed(cue.seed * 1_000_003 + position)


def _normalised(
    cue: Cue, values: Tensor, history: CueHistory, ready: Tensor
) -> tuple[Tensor, CueHistory]:
    """Scores of values ``(batch, patch_row, patch_col)``; 0 where a sample is not ready."""
    flat = values.flatten(1)
    if cue.reading != MASK:
        check_contrast(flat, ready)
    signed = flat if cue.sign == 1 else -flat
    if cue.normaliser == "raw" and cue.sign == -1:
        signed = 1 - flat
    found = location_and_scale(cue.normaliser, signed)
    if found is not None and cue.running is not None:
        if history.location is not None and history.scale is not None:
            # Samples whose first usable frame this is start their averages here.
            late = cue.reading in (INSTABILITY, RAY_MAP) or cue.across_frames
            earlier = history.frames > late
            kept = torch.where(earlier, cue.running, 0.0).to(signed.dtype)
            found = (
                kept * history.location + (1 - kept) * found[0],
                kept * history.scale + (1 - kept) * found[1],
            )
        history = replace(history, location=found[0], scale=found[1])
    score = normalise(cue.normaliser, signed, cue.sharpness, found)
    return torch.where(ready[:, None], score, 0.0).unflatten(1, values.shape[1:]), history


def _instability(cue: Cue, raw: Tensor, history: CueHistory) -> tuple[Tensor, CueHistory]:
    """Take the standard deviation over frames per layer and patch, and renew its moments."""
    layers = raw.shape[1]
    if history.mean is None or history.squares is None:
        mean = squares = torch.zeros_like(raw)
    elif history.mean.shape[2:] != raw.shape[2:]:
        raise InvalidArgument(
            f"instability compares patches at the same place, but the grid changed from "
            f"{tuple(history.mean.shape[2:])} to {tuple(raw.shape[2:])}; start a new history"
        )
    else:
        mean, squares = history.mean[:, :layers], history.squares[:, :layers]
    count = per_sample(history.frames, raw).to(raw.dtype)
    change = raw - mean
    if cue.decay is None:
        # Welford: the centred sum of squares, which offsets do not drown.
        mean = mean + change / (count + 1)
        squares = squares + change * (raw - mean)
        variance = squares / (count + 1)
    else:
        weight = torch.where(count == 0, 1.0, 1 - cue.decay)
        mean = mean + weight * change
        squares = (1 - weight) * (squares + weight * change.square())
        variance = squares
    return variance.clamp_min(0).sqrt(), replace(history, mean=mean, squares=squares)


def _shifted(score: Tensor, frames: int, history: CueHistory) -> tuple[Tensor, CueHistory]:
    past = history.past
    if past is None:
        past = score.new_zeros(len(score), frames, *score.shape[1:])
    elif past.shape[2:] != score.shape[1:]:
        raise InvalidArgument("control 'shift' needs the same grid in all frames; it has changed")
    return past[:, 0], replace(history, past=torch.cat([past[:, 1:], score[:, None]], dim=1))


def _carry(cue: Cue, score: Tensor, carried: Tensor | None, known: Tensor) -> Tensor | None:
    source = Source.parse(cue.source)
    if not source.lags:
        return None
    if source.name == "previous" or carried is None or carried.shape != score.shape:
        return score
    kept = torch.where(known, source.value or 0.0, 0.0)[:, None, None].to(score.dtype)
    return kept * carried + (1 - kept) * score
