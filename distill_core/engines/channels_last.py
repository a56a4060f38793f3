"""Convolutions over time in channels-last layout, their weights packed once for oneDNN.

A signal is rows [n, C] of C values, one row per position: the layout that oneDNN's blocked kernels take as it
is, with weights packed in the order they are read; the plain layout costs a reordering at every call.

A convolution goes over the rows tile by tile, into a buffer of the caller's. oneDNN makes a kernel per shape and
keeps a thousand of them, in the narrow layers of a long signal megabytes each; tiles have a few lengths per layer,
whatever the signal's, so that nothing is compiled or kept for a new one. The last tile reaches beyond the end, and
a kernel beyond every tile: rows come from a `room()`, where there is something to be read and written.
"""

from __future__ import annotations

import ctypes
import itertools
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .workspace import Workspace

_OPERATIONS = (
    "_reorder_convolution_weight",
    "_reorder_convolution_transpose_weight",
    "_convolution_pointwise",
    "_convolution_pointwise_",
    "_convolution_transpose_pointwise",
    "_nbytes",
    "data_ptr",
)
_SUM: tuple[object, ...] = ("add", 1.0, None, [], None)


class EngineUnavailable(Exception):
    """An engine cannot run here; the message is a sentence for `report()`."""


def why_no_onednn() -> str | None:
    """None if torch has oneDNN's convolutions to pack weights for, else why not."""
    if not torch.backends.mkldnn.is_available():
        return f"this torch ({torch.__version__}) for {platform.machine()} was built without oneDNN"
    if not torch.backends.mkldnn.enabled:
        return "oneDNN is switched off: torch.backends.mkldnn.enabled is False"
    if missing := [name for name in _OPERATIONS if not hasattr(torch.ops.mkldnn, name)]:
        return f"this torch ({torch.__version__}) lacks mkldnn.{missing[0]}"
    return None


def bf16_instructions() -> str | None:
    """The processor's instructions that multiply bfloat16, "AMX" or "AVX512-BF16"; None if it has none."""
    for name, test in (("AMX", "_is_amx_tile_supported"), ("AVX512-BF16", "_is_avx512_bf16_supported")):
        try:
            if getattr(torch.cpu, test)():
                return name
        except (AttributeError, RuntimeError):  # another torch, another architecture
            continue
    return None


TILE_BYTES = 1 << 22
"""Of a tile, about: so few calls that they cost nothing, and still a fraction of the last cache."""
LEAST_ROWS = 80
"""Of a tile. For 64 rows and fewer oneDNN wants another layout of most weights, on some processors."""
SHORT = (32, 16)
"""Rows of shorter tiles, where it does not: a stream's pieces have few rows in the first layers."""


