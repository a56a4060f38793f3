"""Convolutions with fewer multiplications, see `winograd`, where there is no numba: by torch and oneDNN.

The signal, rows [n, C], becomes one of rows [m, points * C], a row for each group of outputs. On that oneDNN makes a
convolution with a group of channels for each point.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .channels_last import LEAST_ROWS, Layout, Packed, image, rows_of, tiles
from .winograd_conv import WinogradConv
from .winograd_schemes import SCHEMES, Scheme, evaluated

_TILE_BYTES, _MOST_GROUPS = 3 << 20, 1024
"""Of a tile of the signal, about, which transformed is nearly twice as large: as many groups as make the reading of the
weights, seven times a plain convolution's for four taps, cheap beside the multiplications."""

_LONGEST_SUM = 384
"""Products that oneDNN sums up one after the other, about: most of the rounding error is made there, and grows with the
root of their number. Where there are more, the input channels are divided, and the parts added on the way back."""

_CALL, _SMALL_CALL = 40, 1 << 17
"""Groups that take about as long as one more call: to read the weights again; and by itself, over squared channels."""


def _matrices(of: str) -> dict[Scheme, Tensor]:
    return {scheme: torch.from_numpy(getattr(scheme, of)).float().contiguous() for scheme in SCHEMES}


_SIGNAL, _OUT_OF = _matrices("signal"), _matrices("out_of")


