"""What a run says of itself, so that a number can be traced and a run repeated."""

from collections.abc import Collection
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import torch
import xarray as xr

from mut3r_analysis.attention.capture import Capture
from mut3r_analysis.backbones.cut3r import CUT3R
from mut3r_analysis.foundation.version import __version__
from mut3r_analysis.running.configuration import Configuration

FORMAT_VERSION = 1


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
    backbone: CUT3R,
    sequence: xr.Dataset,
    capture: Capture | None,
    configuration: Configuration,
    outputs: Collection[str],
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
        "cue": cue and cue.to_json(),
        "gate": gate and gate.to_json(),
        "commit": commit.to_json(),
        "notes": configuration.notes(backbone.config.dec_depth),
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
