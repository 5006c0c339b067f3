"""Reading a pickled checkpoint without executing what it holds.

Only torch's restricted unpickler is used. The few classes that official checkpoints mention
besides tensors (argument containers, OmegaConf nodes, NumPy scalars) are replaced, by name, with
one inert class that keeps attributes and does nothing; neither OmegaConf nor the named modules
need to be installed. Any other name in the file is refused.

Before that, the file is surveyed: what it declares must be what it holds, so that no kilobyte asks
for a gigabyte and no tensor is read from the bytes of another.
"""

import io
import mmap
import pickle
import re
import threading
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self, cast

import torch

from mut3r_analysis.errors import CheckpointError

_INERT_NAMES = (
    "argparse.Namespace",
    "builtins.bool",
    "builtins.dict",
    "builtins.float",
    "builtins.int",
    "builtins.list",
    "builtins.str",
    "builtins.tuple",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.base.UnionNode",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.nodes.AnyNode",
    "omegaconf.nodes.BooleanNode",
    "omegaconf.nodes.BytesNode",
    "omegaconf.nodes.EnumNode",
    "omegaconf.nodes.FloatNode",
    "omegaconf.nodes.IntegerNode",
    "omegaconf.nodes.InterpolationResultNode",
    "omegaconf.nodes.PathNode",
    "omegaconf.nodes.StringNode",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "typing.Any",
    "typing.Dict",
    "typing.List",
    "typing.Tuple",
    "typing.Union",
)
_REFUSED = re.compile(r"GLOBAL (\S+) (?:was not|whose module)")
_LOCK = threading.Lock()


class Inert:
    """Stand-in for a class named in a pickle: keeps attributes, has no behaviour."""

    def __new__(cls, *_: Any) -> Self:
        """Ignore what the pickle would have constructed the object from."""
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__ = state  # shared, since a copy for each of many would fill the memory


def _mapping(*_: Any) -> dict[Any, Any]:
    """Stand in for ``collections.defaultdict``, whose items the unpickler sets one by one."""
    return {}


_STAND_INS: list[Any] = [
    *((Inert, name) for name in _INERT_NAMES),
    (_mapping, "collections.defaultdict"),
]


