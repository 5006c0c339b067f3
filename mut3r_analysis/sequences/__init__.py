"""Sequences: ordered frames, with whatever ground truth exists, as one lazy xarray Dataset."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
