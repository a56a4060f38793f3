"""Convolutions of rows [B, L, C] on a GPU, by the library or by a kernel of ours, their biases kept apart."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .ops import Ops


class Convolution:
    """A convolution over time with "same" zero padding, [B, L, in] -> [B, L, out], its bias kept apart in fp32.

    Args:
        weight: [out, in, k], k odd.
        bias: [out], or None for zeros.
        dilation: positions between taps.
        dtype: of the weights and so of the convolution.
        ops: may have a faster one than the library's.
        in_columns: how the library convolves, see `faster_in_columns`; by default the faster way.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        dilation: int,
        dtype: torch.dtype,
        device: torch.device,
        ops: Ops[Any] | None = None,
        in_columns: bool | None = None,
    ) -> None:
        weight = weight.detach().to(device, dtype)
        self._own = None if ops is None else ops.convolution(weight, dilation)
        faster = faster_in_columns(max(weight.shape[:2]), dilation, dtype)
        self._in_columns = faster if in_columns is None else in_columns
        self._weight = weight.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        self.inputs = weight.shape[1]
        self.bias = _bias(bias, weight.shape[0], device)
        self.dilation = dilation
        self.padding = dilation * (weight.shape[-1] - 1) // 2

    @classmethod
    def of(
        cls, conv: nn.Conv1d, dtype: torch.dtype, device: torch.device, ops: Ops[Any] | None = None
    ) -> Convolution:
        return cls(conv.weight, conv.bias, conv.dilation[0], dtype, device, ops)

    def __call__(self, rows: Tensor) -> Tensor:
        # Rows [B, L, C] are the pixels of an image [B, C, height, width], in channels-last layout: nothing is moved.
        batch, length, channels = rows.shape
        if self._own is not None and length % self._own.multiple == 0:
            return self._own(rows)
        if self._in_columns and length % self.dilation == 0:
            # With as many pixels across as the taps lie apart, those of a column are neighbours.
            image = rows.view(batch, length // self.dilation, self.dilation, channels).permute(0, 3, 1, 2)
            made = F.conv2d(image, self._weight.transpose(2, 3), padding=(self.padding // self.dilation, 0))
        else:
            image = rows.view(batch, 1, length, channels).permute(0, 3, 1, 2)
            made = F.conv2d(image, self._weight, padding=(0, self.padding), dilation=(1, self.dilation))
        return made.permute(0, 2, 3, 1).reshape(batch, length, -1).contiguous()


def faster_in_columns(channels: int, dilation: int, dtype: torch.dtype) -> bool:
    """Whether cuDNN convolves faster along columns, as it does on an H100 by up to three times, or along lines."""
    if dtype == torch.float32:
        return channels <= 64 and (dilation > 1 or channels > 32)
    return 32 < channels < 256 and (dilation > 1 or channels <= 128)


class Upsampling:
    """A transposed convolution as a plain one that makes the `rate` outputs of a position as channels.

    Output n = q * rate + r sums the inputs q - j times tap r + padding + j * rate, over all j for which that tap
    exists. With padding (kernel - rate) / 2 these j lie evenly around 0, so the convolution is a "same" one, and
    its channels (r, c) of a row are, in memory, the rows of the result. [B, L, in] -> [B, L * rate, out].
    """

    def __init__(self, conv: nn.ConvTranspose1d, dtype: torch.dtype, device: torch.device) -> None:
        weight = conv.weight.detach()  # [in, out, kernel]
        inputs, outputs, kernel = weight.shape
        self.inputs, self.channels = inputs, outputs
        self.rate = rate = conv.stride[0]
        padding = (kernel - rate) // 2
        reach = (rate - 1 + padding) // rate
        phases = weight.new_zeros(rate, outputs, inputs, 2 * reach + 1)
        for r in range(rate):
            for j in range(-reach, reach + 1):
                tap = r + padding + j * rate
                if 0 <= tap < kernel:
                    phases[r, :, :, reach - j] = weight[:, :, tap].T
        self._conv = Convolution(phases.flatten(0, 1), None, 1, dtype, device)
        self.bias = _bias(conv.bias, outputs, device)

    def __call__(self, rows: Tensor) -> Tensor:
        batch, length, _ = rows.shape
        return self._conv(rows).view(batch, length * self.rate, -1)


def _bias(bias: Tensor | None, channels: int, device: torch.device) -> Tensor:
    """In float32 on `device`; zeros where there is none."""
    if bias is None:
        return torch.zeros(channels, dtype=torch.float32, device=device)
    return bias.detach().to(device, torch.float32)
