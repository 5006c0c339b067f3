"""The ``mut3r`` command."""

from mut3r_analysis.cli.main import main

__all__ = ["main"]
