"""DUSt3R and MonST3R: pairs of views, decoded side by side, in the camera of the first one."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
