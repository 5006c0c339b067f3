"""What a streaming backbone is, seen from outside; everything else knows models by this alone."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from mut3r_analysis.attention.seam import Probe, SiteGate
from mut3r_analysis.attention.sites import Sites
from mut3r_analysis.attention.tokens import Axes
from mut3r_analysis.backbones.batching import constant
from mut3r_analysis.backbones.configuration import ModelConfig
from mut3r_analysis.backbones.heads import PairPrediction, Prediction, check_outputs
from mut3r_analysis.backbones.origin import Origin
from mut3r_analysis.backbones.precision import PRECISIONS, Precision, arithmetic
from mut3r_analysis.backbones.preparation import Preparation
from mut3r_analysis.backbones.steps import Encoded, Frame, FrameRead, Write
from mut3r_analysis.backbones.write_rules import Rules, own_rules
from mut3r_analysis.errors import InvalidArgument


class StateVariable(NamedTuple):
    """One number or array that a state is recorded by, per frame.

    Attributes
    ----------
    name, long_name, units : str
    sizes : dict of str to int
        Dimension -> size, at most where it grows.
    kept : bool
        Whether it is recorded with ``Capture(state=True)`` alone.
    dtype : str
    """

    name: str
    sizes: dict[str, int]
    long_name: str
    units: str = "1"
    kept: bool = False
    dtype: str = "float32"


@dataclass(frozen=True, eq=False)
class Step:
    """Result of one frame: prediction, state to carry on, and the write rate that made it.

    ``rate`` is ``(batch, state_token)``: the share of each state token that was replaced.
    """

    prediction: Prediction
    state: Any
    rate: Tensor
    decoded: Any


class Backbone(nn.Module, ABC):
    """A streaming model: frame and state in, prediction and new state out.

    A model makes its modules and implements the steps in its own room. They are separate, so that
    passes over one frame, batches and forks share work; :meth:`step` does a whole frame.

    Parameters
    ----------
    config : ModelConfig
        Sizes, under the official field names.
    update : str
        Name of the write rule (:data:`~mut3r_analysis.backbones.write_rules.WRITE_RULES`).

    Raises
    ------
    InvalidArgument
        For a rule with rates where `written_whole` says that there are none.

    Attributes
    ----------
    config, update
        As given.
    rules : Rules
        The backbone's own write rule.
    origin : Origin
    precision : Precision
    preparation : Preparation
        How frames of any size become this model's input.
    outputs : tuple of str
        What it predicts: some of ``pose``, ``depth``, ``points_self``, ``points_world``,
        ``color``.
    commit_needs : tuple of str
        Outputs of the written pass without which a frame cannot be committed.
    state_dim : str
        Dimension of the state's tokens in what is recorded.
    state_grows : bool
        Whether the number of state tokens changes from frame to frame. Such models take one
        sample at a time in a run, and have no rates.
    takes_batches : bool
        Whether several sequences may go through together (:meth:`begin`).
    state_shares : bool
        Whether a frame replaces a share of each state token, of which commits may speak.
    written_whole : str
        In words, why there are no rates and so no write rule but ``"cut3r"``; empty where there
        are.
    looks_ahead : bool
        Whether a frame is read together with the next one (``Encoded.following``). The loop
        over frames hands that over; where there is none the sequence ends.
    reads_pairs : bool
        Whether :meth:`decode_pair` does something.
    reads_rays : bool
        Whether a frame may be rays of a camera instead of an image (``Frame.ray_map``).
    pose_memory : bool
        Whether there is a pose memory, so that commits may speak of it. What the decoder gives then
        has a ``pose_token`` ``(batch, 1, channel)``.
    patch_size : int
        Side of a patch, px.
    decoder_layers : int
    """

    outputs: tuple[str, ...]
    commit_needs: tuple[str, ...] = ()
    state_dim: str = "state_token"
    state_grows: bool = False
    takes_batches: bool = True
    state_shares: bool = True
    written_whole: str = ""
    looks_ahead: bool = False
    reads_pairs: bool = False
    reads_rays: bool = False
    pose_memory: bool = True

    def __init__(self, config: ModelConfig, *, update: str = "cut3r") -> None:
        nn.Module.__init__(self)  # A class of modules may stand between in the order of bases.
        self.rules: Rules = own_rules(update)
        if self.written_whole and self.rules.needs:
            raise InvalidArgument(
                f"update = {update!r} says which share of a state token is replaced; "
                f"{self.written_whole}, so {type(self).__name__} takes update='cut3r' only"
            )
        self.config = config
        self.update = update
        self.patch_size: int = config.patch_size
        self.decoder_layers: int = config.dec_depth
        self.origin = Origin("untrained", sha256="", report=("weights were never loaded",))
        self.precision: Precision = PRECISIONS["float32"]
        self.preparation = Preparation(max(config.img_size), patch=config.patch_size)

    def __repr__(self) -> str:
        """Say on one screen what the model is; `named_modules` lists what it is made of."""
        size = sum(each.numel() for each in self.parameters()) / 1e6
        sites = [f"{kind:<18}{n.layers:>2} x {n.heads:>2}" for kind, n in self.sites().items()]
        return "\n".join(
            [
                f"{self.origin.name}: {self.family}, write rule {self.update}, {size:.1f} million "
                f"parameters, {self.precision.name} on {self.device}",
                f"  predicts  {', '.join(self.outputs)}",
                f"  frames    {self.preparation}",
                f"  sha256    {self.origin.sha256}",
                *(f"  note      {line}" for line in self.origin.report),
                *(
                    f"  {'sites, layers x heads' if not at else '':<23}{line}"
                    for at, line in enumerate(sites)
                ),
            ]
        )

    @property
    def restarts(self) -> bool:
        """Whether the frame after a reset starts from the learned pose token, unless told."""
        return self.rules.restart

    @abstractmethod
    def rotate_encoder_in(self, dtype: torch.dtype | None) -> None:
        """Set the storage dtype of the encoder's queries and keys around their rotation."""

    def prepare_training(self) -> None:
        """Make what released weights compute differentiable, and take batches of clips."""
        self.rotate_encoder_in(None)

    @property
    def family(self) -> str:
        """Name of the kind of model, such as ``"cut3r"``."""
        return self.config.family

    def patch_grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches of an image of ``height`` x ``width`` px."""
        grid: tuple[int, int] = self.config.patch_grid(height, width)
        return grid

    @abstractmethod
    def sites(self) -> Sites:
        """Layers, heads and head width of every kind of site that may be captured or gated."""

    @abstractmethod
    def axes(self, grid: tuple[int, int], frames: int = 1) -> Axes:
        """Tokens of each stream, in a frame with a grid of patches.

        Parameters
        ----------
        grid : (int, int)
        frames : int
            How many frames a memory that grows holds at most.
        """

    def axes_in(self, entered: Any, axes: Axes) -> Axes:
        """Tokens of each stream as a frame meets them; by default what :meth:`axes` says.

        Parameters
        ----------
        entered
            From :meth:`enter`.
        axes : mapping of str to TokenAxis
            From :meth:`axes`, which a memory replaces whose tokens come and go.
        """
        return axes

    def unpassed(self, entered: Any) -> Collection[str]:
        """Kinds of site that a frame by its nature does not pass; by default none."""
        return ()

    def token_ids(self, state: Any) -> Tensor:
        """Identity ``(state_token,)`` of a sample's state tokens; by default their index."""
        return torch.arange(state.tokens.shape[1], device=self.device)

    @abstractmethod
    def begin(self, batch: int = 1) -> Any:
        """Return the state before the first frame."""

    @abstractmethod
    def encode(
        self, frame: Frame, *, gate: SiteGate | None = None, probe: Probe | None = None
    ) -> Encoded:
        """Encode a frame into normalised tokens."""

    @abstractmethod
    def enter(self, encoded: Encoded, state: Any, *, probe: Probe | None = None) -> Any:
        """Prepare a frame and a state for the decoder, once for all passes."""

    @abstractmethod
    def decode(
        self,
        entered: Any,
        *,
        gate: SiteGate | None = None,
        probe: Probe | None = None,
        signals: Collection[str] = (),
        layers: list[Tensor] | None = None,
    ) -> Any:
        """Run the decoder.

        Parameters
        ----------
        entered
            From :meth:`enter`.
        gate, probe
            Passed to every site.
        signals : collection of str
            What write rules need beside the backbone's own.
        layers : list, optional
            Receives the patch tokens ``(batch, patch, channel)`` after each layer.
        """

    @abstractmethod
    def predict(
        self,
        decoded: Any,
        outputs: Collection[str] | None = None,
        *,
        gate: SiteGate | None = None,
        probe: Probe | None = None,
    ) -> Prediction:
        """Run the heads that the asked outputs need."""

    def decode_pair(
        self,
        first: Encoded,
        second: Encoded,
        *,
        gate: SiteGate | None = None,
        probe: Probe | None = None,
    ) -> PairPrediction:
        """Predict the points of two views in the camera of the first one."""
        raise InvalidArgument(f"{self.family} reads frames one after another and no pairs")

    def decode_together(
        self, encoded: Encoded, *, gate: SiteGate | None = None, probe: Probe | None = None
    ) -> Any:
        """Run the decoder over all frames of one sequence at once, which are the batch."""
        raise InvalidArgument(
            f"{self.family} reads frames one after another; those that read them together are "
            "VGGT and StreamVGGT, such as load_backbone('random:vggt-small')"
        )

    @abstractmethod
    def commit(
        self, read: FrameRead, state: Any, write: Write, *, probe: Probe | None = None
    ) -> tuple[Any, Tensor]:
        """Write a frame into the state.

        Parameters
        ----------
        read : FrameRead
        state
            That the frame was read with.
        write : Write
        probe : callable, optional

        Returns
        -------
        state
            To carry on.
        rate : Tensor
            ``(batch, state_token)`` share of each state token that was replaced.
        """

    @abstractmethod
    def state_variables(self, grid: tuple[int, int], frames: int) -> tuple[StateVariable, ...]:
        """Say what a state is recorded by, in a run of so many frames."""

    @abstractmethod
    def restore(self, held: Mapping[str, Tensor], age: int, restart: bool | None) -> Any:
        """Return the state of a batch of one that kept variables describe.

        Parameters
        ----------
        held : mapping of str to Tensor
            The kept :meth:`state_variables`, without a batch.
        age : int
            Frames since the start or the last reset.
        restart : bool or None
            As of :class:`Write`.
        """

    @abstractmethod
    def meta_state(self, grid: tuple[int, int], frames: int) -> Any:
        """Return a state of the size it has in the middle of so many frames, without contents.

        On the meta device, where plans count operations.
        """

    def widest_tensor(self, grid: tuple[int, int]) -> int:
        """Return how many numbers the largest tensor of one sample holds in the decoder.

        By default the inside of the MLPs of the longest stream.
        """
        tokens = max(map(len, self.axes(grid).values()))
        return int(tokens * self.config.dec_embed_dim * self.config.mlp_ratio)

    def shadow(self) -> Self:
        """Return a copy on the meta device, which has shapes and no memory."""
        with torch.device("meta"):
            return type(self)(self.config, update=self.update).requires_grad_(False)

    def start_weights(self, choices: Any) -> None:
        """Set the weights that a training from scratch begins with; by default torch's own.

        Parameters
        ----------
        choices : Initialisation
            Of a recipe.
        """

    def coarse(self, side: int) -> Self:
        """Return the model for the first `side` rows and columns of its state's lattice.

        Raises
        ------
        InvalidArgument
            For a model whose state has no lattice.
        """
        raise InvalidArgument(
            f"the state tokens of {self.family} do not lie on a lattice, so no part of one can be "
            "chosen"
        )

    def flags(self, value: bool | Tensor, batch: int) -> Tensor:
        """Return a flag, or one per sample, as ``(batch,)`` bool."""
        if not isinstance(value, Tensor):
            value = constant([value], self.device)
        return value.to(self.device, torch.bool).expand(batch)

    def writes(self, frame: Frame, write: Write, batch: int) -> Tensor:
        """Whether a frame is written, ``(batch,)`` bool: it may, and no factor of 0 holds it."""
        may = self.flags(frame.update, batch)
        return may if write.factor is None else may & (write.factor > 0).any(dim=1)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        return next(self.parameters()).dtype

    def step(
        self,
        frame: Frame,
        state: Any = None,
        *,
        following: Frame | None = None,
        gate: SiteGate | None = None,
        probe: Probe | None = None,
        outputs: Collection[str] | None = None,
    ) -> Step:
        """Read one frame.

        Parameters
        ----------
        frame : Frame
        state : optional
            From the previous step; None starts a sequence.
        following : Frame, optional
            The next frame, for a model that looks ahead. It is encoded here, and so is every frame
            twice; the loop over frames encodes each once.
        gate, probe
            Passed to every attention site.
        outputs : collection of str, optional
            Which predictions to compute; the dense heads are more than a third of a frame's cost.
            None computes all.

        Returns
        -------
        Step
        """
        with arithmetic(self.precision, self.device):
            encoded = self.encode(frame, gate=gate, probe=probe)
            if following is not None:
                encoded = replace(encoded, following=self.encode(following, gate=gate))
            if state is None:
                state = self.begin(len(encoded.features))
            decoded = self.decode(self.enter(encoded, state, probe=probe), gate=gate, probe=probe)
            asked = {*check_outputs(outputs, self.outputs), *self.commit_needs}
            prediction = self.predict(decoded, asked, gate=gate, probe=probe)
            read = FrameRead(frame, encoded, decoded, prediction)
            committed, rate = self.commit(read, state, Write(), probe=probe)
        return Step(prediction, committed, rate, decoded)
