"""Training of small CUT3R models, and the tests their checkpoints must face.

:func:`train` follows a :class:`Recipe`; :func:`make_card` scores a checkpoint and writes its model
card, :func:`ship` puts both in their place, and :func:`cue_test` asks whether attention in it tells
moving objects from resting ones.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
