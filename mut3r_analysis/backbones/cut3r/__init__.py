"""CUT3R: a recurrent transformer that carries a scene state from frame to frame."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