@dataclass(frozen=True)
class _Groups:
    """Where the groups of a signal lie when it is transformed.

    For each item, for each of `dilation` phases: its groups, one row each, and `blocks - 1` rows that the last ones
    look at.
    """

    layout: Layout
    group: int
    dilation: int
    blocks: int

    @property
    def sequence(self) -> int:
        """Rows of an item and phase."""
        return -(-self.layout.length // (self.group * self.dilation)) + self.blocks - 1

    @property
    def rows(self) -> int:
        """Of all."""
        return self.layout.items * self.dilation * self.sequence

    def runs(self, first: int, rows: int) -> Iterator[tuple[int, int, int, int]]:
        """Rows [first, first + rows) by item and phase: (row counted from `first`, how many, item, first position)."""
        row, stop = first, min(first + rows, self.rows)
        while row < stop:
            number, group = divmod(row, self.sequence)
            item, phase = divmod(number, self.dilation)
            count = min(self.sequence - group, stop - row)
            yield row - first, count, item, phase + self.group * self.dilation * group
            row += count


class TorchConv(WinogradConv):
    """As `WinogradConv`."""

    MULTIPLE = 16
    WORTH = 64, 440

    def _prepare(self, weight: Tensor, bias: Tensor | None, negative_slope: float | None) -> None:
        scheme, kernel = self._scheme, weight.shape[2]
        self._slope = negative_slope
        self._right = self.context + self._dilation * (scheme.taps * self._blocks - kernel)
        self.reach = self._right + self._dilation * (scheme.group - 1)
        wide = max(weight.shape[:2])
        self._call, self._tiles = _CALL + _SMALL_CALL // wide**2, _tile_lengths(wide, scheme.group)
        parts = self._parts = _parts(self._inputs, self._blocks)
        self._geometry = ((0, 0), (1, 1), (1, 1), scheme.points * parts)
        self.bias = None
        if bias is not None:
            once = torch.zeros(scheme.points, parts, self.channels, dtype=torch.float64, device="cpu")
            once[:, 0] = torch.outer(torch.from_numpy(scheme.constant), bias.double())
            self.bias = once.flatten().float()
        rows = {length: length + self._blocks - 1 for length in self._tiles}
        self.packed = Packed(self._grouped(weight), scheme.points * self._inputs, self._geometry, rows)

    def __call__(self, x: Tensor, out: Tensor, layout: Layout) -> Tensor:
        return self._convolve(x, out, layout, add=False)

    def add(self, x: Tensor, out: Tensor, layout: Layout, base: Tensor | None = None) -> Tensor:
        if base is not None:
            out.copy_(base)
        return self._convolve(x, out, layout, add=True)

    def ahead(self, length: int) -> int:
        return -length % (self._scheme.group * self._dilation) + self._right

    def _convolve(self, x: Tensor, out: Tensor, layout: Layout, *, add: bool) -> Tensor:
        layout.isolate(x, self.reach)
        groups = _Groups(layout, self._scheme.group, self._dilation, self._blocks)
        for start, length in tiles(groups.rows - self._blocks + 1, self._call, self._tiles):
            rows = length + self._blocks - 1
            transformed = self._scratch.take("transformed", torch.float32, rows, self._scheme.points * self._inputs)
            self._transform(x, groups, start, transformed)
            made = torch.ops.mkldnn._convolution_pointwise(
                image(transformed), self.packed[length], self.bias, *self._geometry, "none", [], ""
            )
            self._transform_back(rows_of(made), groups, start, out, add=add)
        return out

    def _transform(self, x: Tensor, groups: _Groups, first: int, transformed: Tensor) -> None:
        """What belongs to the rows of `transformed`, counted from `first`, as far as there are so many."""
        channels, dilation, scheme = x.shape[1], self._dilation, self._scheme
        for here, count, item, position in groups.runs(first, len(transformed)):
            row = item * (groups.layout.length + groups.layout.gap) + position - self.context
            shape = (count, scheme.points, channels)
            strides = (scheme.group * dilation * channels, dilation * channels, 1)
            seen = x.as_strided(shape, strides, x.storage_offset() + row * channels)
            # baddbmm takes all groups in one go where its result is contiguous, and bmm does not
            target = transformed[here : here + count].view(shape)
            target.baddbmm_(_SIGNAL[scheme].expand(count, -1, -1), seen, beta=0.0)

    def _transform_back(self, products: Tensor, groups: _Groups, first: int, out: Tensor, *, add: bool) -> None:
        """The rows `products`, counted likewise, back into `out`, or added to it."""
        items = groups.layout.split(out)
        for here, count, item, position in groups.runs(first, len(products)):
            parts = products[here : here + count].unflatten(1, (self._scheme.points, self._parts, self.channels))
            made = torch.bmm(_OUT_OF[self._scheme].expand(count, -1, -1), parts.sum(2)).flatten(0, 1)
            target = items[item, position :: self._dilation][: len(made)]
            made = made[: len(target)]
            if add:
                target.add_(made)
            else:
                target.copy_(made if self._slope is None else F.leaky_relu_(made, self._slope))

    def _grouped(self, weight: Tensor) -> Tensor:
        """[points * parts * C_out, C_in / parts, 1, blocks] in torch's channels-last format."""
        scheme, parts = self._scheme, self._parts
        shape = (scheme.points, parts, self.channels, self._blocks, self._inputs // parts)
        result = torch.empty(shape, dtype=torch.float32, device="cpu")
        for first, some in evaluated(weight, scheme):
            values = some.unflatten(2, (parts, -1))  # [points, outputs, parts, inputs, blocks]
            result[:, :, first : first + some.shape[1]] = values.permute(0, 2, 1, 4, 3)
        return result.flatten(0, 2).mT.unsqueeze(2).contiguous(memory_format=torch.channels_last)


def _parts(inputs: int, blocks: int) -> int:
    """Into how many parts the input channels are divided."""
    parts = 1
    while inputs * blocks > parts * _LONGEST_SUM and inputs % (2 * parts * TorchConv.MULTIPLE) == 0:
        parts *= 2
    return parts


def _tile_lengths(channels: int, group: int) -> tuple[int, ...]:
    """Groups of the tiles, the longest first; each four fifths of the one before, as little is wasted then."""
    most = min(_MOST_GROUPS, _TILE_BYTES // (channels * 4 * group) // 16 * 16)
    lengths = [max(LEAST_ROWS, most)]
    while lengths[-1] > LEAST_ROWS:
        lengths.append(max(LEAST_ROWS, min(lengths[-1] * 4 // 5 // 16 * 16, lengths[-1] - 16)))
    return tuple(lengths)
