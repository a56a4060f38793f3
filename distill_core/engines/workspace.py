"""Buffers that an engine computes in, kept from one run to the next."""

from __future__ import annotations

import torch
from torch import Tensor


class Workspace:
    """Named buffers for rows [n, C], each as large as the largest rows that were taken of it.

    Memory that is handed back after every operation is fresh to the next one, page by page, and what is handed
    back in changing sizes leaves holes. For one thread at a time.

    Args:
        before: rows in front of what is taken that belong to it.
        after: bytes, and rows, behind it that belong to it.
    """

    def __init__(self, before: int = 0, after: tuple[int, int] = (0, 0)) -> None:
        self._before, self._after = before, after
        self._buffers: dict[str, Tensor] = {}

    def take(self, name: str, dtype: torch.dtype, rows: int, channels: int) -> Tensor:
        """Rows [n, C] in the buffer `name`, and room around them; what they hold is not defined."""
        needed = (self._before + rows + self._after[1]) * channels * dtype.itemsize + self._after[0]
        buffer = self._buffers.get(name)
        if buffer is None or buffer.shape[0] < needed:
            self._buffers.pop(name, None)  # before the larger one is there
            del buffer
            # of whole values of any dtype
            buffer = self._buffers[name] = torch.empty(-(-needed // 8) * 8, dtype=torch.uint8, device="cpu")
        return buffer.view(dtype).as_strided((rows, channels), (channels, 1), self._before * channels)

    def nbytes(self) -> int:
        """What all buffers take."""
        return sum(len(buffer) for buffer in self._buffers.values())
