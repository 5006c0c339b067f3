"""Metrics and the protocols that make their numbers comparable.

Array functions take plain arrays and work in float64; the ``score_...`` functions take labelled
data and return a Dataset that holds the alignment next to the scores.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
