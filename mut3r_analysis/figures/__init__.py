"""Figures: labelled data in, a matplotlib figure out, no global state touched.

Those of a run take it first, name the reduction they apply and state their source. Those of a
study (``interval_dots``, ``curves``, ``matrix``) take its labelled results, and seaborn draws them.
All label axes and colour bars from the data's own ``long_name`` and ``units``, and show themselves
in notebooks; none is left open in pyplot.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
