"""A microscope for streaming 3D transformers.

Names are loaded on first use, so that importing the package costs milliseconds: torch and
matplotlib are imported by what needs them.
"""

import lazy_loader

from mut3r_analysis.foundation.version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
