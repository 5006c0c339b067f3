"""Runs again, to look at the attention of one frame."""

from collections.abc import Mapping

import xarray as xr

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.foundation.fields import one_of
from mut3r_analysis.running import Configuration, run_batch


def attention_at(
    backbone: Backbone,
    sequence: xr.Dataset,
    configurations: Mapping[str, Configuration],
    frame: int,
    *,
    archive: bool = False,
) -> dict[str, xr.DataTree]:
    """Run configurations again up to a frame, whose attention is captured with what heads write.

    Parameters
    ----------
    backbone : Backbone
    sequence : Dataset
    configurations : mapping of str to Configuration
        By name.
    frame : int
        Label.
    archive : bool
        Whether queries and keys are kept, for maps.

    Returns
    -------
    dict
        One run per name, of the frames up to that one.

    Examples
    --------
    >>> backbone = m3.load_backbone("tiny")
    >>> seen = attention_at(backbone, sequence, {"plain": m3.Configuration()}, frame=1)
    >>> seen["plain"]["attention/image_self/entropy"].sizes["frame"]
    1
    """
    labels = sequence["frame"].values.tolist()
    place = labels.index(one_of("frame", frame, labels))
    found = run_batch(
        backbone,
        sequence.isel(frame=slice(0, place + 1)),
        list(configurations.values()),
        capture=Capture(head_outputs="all", frames=[place], archive=archive),
        outputs=("pose",),
        progress=False,
    )
    return dict(zip(configurations, found, strict=True))
