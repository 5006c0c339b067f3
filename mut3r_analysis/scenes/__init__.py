"""Procedural scenes with exact truth: specification, renderers, twins and training batches."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
