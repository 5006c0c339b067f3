"""Where the weights of a backbone come from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """Where a backbone's weights come from.

    Attributes
    ----------
    name : str
    sha256 : str
        Of the checkpoint file (or of the recipe of random weights), hexadecimal.
    report : tuple of str
        What was rewritten on loading, and warnings a reader of results should see.
    weights : str
        Digest of the weights in memory when they were loaded; empty where that is not known.
    specimen : bool
        Whether these are weights that ship with the package, which know its rendered scenes alone.
    """

    name: str
    sha256: str
    report: tuple[str, ...] = ()
    weights: str = ""
    specimen: bool = False
