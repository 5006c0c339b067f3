"""What a run says of itself, so that a number can be traced and a run repeated."""

from collections.abc import Collection
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, NamedTuple

import torch
import xarray as xr

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.attention.seam import Observer
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.foundation.version import __version__
from mut3r_analysis.motion.patch import Patching
from mut3r_analysis.running.configuration import Configuration

FORMAT_VERSION = 2
"""Of the stores that are written: 2 has checksums, 1 had none and is read all the same."""

UNNAMED = "unnamed callable: this run cannot be repeated from what it records"
"""Stands for the name of a function that has none."""


class Observers(NamedTuple):
    """The callables that a run was given."""

    probe: Observer | None = None
    intervene: Observer | Patching | None = None

    @property
    def names(self) -> dict[str, str | None]:
        """Name of each, as a run records it."""
        return {name: callable_name(value) for name, value in self._asdict().items()}


def callable_name(given: Observer | Patching | None) -> str | None:
    """Return the name by which a run records a callable, a patch as its JSON; None for none."""
    if given is None:
        return None
    if isinstance(given, Patching):
        return given.to_json()
    name = getattr(given, "__qualname__", type(given).__qualname__)
    return UNNAMED if "<lambda>" in name else f"{given.__module__}.{name}"


def timestamp() -> str:
    """Return the time now, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def frames_digest(sequence: xr.Dataset) -> str:
    """Return a digest of a sequence's contents and of the frames that are left of it, in order.

    The sequence's own digest stays what it was when frames are selected after opening.
    """
    frames = sequence["frame"].values.tolist()
    return sha256(f"{sequence.attrs.get('sha256', '')} {frames}\n".encode()).hexdigest()


def provenance(
    backbone: Backbone,
    sequence: xr.Dataset,
    capture: Capture | None,
    configuration: Configuration,
    outputs: Collection[str],
    observers: Observers = Observers(),  # noqa: B008
) -> dict[str, Any]:
    """Root attributes of a run's store."""
    cue, gate, commit = configuration.cue, configuration.gate, configuration.commit
    return {
        "format_version": FORMAT_VERSION,
        "package_version": __version__,
        "torch_version": torch.__version__,
        "backbone": {
            "name": backbone.origin.name,
            "sha256": backbone.origin.sha256,
            "report": list(backbone.origin.report),
            "family": backbone.family,
            "update": backbone.update,
            "config": backbone.config.to_dict(),
            "preparation": backbone.preparation.to_dict(),
        },
        "sequence": {
            **{
                name: str(sequence.attrs.get(name, ""))
                for name in ("name", "kind", "source", "sha256")
            },
            "frames_sha256": frames_digest(sequence),
        },
        "frames": sequence.sizes["frame"],
        "frames_complete": 0,
        "complete": False,
        "not_finite": None,
        "cue": cue and cue.to_json(),
        "gate": gate and gate.to_json(),
        "commit": commit.to_json(),
        "notes": configuration.notes(backbone.sites()),
        **observers.names,
        "capture": None if capture is None else capture.to_json(),
        "outputs": list(outputs),
        "device": _device_name(backbone.device),
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "precision": backbone.precision.name,
        "threads": torch.get_num_threads(),
        "started": timestamp(),
        "finished": None,
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)
