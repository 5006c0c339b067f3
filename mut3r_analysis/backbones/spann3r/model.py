"""Spann3R: each frame is decoded with the next one, and reads a bank of keys and values.

Written from a description of what the released model computes; parameter names and shapes are those
of official checkpoints, so these load unchanged.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mut3r_analysis.attention.seam import Probe, SiteGate, attend
from mut3r_analysis.attention.sites import Site, SiteSize
from mut3r_analysis.attention.tokens import ROLES, Axes, TokenAxis, image_axis, memory_axis
from mut3r_analysis.backbones.blocks import PatchEmbed, encoder, layer_norm
from mut3r_analysis.backbones.geometry import (
    camera_from_points,
    focal_length,
    translation_and_quaternion,
)
from mut3r_analysis.backbones.heads import Prediction, check_outputs
from mut3r_analysis.backbones.pair_network import PairNetwork
from mut3r_analysis.backbones.preparation import Preparation, Rule
from mut3r_analysis.backbones.protocol import Backbone, StateVariable
from mut3r_analysis.backbones.spann3r.bank import Bank, read_values, read_weights
from mut3r_analysis.backbones.spann3r.config import Spann3RConfig
from mut3r_analysis.backbones.spann3r.start import start_weights
from mut3r_analysis.backbones.spann3r.state import Decoded, Entered, State
from mut3r_analysis.backbones.steps import Encoded, Frame, FrameRead, Write
from mut3r_analysis.errors import InvalidArgument


class Spann3R(Backbone):
    """Spann3R of any size.

    Parameters
    ----------
    config : Spann3RConfig
    update : {"cut3r"}
        Frames are written whole or not at all. There is no rate.

    Notes
    -----
    World points are what the model predicts. Camera and depth follow from them as in the released
    demo: the focal length is that of the first frame's points, and the pose is the one from which
    the points are seen at their pixels
    (:func:`~mut3r_analysis.backbones.geometry.camera_from_points`).

    The prediction of a frame is that of the step in which it stands beside the next one, and the
    last frame's is that of the step before, as in the official code. Official code has neither
    frames that must not write nor resets; here both are honoured: a frame that does not write
    leaves the bank as it was, reads included, and hands on its query.
    """

    config: Spann3RConfig
    commit_needs = ("points_world",)
    state_dim = "bank_row"
    state_grows = True
    looks_ahead = True
    pose_memory = False
    written_whole = "frames enter the bank whole"
    outputs = ("pose", "depth", "points_self", "points_world")
    takes_batches = False

    def __init__(self, config: Spann3RConfig, *, update: str = "cut3r") -> None:
        super().__init__(config, update=update)
        square = len(set(config.img_size)) == 1
        rule: Rule = "cover" if square else "crop"
        self.preparation = Preparation(max(config.img_size), rule, config.patch_size)
        enc, dec, ratio = config.enc_embed_dim, config.dec_embed_dim, config.mlp_ratio
        self.dust3r = PairNetwork(config)
        self.pos_patch_embed = PatchEmbed(3, config.patch_size, enc)
        self.value_encoder = encoder(
            config.value_depth, enc, config.value_num_heads, ratio, "value_self"
        )
        self.value_norm = layer_norm(enc)
        self.value_out = nn.Linear(enc, enc)
        # The only norms here with torch's own epsilon, 1e-5.
        self.norm_q, self.norm_k, self.norm_v = (nn.LayerNorm(enc) for _ in range(3))
        self.attn_head_1, self.attn_head_2 = (
            nn.Sequential(nn.Linear(enc + dec, enc + dec), nn.GELU(), nn.Linear(enc + dec, enc))
            for _ in range(2)
        )

    def rotate_encoder_in(self, dtype: torch.dtype | None) -> None:
        """Do nothing: official code rounds neither queries nor keys around their rotation."""

    def start_weights(self, choices: Any) -> None:
        """Set the weights that a training from scratch begins with."""
        start_weights(self, choices)

    def prepare_training(self) -> None:
        """Write every frame, however alike, so that clips of a batch have banks of one size."""
        self.takes_batches = True

    def axes(self, grid: tuple[int, int], frames: int = 1) -> Axes:
        """Tokens of the streams ``patches``, ``partner`` (of the next frame), ``bank``, ``state``.

        The state's tokens are the rows of the bank in its own order; the stream ``bank`` has them
        by the frame that they come from.
        """
        return _axes(grid, self._capacity(grid[0] * grid[1], frames))

    def axes_in(self, entered: Entered, axes: Axes) -> Axes:
        """Say which tokens the bank holds as a frame meets it."""
        bank, (rows, columns) = entered.state.bank, entered.grid
        frame, patch = (part[0].cpu().numpy() for part in (bank.frame, bank.patch))
        role = np.full(len(bank), ROLES.index("cached"), np.int8)
        held = TokenAxis(
            role, patch // columns, patch % columns, frame=frame, grows="key_frame",
            slot=patch, slots=rows * columns,
        )  # fmt: skip
        return {**axes, "bank": held}

    def unpassed(self, entered: Entered) -> frozenset[str]:
        """Sites that a frame lacks: a read before anything is there, and all of a last frame."""
        if entered.partner is None:
            return frozenset(self.sites()) - {"encoder_self"}
        return frozenset() if entered.reads else frozenset({"bank_read"})

    def sites(self) -> dict[str, SiteSize]:
        """Layers, heads and head width of every site kind that may be captured or gated."""
        config = self.config
        enc = config.enc_embed_dim
        view = SiteSize.of(config.dec_depth, config.dec_num_heads, config.dec_embed_dim)
        return {
            "view1_self": view,
            "view1_to_view2": view,
            "view2_self": view,
            "view2_to_view1": view,
            "bank_read": SiteSize(1, 1, enc),
            "encoder_self": SiteSize.of(config.enc_depth, config.enc_num_heads, enc),
            "value_self": SiteSize.of(config.value_depth, config.value_num_heads, enc),
        }

    def begin(self, batch: int = 1) -> State:
        """Return the state before the first frame: an empty bank.

        Raises
        ------
        InvalidArgument
            For more than one sequence, unless in training.
        """
        if batch != 1 and not self.takes_batches:
            raise InvalidArgument(
                f"Spann3R takes one sequence at a time, not {batch}: each writes and prunes a bank "
                "of its own size"
            )
        return State(
            bank=Bank.none(batch, self.config.enc_embed_dim, self.device, self.dtype),
            query=None,
            second=[],
            read=torch.zeros(batch, dtype=torch.long, device=self.device),
            similarity=torch.full((batch,), torch.nan, device=self.device),
            skipped=torch.zeros(batch, dtype=torch.bool, device=self.device),
            focal=torch.full((batch,), torch.nan, device=self.device),
            level_channels=self.config.dec_embed_dim,
        )

    def encode(
        self, frame: Frame, *, gate: SiteGate | None = None, probe: Probe | None = None
    ) -> Encoded:
        """Encode a frame into normalised tokens."""
        if frame.image is None or frame.ray_map is not None:
            raise InvalidArgument("Spann3R reads an image per frame and no ray map")
        grid = self.config.patch_grid(*frame.image.shape[-2:])
        seam = partial(attend, gate=gate, probe=probe)
        return Encoded(self.dust3r.encode_image(frame.image.to(self.dtype), grid, seam), grid)

    def enter(self, encoded: Encoded, state: State, *, probe: Probe | None = None) -> Entered:
        """Bring a frame, the next one and the bank together.

        Raises
        ------
        InvalidArgument
            For a first frame without a next one, and for frames of different sizes.
        """
        following = encoded.following
        if following is None and not state.second:
            raise InvalidArgument(
                "Spann3R predicts a frame together with the next one, and this first frame has "
                "none; give a sequence of at least two frames (in step: following=)"
            )
        if following is not None and following.grid != encoded.grid:
            raise InvalidArgument(
                f"all frames of a sequence must have one size; a frame has {encoded.grid} patches "
                f"(rows, columns), the next one {following.grid}"
            )
        partner = None if following is None else following.features
        return Entered(encoded.features, encoded.grid, partner, state)

    def decode(
        self,
        entered: Entered,
        *,
        gate: SiteGate | None = None,
        probe: Probe | None = None,
        signals: Collection[str] = (),
        layers: list[Tensor] | None = None,
    ) -> Decoded:
        """Read the bank and decode both frames; a last frame was decoded beside the one before."""
        features, state, grid = entered.features, entered.state, entered.grid
        usage = torch.zeros_like(state.bank.usage)
        if entered.partner is None:
            return Decoded([features, *state.second], grid, [], features, usage, state.focal)
        seam = partial(attend, gate=gate, probe=probe)
        fused = features
        if entered.reads:
            fused, usage = self._read(state, seam)
        first, second = self.dust3r.decode_views(fused, entered.partner, (grid, grid), seam, layers)
        return Decoded(first, grid, second[1:], fused, usage, state.focal)

    def predict(
        self,
        decoded: Decoded,
        outputs: Collection[str] | None = None,
        *,
        gate: SiteGate | None = None,
        probe: Probe | None = None,
    ) -> Prediction:
        """Predict points of the frame in the first camera, and what follows from them."""
        names = set(check_outputs(outputs, self.outputs))
        if not names:
            return Prediction()
        head = self.dust3r.downstream_head1 if decoded.second else self.dust3r.downstream_head2
        points, confidence = head(decoded.levels, decoded.grid)
        found = {"points_world": points, "confidence_world": confidence}
        found = found if "points_world" in names else {}
        if names > {"points_world"} or not found:
            pose, own = seen_from(points, confidence, decoded.focal)
            if "pose" in names:
                found["pose"] = pose
            if names & {"depth", "points_self"}:
                found |= {"points_self": own, "confidence_self": confidence}
        return Prediction(**found)

    def offer(
        self, encoded: Encoded, decoded: Decoded, points: Tensor, *, probe: Probe | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return what a frame offers the bank: keys and values ``(batch, patch, channel)``.

        Parameters
        ----------
        encoded, decoded
        points : Tensor
            ``(batch, y, x, xyz)`` world points of the frame.
        probe : callable, optional
        """
        seam = partial(attend, probe=probe)
        key = self.attn_head_1(torch.cat([encoded.features, decoded.levels[-1]], dim=-1))
        rows, columns = decoded.grid
        maps = points.movedim(-1, 1).to(self.dtype)
        turned = rows > columns and self.config.landscape_only
        value = self.pos_patch_embed(maps.mT if turned else maps)
        if turned:  # The sites have the patches in the frame's order. No block knows of places.
            value = _turned(value, columns, rows)
        for block in self.value_encoder:
            value = block(value, None, seam)
        value = self.value_out(self.value_norm(value))
        return key, key + (_turned(value, rows, columns) if turned else value)

    def commit(
        self, read: FrameRead, state: State, write: Write, *, probe: Probe | None = None
    ) -> tuple[State, Tensor]:
        """Write a frame into the bank, and hand on the query of the next one.

        The rate ``(batch, row)`` is 1 where a row was appended, else 0. A factor of 0 leaves the
        bank as it was, and so does a last frame.

        Raises
        ------
        InvalidArgument
            When world points were not predicted.
        """
        frame, encoded, decoded, prediction = read
        if encoded.following is None:
            unchanged = replace(state, read=state.read + 1)
            return unchanged, torch.zeros_like(state.bank.usage)
        if prediction is None or prediction.points_world is None:
            raise InvalidArgument(
                "Spann3R writes the world points of a frame; ask for the output 'points_world'"
            )
        key, value = self.offer(encoded, decoded, prediction.points_world, probe=probe)
        query = self.attn_head_2(
            torch.cat([encoded.following.features, decoded.second[-1]], dim=-1)
        )
        if query.is_meta:
            return state, torch.zeros_like(state.bank.usage)
        bank, similarity, skipped = state.bank, torch.nan, False
        if bool(self.writes(frame, write, len(key)).all()):
            offer = key, value, state.read, self.config.working_frames, self.config.long_tokens
            bank = bank.read(decoded.usage.detach())
            if self.takes_batches:
                bank = bank.written(*offer)
            else:
                bank, similarity, skipped = bank.offered(*offer)
        written = replace(
            state,
            bank=bank,
            query=query,
            second=decoded.second,
            read=state.read + 1,
            similarity=torch.full_like(state.similarity, similarity),
            skipped=torch.full_like(state.skipped, skipped),
            focal=first_focal(prediction.points_world, state.focal),
            patches=query.shape[1],
        )
        if bool(self.flags(frame.reset, len(key)).all()):
            anew = self.begin(len(key))
            written = replace(written, bank=anew.bank, query=None, second=[], focal=anew.focal)
        return written, (written.bank.frame == state.read[:, None]).float()

    def token_ids(self, state: State) -> Tensor:
        """Identity of the bank's rows, by their frame and patch."""
        return state.ids

    def state_variables(self, grid: tuple[int, int], frames: int) -> tuple[StateVariable, ...]:
        """Rows of the bank with where they come from and how they were read, and what is next."""
        own = {"patch": grid[0] * grid[1]}
        rows = {"bank_row": self._capacity(own["patch"], frames)}
        wide = {"channel": self.config.enc_embed_dim}
        levels = {"level": 3} | own | {"decoder_channel": self.config.dec_embed_dim}
        return (
            StateVariable("bank_row_count", {}, "rows of the bank", dtype="int64"),
            StateVariable("working_frames", {}, "working frames of the bank", dtype="int64"),
            StateVariable("frames_read", {}, "frames read so far", dtype="int64"),
            StateVariable("similarity", {}, "largest mean cosine with a working frame"),
            StateVariable("skipped", {}, "whether the frame was too similar", dtype="bool"),
            StateVariable("focal", {}, "focal length of the first frame, px"),
            StateVariable("removed", {}, "rows that left the bank", dtype="int64"),
            StateVariable("norm", rows, "norm of the row's key"),
            StateVariable("write_rate", rows, "whether the row was written"),
            StateVariable("origin_frame", rows, "frame the row comes from", dtype="int64"),
            StateVariable("origin_patch", rows, "patch the row comes from", dtype="int64"),
            StateVariable("usage", rows, "summed weights by which the row was read"),
            StateVariable("count", rows, "frames written since the row came in", dtype="int64"),
            StateVariable("tokens", rows | wide, "keys of the bank", kept=True),
            StateVariable("values", rows | wide, "values of the bank", kept=True),
            StateVariable("query", own | wide, "query of the next frame", kept=True),
            StateVariable("second", levels, "decoder levels of the next frame", kept=True),
        )

    def restore(self, held: Mapping[str, Tensor], age: int, restart: bool | None) -> State:
        """Return the state that the bank and what is next describe."""
        return self.begin().restored(held, begun=age > 0)

    def meta_state(self, grid: tuple[int, int], frames: int) -> State:
        """Return the shapes of a state that has written half of all frames so far."""
        patches = grid[0] * grid[1]
        rows = self._capacity(patches, max(1, frames // 2))
        state, wide = self.begin(), (self.config.enc_embed_dim,)
        tokens = torch.empty(1, rows, *wide, device=self.device)
        level = torch.empty(1, patches, self.config.dec_embed_dim, device=self.device)
        bank = replace(state.bank, keys=tokens, values=tokens, usage=tokens[..., 0])
        query = torch.empty(1, patches, *wide, device=self.device)
        return replace(state, bank=bank, query=query, second=[level] * 3, patches=patches)

    def _read(self, state: State, seam: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
        """Tokens that enter the decoder for a frame, and how much of each row they took."""
        query, bank = state.query, state.bank
        assert query is not None
        q, k, v = (
            norm(tokens)[:, None]
            for norm, tokens in (
                (self.norm_q, query),
                (self.norm_k, bank.keys),
                (self.norm_v, bank.values),
            )
        )
        read = seam(Site("bank_read", 0), q, k, v, kernel=read_values)
        return read[:, 0] + query, read_weights(q, k)[:, 0].sum(dim=1)

    def _capacity(self, patches: int, frames: int) -> int:
        """Most rows of the bank after so many frames."""
        most = (self.config.long_tokens or 0) + self.config.working_frames * patches
        return min(patches * frames, most)


def first_focal(points: Tensor, known: Tensor) -> Tensor:
    """Focal length ``(batch,)`` px that is known, or that points in the camera imply."""
    if known.is_meta or not bool(known.isnan().any()):
        return known
    return focal_length(points)


def seen_from(points: Tensor, confidence: Tensor, focal: Tensor) -> tuple[Tensor, Tensor]:
    """Pose ``(batch, 7)`` from which world points are seen, and the points from there.

    Parameters
    ----------
    points : Tensor
        ``(batch, y, x, xyz)``.
    confidence : Tensor
        ``(batch, y, x)``.
    focal : Tensor
        ``(batch,)`` px; NaN where the points are those of a first frame.
    """
    camera = camera_from_points(points, confidence.log(), first_focal(points, focal))
    own = (points - camera[:, None, None, :3, 3]) @ camera[:, None, :3, :3]
    return translation_and_quaternion(camera), own


def _turned(tokens: Tensor, rows: int, columns: int) -> Tensor:
    """List tokens ``(batch, token, channel)`` of a grid by columns instead of by rows."""
    return tokens.unflatten(1, (rows, columns)).transpose(1, 2).flatten(1, 2)


@lru_cache(maxsize=64)
def _axes(grid: tuple[int, int], rows: int) -> Axes:
    patches = image_axis(grid)
    cached = image_axis(grid, role="cached")
    return {
        "patches": patches,
        "partner": image_axis(grid, role="partner"),
        "bank": replace(cached, grows="key_frame"),
        "state": memory_axis(rows, "cached", place="order of the bank", grows="bank_row"),
    }
