"""Published numbers with their conflicts, and own scores put beside them.

:func:`published` is the table, :func:`conflicts` says where it disagrees with itself,
:func:`headlines` how to read the pairs everybody quotes, and :func:`compare` puts own scores next
to the literature, one protocol at a time.
"""

from mut3r_analysis.literature.comparison import compare
from mut3r_analysis.literature.conflicts import conflicts, headlines
from mut3r_analysis.literature.table import published

__all__ = ["compare", "conflicts", "headlines", "published"]
