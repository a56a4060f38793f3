"""Convolutions over time with less than half the multiplications, after Toom, Cook and Winograd.

By one of a few schemes, see there: the signal is transformed, a short convolution over groups of outputs is made for
each point, and what comes of it is transformed back. For kernels of 3, 7 and 11 taps that takes 1.33, 2.5 and 3.67
multiplications. With d-fold dilation the signal is d signals.

The rounding error is several times that of the plain sum: in fp32 still a few parts in a million of the signal. It is
no use in bf16.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .channels_last import (
    LEAST_ROWS,
    Conv,
    Layout,
    Packed,
    TransposedConv,
    Upsampling,
    image,
    rows_of,
    tiles,
    upsampling_context,
)
from .winograd_schemes import Scheme, scheme_for
from .winograd_transforms import Groups, Transforms, transforms
from .workspace import Workspace

_MULTIPLE = 16
"""Channels come in so many."""

_TILE_BYTES, _MOST_GROUPS = 3 << 20, 1024
"""Of a tile of the signal, about, which transformed is nearly twice as large: as many groups as make the reading of the
weights, seven times a plain convolution's for four taps, cheap beside the multiplications."""

_LONGEST_SUM = 384
"""Products that oneDNN sums up one after the other, about: most of the rounding error is made there, and grows with the
root of their number. Where there are more, the input channels are divided, and the parts added on the way back."""

_CACHED = 1 << 15
"""Values of a weight that are transformed at once."""

_UPSAMPLING_BYTES = 1 << 20
"""Of a transformed weight, the most for which upsampling by a plain convolution was measured to take no longer."""

_CALL, _SMALL_CALL = 40, 1 << 17
"""Groups that take about as long as one more call: to read the weights again; and by itself, over squared channels."""


class Convolutions:
    """Makes the convolutions of a model, which share the memory for what is transformed."""

    def __init__(self) -> None:
        self._scratch = Workspace()
        self._transforms, self._missing = transforms()
        self._made = False

    def __call__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        *,
        dtype: torch.dtype,
        dilation: int = 1,
        negative_slope: float | None = None,
    ) -> Conv:
        """The faster of `WinogradConv` and `Conv` for this layer; arguments as for them."""
        if not self._fits(weight.shape, dtype):
            return Conv(weight, bias, dtype=dtype, dilation=dilation, negative_slope=negative_slope)
        self._made = True
        return WinogradConv(
            weight,
            bias,
            transforms=self._transforms,
            scratch=self._scratch,
            dilation=dilation,
            negative_slope=negative_slope,
        )

    def upsampling(self, weight: Tensor, bias: Tensor | None, *, stride: int, dtype: torch.dtype) -> Upsampling:
        """A transposed convolution, as a plain one with `stride` rows of outputs for a row where that takes no longer.

        A plain one makes the same of a row, to the last bit, wherever it lies. oneDNN's transposed ones of narrow
        layers do not on processors without AVX-512: a batch would not be what its items are alone.

        Args:
            weight, bias, stride, dtype: as for `TransposedConv`.
        """
        inputs, outputs, kernel = weight.shape
        shape = torch.Size((stride * outputs, inputs, 2 * upsampling_context(kernel, stride) + 1))
        scheme = scheme_for(shape[2])
        size = scheme.points * scheme.blocks(shape[2]) * shape[0] * inputs * dtype.itemsize
        if size > _UPSAMPLING_BYTES or not self._fits(shape, dtype):
            return TransposedConv(weight, bias, stride=stride, dtype=dtype)
        self._made = True
        return WinogradUpsampling(weight, bias, stride=stride, transforms=self._transforms, scratch=self._scratch)

    def _fits(self, shape: torch.Size, dtype: torch.dtype) -> bool:
        """Whether a convolution of a weight [C_out, C_in, kernel] is worth the transforms."""
        outputs, inputs, kernel = shape
        narrow = min(outputs, inputs)
        channels, products = self._transforms.worth
        alike = outputs % _MULTIPLE == 0 and inputs % _MULTIPLE == 0
        return dtype == torch.float32 and alike and narrow >= channels and narrow * kernel >= products

    @property
    def notes(self) -> tuple[str, ...]:
        """For `report()`."""
        if not self._made or self._missing is None:
            return ()
        return (f"The transforms that save multiplications run in plain torch, which is slower: {self._missing}",)


