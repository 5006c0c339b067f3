"""Cue: the declared rule that turns attention into a motion score per patch."""

from dataclasses import dataclass
from typing import Any, Self

from mut3r_analysis.attention.sites import SITE_KINDS
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.calls import parse_call
from mut3r_analysis.foundation.fields import (
    Checked,
    Indices,
    flag,
    indices,
    number,
    one_of,
    shown,
    whole,
)
from mut3r_analysis.foundation.layers import Consecutive, consecutive_layers
from mut3r_analysis.foundation.specification import LayeredSpecification
from mut3r_analysis.motion.cross_frame import CROSS_FRAME, MOST_WINDOW, USUAL_WINDOW
from mut3r_analysis.motion.ray_map import RAY_MAP, check_ray_map
from mut3r_analysis.motion.readings import (
    INSTABILITY,
    MASK,
    READINGS,
    STEADY,
    check_cross_frame,
    check_reading,
    check_site,
    cue_sites,
)
from mut3r_analysis.motion.sources import Source

RUNNING_NORMALISERS = ("zscore", "robust", "quartile", "minmax", "upper_half")
NORMALISERS = ("raw", "sigmoid", *RUNNING_NORMALISERS, "rank")
CONTROLS = ("const", "shuffle", "shift", "random", "invert")
EDITIONS: dict[int, dict[str, Any]] = {
    2: {"reading": "logit_query_mean", "sharpness": 0.5},
    1: {"reading": "logit_key_mean", "sharpness": 1.0},
}
"""What :meth:`Cue.mut3r` is in each edition, where they differ; the latest is first."""
_OVER_KEYS = {"reading": "logit_key_mean", "normaliser": "zscore", "sharpness": 0.5}
CONVENTIONS: dict[str, dict[str, Any]] = {
    "mut3r_low": _OVER_KEYS | {"sign": -1},
    "mut3r_high": _OVER_KEYS | {"sign": 1},
    "raymap3r": {"reading": RAY_MAP, "of": "bands", "normaliser": "quartile", "sharpness": 3.0},
    "gram_low": {
        "reading": "gram_query_query_mean",
        "of": "past(8)",
        "sign": -1,
        "normaliser": "upper_half",
    },
}
"""Cues of the literature whose sign, or side, is a matter of reading; by name, for comparisons."""


