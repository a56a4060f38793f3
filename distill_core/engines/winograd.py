"""Convolutions over time with less than half the multiplications, after Toom, Cook and Winograd.

By one of a few schemes, see there: the signal is transformed, a short convolution over groups of outputs is made for
each point, and what comes of it is transformed back. For kernels of 3, 7 and 11 taps that takes 1.33, 2.5 and 3.67
multiplications. With d-fold dilation the signal is d signals.

The rounding error is several times that of the plain sum: in fp32 still a few parts in a million of the signal. It is
no use in bf16.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from . import compiled
from .channels_last import (
    Conv,
    Layout,
    TransposedConv,
    Upsampling,
    upsampling_context,
    upsampling_padding,
    why_no_onednn,
)
from .matmul_conv import MatmulConv
from .winograd_conv import WinogradConv
from .winograd_schemes import scheme_for
from .workspace import Workspace

_UPSAMPLING_BYTES = 1 << 20
"""Of a transformed weight, the most for which upsampling by a plain convolution was measured to take no longer."""


class Convolutions:
    """Makes the convolutions of a model, which share the memory for what is transformed."""

    def __init__(self) -> None:
        self._scratch = Workspace()
        self._made = False
        self._no_onednn = why_no_onednn()

    @cached_property
    def _missing(self) -> str | None:
        """Why kernels cannot be used. To ask may compile them: a model without layers for them does not."""
        return compiled.why_not(_prepare)

    @cached_property
    def _kind(self) -> type[WinogradConv]:
        return _kind(compiled=self._missing is None)

    def __call__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        *,
        dtype: torch.dtype,
        dilation: int = 1,
        negative_slope: float | None = None,
        plain: bool = False,
    ) -> Conv:
        """The fastest for this layer, or if `plain` one with all its multiplications; the rest as for `Conv`."""
        if not plain and self._fits(weight.shape, dtype):
            return self._winograd(weight, bias, dilation=dilation, negative_slope=negative_slope)
        if self._no_onednn:
            return MatmulConv(weight, bias, dilation=dilation, negative_slope=negative_slope)
        return Conv(weight, bias, dtype=dtype, dilation=dilation, negative_slope=negative_slope)

    def upsampling(self, weight: Tensor, bias: Tensor | None, *, stride: int, dtype: torch.dtype) -> Upsampling:
        """A transposed convolution, as a plain one with `stride` rows of outputs for a row where that takes no longer.

        A plain one makes the same of a row, to the last bit, wherever it lies. oneDNN's transposed ones of narrow
        layers do not on processors without AVX-512: a batch would not be what its items are alone. With a kernel as
        long as the stride, a plain one has a single tap.

        Args:
            weight, bias, stride, dtype: as for `TransposedConv`.
        """
        inputs, outputs, kernel = weight.shape
        taps = 2 * upsampling_context(kernel, stride) + 1
        shape = torch.Size((stride * outputs, inputs, taps))
        scheme = scheme_for(taps)
        size = scheme.points * scheme.blocks(taps) * shape[0] * inputs * dtype.itemsize
        if taps > 1 and (size > _UPSAMPLING_BYTES or not self._fits(shape, dtype)):
            return self.transposed(weight, bias, stride=stride, dtype=dtype)
        return self._by_rows(weight, bias, stride, dtype)

    def transposed(self, weight: Tensor, bias: Tensor | None, *, stride: int, dtype: torch.dtype) -> Upsampling:
        """A transposed convolution as it is; arguments as for `TransposedConv`."""
        if self._no_onednn:
            return self._by_rows(weight, bias, stride, dtype, plain=True)
        return TransposedConv(weight, bias, stride=stride, dtype=dtype)

    def _by_rows(
        self, weight: Tensor, bias: Tensor | None, stride: int, dtype: torch.dtype, *, plain: bool = False
    ) -> PlainUpsampling:
        """A transposed convolution as one to `stride` rows of outputs for a row; `plain` as for that."""
        wide, biases = _as_plain(weight.detach(), bias, stride)
        return PlainUpsampling(
            self(wide, biases, dtype=dtype, plain=plain), stride, upsampling_padding(weight.shape[2], stride)
        )

    def _winograd(
        self, weight: Tensor, bias: Tensor | None, *, dilation: int = 1, negative_slope: float | None = None
    ) -> Conv:
        self._made = True
        return self._kind(weight, bias, scratch=self._scratch, dilation=dilation, negative_slope=negative_slope)

    def _fits(self, shape: torch.Size, dtype: torch.dtype) -> bool:
        """Whether a convolution of a weight [C_out, C_in, kernel] is worth the transforms."""
        if dtype != torch.float32 or (self._no_onednn and self._missing):  # torch's transforms need oneDNN between them
            return False
        outputs, inputs, kernel = shape
        narrow, multiple = min(outputs, inputs), self._kind.MULTIPLE
        channels, products = self._kind.WORTH
        alike = outputs % multiple == 0 and inputs % multiple == 0
        return alike and kernel > 1 and narrow >= channels and narrow * kernel >= products

    @property
    def notes(self) -> tuple[str, ...]:
        """For `report()`."""
        if not (self._made or self._no_onednn) or self._missing is None:
            return ()
        what = "The transforms that save multiplications" if self._made else "All convolutions"
        return (f"{what} run in plain torch, which is slower: {self._missing}",)


class PlainUpsampling:
    """As `TransposedConv`, in fp32: each row of a plain convolution's result is `stride` rows of this one's.

    Args:
        conv: to stride * C_out channels.
        stride, padding: as for `TransposedConv`.
    """

    def __init__(self, conv: Conv, stride: int, padding: int) -> None:
        self._conv, self.stride, self.padding = conv, stride, padding
        self.channels = conv.channels // stride
        self.reach, self.context = conv.reach, conv.context

    def ahead(self, length: int) -> int:
        return self._conv.ahead(length)

    def __call__(self, x: Tensor, out: Tensor, layout: Layout) -> Tensor:
        self._conv(x, out.view(len(x), self._conv.channels), layout)
        return out


def _as_plain(weight: Tensor, bias: Tensor | None, stride: int) -> tuple[Tensor, Tensor | None]:
    """Of a transposed one, [C_in, C_out, kernel], and bias: [stride * C_out, C_in, taps], [stride * C_out]."""
    inputs, outputs, kernel = weight.shape
    context, padding = upsampling_context(kernel, stride), upsampling_padding(kernel, stride)
    plain = weight.new_zeros(stride, outputs, inputs, 2 * context + 1)
    for phase in range(stride):
        for shift in range(-context, context + 1):
            tap = phase + padding - shift * stride
            if 0 <= tap < kernel:
                plain[phase, :, :, context + shift] = weight[:, :, tap].T
    return plain.flatten(0, 1), None if bias is None else bias.detach().repeat(stride)


def _prepare() -> None:
    from . import winograd_compiled

    winograd_compiled.prepare()


def _kind(*, compiled: bool) -> type[WinogradConv]:
    if compiled:
        from .winograd_compiled import CompiledConv

        return CompiledConv
    from .winograd_torch import TorchConv

    return TorchConv
