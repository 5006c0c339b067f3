"""Arithmetic of a backbone, by name."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch

from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.foundation.fields import meant


@dataclass(frozen=True)
class Precision:
    """One way to compute.

    Attributes
    ----------
    name, description : str
    dtype : torch.dtype
        Of parameters and tokens.
    rotation : torch.dtype or None
        Storage of the image encoder's queries and keys around their rotation, in models whose
        official code rounds them; None is `dtype`.
    tf32 : bool
        Whether CUDA matrix products and convolutions may round their inputs to TF32.
    """

    name: str
    description: str
    dtype: torch.dtype
    rotation: torch.dtype | None
    tf32: bool = False


PRECISIONS = {
    item.name: item
    for item in (
        Precision(
            "float32",
            "float32, with float16 rounding of the encoder's queries and keys where it is official",
            torch.float32,
            torch.float16,
        ),
        Precision("float32-throughout", "float32 everywhere", torch.float32, None),
        Precision(
            "tf32",
            "as float32, with TF32 products and convolutions: what upstream computes on GPUs",
            torch.float32,
            torch.float16,
            tf32=True,
        ),
        Precision("bfloat16", "bfloat16 parameters and tokens", torch.bfloat16, None),
    )
}


def find_precision(name: str | None, dtype: torch.dtype | None, device: torch.device) -> Precision:
    """Return the precision that a name, a parameter dtype, or neither asks for.

    Raises
    ------
    InvalidArgument
        For an unknown name, a dtype that contradicts it, or TF32 without CUDA.
    """
    if name is None:
        of_dtype = {None: "float32", torch.float32: "float32", torch.bfloat16: "bfloat16"}
        if dtype not in of_dtype:
            raise InvalidArgument(
                f"dtype must be torch.float32 or torch.bfloat16, got {dtype!r}; statistics and "
                "gates are computed in float32 whatever it is"
            )
        name = of_dtype[dtype]
    if name not in PRECISIONS:
        choices = "; ".join(f"{item.name!r}: {item.description}" for item in PRECISIONS.values())
        raise InvalidArgument(
            f"unknown precision {name!r}{meant([name], PRECISIONS)}; choose {choices}"
        )
    precision = PRECISIONS[name]
    if dtype is not None and dtype is not precision.dtype:
        raise InvalidArgument(
            f"dtype {dtype} contradicts precision {name!r}, whose dtype is {precision.dtype}; "
            f"give one of the two. Parameters may be float32 or bfloat16"
        )
    if precision.tf32 and device.type != "cuda":
        raise InvalidArgument(
            f"precision 'tf32' exists on CUDA devices only, this backbone is on {device}; "
            "use 'float32', whose results are the exact ones"
        )
    return precision


@contextmanager
def arithmetic(precision: Precision, device: torch.device) -> Iterator[None]:
    """Compute as a precision says, whatever the caller set; afterwards all is as it was.

    Autocast and inference mode are off (gradients stay as they are), the default dtype is float32
    and the default device the CPU, where what a run makes for itself begins,
    and torch's switches of float32 products, TF32, cuDNN's search and deterministic algorithms are
    ours. Switches belong to the process: threads that want the same share them, one that wants
    others waits until they are free.

    Raises
    ------
    InvalidArgument
        When a thread computes in one precision inside another that needs other switches.
    """
    kinds = {"cpu", device.type} - {"meta"}
    with _SWITCHES.held(precision.tf32), ExitStack() as own:
        if torch.is_inference_mode_enabled():
            gradients = torch.is_grad_enabled()
            own.enter_context(torch.inference_mode(False))
            own.enter_context(torch.set_grad_enabled(gradients))
        # Asked of a tensor: torch 2.9 fails to say it once it was set back to None.
        if torch.empty(0).device.type != "cpu":
            own.enter_context(torch.device("cpu"))
        for kind in kinds:
            if torch.is_autocast_enabled(kind):
                own.enter_context(torch.autocast(kind, enabled=False))
        yield


class _Switches:
    """The process's switches, set when the first thread takes them and restored by the last."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._users = 0
        self._tf32 = False
        self._restore: Callable[[], None] = lambda: None
        self._own = threading.local()

    @contextmanager
    def held(self, tf32: bool) -> Iterator[None]:
        """Hold the switches at what a precision needs."""
        depth = getattr(self._own, "depth", 0)
        with self._free:
            if depth and tf32 != self._tf32:
                raise InvalidArgument(
                    "a backbone of precision 'tf32' cannot run inside one of another precision, or "
                    "around it; load both with the same"
                )
            self._free.wait_for(lambda: not self._users or tf32 == self._tf32)
            if not self._users:
                self._restore, self._tf32 = _set_switches(tf32), tf32
            self._users += 1
        self._own.depth = depth + 1
        try:
            yield
        finally:
            self._own.depth = depth
            with self._free:
                self._users -= 1
                if not self._users:
                    self._restore()
                    self._free.notify_all()


_SWITCHES = _Switches()


def _set_switches(tf32: bool) -> Callable[[], None]:
    """Set the process's switches and return what sets them back.

    Torch has two interfaces to them. The older one raises once the newer one has said something
    else, so ours are set by the older, which sets both, after the newer is emptied.
    """
    backends: Any = torch.backends
    cuda, cudnn, mkldnn = backends.cuda.matmul, backends.cudnn, backends.mkldnn
    newer = [backends, cuda, cudnn, cudnn.conv, cudnn.rnn]
    newer += [mkldnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn]
    before = [switch.fp32_precision for switch in newer]
    products = convolutions = None
    with suppress(RuntimeError):
        products = "high" if cuda.allow_tf32 else "highest"
    with suppress(RuntimeError):
        products = torch.get_float32_matmul_precision()
    with suppress(RuntimeError):
        convolutions = cudnn.allow_tf32
    dtype = torch.get_default_dtype()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    search = cudnn.benchmark, cudnn.deterministic

    def restore() -> None:
        if products is not None:
            torch.set_float32_matmul_precision(products)
        if convolutions is not None:
            cudnn.allow_tf32 = convolutions
        for switch, value in zip(newer, before, strict=True):
            switch.fp32_precision = value
        torch.set_default_dtype(dtype)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        cudnn.benchmark, cudnn.deterministic = search

    for switch in newer:
        switch.fp32_precision = "none"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    cudnn.allow_tf32 = tf32
    torch.set_default_dtype(torch.float32)
    torch.use_deterministic_algorithms(False)
    cudnn.benchmark = cudnn.deterministic = False
    return restore
