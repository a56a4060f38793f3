"""Convolutions in plain torch in the place of oneDNN's, so that an engine in bf16 runs on any processor.

They are as slow as bf16 is where it has to be emulated, and as exact as with instructions for it.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from distill_bigvgan.engines import channels_last as bigvgan
from distill_core.engines import channels_last, selection, winograd
from distill_core.engines.channels_last import Layout, around, upsampling_context, upsampling_padding
from distill_hifigan import channels_last as hifigan


class PlainConv:
    """As `channels_last.Conv`; sums are fp32, and rounded once."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        *,
        dtype: torch.dtype,
        dilation: int = 1,
        negative_slope: float | None = None,
    ) -> None:
        self.channels, self.reach = weight.shape[0], 0
        self.context = dilation * (weight.shape[-1] - 1) // 2
        self._weight = weight.detach().to(dtype).float()
        self._bias = None if bias is None else bias.detach().to(dtype).float()
        self._dilation, self._slope = dilation, negative_slope

    def ahead(self, length: int) -> int:
        return 0

    def __call__(self, x: Tensor, out: Tensor, layout: Layout) -> Tensor:
        for signal, result in _items(x, out, layout):
            y = F.conv1d(signal, self._weight, self._bias, padding=self.context, dilation=self._dilation)[0].t()
            y = y if self._slope is None else F.leaky_relu(y, self._slope)
            result.copy_(y[layout.before : layout.before + len(result)])
        return out

    def add(self, x: Tensor, out: Tensor, layout: Layout, base: Tensor | None = None) -> Tensor:
        before = (out if base is None else base).clone()
        return self(x, out, layout).add_(before)


class PlainTransposedConv:
    """As `channels_last.TransposedConv`, likewise."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, stride: int, dtype: torch.dtype) -> None:
        kernel = weight.shape[-1]
        self.channels, self.stride, self.reach = weight.shape[1], stride, 0
        self.context, self.padding = upsampling_context(kernel, stride), upsampling_padding(kernel, stride)
        self._weight = weight.detach().to(dtype).float()
        self._bias = None if bias is None else bias.detach().to(dtype).float()

    def ahead(self, length: int) -> int:
        return 0

    def __call__(self, x: Tensor, out: Tensor, layout: Layout) -> Tensor:
        wide = Layout(layout.items, layout.length * self.stride, layout.gap * self.stride)
        for (signal, _), result in zip(_items(x, x, layout), wide.split(out), strict=True):
            y = F.conv_transpose1d(signal, self._weight, self._bias, stride=self.stride, padding=self.padding)[0].t()
            result.copy_(y[layout.before * self.stride :][: len(result)])
        return out


def _items(x: Tensor, out: Tensor, layout: Layout) -> Any:
    """Each item with its own neighbours, [1, C, n] of fp32, and where what is made of it belongs."""
    if layout.items == 1:
        whole = around(x, -layout.before, layout.length + layout.after)
        return [(whole.t()[None].float(), out[: layout.length])]
    return zip((item.t()[None].float() for item in layout.split(x)), layout.split(out), strict=True)


def instead_of_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, for engines that are made; bf16 counts as if the processor had instructions for it."""
    for module in (channels_last, winograd, bigvgan, hifigan):
        for name, plain in (("Conv", PlainConv), ("TransposedConv", PlainTransposedConv)):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, plain)
    monkeypatch.setattr(selection, "bf16_instructions", lambda: "pretended")
