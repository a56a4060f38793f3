"""The anti-aliased snake activation as one pass over memory, written in Triton. Importing this needs Triton.

Per output row the closed form needs seven input rows' worth of new work only if a window is kept: each
lane owns one channel and walks along time, holding the last six inputs and eleven activated samples at the
doubled rate in registers. So a row is read once, two sines are computed for it, and a row is written.

With f the 12 symmetric taps, x clamped at its ends, and v = snake(u) clamped at *its* ends:

    u[2p]     = 2 (f0 x[p-3] + f2 x[p-2] + f4 x[p-1] + f5 x[p]   + f3 x[p+1] + f1 x[p+2])
    u[2p + 1] = 2 (f1 x[p-2] + f3 x[p-1] + f5 x[p]   + f4 x[p+1] + f2 x[p+2] + f0 x[p+3])
    y[q]      = sum over k of f[k] v[2q + k - 5]

The same kernel adds the bias and the residual that the convolution before it left out, and can write their
sum: the residual stream then costs no pass of its own. All arithmetic is in fp32.
"""
# mypy: disable-error-code="no-untyped-def,misc,untyped-decorator"

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from .gpu_ops import SnakeParameters

_LANES = 256
_WARPS = 4
_SEGMENTS = (16, 32, 64)
"""Rows that a lane walks. Each walk computes six pairs of samples that its neighbour computes too."""

_BUSY_LANES = 1 << 17
"""Lanes that keep a large GPU busy: shorter walks are taken rather than fewer lanes."""

_MAX_ITEM = 2**31 - 1


def interpreted() -> bool:
    """True where Triton was imported with TRITON_INTERPRET=1: kernels then run on the CPU, in numpy."""
    return os.environ.get("TRITON_INTERPRET", "") not in ("", "0")


@triton.jit
def _snake(u, frequency, amplitude):
    """`u + amplitude * sin²(pi * frequency * u)`: the sine by range reduction and an odd polynomial.

    The polynomial's error is below 2e-7 (minimax on a quarter turn). The phase is rounded once, here, and its
    fraction is exact: left to contract the product a second time, the compiler would make `r` as large as the
    rounding of a large phase, and the polynomial infinite.
    """
    turns = tl.fma(u, frequency, 0.5)
    r = turns - tl.floor(turns) - 0.5
    y = r * r
    s = r * (3.14159258 + y * (-5.16770688 + y * (2.55003138 + y * (-0.598045172 + y * 0.0772201242))))
    return u + amplitude * (s * s)


@triton.jit
def _pair(x0, x1, x2, x3, x4, x5, x6, g0, g1, g2, g3, g4, g5, frequency, amplitude, before, inside):
    """v[2p] and v[2p + 1] from x[p-3 .. p+3], with taps g = 2f; past the last row, `before` again."""
    even = g0 * x0 + g2 * x1 + g4 * x2 + g5 * x3 + g3 * x4 + g1 * x5
    odd = g1 * x1 + g3 * x2 + g5 * x3 + g4 * x4 + g2 * x5 + g0 * x6
    even = tl.where(inside, _snake(even, frequency, amplitude), before)
    odd = tl.where(inside, _snake(odd, frequency, amplitude), before)
    return even, odd


@triton.jit
def _lowpass(v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, f0, f1, f2, f3, f4, f5):
    return f0 * (v0 + v11) + f1 * (v1 + v10) + f2 * (v2 + v9) + f3 * (v3 + v8) + f4 * (v4 + v7) + f5 * (v5 + v6)


@triton.jit
def _row(x_ptr, residual_ptr, at, row, bias, live, C: tl.constexpr, HAS_RESIDUAL: tl.constexpr):
    """One row of the input in fp32: what a convolution made, its bias, the residual stream."""
    x = tl.load(x_ptr + at + row * C, mask=live, other=0.0).to(tl.float32) + bias
    if HAS_RESIDUAL:
        x += tl.load(residual_ptr + at + row * C, mask=live, other=0.0).to(tl.float32)
    return x