class WinogradConv(Conv):
    """As `Conv`, in fp32.

    Args:
        weight: [C_out, C_in, kernel], kernel odd; both numbers of channels are multiples of 16.
        bias: [C_out] or None.
        transforms: the way there and back.
        scratch: where transformed signals are kept for as long as they are needed; many layers may share it.
        dilation: between taps.
        negative_slope: as for `Conv`.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        *,
        transforms: Transforms,
        scratch: Workspace,
        dilation: int = 1,
        negative_slope: float | None = None,
    ) -> None:
        self.channels, self._inputs, kernel = weight.shape
        scheme = self._scheme = scheme_for(kernel)
        self._blocks = scheme.blocks(kernel)
        self._dilation = dilation
        self._slope = 1.0 if negative_slope is None else negative_slope
        self._transforms = transforms
        self._scratch = scratch
        self._left = self.context = dilation * (kernel - 1) // 2
        self._right = self._left + dilation * (scheme.taps * self._blocks - kernel)
        self.reach = self._right + dilation * (scheme.group - 1)
        wide = max(weight.shape[:2])
        self._call, self._tiles = _CALL + _SMALL_CALL // wide**2, _tile_lengths(wide, scheme.group)
        parts = self._parts = _parts(self._inputs, self._blocks)
        self._geometry = ((0, 0), (1, 1), (1, 1), scheme.points * parts)
        self.bias = None
        if bias is not None:
            once = torch.zeros(scheme.points, parts, self.channels, dtype=torch.float64, device="cpu")
            once[:, 0] = torch.outer(torch.from_numpy(scheme.constant), bias.detach().double())
            self.bias = once.flatten().float()
        rows = {length: length + self._blocks - 1 for length in self._tiles}
        transformed = _transformed(weight.detach(), scheme, parts)
        self.packed = Packed(transformed, scheme.points * self._inputs, self._geometry, rows)

    def __call__(self, x: Tensor, out: Tensor, layout: Layout) -> Tensor:
        return self._convolve(x, out, layout, add=False)

    def add(self, x: Tensor, out: Tensor, layout: Layout) -> Tensor:
        return self._convolve(x, out, layout, add=True)

    def ahead(self, length: int) -> int:
        return -length % (self._scheme.group * self._dilation) + self._right if self._transforms.looks_beyond else 0

    def _convolve(self, x: Tensor, out: Tensor, layout: Layout, *, add: bool) -> Tensor:
        if self._transforms.looks_beyond:
            layout.isolate(x, self.reach)
        groups = Groups(self._scheme, self._parts, layout, self._dilation, self._blocks, self._left)
        for start, length in tiles(groups.rows - self._blocks + 1, self._call, self._tiles):
            rows = length + self._blocks - 1
            transformed = self._scratch.take("transformed", torch.float32, rows, self._scheme.points * self._inputs)
            self._transforms.into(x, groups, start, transformed)
            made = torch.ops.mkldnn._convolution_pointwise(
                image(transformed), self.packed[length], self.bias, *self._geometry, "none", [], ""
            )
            self._transforms.out_of(rows_of(made), groups, start, out, add=add, slope=self._slope)
        return out


class WinogradUpsampling:
    """As `TransposedConv`, in fp32: each row of the plain convolution's result is `stride` rows of this one's.

    Args:
        weight: [C_in, C_out, kernel], kernel - stride even.
        bias: [C_out] or None.
        stride: as for `TransposedConv`.
        transforms, scratch: as for `WinogradConv`.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, *, stride: int, transforms: Transforms, scratch: Workspace
    ) -> None:
        inputs, self.channels, kernel = weight.shape
        self.stride = stride
        context, padding = upsampling_context(kernel, stride), (kernel - stride) // 2
        plain = weight.new_zeros(stride, self.channels, inputs, 2 * context + 1)
        for phase in range(stride):
            for shift in range(-context, context + 1):
                tap = phase + padding - shift * stride
                if 0 <= tap < kernel:
                    plain[phase, :, :, context + shift] = weight.detach()[:, :, tap].T
        biases = None if bias is None else bias.detach().repeat(stride)
        self._conv = WinogradConv(plain.flatten(0, 1), biases, transforms=transforms, scratch=scratch)
        self.reach, self.context = self._conv.reach, self._conv.context

    def ahead(self, length: int) -> int:
        return self._conv.ahead(length)

    def __call__(self, x: Tensor, out: Tensor, layout: Layout) -> Tensor:
        self._conv(x, out.view(len(x), self.stride * self.channels), layout)
        return out


def _transformed(weight: Tensor, scheme: Scheme, parts: int) -> Tensor:
    """[C_out, C_in, kernel] -> [points * parts * C_out, C_in / parts, 1, blocks] in torch's channels-last format."""
    outputs, inputs, kernel = weight.shape
    blocks = scheme.blocks(kernel)
    evaluate = torch.from_numpy(scheme.filter)
    result = weight.new_empty(scheme.points, parts, outputs, blocks, inputs // parts)
    some = max(1, _CACHED // (inputs * kernel))
    for here, target in zip(weight.split(some), result.split(some, dim=2), strict=True):
        padded = F.pad(here.double(), (0, scheme.taps * blocks - kernel))
        taps = padded.unflatten(-1, (blocks, scheme.taps)).unflatten(1, (parts, -1)).permute(4, 1, 0, 3, 2)
        target.copy_((evaluate @ taps.flatten(1)).view(target.shape))
    rows = result.flatten(0, 2).mT.unsqueeze(2)
    return rows.contiguous(memory_format=torch.channels_last)


def _parts(inputs: int, blocks: int) -> int:
    """Into how many parts the input channels are divided."""
    parts = 1
    while inputs * blocks > parts * _LONGEST_SUM and inputs % (2 * parts * _MULTIPLE) == 0:
        parts *= 2
    return parts


def _tile_lengths(channels: int, group: int) -> tuple[int, ...]:
    """Groups of the tiles, the longest first; each four fifths of the one before, as little is wasted then."""
    most = min(_MOST_GROUPS, _TILE_BYTES // (channels * 4 * group) // 16 * 16)
    lengths = [max(LEAST_ROWS, most)]
    while lengths[-1] > LEAST_ROWS:
        lengths.append(max(LEAST_ROWS, min(lengths[-1] * 4 // 5 // 16 * 16, lengths[-1] - 16)))
    return tuple(lengths)
