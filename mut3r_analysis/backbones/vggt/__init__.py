"""VGGT and StreamVGGT: frames attend among themselves and, in turn, to all frames seen so far."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
