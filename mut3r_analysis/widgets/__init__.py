"""Explorers for notebooks: click a patch, see who looks at it; click a number, see why.

An explorer asks Python for one row, frame or map at a time, over the notebook's own connection: no
server, nothing fetched from elsewhere, and a page that does not grow with the run. Each has
``figure()`` for papers and ``save_html(path)`` for readers without a kernel.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
