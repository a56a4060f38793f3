"""Convolutions over time as products of matrices, one for each tap: for a torch without oneDNN, as on a Mac."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .channels_last import Conv, Layout, around


class MatmulConv(Conv):
    """As `Conv`, in fp32, by the library that torch multiplies matrices with.

    Outputs at either end of the channels to which a tap is zero are left out of its product, as an upsampling's are.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, *, dilation: int = 1, negative_slope: float | None = None
    ) -> None:
        self.channels, _, kernel = weight.shape
        self.reach = self.context = dilation * (kernel - 1) // 2
        self.bias = None if bias is None else bias.detach().float().clone()
        self._slope = negative_slope
        self._taps = []
        """Of each: the row it looks at, the first output, and its weight [C_in, outputs]."""
        for tap, each in enumerate(weight.detach().float().unbind(2)):
            used = each.any(dim=1).nonzero()
            if len(used):
                first, last = int(used[0]), int(used[-1])
                self._taps.append((tap * dilation - self.reach, first, each[first : last + 1].t().contiguous()))

    def __call__(self, x: Tensor, out: Tensor, layout: Layout) -> Tensor:
        out.zero_()
        self.add(x, out, layout)
        return out if self._slope is None else F.leaky_relu_(out, self._slope)

    def add(self, x: Tensor, out: Tensor, layout: Layout, base: Tensor | None = None) -> Tensor:
        if base is not None:
            out.copy_(base)
        layout.isolate(x, self.reach)
        for row, first, weight in self._taps:
            out[:, first : first + weight.shape[1]].addmm_(around(x, row, row + len(x)), weight)
        return out if self.bias is None else out.add_(self.bias)
