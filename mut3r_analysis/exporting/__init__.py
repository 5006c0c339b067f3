"""Runs as files of other programs: point clouds, COLMAP and nerfstudio folders."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
