"""Point3R: a transformer that carries a growing set of pointers from frame to frame.

Written from a description of what the released model computes; parameter names and shapes are those
of official checkpoints, so these load unchanged.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mut3r_analysis.attention.seam import Probe, SiteGate, attend
from mut3r_analysis.attention.sites import SiteSize
from mut3r_analysis.attention.tokens import Axes, image_axis, memory_axis
from mut3r_analysis.backbones.blocks import PatchEmbed, decoder, encoder, layer_norm
from mut3r_analysis.backbones.heads import OUTPUTS, Heads
from mut3r_analysis.backbones.memory import PoseMemory
from mut3r_analysis.backbones.point3r.config import Point3RConfig
from mut3r_analysis.backbones.point3r.pointers import Candidates, Pointers
from mut3r_analysis.backbones.point3r.rotation import spatial_rotation
from mut3r_analysis.backbones.point3r.start import start_weights
from mut3r_analysis.backbones.protocol import StateVariable
from mut3r_analysis.backbones.rotation import Rotation
from mut3r_analysis.backbones.steps import Encoded, Frame, FrameRead, Write
from mut3r_analysis.backbones.two_streams import Decoded, Entered, TwoStreams
from mut3r_analysis.errors import InvalidArgument


@dataclass(frozen=True, eq=False)
class State:
    """What a sequence carries from frame to frame.

    Attributes
    ----------
    pointers : Pointers
    places : Tensor
        ``(batch, patch, xyz)`` mean world point of each patch of the previous frame: where the
        next frame's patches are taken to be.
    memory : Tensor
        ``(batch, slot, channel)`` pose memory.
    age : Tensor
        ``(batch,)`` frames since the start or the last reset.
    fresh : Tensor, optional
        ``(batch,)`` bool: no frame has been written since then. None is false throughout.
    learned : Tensor, optional
        ``(batch,)`` bool: the next frame starts from the learned pose token. None is false
        throughout.
    """

    pointers: Pointers
    places: Tensor
    memory: Tensor
    age: Tensor
    fresh: Tensor | None
    learned: Tensor | None

    @property
    def tokens(self) -> Tensor:
        """``(batch, pointer, channel)`` features of the pointers."""
        return self.pointers.features

    def described(self, before: Self, rate: Tensor, *, keep: bool) -> dict[str, Tensor]:
        """Pointers with their norms, changes, places and times, and the pose memory."""
        pointers, memory = self.pointers, self.memory.float()
        tokens, old = pointers.features.float(), before.tokens.float()
        known = old.shape[1]
        shared = tokens[:, :known] - old[:, : tokens.shape[1]]
        change = torch.cat([shared, tokens[:, known:]], dim=1)
        values = {
            "pointer_count": pointers.count,
            "norm": tokens.norm(dim=-1),
            "update_size": change.norm(dim=-1),
            "write_rate": rate,
            "positions": pointers.positions,
            "birth": pointers.birth,
            "updated": pointers.updated,
            "memory_norm": memory.norm(dim=-1),
        }
        kept = {"tokens": tokens, "memory": memory, "places": self.places}
        return values | kept if keep else values


class Point3R(TwoStreams):
    """Point3R of any size.

    Parameters
    ----------
    config : Point3RConfig
    update : {"cut3r"}
        Pointers are written whole. There is no rate, since none of them is kept in part.

    Notes
    -----
    Official code has neither frames that must not write nor resets; here both are honoured.
    """

    config: Point3RConfig
    commit_needs = ("points_world",)
    state_dim = "pointer"
    state_grows = True
    writes_proposal = False
    written_whole = "pointers are written whole"
    outputs = OUTPUTS[:-1]

    def __init__(self, config: Point3RConfig, *, update: str = "cut3r") -> None:
        super().__init__(config, update=update)
        enc, dec, ratio = config.enc_embed_dim, config.dec_embed_dim, config.mlp_ratio
        self.patch_embed = PatchEmbed(3, config.patch_size, enc)
        self.enc_blocks = encoder(
            config.enc_depth, enc, config.enc_num_heads, ratio, "encoder_self"
        )
        self.enc_norm = layer_norm(enc)
        self.decoder_embed = nn.Linear(enc, dec)
        self.decoder_embed_memory = nn.Linear(enc, dec)
        self.pose_token = nn.Parameter(torch.zeros(1, 1, dec))
        self.dec_blocks, self.dec_blocks_memory = (
            decoder(config.dec_depth, dec, heads, ratio, own, other)
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
        self.value_encoder = encoder(
            config.value_depth, enc, config.value_num_heads, ratio, "value_self"
        )
        self.value_norm = layer_norm(enc)
        self.value_out = nn.Linear(enc, enc)
        self.memory_attn_head = nn.Sequential(
            nn.Linear(enc + dec, enc + dec), nn.GELU(), nn.Linear(enc + dec, enc)
        )
        self.rotate_encoder_in(self.precision.rotation)

    @property
    def restarts(self) -> bool:
        """A reset starts a new world, with the learned pose token."""
        return True

    @property
    def state_decoder(self) -> tuple[nn.ModuleList, nn.LayerNorm]:
        """Layers of the pointers' decoder, and the norm behind them."""
        return self.dec_blocks_memory, self.dec_norm_memory

    @property
    def state_heads(self) -> int:
        """Heads of the pointers' decoder."""
        return self.config.memory_dec_num_heads

    def axes(self, grid: tuple[int, int], frames: int = 1) -> Axes:
        """Tokens of the streams ``image``, ``patches`` and ``state``: at most a patch a frame."""
        return _axes(grid, frames)

    def sites(self) -> dict[str, SiteSize]:
        """Layers, heads and head width of every site kind that may be captured or gated."""
        config = self.config
        value = SiteSize.of(config.value_depth, config.value_num_heads, config.enc_embed_dim)
        return super().sites() | {"value_self": value}

    def begin(self, batch: int = 1) -> State:
        """Return the state before the first frame: no pointers, and the learned pose memory."""
        return State(
            pointers=Pointers.none(batch, self.config.dec_embed_dim, self.device, self.dtype),
            places=torch.zeros(batch, 1, 3, device=self.device),
            memory=self.pose_retriever.mem.expand(batch, -1, -1),
            age=torch.zeros(batch, dtype=torch.long, device=self.device),
            fresh=torch.ones(batch, dtype=torch.bool, device=self.device),
            learned=torch.ones(batch, dtype=torch.bool, device=self.device),
        )

    def encode(
        self, frame: Frame, *, gate: SiteGate | None = None, probe: Probe | None = None
    ) -> Encoded:
        """Encode a frame into normalised tokens."""
        if frame.image is None or frame.ray_map is not None:
            raise InvalidArgument("Point3R reads an image per frame and no ray map")
        grid = self.config.patch_grid(*frame.image.shape[-2:])
        seam = partial(attend, gate=gate, probe=probe)
        return Encoded(self.encode_image(frame.image, grid, seam), grid)

    def enter(self, encoded: Encoded, state: State, *, probe: Probe | None = None) -> Entered:
        """Prepare a frame and a state for the decoders, once for all passes; reads the pose memory.

        On a first frame the state is a projection of the frame's own tokens, and no token has a
        place.
        """
        query = self.pose_query(encoded, state.memory, state.learned, partial(attend, probe=probe))
        pointers = state.pointers
        if state.fresh is not None and bool(state.fresh.any()):
            own = Pointers.without_places(self.decoder_embed_memory(encoded.features))
            pointers = pointers.replaced(state.fresh, own)
        turns = None
        if state.fresh is None or not bool(state.fresh.all()):
            turns = {
                "image": partial(_turn, state.places, state.fresh, pose=True),
                "state": partial(_turn, pointers.positions, state.fresh),
            }
        return self.entered(encoded, query, pointers.features, turns, pointers.exists)

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
        place = self.patch_rotation(
            decoded.grid, self.config.enc_embed_dim // self.config.value_num_heads
        )
        seam = partial(attend, probe=probe)
        value = self.pts_patch_embed(maps.to(self.dtype))
        for block in self.value_encoder:
            value = block(value, place, seam)
        value = self.value_out(self.value_norm(value))
        key = self.memory_attn_head(torch.cat([encoded.features, decoded.levels[-1]], dim=-1))
        positions = F.avg_pool2d(maps.float(), self.config.patch_size).flatten(2).mT
        return Candidates(self.decoder_embed_memory(key + value), positions)

    def commit(
        self, read: FrameRead, state: State, write: Write, *, probe: Probe | None = None
    ) -> tuple[State, Tensor]:
        """Write a frame into pointers and pose memory.

        The rate ``(batch, pointer)`` is 1 where a pointer was overwritten or appended, else 0. A
        factor of 0 leaves all pointers as they were.

        Raises
        ------
        InvalidArgument
            When world points were not predicted.
        """
        frame, encoded, decoded, prediction = read
        if prediction is None or prediction.points_world is None:
            raise InvalidArgument(
                "Point3R writes the world points of a frame; ask for the output 'points_world'"
            )
        batch = len(encoded.features)
        may_write, reset = (self.flags(flag, batch) for flag in (frame.update, frame.reset))
        writes = self.writes(frame, write, batch)
        candidates = self.offer(encoded, decoded, prediction.points_world, probe=probe)
        memory = self.pose_retriever.write(
            encoded.features if write.summary is None else write.summary,
            decoded.pose_token,
            state.memory,
            partial(attend, probe=probe),
        )
        if memory.is_meta:
            return state, torch.ones(batch, state.tokens.shape[1], device=memory.device)
        decisions = state.pointers.decide(candidates.positions)
        pointers = state.pointers.written(candidates, decisions, state.age)
        remembers = (may_write & self.flags(write.remember, batch))[:, None, None]
        kept = replace(
            state,
            places=state.places.expand_as(candidates.positions),
            memory=torch.where(remembers, memory, state.memory),
            age=state.age + 1,
            learned=torch.zeros_like(reset),
        )
        written = replace(
            kept,
            pointers=pointers,
            places=candidates.positions,
            fresh=torch.zeros_like(reset),
        )
        restart = self.restarts if write.restart is None else write.restart
        anew = replace(self.begin(batch), learned=self.flags(restart, batch))
        committed = _chosen(reset, anew, _chosen(writes, written, kept))
        return committed, (committed.pointers.updated == state.age[:, None]).float()

    def state_variables(self, grid: tuple[int, int], frames: int) -> tuple[StateVariable, ...]:
        """Pointers with their norms, changes, places and times, and the pose memory."""
        width = self.config.dec_embed_dim
        patches = grid[0] * grid[1]
        wide = {"memory_channel": 2 * width}
        pointers, slots = {"pointer": patches * frames}, {"slot": self.config.local_mem_size}
        xyz = {"xyz": 3}
        return (
            StateVariable("pointer_count", {}, "pointers there are", dtype="int64"),
            StateVariable("norm", pointers, "norm of the pointer's feature"),
            StateVariable("update_size", pointers, "norm of the change of the pointer's feature"),
            StateVariable("write_rate", pointers, "whether the pointer was written"),
            StateVariable("positions", pointers | xyz, "place of the pointer in the world", "m"),
            StateVariable("birth", pointers, "frame that appended the pointer", dtype="int64"),
            StateVariable("updated", pointers, "frame that last wrote the pointer", dtype="int64"),
            StateVariable("memory_norm", slots, "norm of the pose-memory slot"),
            StateVariable("tokens", pointers | {"channel": width}, "pointer features", kept=True),
            StateVariable("memory", slots | wide, "pose memory", kept=True),
            StateVariable(
                "places", {"patch": patches} | xyz, "mean world point of the patch", "m", kept=True
            ),
        )

    def restore(self, held: Mapping[str, Tensor], age: int, restart: bool | None) -> State:
        """Return the state that pointers, places and memory describe."""
        count = int(held["pointer_count"])
        parts = {name: held[name][None, :count].to(self.device) for name in _POINTER_PARTS}
        anew = self.begin()
        if age == 0:
            restarts = self.restarts if restart is None else restart
            return replace(anew, learned=torch.tensor([restarts], device=self.device))
        pointers = Pointers(
            parts["tokens"].to(self.dtype),
            parts["positions"],
            parts["birth"],
            parts["updated"],
            torch.tensor([count], device=self.device),
        )
        return State(
            pointers,
            held["places"][None].to(self.device),
            held["memory"][None].to(self.device, self.dtype),
            torch.tensor([age], device=self.device),
            fresh=torch.tensor([count == 0], device=self.device),
            learned=torch.zeros(1, dtype=torch.bool, device=self.device),
        )

    def meta_state(self, grid: tuple[int, int], frames: int) -> State:
        """Return the shapes of a state that has appended half of all patches so far."""
        patches = grid[0] * grid[1]
        count = patches * max(1, frames // 2)
        features = torch.empty(1, count, self.config.dec_embed_dim, device=self.device)
        state = self.begin()
        return replace(
            state,
            pointers=Pointers.without_places(features),
            places=torch.empty(1, patches, 3, device=self.device),
            fresh=None,
            learned=None,
        )

    def start_weights(self, choices: Any) -> None:
        """Set the weights that a training from scratch begins with."""
        start_weights(self, choices)


_POINTER_PARTS = ("tokens", "positions", "birth", "updated")


@lru_cache(maxsize=64)
def _axes(grid: tuple[int, int], frames: int) -> Axes:
    return {
        "image": image_axis(grid, ("pose",)),
        "patches": image_axis(grid),
        "state": memory_axis(grid[0] * grid[1] * frames, "pointer", grows="pointer"),
    }


def _turn(places: Tensor, where: Tensor | None, channels: int, *, pose: bool = False) -> Rotation:
    """Rotation of tokens at places, but none for samples ``(batch,)`` bool."""
    turn = spatial_rotation(places, channels, pose=pose)
    if where is None or not bool(where.any()):
        return turn
    still = where[:, None, None, None]
    return turn._replace(cos=turn.cos.masked_fill(still, 1.0), sin=turn.sin.masked_fill(still, 0.0))


def _chosen(where: Tensor, one: State, other: State) -> State:
    """Take the samples ``(batch,)`` bool of one state, and the rest of the other."""
    if bool(where.all()):
        return one
    if not bool(where.any()):
        return other
    row = where[:, None, None]
    flags = {
        name: torch.where(where, getattr(one, name), getattr(other, name))
        for name in ("age", "fresh", "learned")
    }
    return State(
        pointers=other.pointers.replaced(where, one.pointers),
        places=torch.where(row, one.places, other.places),
        memory=torch.where(row, one.memory, other.memory),
        **flags,
    )
