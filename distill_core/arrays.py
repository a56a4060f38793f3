"""numpy arrays as tensors, whatever their strides, byte order and permissions."""

from __future__ import annotations

from typing import Any

import torch

from .errors import DistillError


def check_unmasked(array: Any, what: str, error: type[DistillError]) -> None:
    """See that no values of a numpy array are masked: `tensor_of` would take what the mask hides for values.

    Args:
        array: whatever is to become a tensor.
        what: it is, for the message.
        error: the class of the error to raise.
    """
    import numpy as np

    if isinstance(array, np.ma.MaskedArray) and (hidden := np.ma.count_masked(array)):
        raise error(
            f"{what} must say what every value is; of this array, {hidden} of {array.size} are masked. "
            "array.filled(value) puts a value there, array.data shows what is hidden."
        )


def check_plain(value: Any, what: str, error: type[DistillError], shape: str = "") -> None:
    """See that a tensor has its numbers at hand, and in strides; what is no tensor passes.

    Args:
        value: a tensor, or anything else.
        what: it is, for the message.
        error: the class of the error to raise.
        shape: that it should have, for the message.
    """
    if not isinstance(value, torch.Tensor):
        return
    if value.is_meta:
        problem = "without data, on the meta device"
    elif value.is_nested or value.layout != torch.strided:
        problem = "sparse or nested: to_dense() converts one that is sparse"
    else:
        return
    raise error(f"{what} must be a plain tensor{shape and ' '}{shape}; this one is {problem}.")


def tensor_of(array: Any) -> torch.Tensor:
    """The numbers of an array as a tensor on the CPU, which shares their memory where torch can.

    Args:
        array: a numpy array, or what numpy makes one of.

    Raises:
        TypeError: torch has no such numbers.
    """
    import numpy as np

    array = np.asarray(array)
    native = array.dtype.newbyteorder("=")
    if native.kind == "f" and native.itemsize > 8:
        native = np.dtype(np.float64)
    return torch.from_numpy(np.require(array, native, ["C", "A", "W"]))
