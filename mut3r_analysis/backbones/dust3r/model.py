"""DUSt3R and MonST3R, one model with two sets of weights: pairs, and frames beside an anchor.

Written from a description of what the released models compute; parameter names and shapes are those
of official checkpoints, so these load unchanged.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from mut3r_analysis.attention.seam import Probe, SiteGate, attend
from mut3r_analysis.attention.sites import Site, SiteSize
from mut3r_analysis.attention.tokens import Axes, image_axis
from mut3r_analysis.backbones.blocks import Attend
from mut3r_analysis.backbones.dust3r.config import DUSt3RConfig
from mut3r_analysis.backbones.dust3r.start import start_weights
from mut3r_analysis.backbones.dust3r.state import Decoded, Entered, State
from mut3r_analysis.backbones.geometry import rigid_alignment, translation_and_quaternion
from mut3r_analysis.backbones.heads import PairPrediction, Prediction, check_outputs
from mut3r_analysis.backbones.pair_network import PairNetwork
from mut3r_analysis.backbones.protocol import Backbone, StateVariable
from mut3r_analysis.backbones.steps import Encoded, Frame, FrameRead, Write
from mut3r_analysis.errors import InvalidArgument


class DUSt3R(PairNetwork, Backbone):
    """DUSt3R of any size.

    Parameters
    ----------
    config : DUSt3RConfig
    update : {"cut3r"}
        Nothing is written but the anchor. There is no rate.

    Notes
    -----
    The model itself knows pairs: :meth:`decode_pair`. As a streaming model it reads every frame
    beside an anchor, the first frame of the sequence or the first one after a reset, in two pairs.
    The pair (frame, anchor) gives points in the frame's own camera; the pair (anchor, frame), whose
    sites have names of their own (``anchored_...``), gives them in the anchor's, which is the
    world. The two have scales of their own; the pose is the turn and the place of the similarity
    between them, weighted by confidence. The anchor is paired with itself. Nothing is optimised
    over pairs: official global alignment is no part of this.
    """

    config: DUSt3RConfig
    pose_memory = False
    state_shares = False
    reads_pairs = True
    written_whole = "the tokens of an anchor frame are kept as they are"
    outputs = ("pose", "depth", "points_self", "points_world")

    def __init__(self, config: DUSt3RConfig, *, update: str = "cut3r") -> None:
        Backbone.__init__(self, config, update=update)
        self.make_modules(config)

    def rotate_encoder_in(self, dtype: torch.dtype | None) -> None:
        """Do nothing: official code rounds neither queries nor keys around their rotation."""

    def axes(self, grid: tuple[int, int], frames: int = 1) -> Axes:
        """Tokens of the frame (``patches``) and of the anchor (``partner``, and ``state``)."""
        return _axes(grid)

    def sites(self) -> dict[str, SiteSize]:
        """Layers, heads and head width of every site kind that may be captured or gated."""
        config = self.config
        view = SiteSize.of(config.dec_depth, config.dec_num_heads, config.dec_embed_dim)
        kinds = ("view1_self", "view1_to_view2", "view2_self", "view2_to_view1")
        encoder = SiteSize.of(config.enc_depth, config.enc_num_heads, config.enc_embed_dim)
        return {
            **dict.fromkeys(kinds, view),
            **{f"anchored_{kind}": view for kind in kinds},
            "encoder_self": encoder,
        }

    def begin(self, batch: int = 1) -> State:
        """Return the state before the first frame: no anchor."""
        numbers = torch.zeros(batch, dtype=torch.long, device=self.device)
        shape = (batch, 0, self.config.enc_embed_dim)
        return State(torch.zeros(shape, device=self.device, dtype=self.dtype), numbers - 1, numbers)

    def encode(
        self, frame: Frame, *, gate: SiteGate | None = None, probe: Probe | None = None
    ) -> Encoded:
        """Encode a frame into normalised tokens."""
        if frame.image is None or frame.ray_map is not None:
            raise InvalidArgument("DUSt3R reads an image per frame and no ray map")
        grid = self.config.patch_grid(*frame.image.shape[-2:])
        seam = partial(attend, gate=gate, probe=probe)
        return Encoded(self.encode_image(frame.image.to(self.dtype), grid, seam), grid)

    def enter(self, encoded: Encoded, state: State, *, probe: Probe | None = None) -> Entered:
        """Bring a frame and its anchor together; one that has none is paired with itself.

        Raises
        ------
        InvalidArgument
            For a frame of another size than the anchor.
        """
        features, anchor = encoded.features, state.tokens
        if state.grid not in (None, encoded.grid) or anchor.shape[1] not in (0, features.shape[1]):
            raise InvalidArgument(
                f"all frames of a sequence must have one size; a frame has {encoded.grid} patches "
                f"(rows, columns), the anchor {state.grid or anchor.shape[1]}. Pairs of frames of "
                "different sizes are read by decode_pair"
            )
        if not anchor.shape[1]:
            return Entered(features, encoded.grid, features)
        known = state.known[:, None, None]
        return Entered(features, encoded.grid, torch.where(known, anchor, features))

    def decode(
        self,
        entered: Entered,
        *,
        gate: SiteGate | None = None,
        probe: Probe | None = None,
        signals: Collection[str] = (),
        layers: list[Tensor] | None = None,
    ) -> Decoded:
        """Decode the pairs (frame, anchor) and (anchor, frame)."""
        frame, anchor, grids = entered.features, entered.anchor, (entered.grid, entered.grid)
        seam = partial(attend, gate=gate, probe=probe)
        levels, _ = self.decode_views(frame, anchor, grids, seam, layers)
        _, anchored = self.decode_views(anchor, frame, grids, _anchored(seam))
        return Decoded(levels, entered.grid, anchored)

    def predict(
        self,
        decoded: Decoded,
        outputs: Collection[str] | None = None,
        *,
        gate: SiteGate | None = None,
        probe: Probe | None = None,
    ) -> Prediction:
        """Run the heads that the asked outputs need, and align their points for the pose."""
        names = set(check_outputs(outputs, self.outputs))
        found: dict[str, Tensor] = {}
        if names & {"pose", "depth", "points_self"}:
            own, certain = self.downstream_head1(decoded.levels, decoded.grid)
            if names & {"depth", "points_self"}:
                found |= {"points_self": own, "confidence_self": certain}
        if names & {"pose", "points_world"}:
            world, certain_there = self.downstream_head2(decoded.anchored, decoded.grid)
            if "points_world" in names:
                found |= {"points_world": world, "confidence_world": certain_there}
        if "pose" in names:
            weight = (certain.log() * certain_there.log()).flatten(1)
            points = own.flatten(1, 2), world.flatten(1, 2)
            found["pose"] = translation_and_quaternion(
                rigid_alignment(*points, weight, own_scale=True)
            )
        return Prediction(**found)

    def decode_pair(
        self,
        first: Encoded,
        second: Encoded,
        *,
        gate: SiteGate | None = None,
        probe: Probe | None = None,
    ) -> PairPrediction:
        """Predict the points of two views in the first one's camera; their sizes may differ."""
        seam = partial(attend, gate=gate, probe=probe)
        levels, others = self.decode_views(
            first.features, second.features, (first.grid, second.grid), seam
        )
        return PairPrediction(
            *self.downstream_head1(levels, first.grid), *self.downstream_head2(others, second.grid)
        )

    def commit(
        self, read: FrameRead, state: State, write: Write, *, probe: Probe | None = None
    ) -> tuple[State, Tensor]:
        """Make the frame the anchor where there is none.

        The rate ``(batch, state_token)`` is 1 where that was done. A factor of 0 leaves the state
        as it was; the next frame then is the first again.
        """
        frame, encoded, _, _ = read
        features, batch = encoded.features, len(encoded.features)
        takes = self.writes(frame, write, batch) & ~state.known
        old = state.tokens if state.tokens.shape[1] else torch.zeros_like(features)
        stays = ~self.flags(frame.reset, batch)
        tokens = torch.where(takes[:, None, None], features, old) * stays[:, None, None]
        anchor = torch.where(takes, state.read, state.anchor)
        written = State(tokens, torch.where(stays, anchor, -1), state.read + 1, encoded.grid)
        return written, takes.float()[:, None].expand(-1, features.shape[1])

    def state_variables(self, grid: tuple[int, int], frames: int) -> tuple[StateVariable, ...]:
        """Which frame is the anchor, and its tokens."""
        tokens = {"state_token": grid[0] * grid[1]}
        wide = tokens | {"channel": self.config.enc_embed_dim}
        return (
            StateVariable("anchor_frame", {}, "frame that is the anchor, -1: none", dtype="int64"),
            StateVariable("frames_read", {}, "frames read so far", dtype="int64"),
            StateVariable("norm", tokens, "norm of the anchor's token"),
            StateVariable("update_size", tokens, "norm of the token's change"),
            StateVariable("write_rate", tokens, "whether the token was written"),
            StateVariable("tokens", wide, "tokens of the anchor", kept=True),
        )

    def restore(self, held: Mapping[str, Tensor], age: int, restart: bool | None) -> State:
        """Return the state that the anchor's tokens describe."""
        return State(
            tokens=held["tokens"][None].to(self.device, self.dtype),
            anchor=held["anchor_frame"][None].to(self.device),
            read=held["frames_read"][None].to(self.device),
        )

    def meta_state(self, grid: tuple[int, int], frames: int) -> State:
        """Return the shapes of a state with an anchor."""
        tokens = torch.empty(1, grid[0] * grid[1], self.config.enc_embed_dim, device=self.device)
        return replace(self.begin(), tokens=tokens, grid=grid)

    def start_weights(self, choices: Any) -> None:
        """Set the weights that a training from scratch begins with, in place."""
        start_weights(self, choices)


def _anchored(seam: Attend) -> Attend:
    """Name the sites of the pair in which the anchor is view 1."""

    def anchored(site: Site, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return seam(Site(f"anchored_{site.kind}", site.layer), q, k, v)

    return anchored


@lru_cache(maxsize=64)
def _axes(grid: tuple[int, int]) -> Axes:
    anchor = image_axis(grid, role="partner")
    return {"patches": image_axis(grid), "partner": anchor, "state": anchor}
