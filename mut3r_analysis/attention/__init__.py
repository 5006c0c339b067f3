"""The attention seam: named sites, statistics without maps, and what a run records of them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
