"""Streaming backbones: a frame and a state in, a prediction and a new state out."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
