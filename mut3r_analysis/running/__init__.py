"""Runs: one backbone on one sequence, priced, streamed to a store, opened again."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
