"""What a sequence is: the variables of its Dataset, their dimensions, types and labels."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from mut3r_analysis.errors import InvalidArgument


class VariableModel(NamedTuple):
    """One variable of a sequence; `kinds` are numpy dtype kinds, `sizes` fixed dimension sizes."""

    dims: tuple[str, ...]
    kinds: str
    sizes: dict[str, int]
    long_name: str
    units: str


VARIABLES = {
    "image": VariableModel(
        ("frame", "y", "x", "rgb"), "u", {"rgb": 3}, "colour at source size, 0 to 255", "1"
    ),
    "depth": VariableModel(("frame", "y", "x"), "f", {}, "depth along the optical axis", "m"),
    "pose": VariableModel(
        ("frame", "row", "col"), "f", {"row": 4, "col": 4}, "camera-to-world transform", "m"
    ),
    # Not (row, col): one Dataset cannot have 4 x 4 poses and 3 x 3 intrinsics along one dimension.
    "intrinsics": VariableModel(
        ("frame", "camera_row", "camera_col"),
        "f",
        {"camera_row": 3, "camera_col": 3},
        "pinhole intrinsics, pixel centres at integer coordinates",
        "px",
    ),
    "motion_mask": VariableModel(("frame", "y", "x"), "b", {}, "pixel moves in the world", "1"),
    "instance": VariableModel(("frame", "y", "x"), "iu", {}, "object label, 0 = background", "1"),
    "track_pixel": VariableModel(
        ("frame", "track", "uv"), "f", {"uv": 2}, "where a tracked point is, NaN if unknown", "px"
    ),
    "track_visible": VariableModel(("frame", "track"), "b", {}, "tracked point is seen", "1"),
}
"""The variables a sequence may hold; only ``image`` is required. Others are kept as they are."""

COORDINATES = {
    "frame": ("index of the frame in the source", "1"),
    "file": ("file of the frame", "1"),
    "page": ("place of the frame in its file", "1"),
    "time": ("time since the first frame of the source", "s"),
}
"""Long name and units of the coordinates that frames may have."""

_KIND_NAMES = {"u": "unsigned integer", "i": "integer", "f": "float", "b": "boolean"}


def check_sequence(dataset: xr.Dataset) -> None:
    """Refuse a Dataset that is not a sequence.

    Raises
    ------
    InvalidArgument
        Listing everything that differs from the model.

    Examples
    --------
    >>> check_sequence(sequence)
    """
    problems = []
    if "image" not in dataset:
        held = ", ".join(map(str, dataset.data_vars)) or "nothing"
        problems.append(f"image (frame, y, x, rgb) uint8 is missing; the Dataset holds {held}")
    for name, expected in VARIABLES.items():
        if name in dataset:
            problems += _differences(dataset[name], expected)
    if not problems and 0 in dataset["image"].shape:
        problems.append(f"image is empty: its sizes are {dict(dataset['image'].sizes)}")
    if "frame" in dataset.coords:
        problems += _unclear_labels(dataset["frame"])
    if problems:
        raise InvalidArgument(
            "this Dataset is not a sequence:\n  - "
            + "\n  - ".join(problems)
            + "\nRename or transpose what is named above; Dataset.rename and Dataset.transpose help"
        )


def label(dataset: xr.Dataset, source: str) -> xr.Dataset:
    """Give every variable that lacks them a `long_name`, `units` and `source`."""
    labels = {name: (model.long_name, model.units) for name, model in VARIABLES.items()}
    labels |= COORDINATES
    labelled = dataset.copy()
    for name, variable in labelled.variables.items():
        long_name, units = labels.get(str(name), (str(name), "1"))
        variable.attrs = {
            "long_name": long_name,
            "units": units,
            "source": source,
            **variable.attrs,
        }
    return labelled


def _unclear_labels(frame: xr.DataArray) -> list[str]:
    """Say which labels of frames name no frame, or several."""
    labels = frame.to_index()
    if labels.hasnans:
        return [f"frame has {np.count_nonzero(labels.isna())} labels that are NaN; number them all"]
    if not labels.is_unique:
        again = labels[labels.duplicated()][0]
        return [f"frame has the label {again} more than once; give every frame its own"]
    return []


def _differences(variable: xr.DataArray, expected: VariableModel) -> list[str]:
    """Say what is wrong with one variable."""
    found = []
    if variable.dims != expected.dims:
        found.append(
            f"{variable.name} has dimensions ({', '.join(map(str, variable.dims))}) "
            f"instead of ({', '.join(expected.dims)})"
        )
    found += [
        f"{variable.name} has {variable.sizes[dim]} along {dim} instead of {size}"
        for dim, size in expected.sizes.items()
        if dim in variable.sizes and variable.sizes[dim] != size
    ]
    if variable.name == "image" and variable.dtype != np.uint8:
        found.append(f"image is {variable.dtype} instead of uint8")
    elif variable.dtype.kind not in expected.kinds:
        allowed = " or ".join(_KIND_NAMES[kind] for kind in expected.kinds)
        found.append(f"{variable.name} is {variable.dtype} instead of {allowed}")
    return found
