"""The folder of a run while it is written: one process at a time, and nothing left in the way."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from mut3r_analysis.errors import AlreadyExists, StoreError
from mut3r_analysis.running.inventory import UNFINISHED


@dataclass(frozen=True)
class Claim:
    """A folder that this process alone writes.

    Attributes
    ----------
    out : Path
    frames : int
        Whole frames that are there already, to go on from.
    complete : bool
        Whether nothing is left to do.
    """

    out: Path
    frames: int = 0
    complete: bool = False

    def keep(self, frames: int, carried: Any) -> None:
        """Keep what the frame after so many needs, beside what the store says is whole."""
        whole, _ = progress_of(self.out)
        kept = self._kept(frames)
        torch.save(_packed(carried), kept.with_suffix(".partial"))
        kept.with_suffix(".partial").replace(kept)
        for old in kept.parent.glob("*.pt"):
            if old not in (kept, self._kept(whole)):
                old.unlink()

    def carried(self, device: torch.device) -> Any:
        """Return what was kept for the next frame.

        Raises
        ------
        StoreError
            When it was not, or cannot be read.
        """
        try:
            return _unpacked(torch.load(self._kept(self.frames), device, weights_only=True))
        except Exception as error:
            raise StoreError(
                f"{self.out} does not hold the state after its {self.frames} whole frames, so it "
                f"cannot be resumed ({error}); read what is there with open_run, or remove it and "
                "run again"
            ) from error

    def _kept(self, frames: int) -> Path:
        return self.out / UNFINISHED / f"{frames}.pt"


@contextmanager
def claimed(out: Path, *, resume: bool = False) -> Iterator[Claim]:
    """Take a folder for a run; leave it complete, or to be resumed, or not at all.

    Parameters
    ----------
    out : Path
        Where nothing is, or what a run without whole frames left.
    resume : bool
        Whether a run with whole frames may be there.

    Raises
    ------
    AlreadyExists
        When something else is there, or another process is writing it; it is left as it is.
    """
    _check_ours(out, resume)
    folder = out / UNFINISHED
    lock = FileLock(folder / "lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise AlreadyExists(
            f"another process is writing {out}; wait for it, or give another name"
        ) from None
    except OSError as error:
        raise StoreError(f"cannot create the store {out}: {error}") from error
    try:
        frames, complete = progress_of(out)
        if frames and not resume:
            raise _exists(out)
        if frames:
            _remove_partial(out)
        else:
            for left in out.iterdir():
                if left.name != UNFINISHED:
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield Claim(out, frames, complete)
    finally:
        _leave(out)
        lock.release()


def _check_ours(out: Path, resume: bool) -> None:
    """Refuse what is there, unless a run without whole frames left it, or is to be resumed."""
    if not out.exists() or (out / UNFINISHED).is_dir():
        return
    frames, _ = progress_of(out)
    is_run = (out / "zarr.json").is_file() and "frames_complete" in _attributes(out)
    empty = out.is_dir() and not any(out.iterdir())
    if not (empty or (is_run and (resume or not frames))):
        raise _exists(out)


def _exists(out: Path) -> AlreadyExists:
    frames, complete = progress_of(out)
    stopped = f", a run that was stopped after {frames} frames," if frames and not complete else ""
    way = "continue it with resume=True, " if stopped else ""
    return AlreadyExists(
        f"{out}{stopped} exists and was not changed; {way}read it with open_run, give another "
        "name, or remove it first"
    )


def _leave(out: Path) -> None:
    """Remove what is of no more use: all without whole frames, the means to resume when done."""
    frames, complete = progress_of(out)
    if not frames:
        shutil.rmtree(out, ignore_errors=True)
    elif complete:
        shutil.rmtree(out / UNFINISHED, ignore_errors=True)
    else:
        _remove_partial(out)


def _remove_partial(out: Path) -> None:
    """Remove files that a write that was stopped left half done."""
    for left in out.rglob("*.partial"):
        left.unlink(missing_ok=True)


def progress_of(out: Path) -> tuple[int, bool]:
    """Return how many frames of a store are whole, and whether they are all; 0 where unknown."""
    attrs = _attributes(out)
    frames = attrs.get("frames_complete", 0)
    return frames if isinstance(frames, int) else 0, attrs.get("complete") is True


def _attributes(out: Path) -> dict[str, Any]:
    described = out / "zarr.json"
    if not described.is_file():
        return {}
    with suppress(ValueError, KeyError, TypeError):
        return dict(json.loads(described.read_bytes())["attributes"])
    # Damaged: there may be frames, so that nothing here is removed.
    return {"frames_complete": 1}


def _packed(value: Any) -> Any:
    """Return a state as plain containers of tensors, which are read without executing anything."""
    if is_dataclass(value) and not isinstance(value, type):
        kind = f"{type(value).__module__}:{type(value).__qualname__}"
        return {
            "kind": kind,
            "fields": {item.name: _packed(getattr(value, item.name)) for item in fields(value)},
        }
    if isinstance(value, Mapping):
        return {"kind": "", "fields": {name: _packed(item) for name, item in value.items()}}
    if isinstance(value, tuple | list):
        return type(value)(_packed(item) for item in value)
    return value


def _unpacked(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(_unpacked(item) for item in value)
    if not isinstance(value, dict):
        return value
    parts = {name: _unpacked(item) for name, item in value["fields"].items()}
    module, _, name = value["kind"].partition(":")
    if not module:
        return parts
    kind = getattr(import_module(module), name) if module.startswith("mut3r_analysis.") else None
    if not isinstance(kind, type) or not is_dataclass(kind):
        raise ValueError(f"{value['kind']} is no state of this package")
    return kind(**parts)
