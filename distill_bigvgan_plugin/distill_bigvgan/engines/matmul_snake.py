"""The anti-aliased snake activation in torch alone: its two filters as banded matrix products.

Slower than the compiled kernel, faster than filtering channel by channel: a matrix product computes
several times as much as the 12 taps need, and is still done sooner.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from distill_core.engines.channels_last import around

from .._vendor.bigvgan.activation import REACH

_ROWS = 32
_SLAB = 1 << 18
"""Values worked on at once, about: what stays in a cache between the steps."""


class MatmulSnake:
    """An anti-aliased snake of the model in torch operations; see `residual_stack.Activation`."""

    context = REACH

    def __init__(self, activation: Any) -> None:
        frequency, amplitude = activation.act.coefficients()
        self._frequency = frequency.detach().float().flatten().contiguous()
        self._amplitude = amplitude.detach().float().flatten().contiguous()
        up = activation.upsample.filter.detach().float().flatten().tolist()
        down = activation.downsample.lowpass.filter.detach().float().flatten().tolist()
        # For outputs q0 .. q0 + 31: row p of `_up` is u[2 q0 - 5 + p], of x from q0 - 5.
        positions = 2 * _ROWS + 10
        self._up = torch.zeros(positions, _ROWS + 10, dtype=torch.float32, device="cpu")
        self._down = self._up.new_zeros(_ROWS, positions)
        for p in range(positions):
            half, odd = divmod(p - 5, 2)
            for j in range(6):
                self._up[p, half + 2 + j + odd] = 2 * up[(10 if odd else 11) - 2 * j]
        for q in range(_ROWS):
            self._down[q, 2 * q : 2 * q + 12] = self._up.new_tensor(down)

    def __call__(self, x: Tensor, out: Tensor, before: int = 0, after: int = 0) -> Tensor:
        if before or after:  # together
            made = self(around(x, -before, len(x) + after), out.new_empty(before + len(x) + after, x.shape[1]))
            return out.copy_(made[before : before + len(x)])
        length, channels = x.shape
        slab = max(1, _SLAB // (_ROWS * channels)) * _ROWS
        for start in range(0, length, slab):
            stop = min(length, start + slab)
            blocks = -(-(stop - start) // _ROWS)
            places = torch.arange(start - 5, start + blocks * _ROWS + 5, device="cpu").clamp_(0, length - 1)
            near = x[places].float()
            windows = near.as_strided((blocks, _ROWS + 10, channels), (_ROWS * channels, channels, 1))
            v = torch.matmul(self._up, windows)
            v.addcmul_((v * self._frequency).sin_().square_(), self._amplitude)
            if start == 0:
                v[0, :5] = v[0, 5].clone()  # v before its start is v at its start
            for block in range(max(0, blocks - 2), blocks):
                past = 2 * length - (2 * (start + block * _ROWS) - 5)
                if past < v.shape[1]:
                    v[block, past:] = v[block, past - 1].clone()
            out[start:stop] = torch.matmul(self._down, v).view(-1, channels)[: stop - start]
        return out

    def after(self, x: Tensor, branch: Tensor, total: Tensor, out: Tensor) -> None:
        self(total.copy_(x).add_(branch), out)
