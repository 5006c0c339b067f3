"""VGGT and StreamVGGT: the same parameters, read over all frames at once or frame by frame.

Written from a description of what the released models compute; parameter names and shapes are those
of official checkpoints without the tracking head, so these load unchanged.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mut3r_analysis.attention.seam import Probe, SiteGate, attend
from mut3r_analysis.attention.sites import SiteSize
from mut3r_analysis.attention.tokens import Axes, TokenAxis, image_axis, memory_axis
from mut3r_analysis.backbones.heads import Prediction, check_outputs
from mut3r_analysis.backbones.precision import arithmetic
from mut3r_analysis.backbones.preparation import Preparation
from mut3r_analysis.backbones.protocol import Backbone, StateVariable
from mut3r_analysis.backbones.steps import Encoded, Frame, FrameRead, Write
from mut3r_analysis.backbones.vggt.aggregator import Aggregator
from mut3r_analysis.backbones.vggt.camera_head import CameraHead, camera, unprojected
from mut3r_analysis.backbones.vggt.config import REGISTERS, SPECIAL, VGGTConfig
from mut3r_analysis.backbones.vggt.dense_head import DenseHead
from mut3r_analysis.backbones.vggt.reading import CacheReader, CameraReader, frames_before
from mut3r_analysis.backbones.vggt.state import Decoded, Entered, State
from mut3r_analysis.errors import InvalidArgument

Attention = Literal["full", "causal"]


class VGGT(Backbone):
    """VGGT or StreamVGGT of any size.

    On the protocol frames come one after another, as StreamVGGT takes them: queries of a frame read
    the keys of all frames so far, which are cached. :meth:`reconstruct` reads all frames at once.

    Parameters
    ----------
    config : VGGTConfig
    update : {"cut3r"}
        Frames are appended to the caches whole. There is no rate.

    Notes
    -----
    Depth is that of the depth head; points in the frame's own camera follow from it and from the
    predicted fields of view, points in the world are those of the point head. Official code has
    neither frames that must not write nor resets; here both are honoured.
    """

    config: VGGTConfig
    state_dim = "cached_frame"
    state_grows = True
    pose_memory = False
    written_whole = "frames enter the caches whole"
    outputs = ("pose", "depth", "points_self", "points_world")

    def __init__(self, config: VGGTConfig, *, update: str = "cut3r") -> None:
        super().__init__(config, update=update)
        self.preparation = Preparation(config.img_size[1], "width", config.patch_size)
        self.aggregator = Aggregator(config)
        self.camera_head = CameraHead(config)
        self.point_head = DenseHead(config, 4)
        self.depth_head = DenseHead(config, 2)

    def rotate_encoder_in(self, dtype: torch.dtype | None) -> None:
        """Do nothing: the patch embedding rotates nothing."""

    def sites(self) -> dict[str, SiteSize]:
        """Layers, heads and head width of every site kind that may be captured or gated."""
        config = self.config
        enc, dec = config.enc_embed_dim, config.dec_embed_dim
        size = SiteSize.of(config.dec_depth, config.dec_num_heads, dec)
        return {
            "frame_self": size,
            "global_self": size,
            "encoder_self": SiteSize.of(config.enc_depth, config.enc_num_heads, enc),
            "camera_self": SiteSize.of(config.camera_depth, config.camera_num_heads, 2 * dec),
        }

    def axes(self, grid: tuple[int, int], frames: int = 1) -> Axes:
        """Tokens of the streams ``patches``, ``image``, ``frames`` and ``state``.

        Of the patch embedding, of a frame in the aggregator, of all frames so far by the frame that
        they come from, and the frames in the caches, a token each.
        """
        return _axes(grid, frames)

    def axes_in(self, entered: Entered, axes: Axes) -> Axes:
        """Say of which frames there are keys as a frame is read: its own come last."""
        state = entered.state
        numbers = torch.cat([state.frames, state.read[:, None]], dim=1)[0].cpu().numpy()
        one = axes["frames"]
        role, row, column = (
            np.tile(part, len(numbers)) for part in (one.role, one.row, one.column)
        )
        frame, slot = np.repeat(numbers, len(one)), np.tile(np.arange(len(one)), len(numbers))
        there = TokenAxis(role, row, column, frame=frame, grows="key_frame", slot=slot,
                          slots=len(one))  # fmt: skip
        return {**axes, "frames": there}

    def begin(self, batch: int = 1) -> State:
        """Return the state before the first frame: empty caches.

        Raises
        ------
        InvalidArgument
            For more than one sequence.
        """
        if batch != 1:
            raise InvalidArgument(
                f"VGGT takes one sequence at a time, not {batch}: each has caches of its own length"
            )
        return State.empty(self.config.dec_depth, self.config.camera_depth, self.device)

    def encode(
        self, frame: Frame, *, gate: SiteGate | None = None, probe: Probe | None = None
    ) -> Encoded:
        """Embed the patches of a frame."""
        if frame.image is None or frame.ray_map is not None:
            raise InvalidArgument("VGGT reads an image per frame and no ray map")
        grid = self.config.patch_grid(*frame.image.shape[-2:])
        image = (frame.image.to(self.dtype) + 1) / 2
        seam = partial(attend, gate=gate, probe=probe)
        return Encoded(self.aggregator.patch_embed(image, grid, seam), grid)

    def enter(self, encoded: Encoded, state: State, *, probe: Probe | None = None) -> Entered:
        """Bring a frame and the caches together.

        Raises
        ------
        InvalidArgument
            For frames of different sizes.
        """
        patches = encoded.features.shape[1]
        if state.patches not in (0, patches):
            raise InvalidArgument(
                f"all frames of a sequence must have one size; this one has {patches} patches, "
                f"those in the caches {state.patches}"
            )
        return Entered(encoded.features, encoded.grid, state)

    def decode(
        self,
        entered: Entered,
        *,
        gate: SiteGate | None = None,
        probe: Probe | None = None,
        signals: Collection[str] = (),
        layers: list[Tensor] | None = None,
    ) -> Decoded:
        """Read a frame beside the caches, and refine its pose."""
        state, seam = entered.state, partial(attend, gate=gate, probe=probe)
        first = ~state.begun[:, None]
        tokens = self.aggregator.tokens(entered.features[:, None], first)
        shown = None
        if layers is not None:
            kept = layers

            def shown(after: Tensor) -> None:
                kept.append(after[:, 0, SPECIAL:])

        across = CacheReader(seam, state.keys, state.values)
        levels = self.aggregator(tokens, entered.grid, seam, across, shown)
        trunk = CameraReader(seam, state, same_iteration=self._same_iteration)
        encodings = self.camera_head(levels[self.decoder_layers - 1][:, :, 0], trunk)
        return Decoded(
            levels=[levels[layer][:, 0, SPECIAL:] for layer in self.config.head_levels],
            encodings=encodings[:, 0],
            grid=entered.grid,
            keys=across.keys,
            values=across.values,
            camera_keys=[torch.cat(each, dim=2) for each in trunk.keys],
            camera_values=[torch.cat(each, dim=2) for each in trunk.values],
        )

    def decode_together(
        self,
        encoded: Encoded,
        *,
        gate: SiteGate | None = None,
        probe: Probe | None = None,
        attention: Attention = "full",
    ) -> Decoded:
        """Read all frames of one sequence at once.

        At ``frame_self`` gates and probes see a frame per sample, at ``global_self`` the tokens of
        all frames in one, frame by frame.

        Parameters
        ----------
        encoded : Encoded
            With frames as its batch.
        gate, probe
            Passed to every site.
        attention : {"full", "causal"}
            Whether a frame attends to all, as in VGGT, or to itself and those before it, as
            StreamVGGT was trained.

        Returns
        -------
        Decoded
            With frames as its batch; there is nothing to cache.

        Raises
        ------
        InvalidArgument
            For another word, and for a gate where frames must not see later ones.
        """
        if attention not in ("full", "causal"):
            raise InvalidArgument(f"attention must be 'full' or 'causal', got {attention!r}")
        features, grid = encoded.features, encoded.grid
        seam = partial(attend, gate=gate, probe=probe)
        across, trunk = seam, seam
        if attention == "causal":
            if gate is not None:
                raise InvalidArgument(
                    "a gate replaces what a site computes, and would let frames see later ones "
                    "here; to gate them, read the frames one after another (step, or a run)"
                )
            frames, tokens = len(features), features.shape[1] + SPECIAL
            across = partial(seam, kernel=frames_before(frames, tokens, self.device))
            trunk = partial(seam, kernel=frames_before(frames, 1, self.device))
        first = torch.arange(len(features), device=self.device)[None] == 0
        entered = self.aggregator.tokens(features[None], first)
        levels = self.aggregator(entered, grid, seam, across)
        encodings = self.camera_head(
            levels[self.decoder_layers - 1][:, :, 0], lambda iteration: trunk
        )
        chosen = [levels[layer][0, :, SPECIAL:] for layer in self.config.head_levels]
        return Decoded(chosen, grid, encodings[0])

    def reconstruct(
        self,
        images: Tensor,
        *,
        attention: Attention = "full",
        gate: SiteGate | None = None,
        probe: Probe | None = None,
        outputs: Collection[str] | None = None,
    ) -> Prediction:
        """Predict all frames of one sequence together.

        Parameters
        ----------
        images : Tensor
            ``(frame, rgb, y, x)`` in [-1, 1].
        attention, gate, probe
            As for :meth:`decode_together`.
        outputs : collection of str, optional
            None computes all.

        Returns
        -------
        Prediction
            With frames as its batch.
        """
        with arithmetic(self.precision, self.device):
            encoded = self.encode(Frame(images.to(self.device)), gate=gate, probe=probe)
            decoded = self.decode_together(encoded, gate=gate, probe=probe, attention=attention)
            return self.predict(decoded, outputs)

    def predict(
        self,
        decoded: Decoded,
        outputs: Collection[str] | None = None,
        *,
        gate: SiteGate | None = None,
        probe: Probe | None = None,
    ) -> Prediction:
        """Run the heads that the asked outputs need; the pose encoding is ``pose_raw``."""
        asked = check_outputs(outputs, self.outputs)
        height, width = (side * self.patch_size for side in decoded.grid)
        encoding = decoded.encodings[:, -1]
        seen = camera(encoding, height, width)
        fields: dict[str, Tensor] = {}
        if "pose" in asked:
            fields |= {"pose": seen.pose, "pose_raw": encoding}
        if {"depth", "points_self"} & set(asked):
            raw = self.depth_head(decoded.levels, decoded.grid).float()
            depth = raw[:, 0].exp()
            fields["points_self"] = unprojected(depth, seen.intrinsics)
            fields["confidence_self"] = 1 + raw[:, 1].exp()
        if "points_world" in asked:
            raw = self.point_head(decoded.levels, decoded.grid).permute(0, 2, 3, 1).float()
            points = raw[..., :3]
            fields["points_world"] = points.sign() * points.abs().expm1()
            fields["confidence_world"] = 1 + raw[..., 3].exp()
        return Prediction(**fields)

    def commit(
        self, read: FrameRead, state: State, write: Write, *, probe: Probe | None = None
    ) -> tuple[State, Tensor]:
        """Append a frame to the caches.

        The rate ``(batch, cached_frame)`` is 1 where a frame was appended, else 0. A factor of 0
        leaves the caches as they were.
        """
        frame, _, decoded, _ = read
        if decoded.encodings.is_meta:
            return state, torch.zeros_like(state.norms)
        after = state.written(decoded) if bool(self.writes(frame, write, 1)) else state
        if bool(frame.reset):
            after = self.begin()
        begun = torch.full_like(state.begun, not bool(frame.reset))
        rate = (after.frames == state.read[:, None]).float()
        return replace(after, read=state.read + 1, begun=begun), rate

    def token_ids(self, state: State) -> Tensor:
        """Identity of the cached frames: their number."""
        return state.frames[0]

    def state_variables(self, grid: tuple[int, int], frames: int) -> tuple[StateVariable, ...]:
        """Which frames are cached; the caches themselves are not stored."""
        cached = {"cached_frame": frames}
        return (
            StateVariable("cached_frame_count", {}, "frames in the caches", dtype="int64"),
            StateVariable("frames_read", {}, "frames read so far", dtype="int64"),
            StateVariable("origin_frame", cached, "position of the cached frame", dtype="int64"),
            StateVariable("norm", cached, "root mean square of the norms of the frame's keys"),
            StateVariable("write_rate", cached, "whether the frame was written"),
        )

    def restore(self, held: Mapping[str, Tensor], age: int, restart: bool | None) -> State:
        """Refuse: caches are not stored."""
        raise InvalidArgument("the caches of VGGT are not stored; read the frames before again")

    def meta_state(self, grid: tuple[int, int], frames: int) -> State:
        """Return the shapes of caches that hold half of all frames."""
        count, state = max(1, frames // 2), self.begin()
        tokens = count * (grid[0] * grid[1] + SPECIAL)

        def empty(kind: str, tokens: int) -> tuple[tuple[Tensor], ...]:
            size = self.sites()[kind]
            cached = torch.empty(1, size.heads, tokens, size.channels, device=self.device)
            return ((cached,),) * size.layers

        keys = empty("global_self", tokens)
        poses = empty("camera_self", count * self.config.camera_iterations)
        norms = torch.empty(1, count, device=self.device)
        return replace(state, keys=keys, values=keys, camera_keys=poses, camera_values=poses,
                       frames=norms.long(), norms=norms)  # fmt: skip

    @property
    def _same_iteration(self) -> bool:
        return self.config.camera_keys == "same_iteration"


@lru_cache(maxsize=64)
def _axes(grid: tuple[int, int], frames: int) -> Axes:
    registers = ("register",) * REGISTERS
    return {
        "patches": image_axis(grid, ("class", *registers)),
        "image": image_axis(grid, ("camera", *registers)),
        "frames": replace(
            image_axis(grid, ("camera", *registers), role="cached"), grows="key_frame"
        ),
        "state": memory_axis(frames, "cached", place="order of reading", grows="cached_frame"),
    }
