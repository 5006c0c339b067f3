"""CUT3R: a recurrent transformer that carries a scene state from frame to frame.

Written from a description of what the released models compute; parameter names and shapes are
those of official checkpoints, so these load unchanged.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from mut3r_analysis.attention.seam import Gate, Probe, attend
from mut3r_analysis.attention.sites import Site
from mut3r_analysis.backbones.blocks import (
    Attend,
    DecoderBlock,
    EncoderBlock,
    PatchEmbed,
    Projected,
    SelfAttention,
    layer_norm,
)
from mut3r_analysis.backbones.config import RAY_ENCODER_HEADS, CUT3RConfig
from mut3r_analysis.backbones.heads import Heads, Prediction, check_outputs
from mut3r_analysis.backbones.memory import PoseMemory
from mut3r_analysis.backbones.precision import PRECISIONS, Precision, arithmetic
from mut3r_analysis.backbones.preparation import Preparation
from mut3r_analysis.backbones.rotation import (
    Rotation,
    positions,
    rotation,
    state_positions,
)
from mut3r_analysis.backbones.write_rules import (
    WRITE_RULES,
    History,
    MeanLogitMap,
    full_rate,
    ttsa3r_rate,
    ttt3r_rate,
)
from mut3r_analysis.errors import InvalidArgument


class SiteSize(NamedTuple):
    """How many layers and heads a site kind has, and how many channels a head."""

    layers: int
    heads: int
    channels: int


@dataclass(frozen=True)
class Origin:
    """Where a backbone's weights come from.

    Attributes
    ----------
    name : str
    sha256 : str
        Of the checkpoint file (or of the recipe of random weights), hexadecimal.
    report : tuple of str
        What was rewritten on loading, and warnings a reader of results should see.
    """

    name: str
    sha256: str
    report: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a batch of sequences.

    Attributes
    ----------
    image : Tensor, optional
        ``(batch, rgb, y, x)`` in [-1, 1].
    ray_map : Tensor, optional
        ``(batch, y, x, 6)``: origin and unit direction of each pixel's ray. Alone it queries the
        state without changing it; with an image the features are summed.
    update : bool or Tensor
        Whether the frame may write state and memory, or ``(batch,)`` of that.
    reset : bool or Tensor
        Whether state and memory return to their initial values *after* this frame.
    """

    image: Tensor | None = None
    ray_map: Tensor | None = None
    update: bool | Tensor = True
    reset: bool | Tensor = False


@dataclass(frozen=True, eq=False)
class State:
    """What a sequence carries from frame to frame.

    Attributes
    ----------
    tokens : Tensor
        ``(batch, state_token, channel)``.
    memory : Tensor
        ``(batch, slot, channel)`` pose memory.
    fresh : Tensor
        ``(batch,)`` bool: the next frame starts from the learned pose token.
    history : History, optional
        Previous-frame buffers of the write rule that needs them.
    """

    tokens: Tensor
    memory: Tensor
    fresh: Tensor
    history: History | None = None


