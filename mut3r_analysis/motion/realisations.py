"""Realisations: what a gate does to the weights or the output of a site, given motion scores."""

from dataclasses import dataclass

from mut3r_analysis.attention.sites import PATCH_STREAMS, SITE_KINDS
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import meant

DIRECTIONS = ("image_self", "state_to_image", "image_to_state")
"""The three directions of MUT3R's gates, by the kind of site that they act on."""

RENORMALISED = ("key_bias", "key_bias_write", "hard")
"""Key gates that are a bias before the softmax."""


@dataclass(frozen=True)
class Realisation:
    """One way to gate one kind of site.

    Attributes
    ----------
    code, name : str
        A gate may be given either; it keeps the name.
    site : str
    formula : str
        z logits, p plain weights, o plain output, g motion scores (clamped to 1 - 1e-4 where a
        logarithm or a power is taken), tau the threshold, i queries, j keys.
    beta : bool
        Whether sharpness acts; otherwise the score is compared with the threshold.
    """

    code: str
    name: str
    site: str
    formula: str
    beta: bool = True


_ALL = (
    Realisation("C1", "pair_bias", "image_self", "softmax_j(z + beta log(1 - (1 - g_i) g_j)) v"),
    Realisation("C2", "key_bias", "image_self", "softmax_j(z + beta log(1 - g_j)) v"),
    Realisation(
        "C3", "static_to_dynamic", "image_self",
        "p v with p_ij = 0 where g_i <= tau < g_j, not renormalised", beta=False,
    ),
    Realisation("C4", "hard", "image_self", "softmax over keys with g_j <= tau", beta=False),
    Realisation("B1", "key_bias", "state_to_image", "softmax_j(z + beta log(1 - g_j)) v"),
    Realisation(
        "B2", "key_mask", "state_to_image", "sum_j p (1 - g_j)^beta v_j, not renormalised"
    ),
    Realisation(
        "B3", "key_bias_write", "state_to_image",
        "B1, and where beta > 0 the write rate of state token s times sum_j p_sj (1 - g_j)",
    ),
    Realisation("B4", "hard", "state_to_image", "softmax over keys with g_j <= tau", beta=False),
    Realisation(
        "B5", "static_to_dynamic", "state_to_image",
        "p v with p_sj = 0 where tau < g_j, not renormalised: C3 with static queries", beta=False,
    ),
    Realisation(
        "A0", "literal", "image_to_state",
        "softmax_j(z + beta log(1 - g_i)) v: invisible to softmax, a control",
    ),
    Realisation("A1", "output_scale", "image_to_state", "(1 - g_i)^beta o_i"),
    Realisation("A2", "postmask", "image_to_state", "sum_j (1 - g_i)^beta p_ij v_j"),
    Realisation(
        "A3", "null_key", "image_to_state",
        "softmax with one more key of value 0 and logit n_i: o_i sigmoid(LSE_i + b_i - n). "
        "Matched: n_i = LSE_i + log((1 - g_i)^-beta - 1), b = 0. Fixed n: b_i = beta log(1 - g_i)",
    ),
    Realisation(
        "A4", "null_value", "image_to_state", "r o_i + (1 - r) mean_j v_j, r = (1 - g_i)^beta"
    ),
    Realisation("A5", "temperature", "image_to_state", "softmax_j(z (1 - g_i)^beta) v"),
    Realisation(
        "A6", "pair_state", "image_to_state",
        "softmax_j(z + beta log(1 - g_i r_j)) v, r_j in [0, 1] the motion that state token j read "
        "in the layer before; the first layer is left alone",
    ),
    Realisation("A7", "hard_skip", "image_to_state", "o_i where g_i <= tau, else 0", beta=False),
)  # fmt: skip

REALISATIONS = {
    site: {item.name: item for item in _ALL if item.site == site} for site in DIRECTIONS
}
"""Kind of site -> name -> realisation."""


_THERE_ALONE = ("key_bias_write", "null_key", "pair_state")
"""What needs a state or a pose token, and so has no meaning at other sites."""


def form_of(site: str) -> str | None:
    """Return the direction whose realisations act at a kind of site of a decoder.

    That follows from the sides that hold patches of the frame at hand, which alone have scores: on
    both as at ``image_self``, keys as at ``state_to_image``, queries as at ``image_to_state``. None
    where nothing can act.
    """
    kind = SITE_KINDS[site]
    if kind.part != "decoder" or not kind.plain:
        return None
    sides = kind.queries in PATCH_STREAMS, kind.keys in PATCH_STREAMS
    forms = {(True, True): "image_self", (False, True): "state_to_image",
             (True, False): "image_to_state"}  # fmt: skip
    return forms.get(sides)


ELSEWHERE = tuple(name for name in SITE_KINDS if name not in DIRECTIONS and form_of(name))
"""Kinds of site beside those of :data:`DIRECTIONS` that a gate may act at."""


def realisations_at(site: str) -> dict[str, Realisation]:
    """Name -> realisation, of those that a kind of site may have."""
    rows = REALISATIONS[str(form_of(site))]
    if site in DIRECTIONS:
        return rows
    return {name: row for name, row in rows.items() if name not in _THERE_ALONE}


def realisation_name(site: str, given: str | None) -> str | None:
    """Return the name of a realisation given by name or code; None means the site is not gated.

    Raises
    ------
    InvalidArgument
    """
    if given is None:
        return None
    rows = realisations_at(site).values()
    for item in rows:
        if given in (item.name, item.code):
            return item.name
    known = ", ".join(f"{item.code} {item.name}" for item in rows)
    near = meant([given], [item.name for item in rows])
    raise InvalidArgument(
        f"unknown realisation {given!r} for {site}{near}; known: {known}; None is off"
    )
