from .card import make_card as make_card
from .card import ship as ship
from .card_words import card_text as card_text
from .cue_trial import cue_test as cue_test
from .loop import train as train
from .recipe import Recipe as Recipe
from .recipe import read_recipe as read_recipe
