"""The sequence that a stored run was made of, opened again."""

import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.sequences import open_sequence


def sequence_of(run: xr.DataTree, given: str | None = None) -> xr.Dataset:
    """Open what was run, with the frames that were.

    Parameters
    ----------
    run : DataTree
    given : str, optional
        As `open_sequence` takes it; by default where the store says it was.

    Raises
    ------
    InvalidArgument
        The store names nothing that can be opened.
    """
    about = run.attrs["sequence"]
    known = {"scenes": f"scenes/{about['name']}"} | dict.fromkeys(
        ("images", "video"), about["source"]
    )
    location = given or known.get(about["kind"])
    if location is None:
        raise InvalidArgument(
            f"the store says that {about['name']!r} came from {about['source']!r}, which cannot be "
            "opened by that alone; name it with --sequence"
        )
    labels = run["prediction"].to_dataset()["frame"].values.tolist()
    step = labels[1] - labels[0] if len(labels) > 1 else 1
    return open_sequence(location, start=labels[0], stop=labels[-1] + 1, stride=step)
