"""The sequence that a stored run was made of, opened again."""

from pathlib import Path

import xarray as xr

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.sequences import open_sequence


def sequence_of(run: xr.DataTree, given: xr.Dataset | str | Path | None = None) -> xr.Dataset:
    """Open what was run, with the frames that were.

    Parameters
    ----------
    run : DataTree
    given : Dataset, str or Path, optional
        A Dataset is what was run, and returned; else as `open_sequence` takes it, and by default
        where the run says it was.

    Raises
    ------
    InvalidArgument
        The run names nothing that can be opened.
    """
    if isinstance(given, xr.Dataset):
        return given
    about = run.attrs["sequence"]
    known = {"scenes": f"scenes/{about['name']}"} | dict.fromkeys(
        ("images", "video"), about["source"]
    )
    location = given or known.get(about["kind"])
    if location is None:
        raise InvalidArgument(
            f"the run says that {about['name']!r} came from {about['source']!r}, which cannot be "
            "opened by that alone; give it with sequence="
        )
    labels = run["prediction"].to_dataset()["frame"].values.tolist()
    step = labels[1] - labels[0] if len(labels) > 1 else 1
    return open_sequence(location, start=labels[0], stop=labels[-1] + 1, stride=step)
