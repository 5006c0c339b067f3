"""Point3R: a transformer that carries a growing set of pointers from frame to frame.

Written from a description of what the released model computes; parameter names and shapes are those
of official checkpoints, so these load unchanged.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mut3r_analysis.attention.seam import Gate, Probe, attend
from mut3r_analysis.attention.sites import SITE_KINDS, Site
from mut3r_analysis.backbones.blocks import (
    Attend,
    DecoderBlock,
    EncoderBlock,
    PatchEmbed,
    Projected,
    SelfAttention,
    layer_norm,
)
from mut3r_analysis.backbones.cut3r import Encoded, Frame, Origin, SiteSize, Step
from mut3r_analysis.backbones.heads import Heads, Prediction, check_outputs
from mut3r_analysis.backbones.memory import PoseMemory
from mut3r_analysis.backbones.point3r.config import Point3RConfig
from mut3r_analysis.backbones.point3r.pointers import Candidates, Pointers
from mut3r_analysis.backbones.point3r.rotation import spatial_rotation
from mut3r_analysis.backbones.point3r.state import State, chosen
from mut3r_analysis.backbones.precision import PRECISIONS, Precision, arithmetic
from mut3r_analysis.backbones.preparation import Preparation
from mut3r_analysis.backbones.rotation import Rotation, positions, rotation
from mut3r_analysis.errors import InvalidArgument

Turns = tuple[Rotation | None, Rotation | None]


@dataclass(frozen=True, eq=False)
class Entered:
    """A frame and a state about to meet in the decoders: all that passes over a frame share.

    Attributes
    ----------
    features : Tensor
        ``(batch, patch, channel)`` encoder tokens.
    grid : (int, int)
        Rows and columns of patches.
    image, state : Tensor
        ``(batch, token, channel)`` what the first layers read; the pose token leads the image. On a
        first frame the state is the frame itself.
    exists : Tensor, optional
        ``(batch, pointer)`` bool where samples have different numbers of pointers.
    turns : dict of str to (Rotation or None, Rotation or None)
        Side -> rotations of its own and of the other side's tokens, in its own head width.
    first : dict of str to Projected
        Side -> what its first layer projects, which no gate can change.
    """

    features: Tensor
    grid: tuple[int, int]
    image: Tensor
    state: Tensor
    exists: Tensor | None
    turns: dict[str, Turns]
    first: dict[str, Projected]


@dataclass(frozen=True, eq=False)
class Decoded:
    """What the two decoders make of a frame and a state.

    Attributes
    ----------
    levels : list of Tensor
        The four inputs of the dense heads ``(batch, patch, channel)``.
    pose_token : Tensor
        ``(batch, 1, channel)`` final, normalised.
    grid : (int, int)
        Rows and columns of patches.
    dropped : Tensor, optional
        ``(batch, pointer, channel)`` the pointers as the decoder leaves them. Nothing reads it, so
        it is computed only where a probe or a gate is at work.
    """

    levels: list[Tensor]
    pose_token: Tensor
    grid: tuple[int, int]
    dropped: Tensor | None


class Point3R(nn.Module):
    """Point3R of any size.

    Parameters
    ----------
    config : Point3RConfig
    update : {"point3r"}
        Write rule of the pointers.

    Attributes
    ----------
    origin : Origin
    precision : Precision
    preparation : Preparation
        How frames of any size become this model's input.

    Notes
    -----
    :meth:`step` does a whole frame. Its parts (:meth:`encode`, :meth:`enter`, :meth:`decode`,
    :meth:`predict`, :meth:`commit`) are public, so that passes over one frame can share work.
    Official code has neither frames that must not write nor resets; here both are honoured.
    """

    def __init__(self, config: Point3RConfig, *, update: str = "point3r") -> None:
        super().__init__()
        if update != "point3r":
            raise InvalidArgument(
                f"update = {update!r} is not a write rule of Point3R, which has 'point3r' alone"
            )
        self.config = config
        self.update = update
        self.origin = Origin("untrained", sha256="", report=("weights were never loaded",))
        self.precision: Precision = PRECISIONS["float32"]
        self.preparation = Preparation(max(config.img_size), patch=config.patch_size)
        enc, dec, ratio = config.enc_embed_dim, config.dec_embed_dim, config.mlp_ratio
        self.patch_embed = PatchEmbed(3, config.patch_size, enc)
        self.enc_blocks = nn.ModuleList(
            EncoderBlock(enc, config.enc_num_heads, ratio, Site("encoder_self", layer))
            for layer in range(config.enc_depth)
        )
        self.enc_norm = layer_norm(enc)
        self.decoder_embed = nn.Linear(enc, dec)
        self.decoder_embed_memory = nn.Linear(enc, dec)
        self.pose_token = nn.Parameter(torch.zeros(1, 1, dec))
        self.dec_blocks, self.dec_blocks_memory = (
            nn.ModuleList(
                DecoderBlock(dec, heads, ratio, Site(own, layer), Site(other, layer))
                for layer in range(config.dec_depth)
            )
            for heads, own, other in (
                (config.dec_num_heads, "image_self", "image_to_state"),
                (config.memory_dec_num_heads, "state_self", "state_to_image"),
            )
        )
        self.dec_norm = layer_norm(dec)
        self.dec_norm_memory = layer_norm(dec)
        self.pose_retriever = PoseMemory(config)
        self.downstream_head = Heads(config, color=False)
        self.pts_patch_embed = PatchEmbed(3, config.patch_size, enc)
        self.value_encoder = nn.ModuleList(
            EncoderBlock(enc, config.value_num_heads, ratio, Site("value_self", layer))
            for layer in range(config.value_depth)
        )
        self.value_norm = layer_norm(enc)
        self.value_out = nn.Linear(enc, enc)
        self.memory_attn_head = nn.Sequential(
            nn.Linear(enc + dec, enc + dec), nn.GELU(), nn.Linear(enc + dec, enc)
        )
        self.rotate_encoder_in(self.precision.rotation)

    def rotate_encoder_in(self, dtype: torch.dtype | None) -> None:
        """Set the storage dtype of the image encoder's queries and keys around their rotation.

        The released model was trained and is run with float16 there; None keeps the model's dtype.
        """
        for module in self.enc_blocks.modules():
            if isinstance(module, SelfAttention):
                module.rotation_dtype = dtype

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.pose_token.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        return self.pose_token.dtype

    def site_sizes(self) -> dict[str, SiteSize]:
        """Layers, heads and head width of every site kind that may be captured."""
        config = self.config
        enc, dec, depth = config.enc_embed_dim, config.dec_embed_dim, config.dec_depth
        image = SiteSize(depth, config.dec_num_heads, dec // config.dec_num_heads)
        state = SiteSize(depth, config.memory_dec_num_heads, dec // config.memory_dec_num_heads)
        encoder = SiteSize(config.enc_depth, config.enc_num_heads, enc // config.enc_num_heads)
        return {
            "image_self": image,
            "image_to_state": image,
            "state_self": state,
            "state_to_image": state,
            "encoder_self": encoder,
            "head_self": image._replace(layers=len(self.downstream_head.final_transform)),
            "value_self": SiteSize(
                config.value_depth, config.value_num_heads, enc // config.value_num_heads
            ),
        }

    def begin(self, batch: int = 1) -> State:
        """Return the state before the first frame: no pointers, and the learned pose memory."""
        return State(
            pointers=Pointers.none(batch, self.config.dec_embed_dim, self.device, self.dtype),
            places=torch.zeros(batch, 1, 3, device=self.device),
            memory=self.pose_retriever.mem.expand(batch, -1, -1),
            age=torch.zeros(batch, dtype=torch.long, device=self.device),
        )

    def encode(
        self, frame: Frame, *, gate: Gate | None = None, probe: Probe | None = None
    ) -> Encoded:
        """Encode a frame into normalised tokens."""
        if frame.image is None or frame.ray_map is not None:
            raise InvalidArgument("Point3R reads an image per frame and no ray map")
        grid = self.config.patch_grid(*frame.image.shape[-2:])
        turn = self._turn_patches(grid, self.config.enc_embed_dim // self.config.enc_num_heads)
        seam = partial(attend, gate=gate, probe=probe)
        features = self.patch_embed(frame.image.to(self.dtype))
        for block in self.enc_blocks:
            features = block(features, turn, seam)
        return Encoded(self.enc_norm(features), grid)

    def recall(self, encoded: Encoded, state: State, *, probe: Probe | None = None) -> Tensor:
        """Return the pose token ``(batch, 1, channel)`` with which a frame enters the decoders."""
        learned = self.pose_token.expand(len(encoded.features), -1, -1)
        if bool(state.fresh.all()):
            return learned
        seam = partial(attend, probe=probe)
        recalled = self.pose_retriever.read(encoded.features, state.memory, seam)
        return torch.where(state.fresh[:, None, None], learned, recalled)

    def enter(self, encoded: Encoded, state: State, *, probe: Probe | None = None) -> Entered:
        """Ready a frame and a state for the decoders, once for all passes; reads the pose memory.

        On a first frame the state is a projection of the frame's own tokens, and no token has a
        place.
        """
        query = self.recall(encoded, state, probe=probe)
        image = torch.cat([query, self.decoder_embed(encoded.features)], dim=1)
        pointers = state.pointers
        if bool(state.fresh.any()):
            own = Pointers.without_places(self.decoder_embed_memory(encoded.features))
            pointers = pointers.replaced(state.fresh, own)
        turns = self._decoder_turns(state, pointers)
        of_image = cast(DecoderBlock, self.dec_blocks[0])
        of_state = cast(DecoderBlock, self.dec_blocks_memory[0])
        first = {
            "image": of_image.project(image, pointers.features, *turns["image"]),
            "state": of_state.project(pointers.features, image, *turns["state"]),
        }
        return Entered(
            encoded.features, encoded.grid, image, pointers.features, pointers.exists, turns, first
        )

    def decode(
        self, entered: Entered, *, gate: Gate | None = None, probe: Probe | None = None
    ) -> Decoded:
        """Run both decoders; each layer reads the other side's tokens of the layer before."""
        seam = _masked(partial(attend, gate=gate, probe=probe), entered.exists)
        watched = gate is not None or probe is not None
        depth = self.config.dec_depth
        image, tokens, turns = entered.image, entered.state, entered.turns
        levels = [entered.features]
        for layer in range(depth):
            known = entered.first if layer == 0 else {"image": None, "state": None}
            # The image block goes first so that a causal gate on the state block of a layer may
            # use what was seen in the same layer; both read the previous layer's tokens.
            next_image = self.dec_blocks[layer](
                image, tokens, *turns["image"], seam, known["image"]
            )
            if layer + 1 < depth or watched:
                tokens = self.dec_blocks_memory[layer](
                    tokens, image, *turns["state"], seam, known["state"]
                )
            image = next_image
            if layer + 1 in (depth // 2, depth * 3 // 4):
                levels.append(image[:, 1:])
        if len(levels) == 2:  # with two layers, half and three quarters are the same layer
            levels.append(levels[1])
        image = self.dec_norm(image)
        return Decoded(
            levels=[*levels, image[:, 1:]],
            pose_token=image[:, :1],
            grid=entered.grid,
            dropped=self.dec_norm_memory(tokens) if watched else None,
        )

    def predict(
        self,
        decoded: Decoded,
        outputs: Collection[str] | None = None,
        *,
        gate: Gate | None = None,
        probe: Probe | None = None,
    ) -> Prediction:
        """Run the heads that the asked outputs need."""
        channels = self.config.dec_embed_dim // self.config.dec_num_heads
        return self.downstream_head(
            decoded.levels,
            decoded.pose_token,
            decoded.grid,
            self._turn_patches(decoded.grid, channels),
            partial(attend, gate=gate, probe=probe),
            check_outputs(outputs, color=False),
        )

    def offer(
        self, encoded: Encoded, decoded: Decoded, points: Tensor, *, probe: Probe | None = None
    ) -> Candidates:
        """Return what a frame offers the pointers.

        Parameters
        ----------
        encoded, decoded
        points : Tensor
            ``(batch, y, x, xyz)`` world points of the frame.
        probe : callable, optional
        """
        maps = points.movedim(-1, 1)
        turn = self._turn_patches(
            decoded.grid, self.config.enc_embed_dim // self.config.value_num_heads
        )
        seam = partial(attend, probe=probe)
        value = self.pts_patch_embed(maps.to(self.dtype))
        for block in self.value_encoder:
            value = block(value, turn, seam)
        value = self.value_out(self.value_norm(value))
        key = self.memory_attn_head(torch.cat([encoded.features, decoded.levels[-1]], dim=-1))
        positions = F.avg_pool2d(maps.float(), self.config.patch_size).flatten(2).mT
        return Candidates(self.decoder_embed_memory(key + value), positions)

    def commit(
        self,
        frame: Frame,
        encoded: Encoded,
        decoded: Decoded,
        state: State,
        *,
        prediction: Prediction,
        probe: Probe | None = None,
    ) -> tuple[State, Tensor]:
        """Write a frame into pointers and pose memory.

        Parameters
        ----------
        frame, encoded, decoded, state
            What was read, and the state it was read with.
        prediction : Prediction
            With the world points of the pass that is written.
        probe : callable, optional

        Returns
        -------
        state : State
            To carry on.
        rate : Tensor
            ``(batch, pointer)``: 1 where a pointer was overwritten or appended, else 0.

        Raises
        ------
        InvalidArgument
            When world points were not predicted.
        """
        if prediction.points_world is None:
            raise InvalidArgument(
                "Point3R writes the world points of a frame; ask for the output 'points_world'"
            )
        batch = len(encoded.features)
        writes, reset = (self._flags(flag, batch) for flag in (frame.update, frame.reset))
        candidates = self.offer(encoded, decoded, prediction.points_world, probe=probe)
        decisions = state.pointers.decide(candidates.positions)
        pointers = state.pointers.written(candidates, decisions, state.age)
        memory = self.pose_retriever.write(
            encoded.features, decoded.pose_token, state.memory, partial(attend, probe=probe)
        )
        written = State(pointers, candidates.positions, memory, state.age + 1)
        kept = replace(state, age=state.age + 1)
        committed = chosen(reset, self.begin(batch), chosen(writes, written, kept))
        return committed, (committed.pointers.updated == state.age[:, None]).float()

    def step(
        self,
        frame: Frame,
        state: State | None = None,
        *,
        gate: Gate | None = None,
        probe: Probe | None = None,
        outputs: Collection[str] | None = None,
    ) -> Step:
        """Read one frame.

        Parameters
        ----------
        frame : Frame
        state : State, optional
            From the previous step; None starts a sequence.
        gate, probe
            Passed to every attention site.
        outputs : collection of str, optional
            Which predictions to compute (:data:`~mut3r_analysis.backbones.heads.OUTPUTS`); world
            points always are, because they are what is written. None computes all.

        Returns
        -------
        Step
        """
        with arithmetic(self.precision, self.device):
            encoded = self.encode(frame, gate=gate, probe=probe)
            if state is None:
                state = self.begin(len(encoded.features))
            decoded = self.decode(self.enter(encoded, state, probe=probe), gate=gate, probe=probe)
            asked = check_outputs(outputs, color=False)
            prediction = self.predict(decoded, (*asked, "points_world"), gate=gate, probe=probe)
            committed, rate = self.commit(
                frame, encoded, decoded, state, prediction=prediction, probe=probe
            )
        return Step(prediction, cast(Any, committed), rate, cast(Any, decoded))

    def _turn_patches(self, grid: tuple[int, int], channels: int) -> Rotation:
        return rotation(positions(*grid, False, self.device), channels, self.config.rope_base)

    def _decoder_turns(self, state: State, pointers: Pointers) -> dict[str, Turns]:
        """Rotations of a side's own and of the other side's tokens, in its own head width."""
        if bool(state.fresh.all()):
            return {"image": (None, None), "state": (None, None)}
        heads = {"image": self.config.dec_num_heads, "state": self.config.memory_dec_num_heads}
        turns: dict[str, Turns] = {}
        for own, other in (("image", "state"), ("state", "image")):
            channels = self.config.dec_embed_dim // heads[own]
            of = {
                "image": spatial_rotation(state.places, channels, pose=True),
                "state": spatial_rotation(pointers.positions, channels),
            }
            turns[own] = (_still(of[own], state.fresh), _still(of[other], state.fresh))
        return turns

    def _flags(self, value: bool | Tensor, batch: int) -> Tensor:
        return torch.as_tensor(value, dtype=torch.bool, device=self.device).expand(batch)


def _still(turn: Rotation, where: Tensor) -> Rotation:
    """Stop the rotation of samples ``(batch,)`` bool."""
    if not bool(where.any()):
        return turn
    still = where[:, None, None, None]
    return turn._replace(cos=turn.cos.masked_fill(still, 1.0), sin=turn.sin.masked_fill(still, 0.0))


def _masked(seam: Callable[..., Tensor], exists: Tensor | None) -> Attend:
    """Keep the pointers that pad a batch from being read."""
    if exists is None:
        return seam

    def masked(site: Site, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return seam(site, q, k, v, exists=exists if SITE_KINDS[site.kind].keys == "state" else None)

    return masked
