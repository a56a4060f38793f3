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
