"""Backbones in which image and state are decoded side by side and read each other."""

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from mut3r_analysis.attention.seam import Probe, SiteGate, attend, together
from mut3r_analysis.attention.sites import SITE_KINDS, Site, SiteSize
from mut3r_analysis.backbones import steps
from mut3r_analysis.backbones.blocks import (
    Attend,
    DecoderBlock,
    PatchEmbed,
    Projected,
    SelfAttention,
)
from mut3r_analysis.backbones.configuration import PosedConfig
from mut3r_analysis.backbones.heads import Heads, Prediction, check_outputs
from mut3r_analysis.backbones.memory import PoseMemory
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.backbones.rotation import Rotation, positions, rotation
from mut3r_analysis.backbones.steps import Encoded
from mut3r_analysis.backbones.write_signals import watched

Rotations = tuple[Rotation | None, Rotation | None]


@dataclass(frozen=True, eq=False)
class Entered(steps.Entered):
    """A frame and a state about to meet in the decoders.

    Attributes
    ----------
    features, grid
        As of every model.
    image, state : Tensor
        ``(batch, token, channel)`` what the first layers read; the pose token leads the image.
    rotations : dict of str to (Rotation, Rotation)
        Side -> rotations of its own and of the other side's tokens, in its own head width; None
        where tokens have no place.
    first : dict of str to Projected
        Side -> what its first layer projects, which no gate can change.
    exists : Tensor, optional
        ``(batch, state_token)`` bool where samples have different numbers of state tokens.
    """

    image: Tensor
    state: Tensor
    rotations: dict[str, Rotations]
    first: dict[str, Projected]
    exists: Tensor | None = None

    @property
    def patches(self) -> Tensor:
        """``(batch, patch, channel)`` as they enter the decoder."""
        return self.image[:, 1:]


@dataclass(frozen=True, eq=False)
class Decoded(steps.Decoded):
    """What the two decoders make of a frame and a state.

    Attributes
    ----------
    levels, grid, signals
        As of every model.
    pose_token : Tensor
        ``(batch, 1, channel)`` final, normalised.
    pose_query : Tensor
        ``(batch, 1, channel)`` the pose token that entered the decoder.
    proposal : Tensor, optional
        ``(batch, state_token, channel)`` the state as its decoder leaves it; None where nothing
        reads it.
    """

    pose_token: Tensor
    pose_query: Tensor
    proposal: Tensor | None


