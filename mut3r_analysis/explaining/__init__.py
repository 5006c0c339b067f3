"""From a worse number to the frame, the patch, the layer and the head that it comes from."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
