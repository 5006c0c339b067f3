"""Point3R: a model whose memory is a growing set of points in the world."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
