"""Training of small CUT3R models, and the tests their checkpoints must face.

:func:`train` follows a :class:`Recipe`; :func:`make_card` scores a checkpoint and writes its model
card, :func:`ship` puts both in their place, and :func:`cue_test` asks whether attention in it tells
moving objects from resting ones.
"""

from typing import TYPE_CHECKING

from mut3r_analysis.lazy import lazy_names

if TYPE_CHECKING:
    from mut3r_analysis.training.card import make_card
    from mut3r_analysis.training.card_words import card_text
    from mut3r_analysis.training.cue_trial import cue_test
    from mut3r_analysis.training.loop import train
    from mut3r_analysis.training.recipe import Recipe, read_recipe
    from mut3r_analysis.training.shipping import ship

__all__ = ["Recipe", "card_text", "cue_test", "make_card", "read_recipe", "ship", "train"]

__getattr__ = lazy_names(
    __name__,
    {
        "Recipe": "mut3r_analysis.training.recipe",
        "card_text": "mut3r_analysis.training.card_words",
        "cue_test": "mut3r_analysis.training.cue_trial",
        "make_card": "mut3r_analysis.training.card",
        "read_recipe": "mut3r_analysis.training.recipe",
        "ship": "mut3r_analysis.training.shipping",
        "train": "mut3r_analysis.training.loop",
    },
)
