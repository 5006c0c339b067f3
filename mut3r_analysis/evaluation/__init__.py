"""Scores of runs under named protocols, for our runs and for predictions that other code wrote."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