def tile_lengths(channels: int, dtype: torch.dtype) -> tuple[int, ...]:
    """Rows of the tiles of a layer of so many channels, the longest first; each a quarter of the one before."""
    lengths = [max(LEAST_ROWS, TILE_BYTES // (channels * dtype.itemsize) // 16 * 16)]
    while lengths[-1] > LEAST_ROWS:
        lengths.append(max(LEAST_ROWS, lengths[-1] // 4 // 16 * 16))
    return tuple(lengths)


_CALL = 1 << 16
"""Values of a convolution that take about as long to compute as one more call, which reads all weights anew."""


@lru_cache(maxsize=4096)
def tiles(rows: int, call: int, lengths: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Cover `rows` by tiles (start, length) of these lengths, in little time; the last may go beyond the end.

    A call costs as much as so many rows.
    """
    largest = lengths[0]
    whole = max(0, rows // largest - 1)
    covered = (largest,) * whole + _cheapest(rows - whole * largest, call, lengths)[1]
    return tuple(zip(itertools.accumulate(covered, initial=0), covered, strict=False))


def _cheapest(rows: int, call: int, lengths: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """(cost in rows, lengths): longer tiles before shorter ones, as many as needed of each."""
    if rows <= 0:
        return 0, ()
    longest, *shorter = lengths
    options = []
    most = -(-rows // longest)
    for count in range(max(0, most - 2), most + 1) if shorter else (most,):
        cost, rest = _cheapest(rows - count * longest, call, tuple(shorter))
        options.append((cost + count * (longest + call), (longest,) * count + rest))
    return min(options)


def image(rows: Tensor) -> Tensor:
    """[n, C] -> [1, C, 1, n] in torch's channels-last format, the same memory."""
    return rows[None, None].permute(0, 3, 1, 2)


def rows_of(image: Tensor) -> Tensor:
    """[1, C, 1, n] -> [n, C], the same memory."""
    return image[0, :, 0].t()


def room(reach: int) -> Workspace:
    """Where the signals of layers are kept that reach so many rows to each side, at most."""
    most = reach + 1  # see `_beyond`
    return Workspace(-(-most // 16) * 16, after=(TILE_BYTES, most + 4 * LEAST_ROWS))


def around(x: Tensor, start: int, stop: int) -> Tensor:
    """Rows [start, stop) of `x` [n, C], and of the room it lies in."""
    channels = x.shape[1]
    return x.as_strided((stop - start, channels), (channels, 1), x.storage_offset() + start * channels)


@dataclass(frozen=True)
class Layout:
    """How a signal's rows are filled: `items` of `length` true rows each, and behind each of them `gap` others.

    A single item may be a part of a longer signal, of which so many rows lie `before` and `after` it.
    """

    items: int
    length: int
    gap: int = 0
    before: int = 0
    after: int = 0

    @property
    def rows(self) -> int:
        return self.items * (self.length + self.gap)

    def split(self, x: Tensor) -> Tensor:
        """The items of a signal, [items, length, C]."""
        return x.view(self.items, self.length + self.gap, -1)[:, : self.length]

    def isolate(self, x: Tensor, reach: int) -> None:
        """Put zeros between the items, and `reach` of them around the signal."""
        first, behind = -self.before, self.rows + self.after
        around(x, first - reach, first).zero_()
        around(x, behind, behind + reach).zero_()
        if self.gap:
            x.view(self.items, self.length + self.gap, -1)[:, self.length :].zero_()


def _beyond(reach: int, inputs: int, dtype: torch.dtype) -> int:
    """Rows around a signal that have to be zeros. Of an odd number of bf16 channels, oneDNN multiplies the last one
    with its neighbour in the next row, by a weight of zero: which is not zero if that is no number."""
    return reach + (dtype == torch.bfloat16 and inputs % 2)


class Packed:
    """A weight in the layouts that oneDNN wants for the tiles of a layer, mostly the same for all of them.

    A weight in another layout is reordered at every call, which can take longer than the convolution. Which one oneDNN
    wants may depend on the number of threads too: where torch has got another since, the weight is packed anew.

    Args:
        weight: in torch's channels-last format.
        inputs: channels of the signal.
        geometry: as the convolution takes it: paddings, strides, dilations and groups.
        rows: of the signal, for tiles of each length.
        transposed: of which kind the convolution is.

    Attributes:
        lengths: of the tiles it is for, the longest first: without those of `SHORT` that want another layout than the
            longest ones.
    """

    def __init__(
        self,
        weight: Tensor,
        inputs: int,
        geometry: tuple[Any, ...],
        rows: Mapping[int, int],
        *,
        transposed: bool = False,
    ) -> None:
        self._sizes = {length: (1, inputs, 1, each) for length, each in rows.items()}
        self._geometry, self._transposed = geometry, transposed
        alike = self._alike(weight)
        alike = {each: size for each, size in alike.items() if each not in SHORT or size == alike[max(rows)]}
        self.lengths = tuple(alike)
        self._sizes = {length: self._sizes[length] for length in self.lengths}
        self._keep(weight, alike)

    def __getitem__(self, length: int) -> Tensor:
        # A transposed weight cannot be read back; it was measured to want one layout, whatever the threads.
        if torch.get_num_threads() != self._threads and not self._transposed:
            plain = next(iter(self._of.values())).to_dense()
            self._keep(plain.contiguous(memory_format=torch.channels_last), self._alike(plain))
        return self._of[length]

    def _keep(self, weight: Tensor, alike: dict[int, tuple[int, ...]]) -> None:
        """For each length of the tiles. Who runs out of memory or presses Ctrl-C meanwhile leaves what was there."""
        threads = torch.get_num_threads()
        packed = {size: _pack(weight, self._geometry, size, self._transposed) for size in set(alike.values())}
        self._of = {length: packed[size] for length, size in alike.items()}
        self._threads = threads

    def _alike(self, weight: Tensor) -> dict[int, tuple[int, ...]]:
        """For each length, the size of a signal that wants the weight in the same layout."""
        sizes, threads = tuple(self._sizes.values()), torch.get_num_threads()
        alike = _alike(weight.shape, weight.dtype, self._geometry, sizes, self._transposed, threads)
        return dict(zip(self._sizes, alike, strict=True))

    @property
    def layouts(self) -> int:
        """How many are kept."""
        return len({id(packed) for packed in self._of.values()})


def _pack(weight: Tensor, geometry: tuple[Any, ...], size: tuple[int, ...], transposed: bool) -> Tensor:
    mkldnn = torch.ops.mkldnn
    reorder = mkldnn._reorder_convolution_transpose_weight if transposed else mkldnn._reorder_convolution_weight
    packed: Tensor = reorder(weight, *geometry, size)
    return packed


@lru_cache(maxsize=1024)
def _alike(
    shape: torch.Size,
    dtype: torch.dtype,
    geometry: tuple[Any, ...],
    sizes: tuple[tuple[int, ...], ...],
    transposed: bool,
    threads: int,
) -> tuple[tuple[int, ...], ...]:
    """For signals of each size, the first that wants weights in the same layout. oneDNN only tells by packing some."""
    # a prime, so that another order is another content; bf16 holds all of them
    some = torch.arange(251, dtype=dtype, device="cpu").repeat(-(-shape.numel() // 251))[: shape.numel()].view(shape)
    some = some.contiguous(memory_format=torch.channels_last)
    different: dict[tuple[int, ...], Tensor] = {}
    alike = []
    for size in sizes:
        packed = _pack(some, geometry, size, transposed)
        first = next((other for other in different if _same_bytes(packed, different[other])), size)
        different.setdefault(first, packed)
        alike.append(first)
    return tuple(alike)


def _same_bytes(one: Tensor, other: Tensor) -> bool:
    """Whether two packed weights are the same memory, byte for byte."""
    size, others = (torch.ops.mkldnn._nbytes(packed) for packed in (one, other))
    if size != others:
        return False
    here, there = (
        np.frombuffer((ctypes.c_char * size).from_address(torch.ops.mkldnn.data_ptr(packed)), np.uint8)
        for packed in (one, other)
    )
    return np.array_equal(here, there)


class Conv:
    """A "same" convolution over time with packed weights. [n, C_in] -> [n, C_out].

    Rows that are convolved lie in a `room()` of this reach at least. What lies between their items, and around them,
    is set to zero; in the result it is anything.

    Args:
        weight: [C_out, C_in, kernel], kernel odd.
        bias: [C_out] or None.
        dtype: what it computes in, of input, output and packed weights.
        negative_slope: leaky ReLU applied to the output on its way out, or None.

    Attributes:
        channels: C_out.
        reach: rows on each side of the signal that are touched.
        context: rows on each side of a row that its result depends on.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        *,
        dtype: torch.dtype,
        dilation: int = 1,
        negative_slope: float | None = None,
    ) -> None:
        self.channels = weight.shape[0]
        self.bias = None if bias is None else bias.detach().to(dtype, copy=True)
        self.reach = self.context = dilation * (weight.shape[-1] - 1) // 2
        self._zeros = _beyond(self.reach, weight.shape[1], dtype)
        wide = max(weight.shape[:2])
        self._call = _CALL // wide
        self._geometry = ((0, 0), (1, 1), (1, dilation), 1)
        self._attr = ("none", [], "") if negative_slope is None else ("leaky_relu", [negative_slope], "")
        rows = {length: length + 2 * self.reach for length in (*tile_lengths(wide, dtype), *SHORT)}
        self.packed = Packed(_kernel(weight, dtype), weight.shape[1], self._geometry, rows)
        self._tiles = self.packed.lengths

    def ahead(self, length: int) -> int:
        """Rows behind an item of so many that are looked at for its own: `reach` at most."""
        return self.reach

    def __call__(self, x: Tensor, out: Tensor, layout: Layout) -> Tensor:
        """Convolve the rows `x` into `out`, which is returned."""
        layout.isolate(x, self._zeros)
        for start, length in tiles(len(x), self._call, self._tiles):
            made = torch.ops.mkldnn._convolution_pointwise(
                image(around(x, start - self.reach, start + length + self.reach)),
                self.packed[length],
                self.bias,
                *self._geometry,
                *self._attr,
            )
            _put(made, out[start : start + length])
        return out

    def add(self, x: Tensor, out: Tensor, layout: Layout, base: Tensor | None = None) -> Tensor:
        """`base + self(x)` into `out`, which lies in a `room()` too and is returned. In fp32: else it is rounded.

        Without `base`, which is another buffer, `out + self(x)`. A leaky ReLU is left out.
        """
        if base is not None:
            out.copy_(base)
        layout.isolate(x, self._zeros)
        for start, length in tiles(len(x), self._call, self._tiles):
            torch.ops.mkldnn._convolution_pointwise_(
                image(around(out, start, start + length)),
                image(around(x, start - self.reach, start + length + self.reach)),
                self.packed[length],
                self.bias,
                *self._geometry,
                *_SUM,
            )
        return out


class Upsampling(Protocol):
    """A transposed convolution over time, see `TransposedConv`."""

    channels: int
    stride: int
    reach: int
    context: int
    padding: int

    def ahead(self, length: int) -> int: ...

    def __call__(self, x: Tensor, out: Tensor, layout: Layout) -> Tensor: ...


def upsampling_context(kernel: int, stride: int) -> int:
    """Rows on each side of a row that what a transposed convolution makes of it depends on."""
    # output n sums the inputs m for which n + padding - m * stride is a tap
    return (stride - 1 + upsampling_padding(kernel, stride)) // stride


def upsampling_padding(kernel: int, stride: int) -> int:
    """Rows that a transposed convolution of this padding leaves out at each end, which also depend on its input."""
    return (kernel - stride) // 2


class TransposedConv:
    """A transposed convolution over time with packed weights. [n, C_in] -> [n * stride, C_out]; rows as for `Conv`.

    Args:
        weight: [C_in, C_out, kernel], kernel - stride even.
        bias: [C_out] or None.
        dtype: as for `Conv`.

    Attributes:
        channels: C_out.
        stride: rows of the result for a row.
        reach, context: as for `Conv`.
        padding: rows at the end of what it makes of a signal that depend on what comes behind the signal.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, stride: int, dtype: torch.dtype) -> None:
        kernel = weight.shape[-1]
        padding = self.padding = upsampling_padding(kernel, stride)
        self.channels, self.stride = weight.shape[1], stride
        self.bias = None if bias is None else bias.detach().to(dtype, copy=True)
        self.reach = self.context = upsampling_context(kernel, stride)
        self._zeros = _beyond(self.reach, weight.shape[0], dtype)
        wide = max(weight.shape[0], weight.shape[1] * stride)
        self._call = _CALL // wide
        self._geometry = ((0, padding), (0, 0), (1, stride), (1, 1), 1)
        rows = {length: length + 2 * self.reach for length in (*tile_lengths(wide, dtype), *SHORT)}
        self.packed = Packed(_kernel(weight, dtype), weight.shape[0], self._geometry, rows, transposed=True)
        self._tiles = self.packed.lengths

    def ahead(self, length: int) -> int:
        """As for `Conv`."""
        return self.reach

    def __call__(self, x: Tensor, out: Tensor, layout: Layout) -> Tensor:
        """Upsample the rows `x` into `out`, which is returned."""
        layout.isolate(x, self._zeros)
        skip, stride = self.reach * self.stride, self.stride
        for start, length in tiles(len(x), self._call, self._tiles):
            made = torch.ops.mkldnn._convolution_transpose_pointwise(
                image(around(x, start - self.reach, start + length + self.reach)),
                self.packed[length],
                self.bias,
                *self._geometry,
                "none",
                [],
                "",
            )
            _put(made[..., skip:], out[start * stride : (start + length) * stride])
        return out


def _kernel(weight: Tensor, dtype: torch.dtype) -> Tensor:
    return weight.detach().unsqueeze(2).to(dtype).contiguous(memory_format=torch.channels_last)


def _put(made: Tensor, result: Tensor) -> None:
    """The first rows of the image `made` into `result` [n, C]."""
    result.copy_(rows_of(made)[: len(result)])