@dataclass(frozen=True, kw_only=True)
class Cue(LayeredSpecification):
    """How a motion score g in [0, 1] per patch is made; 1 is dynamic.

    Per patch a reading is taken at every chosen layer and head of one kind of site; heads are
    reduced, layers averaged, the sign applied, and the result normalised to [0, 1].

    Parameters
    ----------
    reading : str
        Name in :data:`~mut3r_analysis.motion.READINGS`, ``"instability"``, ``"mask"`` or
        ``"ray_map"``: the depth that the image gives against the one that the state alone predicts
        for the same camera, asked by its rays, as a share of the depth (RayMap3R).
    of : str, optional
        For ``instability``: the reading whose standard deviation over frames is taken
        (``logit_key_mean`` unless said). For ``ray_map``: how pixels become patches, ``patches``
        or, as in the released code, ``bands`` of the flattened image. For readings across frames
        (``gram_...``): how many frames before take part, ``past(8)`` unless said. For ``mask``: the
        variable of the sequence that is read (``motion_mask`` unless said).
    site : str
        Kind of site with image patches on one side: ``image_self``, ``image_to_state``,
        ``state_to_image``, ``encoder_self``, ``head_self`` and those of other models.
    layers : range or (int, int), optional
        Consecutive layers: ``range(0, 6)`` or the pair (0, 6), half-open and 0-based; None is every
        layer of the site.
    heads : collection of int, optional
    head_reduction : {"mean", "median"}
    pose : bool
        Whether the pose token takes part. Without it the site is read as if the token were absent:
        rows and columns are those of patches only.
    diagonal : bool
        Whether a token's entry with itself takes part.
    decay : float, optional
        For ``instability``: weight in [0, 1) of the past in moving moments; None weighs all frames
        since the start (or the last reset) equally.
    normaliser : {"raw", "sigmoid", "zscore", "robust", "quartile", "minmax", "upper_half", "rank"}
        ``raw`` takes the value itself, which must lie in [0, 1]. ``sigmoid`` is
        sigmoid(sharpness x), ``zscore`` and ``robust`` the same of x standardised by mean and
        standard deviation, or by median and 1.4826 times the median absolute deviation.
        ``quartile`` by median and the range between quartiles. ``upper_half`` rises from 0 at the
        median to 1 at the 95 % quantile.
    sharpness : float
        Factor inside the sigmoid, above 0; below 1 the score is softer.
    running : float, optional
        Decay in [0, 1) of a moving average of the normaliser's location and scale over frames;
        None normalises every frame by itself.
    sign : {1, -1}, optional
        Whether the score rises or falls with the reading; None takes the reading's own, which the
        object then states.
    source : str
        Whose statistics a frame uses: see :data:`~mut3r_analysis.motion.SOURCES`.
    control : str, optional
        Replaces the finished score: ``const(c)``, ``shuffle`` (cells permuted: same histogram, no
        location), ``shift(t)`` (score of t frames before), ``random`` (uniform) or ``invert``.
    pool : {"mean", "max"}
        For ``mask``: what a patch takes from its pixels.
    seed : int
        Of ``shuffle`` and ``random``.

    Raises
    ------
    InvalidArgument
        When the specification cannot mean anything; among them the average of attention weights
        over keys, which is constant. The message says what is allowed.

    Examples
    --------
    >>> Cue(reading="entropy", layers=range(0, 6), source="previous_ema(0.8)").sign
    1
    """

    reading: str = "logit_query_mean"
    of: str | None = None
    site: str = "image_self"
    layers: Consecutive = Checked(consecutive_layers, None)
    heads: Indices = Checked(indices, None)
    head_reduction: str = "mean"
    pose: bool = True
    diagonal: bool = True
    decay: float | None = None
    normaliser: str = "zscore"
    sharpness: float = 0.5
    running: float | None = None
    sign: int | None = None
    source: str = "two_pass"
    control: str | None = None
    pool: str = "mean"
    seed: int = 0

    def __post_init__(self) -> None:
        check_reading(self.reading)
        one_of("site", self.site, cue_sites())
        one_of("head_reduction", self.head_reduction, ("mean", "median"))
        one_of("normaliser", self.normaliser, NORMALISERS)
        one_of("pool", self.pool, ("mean", "max"))
        one_of("sign", self.sign, (None, 1, -1))
        source = Source.parse(str(self.source))
        checked = {
            "of": self._check_of(),
            "pose": flag("pose", self.pose),
            "diagonal": flag("diagonal", self.diagonal),
            "seed": whole("seed", self.seed, 0),
            "sharpness": number("sharpness", self.sharpness, 0, open_high=True),
            "source": str(source),
            "control": self._check_control(),
        }
        for name in ("decay", "running"):
            if (given := getattr(self, name)) is not None:
                checked[name] = number(name, given, 0, 1, open_high=True)
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.sharpness == 0:
            raise InvalidArgument("sharpness must be above 0: at 0 every score is 0.5")
        if self.sign is None:
            known = READINGS.get(self.reading) or CROSS_FRAME.get(self.reading)
            object.__setattr__(self, "sign", known.sign if known else 1)
        self._check_combinations(source)

    def _check_of(self) -> str | None:
        if self.reading == INSTABILITY:
            of = self.of or STEADY[0]
            one_of("of (the reading whose instability is taken)", of, STEADY)
            return of
        if self.reading == MASK:
            of = "motion_mask" if self.of is None else self.of
            if not (isinstance(of, str) and of):
                raise InvalidArgument(
                    f"of must name a variable (frame, y, x) of the sequence, got {shown(of)}"
                )
            return of
        if self.across_frames:
            name, value = parse_call("past" if self.of is None else str(self.of))
            one_of("of (the frames that are compared with)", name, ("past",))
            if value is not None and not value.is_integer():
                raise InvalidArgument(f"past(...) takes a whole number of frames, got {self.of!r}")
            count = USUAL_WINDOW if value is None else int(value)
            return f"past({whole('the frames of past(...)', count, 1, MOST_WINDOW)})"
        if self.reading == RAY_MAP:
            return check_ray_map(self.of, Source.parse(str(self.source)).name)
        if self.of is not None:
            raise InvalidArgument(
                f"of = {shown(self.of)} has a meaning only for the readings 'instability', "
                f"'mask', 'ray_map' and those across frames, not for {self.reading!r}"
            )
        return None

    def _check_control(self) -> str | None:
        if self.control is None:
            return None
        name, value = parse_call(str(self.control))
        one_of("control", name, CONTROLS)
        if name == "const":
            value = number("the value of const(...)", 0.5 if value is None else value, 0, 1,
                           open_high=False)  # fmt: skip
        elif name == "shift":
            if value is None or value != int(value) or value < 1:
                raise InvalidArgument(
                    f"shift needs a number of frames from 1 on; got {shown(self.control)}"
                )
        elif value is not None:
            raise InvalidArgument(f"control {name!r} takes no number, got {shown(self.control)}")
        return name if value is None else f"{name}({value:g})"

    def _check_combinations(self, source: Source) -> None:
        if self.across_frames:
            check_cross_frame(self.reading, self.site)
        elif self.reading not in (MASK, RAY_MAP):
            check_site(READINGS[self.base], self.site)
        kind = SITE_KINDS[self.site]
        if not self.diagonal and kind.queries != kind.keys:
            raise InvalidArgument(
                f"diagonal = False needs a self-attention site; at {self.site!r} queries and keys "
                "are different tokens"
            )
        if not self.pose and self.reading == "pose_complement":
            raise InvalidArgument("pose_complement reads the pose token; leave pose = True")
        if self.decay is not None and self.reading != INSTABILITY:
            raise InvalidArgument("decay belongs to the reading 'instability'; leave it at None")
        if self.running is not None and self.normaliser not in RUNNING_NORMALISERS:
            raise InvalidArgument(
                f"normaliser {self.normaliser!r} has no location and scale to average over frames; "
                f"running works with {', '.join(RUNNING_NORMALISERS)}"
            )
        if kind.part not in ("encoder", "decoder") and not source.lags and self.measured:
            raise InvalidArgument(
                f"{self.site} runs after the decoder that would be gated; use source='previous' or "
                "'previous_ema(rho)', or another site"
            )
        if source.live and (self.reading == MASK or kind.part == "encoder"):
            what = "a mask" if self.reading == MASK else self.site
            raise InvalidArgument(
                f"source = {self.source} grows layer by layer in the decoder, but {what} is known "
                "before it; use source='two_pass', which costs no pass here"
            )
        cut = source.layers
        if cut is not None and self.layers is not None and self.layers.stop > cut:
            raise InvalidArgument(
                f"source = {self.source} stops the probe pass after {cut} layers, but layers = "
                f"{self.layers} needs {self.layers.stop}; cut later or read fewer layers"
            )

    @property
    def base(self) -> str:
        """The reading taken from each frame's attention."""
        return str(self.of) if self.reading == INSTABILITY else self.reading

    @property
    def across_frames(self) -> bool:
        """Whether tokens of a frame are compared with those of frames before."""
        return self.reading in CROSS_FRAME

    @property
    def window(self) -> int:
        """Past frames that a reading across frames compares with; 0 for all others."""
        return int(parse_call(str(self.of))[1] or 0) if self.across_frames else 0

    @property
    def measured(self) -> bool:
        """Whether attention has to be looked at: not for masks, constants and random scores."""
        return self.reading not in (MASK, RAY_MAP) and not self._replaced

    @property
    def casts_rays(self) -> bool:
        """Whether a frame is looked at once more, by the rays of its camera."""
        return self.reading == RAY_MAP and not self._replaced

    @property
    def _replaced(self) -> bool:
        """Whether a control makes the score up."""
        return self.control is not None and parse_call(self.control)[0] in ("const", "random")

    @property
    def passes(self) -> int:
        """Decoder passes over a frame before the gated one."""
        known = not self.measured or SITE_KINDS[self.site].part == "encoder"
        if known and not self.casts_rays:
            return 0
        return Source.parse(self.source).passes

    @classmethod
    def mut3r(cls, *, edition: int = 2, **changes: Any) -> Self:
        """Return MUT3R's cue: what the paper says, and where it is silent what was measured.

        Said by the paper, and followed in both editions: self-attention of the image stream,
        aggregated over heads and all decoder layers, normalised, passed through a sigmoid, high
        for dynamic patches; measured in a probe pass over the same frame. Said, but not possible:
        "averaging across batch, head and key dimensions". Attention weights averaged over keys are
        constant, so *logits* are averaged, as TTT3R and Easi3R do in the same family of models;
        and each sample of a batch keeps its own score. Dynamic regions are "down-weighted", so a
        low mean logit is dynamic (sign -1).

        Left open: over which side logits are averaged, and how soft the score is. Edition 1
        averages over the keys that a patch reads, with sharpness 1. Edition 2 averages over the
        queries that read a patch, with sharpness 0.5, because of what `14_cue_to_gain` measures on
        the bundled models: it tells moving patches better, and of the two sharpnesses that gain
        the softer costs a third where nothing moves. Also open: the normalisation, a z-score over
        the patches of one frame (a robust one does as well, ranks do worse), and whether the pose
        key and the diagonal take part (they make no difference; here they do).

        Parameters
        ----------
        edition : {2, 1}
            1 is the default of the first edition of this package, kept by name.
        **changes
            Fields that differ from the edition.
        """
        return cls(**EDITIONS[one_of("edition", edition, tuple(EDITIONS))] | changes)

    @classmethod
    def convention(cls, name: str, **changes: Any) -> Self:
        """Return a cue that the literature describes, by name.

        ``mut3r_low`` and ``mut3r_high`` are MUT3R's mean over keys, of logits, with either sign;
        ``gram_low`` is LoGeR's mean product of queries with those of frames before, and
        ``raymap3r`` what rays see, with the released code's bands.

        Parameters
        ----------
        name : str
            ``mut3r_low``, ``mut3r_high``, ``raymap3r`` or ``gram_low``.
        **changes
            Fields that differ.
        """
        return cls(**CONVENTIONS[one_of("convention", name, CONVENTIONS)] | changes)

    @classmethod
    def easi3r(cls, **changes: Any) -> Self:
        """Return the part of Easi3R's cue that can be computed from one partner, for a stream.

        Of its four aggregates one partner leaves the means. This is the first of them, the mean
        logit that a patch of the frame receives where the anchor's patches read it; low is dynamic.
        The whole cue is :class:`~mut3r_analysis.PairCue`, of pairs.

        Parameters
        ----------
        **changes
            Fields that differ.
        """
        own = {"reading": "logit_query_mean", "site": "anchored_view1_to_view2"}
        return cls(**own | {"normaliser": "minmax"} | changes)

    @classmethod
    def oracle(cls, variable: str = "motion_mask", **changes: Any) -> Self:
        """Return a mask of the sequence as the score: by default its ground-truth motion.

        Parameters
        ----------
        variable : str
            Variable ``(frame, y, x)`` of the sequence, boolean or in [0, 1].
        **changes
            Fields that differ.
        """
        return cls(**{"reading": MASK, "of": variable, "normaliser": "raw"} | changes)
