"""What the GPU engine computes besides a library's convolutions: operations on rows, and their plain torch form.

The Triton kernels do the same in one pass each; this form says what that is, and lets the whole engine run
where there is neither a GPU nor Triton.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .._vendor.bigvgan import Activation1d, kaiser_sinc_taps

_TAPS = len(kaiser_sinc_taps())
_TAP_TOLERANCE = 1e-6
"""Taps of a checkpoint may differ by their own rounding between filters and between mirrored places."""


@dataclass(frozen=True)
class SnakeParameters:
    """An anti-aliased activation, ready to use: `u + amplitude * sin²(pi * frequency * u)` between two filters.

    `frequency` and `amplitude` are [C] in fp32; `taps` is one half of the symmetric filter, outermost first.
    """

    frequency: Tensor
    amplitude: Tensor
    taps: tuple[float, ...]

    @property
    def channels(self) -> int:
        return self.frequency.shape[0]

    @classmethod
    def of(cls, activation: Activation1d, device: torch.device) -> SnakeParameters:
        """From the vendored module. `ValueError` if its two filters are not one symmetric filter of 12 taps."""
        up = activation.upsample.filter.detach().double().flatten()
        down = activation.downsample.lowpass.filter.detach().double().flatten()
        limit = _TAP_TOLERANCE * float(up.abs().max())
        if len(up) != _TAPS or len(down) != _TAPS or not _close(up, down, limit) or not _close(up, up.flip(0), limit):
            raise ValueError("the checkpoint's resampling filters are not the symmetric ones of 12 taps")
        frequency, amplitude = (c.detach().double().flatten() for c in activation.act.coefficients())
        return cls(
            (frequency / torch.pi).to(device, torch.float32),
            amplitude.to(device, torch.float32),
            tuple(((up + up.flip(0)) / 2)[: _TAPS // 2].tolist()),
        )


def _close(a: Tensor, b: Tensor, limit: float) -> bool:
    return bool(((a - b).abs() <= limit).all())  # a NaN is close to nothing


@dataclass(frozen=True)
class Extent:
    """How far the signals in rows [B, P, C] go: behind their last row, up to P, are zeros, for convolutions to see.

    The number of frames is on the device, where kernels read it: a recorded run of so many rows is good for any
    signal that has no more.

    Args:
        frames: [1], int32: of the mel, the same for all items.
        rows_per_frame: how many rows each became.
    """

    frames: Tensor
    rows_per_frame: int = 1

    def times(self, rate: int) -> Extent:
        """After upsampling."""
        return Extent(self.frames, self.rows_per_frame * rate)

    def inside(self, rows: Tensor) -> Tensor:
        """[P, 1]: which rows are the signals' own."""
        places = torch.arange(rows.shape[1], device=rows.device, dtype=torch.int32)
        return (places < self.frames * self.rows_per_frame)[:, None]


class OwnConvolution(Protocol):
    """A "same" convolution of rows with zero padding, faster than the library's: [B, P, in] -> [B, P, out]."""

    multiple: int
    """P has to be some times as many."""

    def __call__(self, x: Tensor) -> Tensor: ...


class Ops(Protocol):
    """The operations on rows [B, P, C]. Inputs in fp32, fp16 or bf16; arithmetic in fp32.

    Behind the signals a result is zero, whatever the inputs are there.

    Attributes:
        trouble: why convolutions are left to the library where it is slower, or None.
    """

    trouble: str | None

    def activate(
        self,
        x: Tensor,
        snake: SnakeParameters,
        extent: Extent,
        *,
        bias: Tensor | None = None,
        residual: Tensor | None = None,
        keep: bool = False,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor | None]:
        """The activation of `s = x + bias + residual` in `dtype`; and with `keep` also `s`, in fp32."""

    def accumulate(
        self,
        x: Tensor,
        residual: Tensor,
        bias: Tensor,
        extent: Extent,
        *,
        total: Tensor | None,
        scale: float,
        dtype: torch.dtype,
    ) -> Tensor:
        """`(total + x + bias + residual) * scale` in `dtype`. May be written over `total`, an fp32 tensor."""

    def convolution(self, weight: Tensor, dilation: int) -> OwnConvolution | None:
        """For a weight [out, in, k] in the dtype and on the device of the rows; None: the library's is taken."""


class TorchOps:
    """`Ops` in plain torch: for tests, and as the statement of what the kernels compute."""

    trouble: str | None = None

    def activate(
        self,
        x: Tensor,
        snake: SnakeParameters,
        extent: Extent,
        *,
        bias: Tensor | None = None,
        residual: Tensor | None = None,
        keep: bool = False,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor | None]:
        length = int(extent.frames) * extent.rows_per_frame
        s = x[:, :length].float()
        if bias is not None:
            s = s + bias
        if residual is not None:
            s = s + residual[:, :length]
        channels = s.shape[-1]
        taps = s.new_tensor([*snake.taps, *reversed(snake.taps)]).expand(channels, 1, _TAPS)
        u = F.pad(s.transpose(1, 2), (3, 3), mode="replicate")
        u = F.conv_transpose1d(u, 2 * taps, stride=2, padding=_TAPS - 1, groups=channels)
        u = u + snake.amplitude[:, None] * torch.sin(torch.pi * snake.frequency[:, None] * u).square()
        u = F.conv1d(F.pad(u, (5, 6), mode="replicate"), taps, stride=2, groups=channels)
        behind = (0, 0, 0, x.shape[1] - length)
        return F.pad(u.transpose(1, 2).to(dtype), behind).contiguous(), F.pad(s, behind) if keep else None

    def accumulate(
        self,
        x: Tensor,
        residual: Tensor,
        bias: Tensor,
        extent: Extent,
        *,
        total: Tensor | None,
        scale: float,
        dtype: torch.dtype,
    ) -> Tensor:
        s = x.float() + bias + residual
        s = (s if total is None else total + s) * scale
        return torch.where(extent.inside(x), s, 0.0).to(dtype)

    def convolution(self, weight: Tensor, dilation: int) -> OwnConvolution | None:
        return None
