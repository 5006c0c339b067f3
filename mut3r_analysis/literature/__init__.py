"""Published numbers with their conflicts, and own scores put beside them.

:func:`published` is the table, :func:`conflicts` says where it disagrees with itself,
:func:`headlines` how to read the pairs everybody quotes, and :func:`compare` puts own scores next
to the literature, one protocol at a time.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
