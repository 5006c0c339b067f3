"""Gate: the declared rule by which motion scores change what attention sites compute."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import Checked, Indices, indices, number, one_of, shown, whole
from mut3r_analysis.foundation.layers import (
    Consecutive,
    consecutive_layers,
    range_label,
    within,
)
from mut3r_analysis.foundation.specification import LayeredSpecification
from mut3r_analysis.motion.realisations import (
    DIRECTIONS,
    ELSEWHERE,
    RENORMALISED,
    form_of,
    realisation_name,
    realisations_at,
)

Elsewhere = Checked[Mapping[str, str] | Iterable[tuple[str, str]], tuple[tuple[str, str], ...]]

KERNELS = ("auto", "values", "dense")
PAPER_DEPTH = 12
"""Decoder layers of the models in which "layers 0-6" was said."""

_PAIRS = (("image_self", "pair_bias"), ("image_to_state", "pair_state"))
PAPER_LAYERS: dict[str, Any] = {"layers": (0, 6), "of_depth": PAPER_DEPTH}
"""Fields of a gate on the layers of the paper's main results."""

EDITIONS: dict[int, dict[str, Any]] = {
    2: {"image_to_state": "pair_state", "layers": None},
    1: {"image_to_state": "output_scale"} | PAPER_LAYERS,
}
"""What :meth:`Gate.mut3r` is in each edition, where they differ; the latest is first."""

MOST_GROUPS = 4
"""Largest beta for which value groups are used unasked; they cost beta + 1 value products."""


def _elsewhere(
    field: str, given: Mapping[str, str] | Iterable[tuple[str, str]]
) -> tuple[tuple[str, str], ...]:
    """Return sites and names of their realisations, in the order in which sites are known."""
    try:
        chosen = dict(given)
    except (TypeError, ValueError):
        raise InvalidArgument(
            f"{field} says of sites how they are gated, such as {{'view1_self': 'key_bias'}}; got "
            f"{shown(given)}"
        ) from None
    for site in chosen:
        one_of(f"{field} (sites of a decoder with patches of the frame)", site, ELSEWHERE)
    named = ((site, realisation_name(site, chosen.get(site))) for site in ELSEWHERE)
    return tuple((site, name) for site, name in named if name is not None)


