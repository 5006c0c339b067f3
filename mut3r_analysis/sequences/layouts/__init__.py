"""Sequences of published data sets: loading, writing and checking them in their own layouts."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
