"""Convolutions over time with half the multiplications, after Toom, Cook and Winograd.

Four outputs of a filter of four taps are a product of two polynomials, read backwards: evaluate both at seven points,
multiply, interpolate. That takes 7 multiplications where the sum over taps takes 16. A longer kernel is cut into
blocks of four taps; as they are as far apart as groups of four outputs are, one transform of the signal serves them
all, and for each point a short convolution over groups remains. With d-fold dilation the signal is d signals.

At -2, -1, -1/2, 1/2, 1, 2 and infinity the rounding error is three to four times that of the plain sum: in fp32 still
below 1e-6 of the signal. It is no use in bf16.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .channels_last import LEAST_ROWS, Conv, Layout, Packed, around, image, tiles
from .workspace import Workspace

_FINITE = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)
_POINTS = len(_FINITE) + 1
_ONE = _FINITE.index(1.0)
GROUP = 4
"""Outputs that are made together, and taps of a block."""

_LEAST_CHANNELS, _LEAST_SUM = 64, 440
"""Channels, and channels times taps, from which on the transforms cost clearly less than they save."""

_TILE_BYTES = 1 << 19
"""Of a tile of the signal, about; transformed it is nearly twice as large, and there it stays in a cache."""


def conv(
    weight: Tensor,
    bias: Tensor | None,
    *,
    dtype: torch.dtype,
    scratch: Workspace,
    dilation: int = 1,
    negative_slope: float | None = None,
) -> Conv:
    """The faster of `WinogradConv` and `Conv` for this layer; arguments as for them."""
    outputs, inputs, kernel = weight.shape
    narrow = min(outputs, inputs)
    fits = dtype == torch.float32 and outputs % 16 == 0 and inputs % 16 == 0
    if fits and narrow >= _LEAST_CHANNELS and narrow * kernel >= _LEAST_SUM:
        return WinogradConv(weight, bias, scratch=scratch, dilation=dilation, negative_slope=negative_slope)
    return Conv(weight, bias, dtype=dtype, dilation=dilation, negative_slope=negative_slope)


class WinogradConv(Conv):
    """As `Conv`, in fp32; what it writes to lies in a `room()`.

    Args:
        weight: [C_out, C_in, kernel], kernel odd.
        bias: [C_out] or None.
        scratch: where transformed signals are kept for as long as they are needed; many layers may share it.
        dilation: between taps.
        negative_slope: as for `Conv`.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        *,
        scratch: Workspace,
        dilation: int = 1,
        negative_slope: float | None = None,
    ) -> None:
        self.channels, self._inputs, kernel = weight.shape
        self._blocks = -(-kernel // GROUP)
        self._dilation = dilation
        self._slope = negative_slope
        self._scratch = scratch
        self.group = GROUP * dilation
        self._left = dilation * (kernel - 1) // 2
        self._right = self._left + dilation * (GROUP * self._blocks - kernel)
        self.reach = self._right + dilation * (GROUP - 1)
        self._wide = max(weight.shape[:2])
        self._tiles = _tile_lengths(self._wide, dilation)
        self._geometry = ((0, 0), (1, 1), (1, 1), _POINTS)
        self._into, of_taps, self._out_of = _transforms()
        padded = F.pad(weight.detach().double(), (0, GROUP * self._blocks - kernel)).unflatten(-1, (-1, GROUP))
        plain = torch.einsum("pj,oibj->poib", of_taps, padded).flatten(0, 1).float().unsqueeze(2)
        plain = plain.contiguous(memory_format=torch.channels_last)
        self.bias = None
        if bias is not None:  # there all outputs of a group take one product as it is
            self.bias = torch.zeros(_POINTS, self.channels)
            self.bias[_ONE] = bias.detach()
            self.bias = self.bias.flatten()

        def pack(length: int) -> Tensor:
            size = [1, _POINTS * self._inputs, 1, self._groups(length)]
            packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(plain, *self._geometry, size)
            return packed

        self.packed = Packed(pack, self._tiles)

    def __call__(self, x: Tensor, out: Tensor, layout: Layout) -> Tensor:
        layout.isolate(x, self.reach)
        for start, length in tiles(len(x), self._wide, self._tiles):
            tile = around(out, start, start + length)
            self._make(x, start, tile, 0.0)
            if self._slope is not None:
                F.leaky_relu_(tile, self._slope)
        return out

    def add(self, x: Tensor, out: Tensor, layout: Layout) -> Tensor:
        layout.isolate(x, self.reach)
        for start, length in tiles(len(x), self._wide, self._tiles):
            self._make(x, start, around(out, start, start + length), 1.0)
        return out

    def ahead(self, length: int) -> int:
        return -length % self.group + self._right

    def _groups(self, length: int) -> int:
        """Groups of a tile of so many rows, of all phases, with those that the blocks behind the first look at."""
        return self._dilation * (length // self.group + self._blocks - 1)

    def _make(self, x: Tensor, start: int, tile: Tensor, keep: float) -> None:
        """Convolve what belongs to a `tile` of the result, from row `start` on, and add it to `keep` times the tile."""
        inputs, step = self._inputs, self.group * self._inputs
        rows = self._groups(len(tile))
        transformed = self._scratch.take("transformed", torch.float32, rows, _POINTS * inputs)
        phases = transformed.view(self._dilation, -1, _POINTS, inputs)
        for phase, into in enumerate(phases):
            offset = x.storage_offset() + (start - self._left + phase) * inputs
            seen = x.as_strided((len(into), _POINTS, inputs), (step, self._dilation * inputs, 1), offset)
            # baddbmm takes all groups in one go where its result is contiguous, and bmm does not
            into.baddbmm_(self._into.expand(len(into), -1, -1), seen, beta=0.0)
        made = torch.ops.mkldnn._convolution_pointwise(
            image(transformed), self.packed[len(tile)], self.bias, *self._geometry, "none", [], ""
        )
        groups = tile.view(-1, GROUP, self._dilation, self.channels)
        products = made[0, :, 0].t().unflatten(1, (_POINTS, self.channels))
        back = self._out_of.expand(len(groups), -1, -1)
        if self._dilation == 1:
            groups[:, :, 0].baddbmm_(back, products, beta=keep)
            return
        for phase in range(self._dilation):
            product = products[phase * phases.shape[1] :][: len(groups)]
            result = self._scratch.take("result", torch.float32, len(groups), GROUP * self.channels)
            result = result.view(-1, GROUP, self.channels).baddbmm_(back, product, beta=0.0)
            if keep:
                groups[:, :, phase].add_(result)
            else:
                groups[:, :, phase].copy_(result)


def _tile_lengths(channels: int, dilation: int) -> tuple[int, ...]:
    """Rows of tiles, the longest first: whole groups of each phase, as `channels_last.tile_lengths` otherwise."""
    least = -(-LEAST_ROWS // dilation)
    groups = [max(least, _TILE_BYTES // (channels * 4) // (GROUP * dilation))]
    while groups[-1] > least:
        groups.append(max(least, groups[-1] // 4))
    return tuple(GROUP * dilation * count for count in groups)


@lru_cache(maxsize=1)
def _transforms() -> tuple[Tensor, Tensor, Tensor]:
    """For a group: [points, inputs] of the signal, [points, taps] of the filter in fp64, [outputs, points] back.

    The product of polynomials is interpolate(evaluate(taps) * evaluate(outputs)); its transpose with respect to the
    outputs is the correlation with the taps.
    """

    def evaluate(terms: int) -> Tensor:
        values = [[point**power for power in range(terms)] for point in _FINITE]
        return torch.tensor([*values, [0.0] * (terms - 1) + [1.0]], dtype=torch.float64)

    with torch.inference_mode(False):
        signal = torch.linalg.inv(evaluate(_POINTS)).T
        scale = signal.abs().amax(dim=1, keepdim=True)
        return (signal / scale).float(), evaluate(GROUP) * scale, evaluate(GROUP).T.float().contiguous()
