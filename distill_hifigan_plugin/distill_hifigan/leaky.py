"""HiFi-GAN's activation, as the engines take it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class LeakyReLU:
    """The leaky ReLU, as `residual_stack.Activation` and as `gpu.ops.Activation` of `distill_core.engines`."""

    slope: float
    context = 0

    def __call__(self, x: Tensor, out: Tensor, before: int = 0, after: int = 0) -> Tensor:
        if x.dtype == out.dtype:
            return torch.ops.aten.leaky_relu.out(x, self.slope, out=out)  # type: ignore[no-any-return]
        return F.leaky_relu_(out.copy_(x), self.slope)

    def after(self, x: Tensor, branch: Tensor, total: Tensor, out: Tensor) -> None:
        self(total.copy_(x).add_(branch), out)

    def plain(self, rows: Tensor) -> Tensor:
        return F.leaky_relu(rows, self.slope)

    def to(self, device: torch.device) -> LeakyReLU:
        return self
