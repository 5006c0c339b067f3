"""CUT3R: a recurrent transformer that carries a scene state from frame to frame.

Written from a description of what the released models compute; parameter names and shapes are
those of official checkpoints, so these load unchanged.
"""

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from mut3r_analysis.attention.seam import Probe, SiteGate, attend
from mut3r_analysis.attention.tokens import Axes, image_axis, memory_axis
from mut3r_analysis.backbones.blocks import Attend, PatchEmbed, decoder, encoder, layer_norm
from mut3r_analysis.backbones.cut3r.config import RAY_ENCODER_HEADS, CUT3RConfig
from mut3r_analysis.backbones.cut3r.start import start_weights
from mut3r_analysis.backbones.heads import OUTPUTS, Heads, check_outputs
from mut3r_analysis.backbones.memory import PoseMemory
from mut3r_analysis.backbones.protocol import StateVariable
from mut3r_analysis.backbones.rotation import (
    positions,
    rotation,
    state_lattice_width,
    state_positions,
)
from mut3r_analysis.backbones.steps import Encoded, Frame, FrameRead, Write
from mut3r_analysis.backbones.two_streams import Entered, TwoStreams
from mut3r_analysis.backbones.write_rules import RuleMemory
from mut3r_analysis.errors import InvalidArgument


@dataclass(frozen=True, eq=False)
class State:
    """What a sequence carries from frame to frame.

    Attributes
    ----------
    tokens : Tensor
        ``(batch, state_token, channel)``.
    memory : Tensor
        ``(batch, slot, channel)`` pose memory.
    fresh : Tensor, optional
        ``(batch,)`` bool: the next frame starts from the learned pose token. None is false
        throughout.
    rules : RuleMemory
        What write rules remember.
    """

    tokens: Tensor
    memory: Tensor
    fresh: Tensor | None
    rules: RuleMemory

    def described(self, before: Self, rate: Tensor, *, keep: bool) -> dict[str, Tensor]:
        """Norms, changes and rates of the tokens, and the pose memory."""
        tokens, memory = self.tokens.float(), self.memory.float()
        values = {
            "norm": tokens.norm(dim=-1),
            "update_size": (tokens - before.tokens.float()).norm(dim=-1),
            "write_rate": rate,
            "memory_norm": memory.norm(dim=-1),
        }
        return values | {"tokens": tokens, "memory": memory} if keep else values


