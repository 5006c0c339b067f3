"""Results that other code wrote, in the form of a run, so that one scorer scores all."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mut3r_analysis.backbones.preparation import Preparation
from mut3r_analysis.errors import InvalidArgument, MissingFile
from mut3r_analysis.evaluation.folders import PREDICTION_LAYOUTS, recognise
from mut3r_analysis.evaluation.truth import on_prediction_grid
from mut3r_analysis.foundation.fields import one_of
from mut3r_analysis.foundation.paths import user_path
from mut3r_analysis.metrics.choices import ORDERS
from mut3r_analysis.metrics.protocols import OFFICIAL_INPUT
from mut3r_analysis.sequences.layouts.layout import Variables
from mut3r_analysis.sequences.model import label


def import_predictions(
    path: str | Path,
    layout: str | None = None,
    *,
    quaternion: str | None = None,
    preparation: str | None = None,
    sequence: xr.Dataset | None = None,
    name: str | None = None,
) -> xr.DataTree:
    """Read the folder that other code wrote for one sequence, as a run that `evaluate` takes.

    Parameters
    ----------
    path : str or Path
        Folder of one sequence.
    layout : str, optional
        By default what the files say.

        - ``"cut3r-demo"``: ``depth/000000.npy``, ``conf/000000.npy`` and ``camera/000000.npz``
          (``pose`` camera-to-world, ``intrinsics``). ``color/`` holds the network's input, not a
          prediction, and is not read.
        - ``"cut3r-depth"``: ``frame_0000.npy`` per frame, what the released depth scorer reads.
        - ``"cut3r-pose"``: ``pred_traj.txt``, and where they are there ``pred_focal.txt`` or
          ``pred_intrinsics.txt`` (9 numbers a line), ``frame_0000.npy``, ``conf_0.npy`` and
          ``dynamic_mask_0.png``: what the released pose evaluations of CUT3R, MonST3R and Easi3R
          write.
        - ``"cut3r-mono"``: ``<name of the image>depth.npy``, in the order of the names: what the
          released evaluation of single frames writes.
    quaternion : {"wxyz", "xyzw"}, optional
        Order of the quaternions in ``pred_traj.txt``. By default it is detected: from a comment
        that names the columns, a first pose that is the identity in one order, or agreement with
        the poses of `sequence`; where none of them tells, this refuses. Released code writes wxyz.
    preparation : {"crop", "resize"}, optional
        How frames became the network's input. By default what the released code of the layout
        does.
    sequence : Dataset, optional
        The frames that were predicted, one for one. They give the run its truth and the indices of
        its frames in the source; without, frames count from 0.
    name : str, optional
        Of the sequence; by default that of `sequence`, else of the folder.

    Returns
    -------
    DataTree
        Groups ``/prediction`` (maps are read when they are used) and, with `sequence`, ``/truth``
        on the grid of the predictions. The attribute ``imported`` says from where, in which layout,
        and in which order quaternions were read and why.

    Raises
    ------
    MissingFile, UnreadableFile
        No such folder, gaps in numbered files, or files that are not what they should be.
    InvalidArgument
        An unknown layout, an order of quaternions that nothing tells, or numbers of frames that
        differ.

    Examples
    --------
    >>> from pathlib import Path
    >>> Path("results").mkdir()
    >>> np.savetxt("results/pred_traj.txt", [[t, t, 0, 0, 1, 0, 0, 0] for t in range(3)])
    >>> imported = import_predictions("results", sequence=sequence)
    >>> imported["prediction/pose"].dims, imported.attrs["imported"]["layout"]
    (('frame', 'row', 'col'), 'cut3r-pose')
    """
    folder = user_path(path)
    if not os.path.isdir(folder):
        raise MissingFile(f"no folder of predictions at {folder}")
    layout = recognise(folder) if layout is None else layout
    known = PREDICTION_LAYOUTS[one_of("layout", layout, PREDICTION_LAYOUTS)]
    rule = known.rule if preparation is None else preparation
    one_of("preparation", rule, ("crop", "resize"))
    one_of("quaternion", quaternion, (None, *ORDERS))
    variables, notes = known.read(folder, quaternion, sequence)
    if not variables:
        raise MissingFile(f"{folder} holds nothing of the layout {layout}: {known.files}")
    frame = _frames(folder, variables, sequence)
    prediction = label(xr.Dataset(variables, {"frame": frame}), layout)
    fields = _preparation_fields(rule, prediction, sequence)
    recorded = {} if sequence is None else sequence.attrs
    frames = prediction.sizes["frame"]
    attrs: dict[str, Any] = {
        "backbone": {"name": layout, "sha256": None, "update": None, "preparation": fields},
        "sequence": {
            "name": name or str(recorded.get("name", folder.name)),
            **{key: str(recorded.get(key, "")) for key in ("kind", "source", "sha256")},
        },
        "frames": frames,
        "frames_complete": frames,
        "complete": True,
        "cue": None,
        "gate": None,
        "imported": {"path": str(folder), "layout": layout, **notes},
    }
    groups = {"/": xr.Dataset(attrs=attrs), "/prediction": prediction}
    if sequence is not None:
        truth = _truth(sequence, fields, prediction).assign_coords(frame=prediction["frame"].values)
        if truth.data_vars:
            groups["/truth"] = truth
    return xr.DataTree.from_dict(groups, name=attrs["sequence"]["name"])


def _frames(folder: Path, variables: Variables, sequence: xr.Dataset | None) -> NDArray[np.int64]:
    """Return indices in the source (frame); their number must be the same everywhere."""
    counts = {variable: values.shape[0] for variable, (_, values, *_) in variables.items()}
    if sequence is not None:
        counts["the sequence"] = sequence.sizes["frame"]
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{variable} {count}" for variable, count in counts.items())
        raise InvalidArgument(
            f"{folder}: numbers of frames differ ({listed}); give sequence= with exactly the "
            "frames that were predicted"
        )
    if sequence is not None and "frame" in sequence.coords:
        return sequence["frame"].values
    return np.arange(next(iter(counts.values())))


def _preparation_fields(
    rule: str, prediction: xr.Dataset, sequence: xr.Dataset | None
) -> dict[str, Any]:
    """Describe the preparation; without maps their size is not known and left at None."""
    fields: dict[str, Any] = {"size": None, "rule": rule, "patch": OFFICIAL_INPUT["patch"]}
    if "y" not in prediction.sizes:
        return fields
    given = (prediction.sizes["y"], prediction.sizes["x"])
    fields["size"] = max(given)
    if sequence is not None:
        height, width = sequence.sizes["y"], sequence.sizes["x"]
        expected = Preparation(**fields).shape(height, width)
        if expected != given:
            raise InvalidArgument(
                f"predictions are {given[1]} x {given[0]} px, but frames of {width} x {height} px "
                f"are prepared as {expected[1]} x {expected[0]} px when their longer side is set "
                f"to {fields['size']} px, in patches of {fields['patch']} px; is sequence= the one "
                "that was predicted? Those of a model that prepares frames otherwise are imported "
                "without sequence=, and evaluate(truth=...) scores them"
            )
    return fields


def _truth(sequence: xr.Dataset, fields: dict[str, Any], prediction: xr.Dataset) -> xr.Dataset:
    if fields["size"] is None:
        return sequence[[v for v in ("pose",) if v in sequence]].reset_coords(drop=True)
    return on_prediction_grid(sequence, Preparation(**fields))
