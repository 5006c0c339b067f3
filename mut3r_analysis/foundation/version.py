"""The version of the package, which every run records."""

__version__ = "0.1.0"