@dataclass(frozen=True, eq=False)
class Encoded:
    """Encoder tokens of a frame ``(batch, patch, channel)`` and their grid (rows, columns)."""

    features: Tensor
    grid: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Entered:
    """A frame and a state about to meet in the decoders: all that passes over a frame share.

    Attributes
    ----------
    features : Tensor
        ``(batch, patch, channel)`` encoder tokens.
    image, state : Tensor
        ``(batch, token, channel)`` what the first layers read; the pose token leads the image.
    turns : dict of str to (Rotation, Rotation)
        Side -> rotations of its own and of the other side's tokens, in its own head width.
    first : dict of str to Projected
        Side -> what its first layer projects, which no gate can change.
    """

    features: Tensor
    image: Tensor
    state: Tensor
    turns: dict[str, tuple[Rotation, Rotation]]
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
    pose_query : Tensor
        ``(batch, 1, channel)`` the pose token that entered the decoder.
    proposal : Tensor
        ``(batch, state_token, channel)`` the new state, before any write rule.
    mean_logit : Tensor, optional
        The write rule's statistic.
    """

    levels: list[Tensor]
    pose_token: Tensor
    pose_query: Tensor
    proposal: Tensor
    mean_logit: Tensor | None


@dataclass(frozen=True, eq=False)
class Step:
    """Result of one frame: prediction, state to carry on, and the write rate that made it.

    ``rate`` is ``(batch, state_token)``: the share of each state token that was replaced.
    """

    prediction: Prediction
    state: State
    rate: Tensor
    decoded: Decoded


class CUT3R(nn.Module):
    """CUT3R of any size.

    Parameters
    ----------
    config : CUT3RConfig
    update : {"cut3r", "ttt3r", "ttsa3r"}
        Write rule of the state. The weights are the same for all.

    Attributes
    ----------
    origin : Origin
    precision : Precision
    preparation : Preparation
        How frames of any size become this model's input.

    Notes
    -----
    :meth:`step` does a whole frame. Its parts (:meth:`encode`, :meth:`recall`, :meth:`enter`,
    :meth:`predict`, :meth:`write`) are public, so that passes over one frame can share work.
    """

    def __init__(self, config: CUT3RConfig, *, update: str = "cut3r") -> None:
        super().__init__()
        if update not in WRITE_RULES:
            raise InvalidArgument(
                f"update = {update!r} is not a write rule; choose one of {', '.join(WRITE_RULES)}"
            )
        self.config = config
        self.update = update
        self.origin = Origin("untrained", sha256="", report=("weights were never loaded",))
        self.precision: Precision = PRECISIONS["float32"]
        self.preparation = Preparation(max(config.img_size), patch=config.patch_size)
        enc, dec, ratio = config.enc_embed_dim, config.dec_embed_dim, config.mlp_ratio
        self.patch_embed = PatchEmbed(3, config.patch_size, enc)
        self.patch_embed_ray_map = PatchEmbed(6, config.patch_size, enc)
        self.masked_img_token = nn.Parameter(torch.zeros(1, enc))
        self.masked_ray_map_token = nn.Parameter(torch.zeros(1, enc))
        self.enc_blocks = nn.ModuleList(
            EncoderBlock(enc, config.enc_num_heads, ratio, Site("encoder_self", layer))
            for layer in range(config.enc_depth)
        )
        self.enc_norm = layer_norm(enc)
        self.enc_blocks_ray_map = nn.ModuleList(
            EncoderBlock(enc, RAY_ENCODER_HEADS, ratio, Site("ray_encoder_self", layer))
            for layer in range(config.ray_enc_depth)
        )
        self.enc_norm_ray_map = layer_norm(enc)
        self.decoder_embed = nn.Linear(enc, dec)
        self.decoder_embed_state = nn.Linear(enc, dec)
        self.register_tokens = nn.Embedding(config.state_size, enc)
        self.pose_token = nn.Parameter(torch.zeros(1, 1, dec))
        self.dec_blocks = nn.ModuleList(
            DecoderBlock(
                dec,
                config.dec_num_heads,
                ratio,
                Site("image_self", layer),
                Site("image_to_state", layer),
            )
            for layer in range(config.dec_depth)
        )
        self.dec_blocks_state = nn.ModuleList(
            DecoderBlock(
                dec,
                config.state_dec_num_heads,
                ratio,
                Site("state_self", layer),
                Site("state_to_image", layer),
            )
            for layer in range(config.dec_depth)
        )
        self.dec_norm = layer_norm(dec)
        self.dec_norm_state = layer_norm(dec)
        self.pose_retriever = PoseMemory(config)
        self.downstream_head = Heads(config, color=config.rgb_head)
        self.rotate_encoder_in(self.precision.rotation)

    def rotate_encoder_in(self, dtype: torch.dtype | None) -> None:
        """Set the storage dtype of the image encoder's queries and keys around their rotation.

        Released models were trained and are run with float16 there; None keeps the model's dtype.
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
        image = SiteSize(
            config.dec_depth, config.dec_num_heads, config.dec_embed_dim // config.dec_num_heads
        )
        state = SiteSize(
            config.dec_depth,
            config.state_dec_num_heads,
            config.dec_embed_dim // config.state_dec_num_heads,
        )
        encoder = SiteSize(
            config.enc_depth, config.enc_num_heads, config.enc_embed_dim // config.enc_num_heads
        )
        return {
            "image_self": image,
            "image_to_state": image,
            "state_self": state,
            "state_to_image": state,
            "encoder_self": encoder,
            "head_self": image._replace(layers=len(self.downstream_head.final_transform)),
        }

    def initial_state(self, batch: int = 1) -> State:
        """Return the state before the first frame: learned registers, projected, not normalised."""
        tokens = self.decoder_embed_state(self.register_tokens.weight)
        return State(
            tokens=tokens.expand(batch, -1, -1),
            memory=self.pose_retriever.mem.expand(batch, -1, -1),
            fresh=torch.ones(batch, dtype=torch.bool, device=self.device),
        )

    def encode(
        self, frame: Frame, *, gate: Gate | None = None, probe: Probe | None = None
    ) -> Encoded:
        """Encode a frame into normalised tokens."""
        seam = partial(attend, gate=gate, probe=probe)
        features: Tensor | None = None
        grid = (0, 0)
        if frame.image is not None:
            grid = self.config.patch_grid(*frame.image.shape[-2:])
            turn = self._turn_patches(grid, self.config.enc_embed_dim // self.config.enc_num_heads)
            features = self.patch_embed(frame.image.to(self.dtype))
            for block in self.enc_blocks:
                features = block(features, turn, seam)
            features = self.enc_norm(features)
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

    def recall(self, encoded: Encoded, state: State, *, probe: Probe | None = None) -> Tensor:
        """Return the pose token ``(batch, 1, channel)`` with which a frame enters the decoders."""
        learned = self.pose_token.expand(len(encoded.features), -1, -1)
        if bool(state.fresh.all()):
            return learned
        seam = partial(attend, probe=probe)
        recalled = self.pose_retriever.read(encoded.features, state.memory, seam)
        return torch.where(state.fresh[:, None, None], learned, recalled)

    def enter(self, encoded: Encoded, state: State, query: Tensor) -> Entered:
        """Ready a frame, its pose token and the state for the decoders, once for all passes."""
        image = torch.cat([query, self.decoder_embed(encoded.features)], dim=1)
        turns = self._decoder_turns(encoded.grid)
        of_image = cast(DecoderBlock, self.dec_blocks[0])
        of_state = cast(DecoderBlock, self.dec_blocks_state[0])
        first = {
            "image": of_image.project(image, state.tokens, *turns["image"]),
            "state": of_state.project(state.tokens, image, *turns["state"]),
        }
        return Entered(encoded.features, image, state.tokens, turns, first)

    def decode(
        self, entered: Entered, *, gate: Gate | None = None, probe: Probe | None = None
    ) -> Decoded:
        """Run both decoders; each layer reads the other side's tokens of the layer before."""
        make_rule_probe = WRITE_RULES[self.update].probe
        rule_probe = make_rule_probe() if make_rule_probe else None
        seam = partial(attend, gate=gate, probe=_both(rule_probe, probe))
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
            tokens = self.dec_blocks_state[layer](
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
            pose_query=entered.image[:, :1],
            proposal=self.dec_norm_state(tokens),
            mean_logit=rule_probe.mean if rule_probe else None,
        )

    def predict(
        self,
        decoded: Decoded,
        grid: tuple[int, int],
        outputs: Collection[str] | None = None,
        *,
        gate: Gate | None = None,
        probe: Probe | None = None,
    ) -> Prediction:
        """Run the heads that the asked outputs need."""
        return self.downstream_head(
            decoded.levels,
            decoded.pose_token,
            grid,
            self._turn_patches(grid, self.config.dec_embed_dim // self.config.dec_num_heads),
            partial(attend, gate=gate, probe=probe),
            check_outputs(outputs, self.config.rgb_head),
        )

    def write(
        self,
        frame: Frame,
        encoded: Encoded,
        decoded: Decoded,
        state: State,
        *,
        factor: Tensor | None = None,
        remember: bool | Tensor = True,
        summary: Tensor | None = None,
        restart: bool | Tensor | None = None,
        probe: Probe | None = None,
    ) -> tuple[State, Tensor]:
        """Commit a frame.

        Parameters
        ----------
        frame, encoded, decoded, state
            What was read, and the state it was read with.
        factor : Tensor, optional
            ``(batch, state_token)`` multiplies the write rule's rate.
        remember : bool or Tensor
            Whether the pose memory may change, or ``(batch,)`` of that.
        summary : Tensor, optional
            ``(batch, 1, channel)`` stands for the mean encoder token in the pose memory.
        restart : bool or Tensor, optional
            Whether the frame after a reset starts from the learned pose token, or ``(batch,)`` of
            that; None is what the write rule does.
        probe : callable, optional

        Returns
        -------
        state : State
            To carry on.
        rate : Tensor
            ``(batch, state_token)`` share of each state token that was replaced.
        """
        batch = len(state.tokens)
        may_write = self._flags(frame.update, batch)
        if frame.image is None:
            may_write = torch.zeros_like(may_write)
        reset = self._flags(frame.reset, batch)
        rate = self._rate(encoded, decoded, state) * may_write[:, None]
        rate = rate if factor is None else rate * factor
        memory = self.pose_retriever.write(
            encoded.features if summary is None else summary,
            decoded.pose_token,
            state.memory,
            partial(attend, probe=probe),
        )
        initial = self.initial_state(batch)
        tokens = _blend(state.tokens, decoded.proposal, rate[..., None])
        remembers = may_write & self._flags(remember, batch)
        memory = _blend(state.memory, memory, remembers[:, None, None].float())
        restarts = WRITE_RULES[self.update].restart if restart is None else restart
        committed = State(
            tokens=torch.where(reset[:, None, None], initial.tokens, tokens),
            memory=torch.where(reset[:, None, None], initial.memory, memory),
            fresh=reset & self._flags(restarts, batch),
            history=self._history(encoded, decoded, state, may_write, reset),
        )
        return committed, rate

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
            Which predictions to compute (:data:`~mut3r_analysis.backbones.heads.OUTPUTS`); the
            dense heads are more than a third of a frame's cost. None computes all.

        Returns
        -------
        Step
        """
        with arithmetic(self.precision, self.device):
            encoded = self.encode(frame, gate=gate, probe=probe)
            if state is None:
                state = self.initial_state(len(encoded.features))
            entered = self.enter(encoded, state, self.recall(encoded, state, probe=probe))
            decoded = self.decode(entered, gate=gate, probe=probe)
            prediction = self.predict(decoded, encoded.grid, outputs, gate=gate, probe=probe)
            committed, rate = self.write(frame, encoded, decoded, state, probe=probe)
        return Step(prediction, committed, rate, decoded)

    def _encode_rays(self, ray_map: Tensor, grid: tuple[int, int], seam: Attend) -> Tensor:
        turn = self._turn_patches(grid, self.config.enc_embed_dim // RAY_ENCODER_HEADS)
        tokens = self.patch_embed_ray_map(ray_map.permute(0, 3, 1, 2))
        for block in self.enc_blocks_ray_map:
            tokens = block(tokens, turn, seam)
        return self.enc_norm_ray_map(tokens)

    def _turn_patches(self, grid: tuple[int, int], channels: int) -> Rotation:
        return rotation(positions(*grid, False, self.device), channels, self.config.rope_base)

    def _decoder_turns(self, grid: tuple[int, int]) -> dict[str, tuple[Rotation, Rotation]]:
        """Rotations of a side's own and of the other side's tokens, in its own head width."""
        places = {
            "image": positions(*grid, True, self.device),
            "state": state_positions(self.config.state_size, self.device),
        }
        heads = {"image": self.config.dec_num_heads, "state": self.config.state_dec_num_heads}
        turns = {}
        for own, other in (("image", "state"), ("state", "image")):
            channels = self.config.dec_embed_dim // heads[own]
            own_turn, other_turn = (
                rotation(places[side], channels, self.config.rope_base) for side in (own, other)
            )
            turns[own] = (own_turn, other_turn)
        return turns

    def _rate(self, encoded: Encoded, decoded: Decoded, state: State) -> Tensor:
        whole = full_rate(decoded.proposal)
        if self.update == "cut3r" or decoded.mean_logit is None:
            return whole
        if self.update == "ttt3r":
            rate, known = ttt3r_rate(decoded.mean_logit[..., 0]), ~state.fresh
        elif state.history is None:
            return whole
        else:
            known = state.history.known & ~state.fresh
            rate = ttsa3r_rate(
                decoded.mean_logit, encoded.features, decoded.proposal, state.history
            )
        return torch.where(known[:, None], rate, whole)

    def _history(
        self, encoded: Encoded, decoded: Decoded, state: State, wrote: Tensor, reset: Tensor
    ) -> History | None:
        if self.update != "ttsa3r":
            return None
        old = state.history
        if old is None:
            return History(encoded.features, decoded.proposal, known=wrote & ~reset)
        kept = ~wrote[:, None, None]
        return History(
            torch.where(kept, old.features, encoded.features),
            torch.where(kept, old.proposal, decoded.proposal),
            known=(old.known | wrote) & ~reset,
        )

    def _flags(self, value: bool | Tensor, batch: int) -> Tensor:
        return torch.as_tensor(value, dtype=torch.bool, device=self.device).expand(batch)


def _both(first: MeanLogitMap | None, second: Probe | None) -> Probe | None:
    if first is None or second is None:
        return first or second

    def probe(site: Site, q: Tensor, k: Tensor) -> None:
        first(site, q, k)
        second(site, q, k)

    return probe


def _blend(old: Tensor, new: Tensor, rate: Tensor) -> Tensor:
    """Move from old to new by a float32 rate; exact where the rate is 0 or 1."""
    return (rate * new + (1 - rate) * old).to(new.dtype)