class TwoStreams(Backbone):
    """What CUT3R and its relatives share: decoders, pose memory, heads.

    A subclass makes the modules, under the names of its official checkpoints.
    """

    writes_proposal = True
    """Whether what the state's decoder makes is what is written."""

    config: PosedConfig
    patch_embed: PatchEmbed
    enc_blocks: nn.ModuleList
    enc_norm: nn.LayerNorm
    decoder_embed: nn.Linear
    dec_blocks: nn.ModuleList
    dec_norm: nn.LayerNorm
    pose_token: nn.Parameter
    pose_retriever: PoseMemory
    downstream_head: Heads

    @property
    @abstractmethod
    def state_decoder(self) -> tuple[nn.ModuleList, nn.LayerNorm]:
        """Layers of the state's decoder, and the norm behind them."""

    @property
    @abstractmethod
    def state_heads(self) -> int:
        """Heads of the state's decoder."""

    def sites(self) -> dict[str, SiteSize]:
        """Layers, heads and head width of every site kind that may be captured or gated."""
        config = self.config
        image, state = (
            SiteSize.of(config.dec_depth, heads, config.dec_embed_dim)
            for heads in (config.dec_num_heads, self.state_heads)
        )
        return {
            "image_self": image,
            "image_to_state": image,
            "state_self": state,
            "state_to_image": state,
            "encoder_self": SiteSize.of(
                config.enc_depth, config.enc_num_heads, config.enc_embed_dim
            ),
            "head_self": image._replace(layers=len(self.downstream_head.final_transform)),
        }

    def rotate_encoder_in(self, dtype: torch.dtype | None) -> None:
        """Set the storage dtype of the image encoder's queries and keys around their rotation.

        Released models were trained and are run with float16 there; None keeps the model's dtype.
        """
        for module in self.enc_blocks.modules():
            if isinstance(module, SelfAttention):
                module.rotation_dtype = dtype

    def encode_image(self, image: Tensor, grid: tuple[int, int], seam: Attend) -> Tensor:
        """Encode ``(batch, rgb, y, x)`` as normalised tokens ``(batch, patch, channel)``."""
        place = self.patch_rotation(grid, self.config.enc_embed_dim // self.config.enc_num_heads)
        features = self.patch_embed(image.to(self.dtype))
        for block in self.enc_blocks:
            features = block(features, place, seam)
        return self.enc_norm(features)

    def entered(
        self,
        encoded: Encoded,
        query: Tensor,
        state: Tensor,
        turns: Mapping[str, Callable[[int], Rotation]] | None,
        exists: Tensor | None = None,
    ) -> Entered:
        """Ready both sides for the decoders.

        Parameters
        ----------
        encoded : Encoded
        query : Tensor
            ``(batch, 1, channel)`` the pose token.
        state : Tensor
            ``(batch, state_token, channel)``.
        turns : mapping of str to callable, optional
            Side -> the rotation of its tokens in heads of so many channels; None where no token has
            a place.
        exists : Tensor, optional
            ``(batch, state_token)`` bool.
        """
        tokens = {
            "image": torch.cat([query, self.decoder_embed(encoded.features)], dim=1),
            "state": state,
        }
        layers = {"image": self.dec_blocks[0], "state": self.state_decoder[0][0]}
        rotations: dict[str, Rotations] = {}
        first = {}
        for own, other in (("image", "state"), ("state", "image")):
            rotations[own] = None, None
            if turns is not None:
                channels = self.sites()[f"{own}_self"].channels
                rotations[own] = turns[own](channels), turns[other](channels)
            block = cast(DecoderBlock, layers[own])
            first[own] = block.project(tokens[own], tokens[other], *rotations[own])
        features, grid = encoded.features, encoded.grid
        return Entered(features, grid, tokens["image"], state, rotations, first, exists)

    def decode(
        self,
        entered: Entered,
        *,
        gate: SiteGate | None = None,
        probe: Probe | None = None,
        signals: Collection[str] = (),
        layers: list[Tensor] | None = None,
    ) -> Decoded:
        """Run both decoders; each layer reads the other side's tokens of the layer before."""
        taken = watched({*self.rules.signals, *signals})
        looking = together(*taken.values(), probe)
        seam = _masked(partial(attend, gate=gate, probe=looking), entered.exists)
        needed = self.writes_proposal or gate is not None or looking is not None
        state_blocks, state_norm = self.state_decoder
        depth = self.decoder_layers
        image, tokens, rotations = entered.image, entered.state, entered.rotations
        levels = [entered.features]
        for layer in range(depth):
            known = entered.first if layer == 0 else {"image": None, "state": None}
            # The image block goes first so that a causal gate on the state block of a layer may
            # use what was seen in the same layer; both read the previous layer's tokens.
            next_image = self.dec_blocks[layer](
                image, tokens, *rotations["image"], seam, known["image"]
            )
            if layer + 1 < depth or needed:
                tokens = state_blocks[layer](
                    tokens, image, *rotations["state"], seam, known["state"]
                )
            image = next_image
            if layers is not None:
                layers.append(image[:, 1:])
            if layer + 1 in (depth // 2, depth * 3 // 4):
                levels.append(image[:, 1:])
        if len(levels) == 2:  # with two layers, half and three quarters are the same layer
            levels.append(levels[1])
        image = self.dec_norm(image)
        return Decoded(
            levels=[*levels, image[:, 1:]],
            pose_token=image[:, :1],
            pose_query=entered.image[:, :1],
            proposal=state_norm(tokens) if needed else None,
            grid=entered.grid,
            signals={name: probe.value for name, probe in taken.items()},
        )

    def predict(
        self,
        decoded: Decoded,
        outputs: Collection[str] | None = None,
        *,
        gate: SiteGate | None = None,
        probe: Probe | None = None,
    ) -> Prediction:
        """Run the heads that the asked outputs need."""
        channels = self.config.dec_embed_dim // self.config.dec_num_heads
        return self.downstream_head(
            decoded.levels,
            decoded.pose_token,
            decoded.grid,
            self.patch_rotation(decoded.grid, channels),
            partial(attend, gate=gate, probe=probe),
            check_outputs(outputs, self.outputs),
        )

    def pose_query(
        self, encoded: Encoded, memory: Tensor, learned: Tensor | None, seam: Attend
    ) -> Tensor:
        """Return the pose token ``(batch, 1, channel)`` with which a frame enters the decoders.

        Parameters
        ----------
        encoded : Encoded
        memory : Tensor
            ``(batch, slot, channel)`` pose memory.
        learned : Tensor, optional
            ``(batch,)`` bool: the learned token instead of what the memory answers. None is never.
        seam : callable
        """
        token = self.pose_token.expand(len(encoded.features), -1, -1)
        if learned is not None and bool(learned.all()):
            return token
        recalled = self.pose_retriever.read(encoded.features, memory, seam)
        return recalled if learned is None else torch.where(learned[:, None, None], token, recalled)

    def patch_rotation(self, grid: tuple[int, int], channels: int) -> Rotation:
        """Rotation of the patches of a grid, for heads of so many channels."""
        return rotation(positions(*grid, False, self.device), channels, self.config.rope_base)


def _masked(seam: Callable[..., Tensor], exists: Tensor | None) -> Attend:
    """Keep the state tokens that pad a batch from being read."""
    if exists is None:
        return seam

    def masked(site: Site, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return seam(site, q, k, v, exists=exists if SITE_KINDS[site.kind].keys == "state" else None)

    return masked