class CUT3R(TwoStreams):
    """CUT3R of any size.

    Parameters
    ----------
    config : CUT3RConfig
    update : str
        Write rule of the state in words, such as ``ttt3r`` or ``ttt3r*const(0.5)``. The weights are
        the same for all.
    """

    config: CUT3RConfig
    reads_rays = True

    def __init__(self, config: CUT3RConfig, *, update: str = "cut3r") -> None:
        super().__init__(config, update=update)
        self.commit_needs = self.rules.outputs
        self.outputs = check_outputs(None, OUTPUTS if config.rgb_head else OUTPUTS[:-1])
        enc, dec, ratio = config.enc_embed_dim, config.dec_embed_dim, config.mlp_ratio
        self.patch_embed = PatchEmbed(3, config.patch_size, enc)
        self.patch_embed_ray_map = PatchEmbed(6, config.patch_size, enc)
        self.masked_img_token = nn.Parameter(torch.zeros(1, enc))
        self.masked_ray_map_token = nn.Parameter(torch.zeros(1, enc))
        self.enc_blocks = encoder(
            config.enc_depth, enc, config.enc_num_heads, ratio, "encoder_self"
        )
        self.enc_norm = layer_norm(enc)
        self.enc_blocks_ray_map = encoder(
            config.ray_enc_depth, enc, RAY_ENCODER_HEADS, ratio, "ray_encoder_self"
        )
        self.enc_norm_ray_map = layer_norm(enc)
        self.decoder_embed = nn.Linear(enc, dec)
        self.decoder_embed_state = nn.Linear(enc, dec)
        self.register_tokens = nn.Embedding(config.state_size, enc)
        self.pose_token = nn.Parameter(torch.zeros(1, 1, dec))
        self.dec_blocks, self.dec_blocks_state = (
            decoder(config.dec_depth, dec, heads, ratio, own, other)
            for heads, own, other in (
                (config.dec_num_heads, "image_self", "image_to_state"),
                (config.state_dec_num_heads, "state_self", "state_to_image"),
            )
        )
        self.dec_norm = layer_norm(dec)
        self.dec_norm_state = layer_norm(dec)
        self.pose_retriever = PoseMemory(config)
        self.downstream_head = Heads(config, color=config.rgb_head)
        self.rotate_encoder_in(self.precision.rotation)

    @property
    def state_decoder(self) -> tuple[nn.ModuleList, nn.LayerNorm]:
        """Layers of the state's decoder, and the norm behind them."""
        return self.dec_blocks_state, self.dec_norm_state

    @property
    def state_heads(self) -> int:
        """Heads of the state's decoder."""
        return self.config.state_dec_num_heads

    def axes(self, grid: tuple[int, int], frames: int = 1) -> Axes:
        """Tokens of the streams ``image`` (pose token, then patches), ``patches`` and ``state``."""
        return _axes(grid, self.config.state_size)

    def begin(self, batch: int = 1) -> State:
        """Return the state before the first frame: learned registers, projected, not normalised."""
        tokens = self.decoder_embed_state(self.register_tokens.weight)
        return State(
            tokens=tokens.expand(batch, -1, -1),
            memory=self.pose_retriever.mem.expand(batch, -1, -1),
            fresh=torch.ones(batch, dtype=torch.bool, device=self.device),
            rules=RuleMemory.start(batch, self.device),
        )

    def encode(
        self, frame: Frame, *, gate: SiteGate | None = None, probe: Probe | None = None
    ) -> Encoded:
        """Encode a frame into normalised tokens."""
        seam = partial(attend, gate=gate, probe=probe)
        features: Tensor | None = None
        grid = (0, 0)
        if frame.image is not None:
            grid = self.config.patch_grid(*frame.image.shape[-2:])
            features = self.encode_image(frame.image, grid, seam)
        if frame.ray_map is not None:
            grid_rays = self.config.patch_grid(*frame.ray_map.shape[1:3])
            if features is not None and grid_rays != grid:
                raise InvalidArgument(
                    f"image and ray map of one frame must have the same size, "
                    f"got patch grids {grid} and {grid_rays}"
                )
            grid = grid_rays
            rays = self._encode_rays(frame.ray_map.to(self.dtype), grid, seam)
            features = rays if features is None else features + rays
        if features is None:
            raise InvalidArgument("a frame needs an image, a ray map, or both; got neither")
        return Encoded(features, grid)

    def enter(self, encoded: Encoded, state: State, *, probe: Probe | None = None) -> Entered:
        """Prepare a frame and a state for the decoders; the pose memory is read."""
        query = self.pose_query(encoded, state.memory, state.fresh, partial(attend, probe=probe))
        places = {
            "image": positions(*encoded.grid, True, self.device),
            "state": state_positions(self.config.state_size, self.device),
        }
        turns = {
            side: partial(rotation, place, base=self.config.rope_base)
            for side, place in places.items()
        }
        return self.entered(encoded, query, state.tokens, turns)

    def commit(
        self, read: FrameRead, state: State, write: Write, *, probe: Probe | None = None
    ) -> tuple[State, Tensor]:
        """Write a frame into state and pose memory; returns the new state and the rate."""
        frame, encoded, decoded, _ = read
        batch = len(state.tokens)
        may_write = self.flags(frame.update, batch)
        if frame.image is None:
            may_write = torch.zeros_like(may_write)
        reset = self.flags(frame.reset, batch)
        assert decoded.proposal is not None
        rules = write.rules or self.rules
        known = self._signals(rules.needs, read, state)
        ruling = rules.ruling(
            {**known, **decoded.signals, **write.signals}, state.rules, wrote=may_write, reset=reset
        )
        rate = ruling.rate * may_write[:, None]
        rate = rate if write.factor is None else rate * write.factor
        memory = self.pose_retriever.write(
            encoded.features if write.summary is None else write.summary,
            decoded.pose_token,
            state.memory,
            partial(attend, probe=probe),
        )
        initial = self.begin(batch)
        tokens = _blend(state.tokens, ruling.target, rate[..., None])
        remembers = (may_write & self.flags(write.remember, batch))[:, None].float()
        if ruling.memory_rate is not None:
            remembers = remembers * ruling.memory_rate
        memory = _blend(state.memory, memory, remembers[..., None])
        restart = self.restarts if write.restart is None else write.restart
        committed = State(
            tokens=torch.where(reset[:, None, None], initial.tokens, tokens),
            memory=torch.where(reset[:, None, None], initial.memory, memory),
            fresh=None if frame.reset is False else reset & self.flags(restart, batch),
            rules=ruling.remembered,
        )
        return committed, rate

    def state_variables(self, grid: tuple[int, int], frames: int) -> tuple[StateVariable, ...]:
        """Norms, changes and rates of the state's tokens, and the pose memory."""
        width = self.config.dec_embed_dim
        tokens, slots = (
            {"state_token": self.config.state_size},
            {"slot": self.config.local_mem_size},
        )
        return (
            StateVariable("norm", tokens, "norm of the state token"),
            StateVariable("update_size", tokens, "norm of the change of the state token"),
            StateVariable("write_rate", tokens, "share of the token replaced"),
            StateVariable("memory_norm", slots, "norm of the pose-memory slot"),
            StateVariable("tokens", tokens | {"channel": width}, "state tokens", kept=True),
            StateVariable(
                "memory", slots | {"memory_channel": 2 * width}, "pose memory", kept=True
            ),
        )

    def restore(self, held: Mapping[str, Tensor], age: int, restart: bool | None) -> State:
        """Return the state that kept tokens and memory describe."""
        tokens, memory = (
            held[name][None].to(self.device, self.dtype) for name in ("tokens", "memory")
        )
        restarts = self.restarts if restart is None else restart
        fresh, begun = (
            torch.tensor([flag], device=self.device) for flag in (age == 0 and restarts, age > 0)
        )
        return State(tokens, memory, fresh, RuleMemory(begun, {}, torch.zeros_like(begun)))

    def meta_state(self, grid: tuple[int, int], frames: int) -> State:
        """Return the shapes of a state that is not fresh."""
        return replace(self.begin(), fresh=None)

    def start_weights(self, choices: Any) -> None:
        """Set the weights that a training from scratch begins with."""
        start_weights(self, choices)

    def coarse(self, side: int) -> Self:
        """Return the model for a part of its state; weights are shared."""
        places = state_positions(self.config.state_size, self.device)
        small = copy.copy(self)
        small.config = replace(self.config, state_size=side**2)
        registers = nn.Module()
        registers.weight = self.register_tokens.weight[(places < side).all(dim=1)]
        small._modules = {**self._modules, "register_tokens": registers}
        return small

    def _signals(self, needs: Collection[str], read: FrameRead, state: State) -> dict[str, Tensor]:
        """Return what write rules need of a frame, beside what the decoder took for them."""
        frame, encoded, decoded, prediction = read
        batch, proposal = len(state.tokens), decoded.proposal
        found = {"features": encoded.features, "before": state.tokens, "proposal": proposal}
        if "initial" in needs:
            found["initial"] = self.begin(batch).tokens
        if "embedded" in needs:
            found["embedded"] = self.decoder_embed(encoded.features)
        if "decoded" in needs:
            found["decoded"] = decoded.levels[-1]
        if "image" in needs and frame.image is not None:
            found["image"] = frame.image.expand(batch, -1, -1, -1)
        if prediction is not None and prediction.pose is not None:
            found["pose"] = prediction.pose
        if prediction is not None and prediction.points_self is not None:
            found["depth"] = prediction.points_self[..., 2]
        return found

    def _encode_rays(self, ray_map: Tensor, grid: tuple[int, int], seam: Attend) -> Tensor:
        place = self.patch_rotation(grid, self.config.enc_embed_dim // RAY_ENCODER_HEADS)
        tokens = self.patch_embed_ray_map(ray_map.permute(0, 3, 1, 2))
        for block in self.enc_blocks_ray_map:
            tokens = block(tokens, place, seam)
        return self.enc_norm_ray_map(tokens)


@lru_cache(maxsize=64)
def _axes(grid: tuple[int, int], state_size: int) -> Axes:
    width = state_lattice_width(state_size)
    return {
        "image": image_axis(grid, ("pose",)),
        "patches": image_axis(grid),
        "state": memory_axis(state_size, "state", width=width, place="state lattice"),
    }


def _blend(old: Tensor, new: Tensor, rate: Tensor) -> Tensor:
    """Move from old to new by a float32 rate; exact where the rate is 0 or 1."""
    return (rate * new + (1 - rate) * old).to(new.dtype)