def load_unexecuted(path: Path) -> Any:
    """Return the object pickled in a torch file, with inert objects in place of all classes.

    Tensors of the current (zip) format stay mapped to the file until they are used.

    Raises
    ------
    CheckpointError
        When the file names anything that is not allowed (the message says what), or is damaged.
    OSError
        When it cannot be opened.
    """
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
        file.seek(0)
        stumbled = None
        try:
            # torch.load reads a path that ends in .safetensors as such, whatever it holds.
            mapped = is_zip and _survey_zip(path) and path.suffix != ".safetensors"
            if not is_zip:
                _survey_old(path, file)
        except CheckpointError:
            raise
        except Exception as error:  # torch's unpickler stumbles as well, and knows the word for it
            mapped, stumbled = False, error
        with _only_stand_ins(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = torch.load(
                    path if mapped else file, map_location="cpu", weights_only=True, mmap=mapped
                )
            except Exception as error:  # a damaged pickle can fail in any step of the unpickler
                raise _refusal(path, error) from error
        if stumbled is not None:
            raise _refusal(path, stumbled) from stumbled
        return found


_MOST_INFLATED = 8
"""Times the size of a file that what is compressed in it may take."""


def _survey_zip(path: Path) -> bool:
    """Refuse an archive that is not what it declares; return whether it can stay mapped."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        sizes = {entry.filename: entry.file_size for entry in entries}
        if len(sizes) < len(entries) or sum(sizes.values()) > _MOST_INFLATED * path.stat().st_size:
            raise CheckpointError(
                f"{path} was refused: it holds entries of one name twice, or unpacks to more than "
                f"{_MOST_INFLATED} times its size. Save the checkpoint again with torch.save"
            )
        for name in (name for name in sizes if name.endswith("/data.pkl")):
            survey = _Survey(io.BytesIO(archive.read(name)), path)
            survey.load()
            for key, size in survey.storages.items():
                held = sizes.get(f"{name.removesuffix('data.pkl')}data/{key}")
                if held != size:
                    raise CheckpointError(
                        f"{path} is damaged: it declares {size} bytes for the numbers {key!r} and "
                        f"holds {held}. Compare its size and sha256 with the source and fetch it "
                        "again"
                    )
        damaged = archive.testzip()
        if damaged is not None:
            raise CheckpointError(
                f"{path} is damaged: {damaged} is not what its checksum says. Compare its size and "
                "sha256 with the source and fetch it again (files saved without checksums, with "
                "torch.serialization.set_crc32_options(False), are not read)"
            )
    return all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)


def _survey_old(path: Path, file: IO[bytes]) -> None:
    """Refuse a file of torch's old format that declares more numbers than it has bytes."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        survey = _Survey(cast("IO[bytes]", content), path)
        for _ in range(4):  # a mark, the version, the system, and what was saved
            survey.load()
    if sum(survey.storages.values()) > path.stat().st_size:
        raise CheckpointError(
            f"{path} is truncated, damaged or made up: it declares "
            f"{sum(survey.storages.values())} bytes of numbers and is {path.stat().st_size} bytes "
            "long. Compare its size with the source and fetch it again"
        )


_ITEM_SIZES = {
    "ComplexDoubleStorage": 16, "ComplexFloatStorage": 8, "DoubleStorage": 8, "LongStorage": 8,
    "FloatStorage": 4, "IntStorage": 4, "QInt32Storage": 4, "HalfStorage": 2, "BFloat16Storage": 2,
    "ShortStorage": 2,
}  # fmt: skip
"""Bytes of a number by torch's name of its storage; of all others it is one."""


class _Anything(Inert):
    """Takes whatever a pickle does with it, and does nothing."""

    def _ignore(self, *_: Any) -> None:
        pass

    __setitem__ = append = extend = add = _ignore


class _Survey(pickle._Unpickler):
    """Goes through a pickle with inert objects alone, and notes the storages that it declares.

    This is the unpickler in Python: the one in C takes memory for any number of a memo entry.
    """

    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__(file, encoding="utf-8")
        self.path = path
        self.storages: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return a new class for any name: what a pickle does to it stays with it."""
        members: dict[str, Any] = {"itemsize": _ITEM_SIZES.get(name, 1)}
        if name == "bytearray" or name.endswith(("Storage", "Tensor")):
            members["__new__"] = self._refuse
        elif name == "encode":
            members["__new__"] = self._encode
        return type(name, (_Anything,), members)

    def persistent_load(self, pid: Any) -> Any:
        """Note a storage, by its key."""
        _, kind, key, _, count, *_ = pid
        size = count * kind.itemsize
        if not isinstance(key, str) or self.storages.setdefault(key, size) != size or size < 0:
            self._refuse(kind)
        return _Anything()

    def _refuse(self, kind: type, *_: Any) -> None:
        raise CheckpointError(
            f"{self.path} was refused before anything in it ran: it makes a {kind.__name__} of a "
            "size that it names, which could fill the memory. Save the plain state_dict with "
            "torch.save"
        )

    def _encode(self, kind: type, text: Any, encoding: str = "latin1") -> Any:
        if not isinstance(text, str) or encoding != "latin1":
            self._refuse(kind)
        return object.__new__(kind)


@contextmanager
def _only_stand_ins() -> Iterator[None]:
    """Make the stand-ins the whole of torch's allow-list, whatever the process had added to it."""
    # The list belongs to the process, so two threads must not edit it at the same time.
    with _LOCK:
        added = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        try:
            with torch.serialization.safe_globals(_STAND_INS):
                yield
        finally:
            torch.serialization.add_safe_globals(added)


def contents(value: Any) -> Any:
    """Return what a container or node of :func:`load_unexecuted` holds.

    A namespace gives the dict of its attributes, an OmegaConf container its nodes, an OmegaConf
    node its value; anything else is returned as it is.
    """
    if not isinstance(value, Inert):
        return value
    attributes = vars(value)
    for name in ("_content", "_val"):
        if name in attributes:
            return attributes[name]
    return attributes


def _refusal(path: Path, error: Exception) -> CheckpointError:
    refused = _REFUSED.search(str(error))
    if refused:
        return CheckpointError(
            f"{path} was refused before anything in it ran: it holds {refused.group(1)}, and only "
            f"tensors, plain values, argparse.Namespace, OmegaConf containers and NumPy scalars "
            f"are read. If you trust the file, load it where it was written and save it again "
            f"with the entries 'args' and 'model' alone; if you do not know where it comes from, "
            f"delete it"
        )
    reason = str(error).strip().splitlines()
    return CheckpointError(
        f"{path} cannot be read as a torch checkpoint: it is truncated, damaged, or written in a "
        f"form that is not read safely ({type(error).__name__}"
        f"{': ' + reason[-1][:200] if reason else ''}). Compare its size and sha256 with the "
        f"source and fetch it again"
    )
