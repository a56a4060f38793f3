"""Buffers that an engine computes in, kept from one run to the next."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Workspace:
    """Named buffers, each as large as the largest tensor that was taken of it.

    Memory that is handed back after every operation is fresh to the next one, page by page, and what is handed
    back in changing sizes leaves holes. For one thread at a time.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def take(self, name: str, dtype: torch.dtype, *shape: int) -> Tensor:
        """A tensor of this shape in the buffer `name`; what it holds is not defined."""
        needed = math.prod(shape) * dtype.itemsize
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < needed:
            self._buffers.pop(name, None)  # before the larger one is there
            del buffer
            buffer = self._buffers[name] = torch.empty(needed, dtype=torch.uint8)
        return buffer[:needed].view(dtype).view(shape)

    def nbytes(self) -> int:
        """What all buffers take."""
        return sum(len(buffer) for buffer in self._buffers.values())