@dataclass(frozen=True, kw_only=True)
class Gate(LayeredSpecification):
    """What motion scores do, where, and how sharply.

    Special tokens have motion score 0 whatever the cue says. As keys they are never weakened; as
    queries they read like static patches.

    Parameters
    ----------
    image_self : str, optional
        Realisation where image patches read each other (:data:`~mut3r_analysis.motion.REALISATIONS`
        has formulas), by name or code; None leaves the site alone.
    state_to_image : str, optional
        Where the state reads the image, which is how it is written.
    image_to_state : str, optional
        Where the image reads the state.
    elsewhere : mapping of str to str
        Other kinds of site of a decoder, of other models, and how they are gated: with the
        realisations of ``image_self`` where patches of the frame read each other, of
        ``state_to_image`` where others read them, of ``image_to_state`` where they read others.
        :meth:`at` makes a gate of such sites alone.
    layers : range or (int, int), optional
        Consecutive layers: ``range(0, 6)`` or the pair (0, 6), half-open and 0-based; None is all.
    of_depth : int, optional
        Decoder depth that `layers` is counted in. In a backbone of another depth the range is
        scaled and rounded; None takes `layers` as they are.
    heads : collection of int, optional
        Which heads are gated; None is all.
    beta : float
        Sharpness, 0 or more.
    threshold : float
        Score in (0, 1] above which a patch counts as dynamic, for realisations without beta.
    null_logit : float, optional
        Logit of ``null_key``'s key. None matches it to each row, which equals ``output_scale``. A
        fixed logit weakens static queries too, so even beta = 0 changes them.
    kernel : {"auto", "values", "dense"}
        ``values`` widens the values and never forms query x key numbers; pair gates then need a
        whole beta. ``dense`` forms the bias in tiles of query rows. They are equal to rounding;
        ``auto`` takes the faster one for the device (:meth:`kernel_at`).

    Raises
    ------
    InvalidArgument
        When the specification cannot mean anything; the message says what is allowed.

    Examples
    --------
    >>> Gate(image_to_state="A5", beta=2).image_to_state
    'temperature'
    """

    image_self: str | None = "pair_bias"
    state_to_image: str | None = "key_bias"
    image_to_state: str | None = "pair_state"
    elsewhere: Elsewhere = Checked(_elsewhere, ())
    layers: Consecutive = Checked(consecutive_layers, None)
    of_depth: int | None = None
    heads: Indices = Checked(indices, None)
    beta: float = 1.0
    threshold: float = 0.5
    null_logit: float | None = None
    kernel: str = "auto"

    def __post_init__(self) -> None:
        one_of("kernel", self.kernel, KERNELS)
        checked: dict[str, Any] = {
            site: realisation_name(site, getattr(self, site)) for site in DIRECTIONS
        }
        checked |= {
            "beta": number("beta", self.beta, 0, open_high=True),
            "threshold": number("threshold", self.threshold, 0, 1, open_high=False),
            "of_depth": None if self.of_depth is None else whole("of_depth", self.of_depth, 1),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.threshold == 0:
            raise InvalidArgument("threshold must be above 0: at 0 special tokens would be dynamic")
        if self.null_logit is not None:
            if self.image_to_state != "null_key":
                raise InvalidArgument("null_logit belongs to image_to_state='null_key'")
            value = number("null_logit", self.null_logit, -1e4, 1e4, open_high=False)
            object.__setattr__(self, "null_logit", value)
        if self.of_depth is not None and (self.layers is None or self.of_depth < self.layers.stop):
            raise InvalidArgument(
                f"of_depth = {self.of_depth} says in how many layers `layers` is counted, but "
                f"layers = {self.layers}; give a range within it"
            )
        pair = [site for site in self.sites if self._weighs_pairs(site)]
        if self.kernel == "values" and pair and self.beta != int(self.beta):
            raise InvalidArgument(
                f"value groups need a whole beta at {', '.join(pair)}, got {self.beta:g}: a pair "
                "weight to a fractional power is no finite sum of products. Use kernel='dense' "
                "(or 'auto'), or a whole beta"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, without `elsewhere` where it is empty, as in older stores."""
        values = super().to_dict()
        values["elsewhere"] = dict(self.elsewhere)
        if not self.elsewhere:
            del values["elsewhere"]
        return values

    @classmethod
    def mut3r(
        cls,
        beta: float = 1.0,
        *,
        directions: Collection[str] = DIRECTIONS,
        edition: int = 2,
        **changes: Any,
    ) -> Self:
        """Return MUT3R's gates in all three directions.

        Said by the paper, and followed in both editions: a bias of pairs in self-attention, and of
        dynamic keys where the state reads the image. Said, but not possible: a bias of dynamic
        queries where the image reads the state. A softmax does not see it
        (``image_to_state="literal"`` keeps it as a control), so another form has to stand for it,
        which is open. Edition 1 scales the output (A1). Edition 2 weakens pairs of a dynamic
        patch and a state token that read dynamic patches before (A6): in `14_cue_to_gain` it is
        the only form that costs nothing even with the true mask.

        The paper gates "layers 0-6" of 12, and edition 1 does, scaled to the decoder. Edition 2
        gates all layers: in the bundled models the first half changes next to nothing, and which
        layers matter is a property of weights. Give `PAPER_LAYERS` for the paper's.

        Parameters
        ----------
        beta : float
            Sharpness; no source states MUT3R's.
        directions : collection of str
            Among ``image_self``, ``state_to_image``, ``image_to_state``.
        edition : {2, 1}
            1 is the default of the first edition of this package, kept by name.
        **changes
            Fields that differ from the edition.
        """
        for site in directions:
            one_of("directions", site, DIRECTIONS)
        chosen = EDITIONS[one_of("edition", edition, tuple(EDITIONS))]
        if "layers" in changes:
            changes = {"of_depth": None} | changes
        off = {site: None for site in DIRECTIONS if site not in directions}
        return cls(**chosen | {"beta": beta} | off | changes)

    @classmethod
    def linear_output(cls, **changes: Any) -> Self:
        """Return the output gate that is linear in the score: what the image reads, times 1 - g.

        Parameters
        ----------
        **changes
            Fields that differ.
        """
        own: dict[str, Any] = {"image_to_state": "output_scale", "beta": 1.0, "layers": None}
        return cls(**own | {"image_self": None, "state_to_image": None} | changes)

    @classmethod
    def easi3r(
        cls,
        threshold: float = 0.5,
        *,
        sites: Collection[str] = ("state_to_image",),
        **changes: Any,
    ) -> Self:
        """Return Easi3R's rule at CUT3R's sites: static queries get no weight from dynamic keys.

        The weights are zeroed after the softmax and not renormalised; dynamic queries keep
        everything. State tokens have no motion score and count as static queries. The original
        masks the cross-attention of one decoder of a pair network in all its layers, and no
        self-attention; what the state reads of the image is CUT3R's site like that one.

        Parameters
        ----------
        threshold : float
            Score above which a patch is dynamic, as released masks are cut.
        sites : collection of str
            Such as ``state_to_image`` and ``image_self``, or ``anchored_view1_to_view2`` of a pair
            network that streams; :class:`~mut3r_analysis.PairGate` gates pairs themselves.
        **changes
            Other fields that differ.

        Raises
        ------
        InvalidArgument
            For a site whose keys are not image patches.
        """
        known = (*DIRECTIONS, *ELSEWHERE)
        allowed = [site for site in known if "static_to_dynamic" in realisations_at(site)]
        for site in sites:
            one_of("sites (with image patches as keys)", site, allowed)
        chosen: dict[str, Any] = dict.fromkeys(DIRECTIONS)
        chosen |= dict.fromkeys(set(sites) & set(DIRECTIONS), "static_to_dynamic")
        other = dict.fromkeys(set(sites) - set(DIRECTIONS), "static_to_dynamic")
        return cls(**{"threshold": threshold} | chosen | {"elsewhere": other} | changes)

    @classmethod
    def at(cls, sites: Mapping[str, str], **changes: Any) -> Self:
        """Return a gate of the named sites alone.

        Parameters
        ----------
        sites : mapping of str to str
            Kind of site to realisation, by name or code.
        **changes
            Other fields.

        Examples
        --------
        >>> Gate.at({"view1_self": "C1"}, beta=2).sites
        ('view1_self',)
        """
        chosen: dict[str, Any] = dict.fromkeys(DIRECTIONS)
        chosen |= {site: name for site, name in sites.items() if site in DIRECTIONS}
        other = {site: name for site, name in sites.items() if site not in DIRECTIONS}
        return cls(**chosen | {"elsewhere": other} | changes)

    @property
    def sites(self) -> tuple[str, ...]:
        """Kinds of site that are gated."""
        own = tuple(site for site in DIRECTIONS if getattr(self, site) is not None)
        return own + tuple(site for site, _ in self.elsewhere)

    def realisation(self, site: str) -> str | None:
        """Return how a kind of site is gated; None where it is not."""
        held: str | None = getattr(self, site) if site in DIRECTIONS else None
        return held or dict(self.elsewhere).get(site)

    def only(self, site: str) -> Self:
        """Return the same gate at one of its sites alone."""
        others: dict[str, Any] = {other: None for other in DIRECTIONS if other != site}
        others["elsewhere"] = tuple(row for row in self.elsewhere if row[0] == site)
        if site != "image_to_state":
            others["null_logit"] = None
        return replace(self, **others)

    @property
    def writes(self) -> bool:
        """Whether the commit has to multiply its rate by the static mass (B3); not at beta = 0."""
        return self.state_to_image == "key_bias_write" and self.beta > 0

    def layer_range(self, depth: int) -> range:
        """Return the layers gated in a decoder of `depth` layers.

        Raises
        ------
        InvalidArgument
            When the range reaches outside.
        """
        layers = self.layers
        if layers is not None and self.of_depth is not None:
            bounds = layers.start, layers.stop
            layers = range(*(round(bound * depth / self.of_depth) for bound in bounds))
        return within("layers", layers, depth)

    def describe_layers(self, depth: int) -> str:
        """Say which layers are gated in a decoder of `depth` layers: ``"[0, 3) of 6 layers"``."""
        layers = self.layer_range(depth)
        return f"{range_label(layers.start, layers.stop)} of {depth} layers"

    def inert(self, depth: int | None = None, site: str | None = None) -> str | None:
        """Say why the gate cannot change anything, if it cannot.

        Parameters
        ----------
        depth : int, optional
            Of the decoder; without it a scaled range of layers is not judged.
        site : str, optional
            One direction only.

        Returns
        -------
        str or None
            The reason in words; None for a gate that acts.
        """
        if site is None:
            reasons = {name: self.inert(depth, name) for name in self.sites}
            if not reasons:
                return "no direction is gated"
            if None in reasons.values():
                return None
            return "; ".join(dict.fromkeys(str(reason) for reason in reasons.values()))
        one_of("site", site, (*DIRECTIONS, *ELSEWHERE))
        name = self.realisation(site)
        if name is None:
            return f"{site} is not gated"
        unscaled = self.layers if self.of_depth is None else None
        layers = unscaled if depth is None else self.layer_range(depth)
        if layers is not None and not layers:
            return "the range of layers is empty"
        if name == "literal":
            return (
                "a bias that depends on the query alone shifts a whole row of logits, and softmax "
                "does not see row shifts"
            )
        if name == "pair_state" and layers is not None and layers.stop <= 1:
            return "pair_state needs the layer before; the first layer alone has none"
        if self.beta == 0 and realisations_at(site)[name].beta and self.null_logit is None:
            return "beta = 0: every weight is 1"
        return None

    def kernel_at(self, site: str, device: str = "cpu") -> str:
        """Return the kernel used at a kind of site on a type of device: "values" or "dense".

        Unasked, value forms are used on accelerators, whose fused kernels refuse or pad masks:
        for key gates, and for pair gates with a whole beta up to 4. The processor's kernel takes a
        mask for next to nothing, which makes a row of biases per key gate ten times, and a tiled
        bias per pair gate six times cheaper than widened values. Weights that are not renormalised
        have no bias and use values everywhere.
        """
        if self.kernel != "auto":
            return self.kernel
        if self._weighs_pairs(site):
            whole = self.beta == int(self.beta) and self.beta <= MOST_GROUPS
            return "values" if whole and device != "cpu" else "dense"
        name = self.realisation(site)
        return "dense" if device == "cpu" and name in RENORMALISED else "values"

    def _weighs_pairs(self, site: str) -> bool:
        """Whether a site's weight depends on query and key."""
        return (form_of(site), self.realisation(site)) in _PAIRS
