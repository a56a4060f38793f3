"""numpy arrays as tensors, whatever their strides, byte order and permissions."""

from __future__ import annotations

from typing import Any

import torch


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
