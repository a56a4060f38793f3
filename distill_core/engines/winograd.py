"""Convolutions over time with half the multiplications, after Toom, Cook and Winograd.

Four outputs of a filter of four taps are a product of two polynomials, read backwards: evaluate both at seven points,
multiply, interpolate. That takes 7 multiplications where the sum over taps takes 16. A longer kernel is cut into
blocks of four taps; as they are as far apart as groups of four outputs are, one transform of the signal serves them
all, and for each point a short convolution over groups remains. With d-fold dilation the signal is d signals.

At -2, -1, -1/2, 1/2, 1, 2 and infinity the rounding error is three to four times that of the plain sum: in fp32 still
below 1e-6 of the signal. It is no use in bf16.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .channels_last import LEAST_ROWS, Conv, Layout, Packed, image, rows_of, tiles
from .winograd_transforms import GROUP, ONE, POINTS, TAPS, Groups, Transforms, transforms
from .workspace import Workspace

_TILE_BYTES, _MOST_GROUPS = 3 << 20, 1024
"""Of a tile of the signal, about, which transformed is nearly twice as large: as many groups as make the reading of the
weights, seven times a plain convolution's for four taps, cheap beside the multiplications."""

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
        outputs, inputs, kernel = weight.shape
        narrow = min(outputs, inputs)
        fits = dtype == torch.float32 and outputs % 16 == 0 and inputs % 16 == 0
        channels, products = self._transforms.worth
        if not fits or narrow < channels or narrow * kernel < products:
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
        self._blocks = -(-kernel // GROUP)
        self._dilation = dilation
        self._slope = 1.0 if negative_slope is None else negative_slope
        self._transforms = transforms
        self._scratch = scratch
        self._left = self.context = dilation * (kernel - 1) // 2
        self._right = self._left + dilation * (GROUP * self._blocks - kernel)
        self.reach = self._right + dilation * (GROUP - 1)
        wide = max(weight.shape[:2])
        self._call, self._tiles = _CALL + _SMALL_CALL // wide**2, _tile_lengths(wide)
        self._geometry = ((0, 0), (1, 1), (1, 1), POINTS)
        padded = F.pad(weight.detach().double(), (0, GROUP * self._blocks - kernel)).unflatten(-1, (-1, GROUP))
        plain = torch.einsum("pj,oibj->poib", torch.tensor(TAPS), padded).flatten(0, 1).float().unsqueeze(2)
        plain = plain.contiguous(memory_format=torch.channels_last)
        self.bias = None
        if bias is not None:
            self.bias = torch.zeros(POINTS, self.channels)
            self.bias[ONE] = bias.detach()
            self.bias = self.bias.flatten()

        def pack(length: int) -> Tensor:
            size = [1, POINTS * self._inputs, 1, length + self._blocks - 1]
            packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(plain, *self._geometry, size)
            return packed

        self.packed = Packed(pack, self._tiles)

    def __call__(self, x: Tensor, out: Tensor, layout: Layout) -> Tensor:
        return self._convolve(x, out, layout, add=False)

    def add(self, x: Tensor, out: Tensor, layout: Layout) -> Tensor:
        return self._convolve(x, out, layout, add=True)

    def ahead(self, length: int) -> int:
        return -length % (GROUP * self._dilation) + self._right if self._transforms.looks_beyond else 0

    def _convolve(self, x: Tensor, out: Tensor, layout: Layout, *, add: bool) -> Tensor:
        if self._transforms.looks_beyond:
            layout.isolate(x, self.reach)
        groups = Groups(layout, self._dilation, self._blocks, self._left)
        for start, length in tiles(groups.rows - self._blocks + 1, self._call, self._tiles):
            rows = length + self._blocks - 1
            transformed = self._scratch.take("transformed", torch.float32, rows, POINTS * self._inputs)
            self._transforms.into(x, groups, start, transformed)
            made = torch.ops.mkldnn._convolution_pointwise(
                image(transformed), self.packed[length], self.bias, *self._geometry, "none", [], ""
            )
            self._transforms.out_of(rows_of(made), groups, start, out, add=add, slope=self._slope)
        return out


def _tile_lengths(channels: int) -> tuple[int, ...]:
    """Groups of the tiles, the longest first; each four fifths of the one before, as little is wasted then."""
    most = min(_MOST_GROUPS, _TILE_BYTES // (channels * 4 * GROUP) // 16 * 16)
    lengths = [max(LEAST_ROWS, most)]
    while lengths[-1] > LEAST_ROWS:
        lengths.append(max(LEAST_ROWS, min(lengths[-1] * 4 // 5 // 16 * 16, lengths[-1] - 16)))
    return tuple(lengths)