# Sizes vary from chunk to chunk, and a kernel for each of their divisors would be compiled in the middle of a call.
@triton.jit(do_not_specialize=["length", "segments", "walks", "walk_rows"])
def activation_kernel(
    x_ptr,
    residual_ptr,
    bias_ptr,
    frequency_ptr,
    amplitude_ptr,
    sum_ptr,
    out_ptr,
    f0,
    f1,
    f2,
    f3,
    f4,
    f5,
    length,
    segments,
    walks,
    walk_rows,
    C: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    KEEP_SUM: tl.constexpr,
    LANES: tl.constexpr,
):
    """All of [B, L, C]; a lane is one channel of one of `walks` = B * `segments` stretches of `walk_rows` rows."""
    lane = tl.program_id(0) * LANES + tl.arange(0, LANES)
    live = lane < walks * C
    channel = lane % C
    walk = lane // C
    q = (walk % segments) * walk_rows
    at = (walk // segments).to(tl.int64) * length * C + channel

    frequency = tl.load(frequency_ptr + channel, mask=live, other=0.0)
    amplitude = tl.load(amplitude_ptr + channel, mask=live, other=0.0)
    bias = tl.zeros([LANES], dtype=tl.float32)
    if HAS_BIAS:
        bias += tl.load(bias_ptr + channel, mask=live, other=0.0)

    g0, g1, g2, g3, g4, g5 = 2.0 * f0, 2.0 * f1, 2.0 * f2, 2.0 * f3, 2.0 * f4, 2.0 * f5
    # Inputs from 5 rows before to 5 after: named by their distance, m for minus.
    last = length - 1
    xm5 = _row(x_ptr, residual_ptr, at, tl.maximum(q - 5, 0), bias, live, C, HAS_RESIDUAL)
    xm4 = _row(x_ptr, residual_ptr, at, tl.maximum(q - 4, 0), bias, live, C, HAS_RESIDUAL)
    xm3 = _row(x_ptr, residual_ptr, at, tl.maximum(q - 3, 0), bias, live, C, HAS_RESIDUAL)
    xm2 = _row(x_ptr, residual_ptr, at, tl.maximum(q - 2, 0), bias, live, C, HAS_RESIDUAL)
    xm1 = _row(x_ptr, residual_ptr, at, tl.maximum(q - 1, 0), bias, live, C, HAS_RESIDUAL)
    x0 = _row(x_ptr, residual_ptr, at, q, bias, live, C, HAS_RESIDUAL)
    x1 = _row(x_ptr, residual_ptr, at, tl.minimum(q + 1, last), bias, live, C, HAS_RESIDUAL)
    x2 = _row(x_ptr, residual_ptr, at, tl.minimum(q + 2, last), bias, live, C, HAS_RESIDUAL)
    x3 = _row(x_ptr, residual_ptr, at, tl.minimum(q + 3, last), bias, live, C, HAS_RESIDUAL)
    x4 = _row(x_ptr, residual_ptr, at, tl.minimum(q + 4, last), bias, live, C, HAS_RESIDUAL)
    x5 = _row(x_ptr, residual_ptr, at, tl.minimum(q + 5, last), bias, live, C, HAS_RESIDUAL)

    # Activated samples of the rows from 3 before to 2 after. Of the first only the odd one is used, and its even
    # one, clamped or not, is nobody's: any row of the right type stands in for x[q-6].
    _, om3 = _pair(xm5, xm5, xm4, xm3, xm2, xm1, x0, g0, g1, g2, g3, g4, g5, frequency, amplitude, x0, live)
    em2, om2 = _pair(xm5, xm4, xm3, xm2, xm1, x0, x1, g0, g1, g2, g3, g4, g5, frequency, amplitude, om3, q - 2 < length)
    em1, om1 = _pair(xm4, xm3, xm2, xm1, x0, x1, x2, g0, g1, g2, g3, g4, g5, frequency, amplitude, om2, q - 1 < length)
    e0, o0 = _pair(xm3, xm2, xm1, x0, x1, x2, x3, g0, g1, g2, g3, g4, g5, frequency, amplitude, om1, q < length)
    e1, o1 = _pair(xm2, xm1, x0, x1, x2, x3, x4, g0, g1, g2, g3, g4, g5, frequency, amplitude, o0, q + 1 < length)
    e2, o2 = _pair(xm1, x0, x1, x2, x3, x4, x5, g0, g1, g2, g3, g4, g5, frequency, amplitude, o1, q + 2 < length)
    # Before the first sample the activated signal is its first sample, which is not what clamped inputs give.
    first = q == 0
    om3 = tl.where(first, e0, om3)
    em2 = tl.where(first, e0, em2)
    om2 = tl.where(first, e0, om2)
    em1 = tl.where(first, e0, em1)
    om1 = tl.where(first, e0, om1)

    # Four rows at a time: their loads are under way together, and the window moves without copies.
    for _ in range(0, walk_rows, 4):
        x6 = _row(x_ptr, residual_ptr, at, tl.minimum(q + 6, last), bias, live, C, HAS_RESIDUAL)
        x7 = _row(x_ptr, residual_ptr, at, tl.minimum(q + 7, last), bias, live, C, HAS_RESIDUAL)
        x8 = _row(x_ptr, residual_ptr, at, tl.minimum(q + 8, last), bias, live, C, HAS_RESIDUAL)
        x9 = _row(x_ptr, residual_ptr, at, tl.minimum(q + 9, last), bias, live, C, HAS_RESIDUAL)
        e3, o3 = _pair(x0, x1, x2, x3, x4, x5, x6, g0, g1, g2, g3, g4, g5, frequency, amplitude, o2, q + 3 < length)
        e4, o4 = _pair(x1, x2, x3, x4, x5, x6, x7, g0, g1, g2, g3, g4, g5, frequency, amplitude, o3, q + 4 < length)
        e5, o5 = _pair(x2, x3, x4, x5, x6, x7, x8, g0, g1, g2, g3, g4, g5, frequency, amplitude, o4, q + 5 < length)
        e6, o6 = _pair(x3, x4, x5, x6, x7, x8, x9, g0, g1, g2, g3, g4, g5, frequency, amplitude, o5, q + 6 < length)
        y0 = _lowpass(om3, em2, om2, em1, om1, e0, o0, e1, o1, e2, o2, e3, f0, f1, f2, f3, f4, f5)
        y1 = _lowpass(om2, em1, om1, e0, o0, e1, o1, e2, o2, e3, o3, e4, f0, f1, f2, f3, f4, f5)
        y2 = _lowpass(om1, e0, o0, e1, o1, e2, o2, e3, o3, e4, o4, e5, f0, f1, f2, f3, f4, f5)
        y3 = _lowpass(o0, e1, o1, e2, o2, e3, o3, e4, o4, e5, o5, e6, f0, f1, f2, f3, f4, f5)
        here = at + q * C
        out = out_ptr + here
        tl.store(out, y0.to(out_ptr.dtype.element_ty), mask=live & (q < length))
        tl.store(out + C, y1.to(out_ptr.dtype.element_ty), mask=live & (q + 1 < length))
        tl.store(out + 2 * C, y2.to(out_ptr.dtype.element_ty), mask=live & (q + 2 < length))
        tl.store(out + 3 * C, y3.to(out_ptr.dtype.element_ty), mask=live & (q + 3 < length))
        if KEEP_SUM:
            kept = sum_ptr + here
            tl.store(kept, x0.to(sum_ptr.dtype.element_ty), mask=live & (q < length))
            tl.store(kept + C, x1.to(sum_ptr.dtype.element_ty), mask=live & (q + 1 < length))
            tl.store(kept + 2 * C, x2.to(sum_ptr.dtype.element_ty), mask=live & (q + 2 < length))
            tl.store(kept + 3 * C, x3.to(sum_ptr.dtype.element_ty), mask=live & (q + 3 < length))
        om3, em2, om2, em1, om1, e0, o0, e1, o1, e2, o2 = o1, e2, o2, e3, o3, e4, o4, e5, o5, e6, o6
        x0, x1, x2, x3, x4, x5 = x4, x5, x6, x7, x8, x9
        q += 4


@triton.jit(do_not_specialize=["size", "channels"])
def accumulate_kernel(
    x_ptr,
    residual_ptr,
    bias_ptr,
    total_ptr,
    out_ptr,
    size,
    channels,
    scale,
    HAS_TOTAL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """`(total + x + bias + residual) * scale`, element by element over [rows, channels]."""
    start = tl.program_id(0).to(tl.int64) * BLOCK
    place = tl.arange(0, BLOCK)
    index = start + place
    live = index < size
    channel = ((start % channels).to(tl.int32) + place) % channels
    s = tl.load(x_ptr + index, mask=live, other=0.0).to(tl.float32)
    s += tl.load(residual_ptr + index, mask=live, other=0.0).to(tl.float32)
    s += tl.load(bias_ptr + channel, mask=live, other=0.0)
    if HAS_TOTAL:
        s += tl.load(total_ptr + index, mask=live, other=0.0).to(tl.float32)
    tl.store(out_ptr + index, (s * scale).to(out_ptr.dtype.element_ty), mask=live)


@dataclass(frozen=True)
class Walk:
    """How the kernel cuts the time axis: rows that a lane walks, and lanes of one program."""

    rows: int
    lanes: int = _LANES

    @classmethod
    def suited(cls, batch: int, length: int, channels: int) -> Walk:
        """Long walks repeat least; short ones keep the card busy on little data."""
        for rows in reversed(_SEGMENTS):
            if batch * -(-length // rows) * channels >= _BUSY_LANES:
                return cls(rows)
        return cls(_SEGMENTS[0])


class TritonOps:
    """`Ops` by the kernels above.

    Args:
        walk: how to cut the time axis; by default what suits each size.

    Raises:
        ValueError: rows that are not contiguous or not on one device; an item of 2^31 elements or more.
    """

    def __init__(self, walk: Walk | None = None) -> None:
        self.walk = walk

    def activate(
        self,
        x: Tensor,
        snake: SnakeParameters,
        *,
        bias: Tensor | None = None,
        residual: Tensor | None = None,
        keep: bool = False,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor | None]:
        batch, length, channels = x.shape
        _check(x, channels, rows=(residual,), vectors=(bias, snake.frequency, snake.amplitude))
        walk = self.walk or Walk.suited(batch, length, channels)
        segments = -(-length // walk.rows)
        if length * channels > _MAX_ITEM or (batch * segments + 1) * channels + walk.lanes > _MAX_ITEM:
            raise ValueError(f"{list(x.shape)} is more than the kernel can index: use a smaller chunk_frames")
        out = torch.empty(x.shape, dtype=dtype, device=x.device)
        kept = torch.empty(x.shape, dtype=torch.float32, device=x.device) if keep else None
        walks = batch * segments
        with torch.cuda.device_of(x):  # Triton launches on the current device, whatever the tensors' is
            activation_kernel[(triton.cdiv(walks * channels, walk.lanes),)](
                x,
                x if residual is None else residual,
                snake.frequency if bias is None else bias,
                snake.frequency,
                snake.amplitude,
                out if kept is None else kept,
                out,
                *snake.taps,
                length,
                segments,
                walks,
                walk.rows,
                C=channels,
                HAS_BIAS=bias is not None,
                HAS_RESIDUAL=residual is not None,
                KEEP_SUM=keep,
                LANES=walk.lanes,
                num_warps=_WARPS,
                enable_fp_fusion=True,
            )
        return out, kept

    def accumulate(
        self, x: Tensor, residual: Tensor, bias: Tensor, *, total: Tensor | None, scale: float, dtype: torch.dtype
    ) -> Tensor:
        channels = x.shape[-1]
        _check(x, channels, rows=(residual, total), vectors=(bias,))
        out = total if total is not None and total.dtype == dtype else torch.empty_like(x, dtype=dtype)
        block = 1024 if self.walk is None else self.walk.lanes
        with torch.cuda.device_of(x):
            accumulate_kernel[(triton.cdiv(x.numel(), block),)](
                x,
                residual,
                bias,
                x if total is None else total,
                out,
                x.numel(),
                channels,
                scale,
                HAS_TOTAL=total is not None,
                BLOCK=block,
                num_warps=_WARPS,
                enable_fp_fusion=True,
            )
        return out


def _check(x: Tensor, channels: int, *, rows: tuple[Tensor | None, ...], vectors: tuple[Tensor | None, ...]) -> None:
    """A kernel reads memory as it is told: refuse what does not lie there as told."""
    for each in (x, *rows):
        if each is not None and (each.shape != x.shape or not each.is_contiguous() or each.device != x.device):
            raise ValueError(f"expected contiguous rows {list(x.shape)} on {x.device}, not {_described(each)}")
    for each in vectors:
        if each is not None and (
            each.shape != (channels,)
            or each.dtype != torch.float32
            or not each.is_contiguous()
            or each.device != x.device
        ):
            raise ValueError(f"expected [{channels}] in fp32 on {x.device}, not {_described(each)}")


def _described(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} with strides {list(tensor.stride())}, {tensor.dtype} on {tensor.device}"
