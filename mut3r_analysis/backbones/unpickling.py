"""Reading a pickled checkpoint without executing what it holds.

Only torch's restricted unpickler is used. The few classes that official checkpoints mention
besides tensors (argument containers, OmegaConf nodes, NumPy scalars) are replaced, by name, with
one inert class that keeps attributes and does nothing; neither OmegaConf nor the named modules
need to be installed. Any other name in the file is refused.
"""

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

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
            self.__dict__.update(state)


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
        # torch.load reads a path that ends in .safetensors as such, whatever it holds.
        mapped = is_zip and path.suffix != ".safetensors"
        with _only_stand_ins(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return torch.load(
                    path if mapped else file, map_location="cpu", weights_only=True, mmap=mapped
                )
            except Exception as error:  # a damaged pickle can fail in any step of the unpickler
                raise _refusal(path, error) from error


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
