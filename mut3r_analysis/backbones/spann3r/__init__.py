"""Spann3R: pairs of frames decoded together, and a bank of keys and values that they read."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
