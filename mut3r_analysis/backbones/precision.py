"""Arithmetic of a backbone, by name."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch

from mut3r_analysis.errors import InvalidArgument


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
        raise InvalidArgument(f"unknown precision {name!r}; choose {choices}")
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
    """Hold CUDA's global TF32 switches at what a precision says; elsewhere do nothing."""
    if device.type != "cuda":
        yield
        return
    wanted = "tf32" if precision.tf32 else "ieee"
    with ExitStack() as restore:
        for switch in (torch.backends.cuda.matmul, torch.backends.cudnn.conv):  # type: ignore[attr-defined]
            restore.callback(setattr, switch, "fp32_precision", switch.fp32_precision)
            switch.fp32_precision = wanted
        yield
