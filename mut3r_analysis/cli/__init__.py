"""The ``mut3r`` command."""

from mut3r_analysis.cli.main import main

__all__ = ["main"]


def __dir__() -> list[str]:
    return __all__
