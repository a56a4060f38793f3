"""Convolutions over rows in half precision, written in Triton, for which cuDNN is slow. Importing this needs Triton.

For fewer than 128 channels cuDNN reaches a tenth to a third of what tensor cores can do on rows. Here several rows of
few channels are taken as one row of as many as tensor cores like, which costs products with zeros and gains more. For
more channels cuDNN is the fastest there is, but loses a third with dilation, which costs nothing here. Products are
exact and added up in fp32.
"""
# mypy: disable-error-code="no-untyped-def,misc,untyped-decorator"

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from .self_test import KERNEL_LIMITS, relative_error

FEWEST_CHANNELS, FEW_CHANNELS = 16, 128
FEWEST_WITH_DILATION = 256


@dataclass(frozen=True)
class Tile:
    """What a program makes: so many rows, or groups, by columns, from slices of the inputs; and how."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int

    @classmethod
    def suited(cls, inputs: int, outputs: int) -> Tile:
        """The fastest of some five that were tried on an H100."""
        if outputs <= 64:
            return cls(128, 64, 64, 4, 3)
        if outputs <= 128:
            return cls(128, 128, 32, 4, 4)
        return cls(128, 256 if inputs >= 512 else 128, 64, 8, 3)


# A group is `GROUP` rows `dilation` apart. Groups come in the order of their first rows, a group's numbers in that of
# its rows; `taps` are for groups, and `steps` the slices of `DEPTH` of all taps.
@triton.jit(do_not_specialize=["length", "dilation", "count", "steps"])
def convolution_kernel(
    x_ptr,
    taps_ptr,
    out_ptr,
    length,
    dilation,
    count,
    steps,
    INPUTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Of [B, L, inputs] by [count, group * inputs, group * outputs]: a program makes a tile of an item."""
    inputs: tl.constexpr = GROUP * INPUTS
    outputs: tl.constexpr = GROUP * OUTPUTS
    slices: tl.constexpr = (inputs + DEPTH - 1) // DEPTH
    span = GROUP * dilation
    across: tl.constexpr = (outputs + COLUMNS - 1) // COLUMNS
    group = tl.program_id(0) // across * ROWS + tl.arange(0, ROWS)
    first = group // dilation * span + group % dilation
    item = tl.program_id(1).to(tl.int64) * length
    column = tl.program_id(0) % across * COLUMNS + tl.arange(0, COLUMNS)
    x_ptr += item * INPUTS
    total = tl.zeros([ROWS, COLUMNS], dtype=tl.float32)
    for step in range(steps):
        tap = step // slices
        channel = (step - tap * slices) * DEPTH + tl.arange(0, DEPTH)
        row = first + (tap - count // 2) * span
        x = tl.load(
            x_ptr + row[:, None] * INPUTS + (channel // INPUTS * dilation * INPUTS + channel % INPUTS)[None, :],
            mask=((row >= 0) & (row < length))[:, None] & (channel < inputs)[None, :],
            other=0.0,
        )
        taps = tl.load(
            taps_ptr + (tap * inputs + channel)[:, None] * outputs + column[None, :],
            mask=(channel < inputs)[:, None] & (column < outputs)[None, :],
            other=0.0,
        )
        total = tl.dot(x, taps, total)
    place = first[:, None] * OUTPUTS + (column // OUTPUTS * dilation * OUTPUTS + column % OUTPUTS)[None, :]
    tl.store(
        out_ptr + item * OUTPUTS + place,
        total.to(out_ptr.dtype.element_ty),
        mask=(first < length)[:, None] & (column < outputs)[None, :],
    )


def check_countable(most: int, x: Tensor) -> None:
    """Kernels count in int32. `ValueError` for rows `x` of which they would have to count beyond it, up to `most`."""
    if most > 2**31 - 1:
        raise ValueError(f"{list(x.shape)} is more than the kernel can index: use a smaller chunk_frames")


def suited_group(inputs: int, outputs: int, taps: int, dilation: int, dtype: torch.dtype) -> int | None:
    """How many rows to take as one; None where a library's convolution is faster."""
    fewest, most = sorted((inputs, outputs))
    if dtype not in (torch.float16, torch.bfloat16) or fewest < FEWEST_CHANNELS:
        return None
    if most > FEW_CHANNELS:
        return 1 if dilation > 1 and fewest >= FEWEST_WITH_DILATION else None
    if 4 * most <= FEW_CHANNELS:
        return 4
    return 2 if 2 * most <= FEW_CHANNELS and taps >= 7 else 1


def taps_of_groups(weight: Tensor, group: int) -> Tensor:
    """A weight [out, in, k] for rows as one for groups of so many rows, [k', group * in, group * out]."""
    outputs, inputs, count = weight.shape
    reach = -(-(count // 2) // group)
    taps = weight.new_zeros(2 * reach + 1, group, inputs, group, outputs)
    for to in range(group):
        for tap in range(count):
            steps, of = divmod(to + tap - count // 2, group)
            taps[reach + steps, of, :, to] = weight[:, :, tap].T
    return taps.flatten(3, 4).flatten(1, 2).contiguous()


class GroupedConvolution:
    """A "same" convolution with zero padding of contiguous rows, [B, L, in] -> [B, L, out].

    Args:
        weight: [out, in, k], k odd, in the dtype and on the device of the rows.
        dilation: rows between taps.
        group: rows that are taken as one.

    Attributes:
        multiple: L is some times as many.

    Raises:
        ValueError: called with other rows, or with an item of 2^31 elements or more.
    """

    def __init__(self, weight: Tensor, dilation: int, group: int) -> None:
        self._taps = taps_of_groups(weight, group)
        self._tile = Tile.suited(*self._taps.shape[1:])
        self._outputs, self._inputs, _ = weight.shape
        self._dilation, self._group = dilation, group
        self.multiple = group * dilation

    @classmethod
    def suited(cls, weight: Tensor, dilation: int) -> GroupedConvolution | None:
        """None where a library's is faster."""
        outputs, inputs, taps = weight.shape
        group = suited_group(inputs, outputs, taps, dilation, weight.dtype)
        return None if group is None else cls(weight, dilation, group)

    def tried(self, weight: Tensor) -> GroupedConvolution:
        """Itself, if it computes here what the library computes. `ArithmeticError` with the error if not."""
        draw = torch.Generator("cpu").manual_seed(0)
        x = torch.randn(2, 9 * self.multiple, self._inputs, generator=draw, device="cpu", dtype=torch.float32)
        x = x.to(weight)
        padding = self._dilation * (weight.shape[2] // 2)
        error = relative_error(self(x), F.conv1d(x.mT, weight, padding=padding, dilation=self._dilation).mT)
        if not error <= KERNEL_LIMITS[weight.dtype]:
            raise ArithmeticError(f"a convolution with a weight {list(weight.shape)} is off by {error:.1e}")
        return self

    def __call__(self, x: Tensor) -> Tensor:
        batch, length, inputs = x.shape
        taps, outputs = self._taps, self._outputs
        if inputs != self._inputs or x.dtype != taps.dtype or x.device != taps.device or not x.is_contiguous():
            raise ValueError(f"expected contiguous rows of {self._inputs} in {taps.dtype} on {taps.device}")
        if length % self.multiple:
            raise ValueError(f"expected some {self.multiple} rows, not {length}")
        check_countable((length + len(taps) * self.multiple) * max(inputs, outputs), x)
        out = torch.empty(batch, length, outputs, dtype=x.dtype, device=x.device)
        groups, tile = length // self._group, self._tile
        with torch.cuda.device_of(x):  # Triton launches on the current device, whatever the tensors' is
            convolution_kernel[(triton.cdiv(groups, tile.rows) * triton.cdiv(taps.shape[2], tile.columns), batch)](
                x,
                taps,
                out,
                length,
                self._dilation,
                len(taps),
                len(taps) * -(-taps.shape[1] // tile.depth),
                INPUTS=inputs,
                OUTPUTS=outputs,
                GROUP=self._group,
                ROWS=tile.rows,
                COLUMNS=tile.columns,
                DEPTH=tile.depth,
                num_warps=tile.warps,
                num_stages=tile.stages,
            )
        return out
