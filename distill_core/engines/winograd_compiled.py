"""Convolutions with fewer multiplications, see `winograd`, as one compiled kernel each."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from . import team, winograd_kernels, winograd_packing
from .channels_last import Layout
from .kernels import LANES
from .winograd_conv import WinogradConv
from .winograd_kernels import PANEL, ROWS
from .winograd_packing import packed
from .winograd_schemes import SCHEMES

_SLABS = 64, 128
"""Input channels that are transformed at once, if as many divide them: a tile of so many stays in the second cache.
Each slab's products are summed up by themselves, too, and the rounding error grows with the length of a sum."""

_PRODUCTS = 32
"""Made in the time that other kernels take for a value, see `team`."""

_TILE, _LARGE = 48, 8 << 20
"""Groups of a tile; twice as many where the weights, which every tile reads, have so many bytes and more."""


class CompiledConv(WinogradConv):
    """As `WinogradConv`. What lies between the items, and around them, is neither read nor written."""

    MULTIPLE = LANES
    WORTH = 16, 48

    def _prepare(self, weight: Tensor, bias: Tensor | None, negative_slope: float | None) -> None:
        self.reach = 0
        self._slab = _slab(self._inputs)
        self._bias = torch.zeros(self.channels, dtype=torch.float32, device="cpu")
        if bias is not None:
            self._bias.copy_(bias)
        slopes = [1.0, 1.0 if negative_slope is None else negative_slope]
        self._adding, self._slope = torch.tensor(slopes, dtype=torch.float32, device="cpu").split(1)
        self._weight = packed(weight, self._scheme, self._slab)

    def __call__(self, x: Tensor, out: Tensor, layout: Layout) -> Tensor:
        return self._convolve(x, None, out, layout)

    def add(self, x: Tensor, out: Tensor, layout: Layout, base: Tensor | None = None) -> Tensor:
        return self._convolve(x, out if base is None else base, out, layout)

    def ahead(self, length: int) -> int:
        return 0

    def _convolve(self, x: Tensor, base: Tensor | None, out: Tensor, layout: Layout) -> Tensor:
        scheme, inputs, outputs, dilation = self._scheme, self._inputs, self.channels, self._dilation
        each = -(-layout.length // (scheme.group * dilation))
        beyond = dilation * (self._blocks - 1)
        rows = layout.items * (dilation * each + beyond) - beyond
        threads = torch.get_num_threads()
        most = _TILE if self._weight.nbytes < _LARGE else 2 * _TILE
        tiles = threads * -(-rows // (threads * most))
        tile = -(-rows // (tiles * ROWS[0])) * ROWS[0]
        edge, signal_step, product_step = self._sizes(tile)
        panels = -(-outputs // PANEL)
        own = -(-(edge + scheme.points * (signal_step + panels * product_step)) // 64) * 64
        scratch = self._scratch.take("scratch", torch.uint8, threads, own)
        descriptor = np.array(
            [
                0,
                0,
                0,
                x.data_ptr(),
                0 if base is None else base.data_ptr(),
                out.data_ptr(),
                self._weight.data_ptr(),
                self._bias.data_ptr(),
                (self._slope if base is None else self._adding).data_ptr(),
                scratch.data_ptr(),
                inputs,
                outputs,
                self._slab,
                SCHEMES.index(scheme),
                scheme.points,
                scheme.group,
                self._blocks,
                tile,
                own,
                edge,
                signal_step,
                product_step,
                layout.items,
                layout.length,
                layout.length + layout.gap,
                dilation,
                each,
                self.context,
                layout.before,
                layout.after,
            ],
            dtype=np.int64,
        )
        work = rows * scheme.points * inputs * outputs // _PRODUCTS
        team.run(winograd_kernels.KERNELS.address("convolve"), descriptor, work)
        return out

    def _sizes(self, tile: int) -> tuple[int, int, int]:
        """Bytes of scratch memory: of a group at an end; from point to point of the transformed signal; of products.

        A cache line more than there are rows for, lest points lie a power of 2 apart, where they have to share few
        places of the cache.
        """
        rows = tile + ROWS[0]  # some are made behind the last
        edge = 4 * self._scheme.points * max(self._slab, self.channels)
        beyond = (self._blocks - 1) * self._dilation
        return edge, 4 * self._slab * (rows + beyond) + 64, 4 * PANEL * rows + 64


def _slab(inputs: int) -> int:
    least, most = _SLABS
    if inputs <= most:
        return inputs
    size = max(size for size in range(LANES, most + 1, LANES) if inputs % size == 0)
    # small slabs take longer: up to twice as many channels, all at once are better
    return size if size >= least or inputs > 2 * most else inputs


def prepare() -> None:
    """Compile the kernels, or read them from what an earlier process compiled."""
    winograd_kernels.KERNELS.address("convolve")
    winograd_packing.KERNELS.address("pack")
