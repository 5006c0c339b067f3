"""The ground truth that a run is scored against: its own, or the sequence's at source size."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mut3r_analysis.backbones.preparation import Preparation
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.evaluation.eligibility import UnmetProtocol, recorded_preparation

Truth = xr.Dataset | str | Path
_GRID = ("frame", "y", "x")


class Truths:
    """Where the truth of every run comes from; sequences are opened when they are asked for.

    Parameters
    ----------
    given : Dataset, str, Path, mapping or None
        As `evaluate` takes it.
    names : list of str
        Sequences of the runs.

    Raises
    ------
    InvalidArgument
        One sequence for several runs, names that no run has, or something that is no truth.
    """

    def __init__(self, given: Truth | Mapping[str, Truth] | None, names: list[str]) -> None:
        self._given: dict[str, Truth] = {}
        self._alone = False
        if isinstance(given, str) and _is_data_set(given):
            self._given = {name: of_sequence(given, name) for name in names}
        elif isinstance(given, xr.Dataset | str | Path):
            if len(names) > 1:
                raise InvalidArgument(
                    f"one truth was given for {len(names)} runs ({', '.join(names)}); give a "
                    "mapping from sequence name to truth, or a data set such as 'sintel:ROOT'"
                )
            self._given = {names[0]: given}
            self._alone = True
        elif isinstance(given, Mapping):
            # A Dataset is a Mapping too, which a type checker cannot see is excluded here.
            self._given = dict(cast(Mapping[str, Truth], given))
        elif given is not None:
            raise InvalidArgument(
                f"truth is a {type(given).__name__}; give a sequence, a name that open_sequence "
                "takes, or a mapping from sequence names to either"
            )
        if self._given and not set(self._given) & set(names):
            raise InvalidArgument(
                f"truth is given for {', '.join(self._given)}, but the runs are of "
                f"{', '.join(names)}; name truths as the runs' sequences are named"
            )

    def of(self, name: str) -> xr.Dataset | None:
        """Open the truth of a sequence; None where none was given.

        Raises
        ------
        InvalidArgument
            When one truth was given, without a name, and it is of another sequence.
        """
        found = self._given.get(name)
        if found is None:
            return None
        if isinstance(found, str | Path):
            from mut3r_analysis.sequences import open_sequence

            found = open_sequence(found)
        called = str(found.attrs.get("name", name))
        if self._alone and called != name:
            raise InvalidArgument(
                f"the run is of {name!r} and the truth of {called!r}; where they are the same, say "
                f"so: truth={{{name!r}: ...}}"
            )
        if "frame" not in found.coords:
            return found.assign_coords(frame=np.arange(found.sizes["frame"]))
        return found


def select_frames(dataset: xr.Dataset, frames: NDArray[np.int64]) -> xr.Dataset:
    """Take the frames with these indices in the source.

    Raises
    ------
    UnmetProtocol
        Some of them are not there.
    """
    missing = np.setdiff1d(frames, dataset["frame"].values)
    if missing.size:
        raise UnmetProtocol(
            f"{missing.size} of {len(frames)} frames are not there, the first is frame "
            f"{missing[0]} of the source; give the whole sequence, with the indices of the source "
            "as its coordinate `frame`"
        )
    return dataset.sel(frame=frames)


def on_prediction_grid(truth: xr.Dataset, preparation: Preparation) -> xr.Dataset:
    """Bring truth at source size to the grid of the predictions, as a run does with its own.

    Depth and masks are sampled at the centre of each prepared pixel, intrinsics moved.
    """
    sampled: dict[str, Any] = {}
    for name in ("depth", "motion_mask"):
        if name in truth:
            planes = [preparation.depth(truth[name][i].values) for i in range(truth.sizes["frame"])]
            sampled[name] = (_GRID, np.stack(planes), truth[name].attrs)
    if "intrinsics" in truth:
        matrices = preparation.intrinsics(
            truth["intrinsics"].values, truth.sizes["y"], truth.sizes["x"]
        )
        sampled["intrinsics"] = (truth["intrinsics"].dims, matrices, truth["intrinsics"].attrs)
    if "pose" in truth:
        sampled["pose"] = truth["pose"].variable
    coords = {name: c for name, c in truth.coords.items() if c.dims == ("frame",)}
    return xr.Dataset(sampled, coords=coords)


def prepared_truth(
    run: xr.DataTree, truth: xr.Dataset | None, frames: NDArray[np.int64]
) -> xr.Dataset:
    """Return truth on the prediction grid: the one that was given, else the run's own.

    Raises
    ------
    UnmetProtocol
        There is neither, or the run does not say how to prepare what was given.
    """
    if truth is None:
        if "truth" not in run.children:
            raise UnmetProtocol("the run holds no ground truth; pass truth=, a sequence that does")
        return select_frames(run["truth"].to_dataset(), frames)
    preparation = recorded_preparation(run)
    if preparation is None:
        raise UnmetProtocol(
            "the run does not say how its frames were prepared, so truth at source size cannot be "
            "brought to its grid; declare preparation= when importing predictions"
        )
    return on_prediction_grid(select_frames(truth, frames), preparation)


def _is_data_set(location: str) -> bool:
    """Say whether a location is that of a whole data set, not of one sequence."""
    from mut3r_analysis.sequences.prefixes import split_prefix

    prefixed = split_prefix(location)
    return prefixed is not None and prefixed.prefix != "scenes" and "#" not in prefixed.rest


def of_sequence(location: str, name: str) -> str:
    """Name one sequence of a data set; options stay at the end."""
    root, mark, options = location.partition("?")
    return f"{root}#{name}{mark}{options}"
