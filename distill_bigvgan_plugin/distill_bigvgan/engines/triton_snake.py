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

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from distill_core.engines.gpu.engine import interpreted
from distill_core.engines.gpu.ops import Extent
from distill_core.engines.gpu.triton_convolution import check_countable
from distill_core.engines.gpu.triton_rows import BEYOND, WARPS, TritonOps, check_rows

from .snake import SnakeParameters

_LANES = 256
_SEGMENTS = (16, 32, 64)
"""Rows that a lane walks. Each walk computes six pairs of samples that its neighbour computes too."""

_BUSY_LANES = 1 << 17
"""Lanes that keep a large GPU busy: shorter walks are taken rather than fewer lanes."""


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
    s = tl.fma(y, tl.fma(y, 0.0772201242, -0.598045172), 2.55003138)
    s = r * tl.fma(y, tl.fma(y, s, -5.16770688), 3.14159258)
    return tl.fma(amplitude, s * s, u)


@triton.jit
def _snake_by_cosine(u, frequency, amplitude):
    """The same less half of `amplitude`, as sin² is (1 - cos) / 2, with the card's own cosine, good to 5e-7.

    Its unit works beside the one that adds and multiplies, of which it takes a third of the polynomial's load.
    """
    angle = u * (6.28318531 * frequency)
    cosine = tl.inline_asm_elementwise("cos.approx.f32 $0, $1;", "=f,f", [angle], tl.float32, is_pure=True, pack=1)
    return tl.fma(-0.5 * amplitude, cosine, u)


@triton.jit
def _pair(
    x0,
    x1,
    x2,
    x3,
    x4,
    x5,
    x6,
    g0,
    g1,
    g2,
    g3,
    g4,
    g5,
    turn,
    size,
    before,
    inside,
    EDGE: tl.constexpr,
    COSINE: tl.constexpr,
):
    """v[2p] and v[2p + 1] from x[p-3 .. p+3], with taps g = 2f; past the last row, `before` again.

    `turn` and `size` are the snake's frequency and amplitude.
    """
    even = tl.fma(g4, x2, tl.fma(g2, x1, g0 * x0))
    even = tl.fma(g1, x5, tl.fma(g3, x4, tl.fma(g5, x3, even)))
    odd = tl.fma(g5, x3, tl.fma(g3, x2, g1 * x1))
    odd = tl.fma(g0, x6, tl.fma(g2, x5, tl.fma(g4, x4, odd)))
    if COSINE:
        even = _snake_by_cosine(even, turn, size)
        odd = _snake_by_cosine(odd, turn, size)
    else:
        even = _snake(even, turn, size)
        odd = _snake(odd, turn, size)
    if EDGE:
        even = tl.where(inside, even, before)
        odd = tl.where(inside, odd, before)
    return even, odd


@triton.jit
def _lowpass(v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, f0, f1, f2, f3, f4, f5, offset):
    y = tl.fma(f2, v2 + v9, tl.fma(f1, v1 + v10, tl.fma(f0, v0 + v11, offset)))
    return tl.fma(f5, v5 + v6, tl.fma(f4, v4 + v7, tl.fma(f3, v3 + v8, y)))


@triton.jit
def _row(x_ptr, residual_ptr, at, bias, live, HAS_RESIDUAL: tl.constexpr, EDGE: tl.constexpr):
    """One row of the input in fp32: what a convolution made, its bias, the residual stream."""
    if EDGE:
        x = tl.load(x_ptr + at, mask=live, other=0.0).to(tl.float32) + bias
        if HAS_RESIDUAL:
            x += tl.load(residual_ptr + at, mask=live, other=0.0).to(tl.float32)
    else:
        x = tl.load(x_ptr + at).to(tl.float32) + bias
        if HAS_RESIDUAL:
            x += tl.load(residual_ptr + at).to(tl.float32)
    return x


@triton.jit
def _put(out_ptr, at, y0, y1, y2, y3, C: tl.constexpr):
    """Four rows of a result."""
    tl.store(out_ptr + at, y0.to(out_ptr.dtype.element_ty))
    tl.store(out_ptr + at + C, y1.to(out_ptr.dtype.element_ty))
    tl.store(out_ptr + at + 2 * C, y2.to(out_ptr.dtype.element_ty))
    tl.store(out_ptr + at + 3 * C, y3.to(out_ptr.dtype.element_ty))


# Sizes vary from chunk to chunk, and a kernel for each of their divisors would be compiled in the middle of a call.
@triton.jit(do_not_specialize=["each", "padded", "segments", "walks", "walk_rows"])
def activation_kernel(
    x_ptr,
    residual_ptr,
    bias_ptr,
    frequency_ptr,
    amplitude_ptr,
    sum_ptr,
    out_ptr,
    frames_ptr,
    f0,
    f1,
    f2,
    f3,
    f4,
    f5,
    each,
    padded,
    segments,
    walks,
    walk_rows,
    C: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    KEEP_SUM: tl.constexpr,
    COSINE: tl.constexpr,
    LANES: tl.constexpr,
):
    """All of [B, P, C]; a lane is one channel of one of `walks` = B * `segments` stretches of `walk_rows` rows."""
    first_lane = tl.program_id(0) * LANES
    lane = first_lane + tl.arange(0, LANES)
    live = lane < walks * C
    channel = lane % C
    walk = lane // C
    q = (walk % segments) * walk_rows
    at = (walk // segments).to(tl.int64) * padded * C + channel
    length = tl.load(frames_ptr) * each
    last = length - 1

    turn = tl.load(frequency_ptr + channel, mask=live, other=0.0)
    size = tl.load(amplitude_ptr + channel, mask=live, other=0.0)
    bias = tl.zeros([LANES], dtype=tl.float32)
    if HAS_BIAS:
        bias += tl.load(bias_ptr + channel, mask=live, other=0.0)

    g0, g1, g2, g3, g4, g5 = 2.0 * f0, 2.0 * f1, 2.0 * f2, 2.0 * f3, 2.0 * f4, 2.0 * f5
    offset = tl.zeros([LANES], dtype=tl.float32)
    if COSINE:  # what the samples lack, the filter passes on as it is
        offset += size * (f0 + f1 + f2 + f3 + f4 + f5)

    # Inputs from 5 rows before to 5 after: named by their distance, m for minus.
    xm5 = _row(x_ptr, residual_ptr, at + tl.minimum(tl.maximum(q - 5, 0), last) * C, bias, live, HAS_RESIDUAL, True)
    xm4 = _row(x_ptr, residual_ptr, at + tl.minimum(tl.maximum(q - 4, 0), last) * C, bias, live, HAS_RESIDUAL, True)
    xm3 = _row(x_ptr, residual_ptr, at + tl.minimum(tl.maximum(q - 3, 0), last) * C, bias, live, HAS_RESIDUAL, True)
    xm2 = _row(x_ptr, residual_ptr, at + tl.minimum(tl.maximum(q - 2, 0), last) * C, bias, live, HAS_RESIDUAL, True)
    xm1 = _row(x_ptr, residual_ptr, at + tl.minimum(tl.maximum(q - 1, 0), last) * C, bias, live, HAS_RESIDUAL, True)
    x0 = _row(x_ptr, residual_ptr, at + tl.minimum(q, last) * C, bias, live, HAS_RESIDUAL, True)
    x1 = _row(x_ptr, residual_ptr, at + tl.minimum(q + 1, last) * C, bias, live, HAS_RESIDUAL, True)
    x2 = _row(x_ptr, residual_ptr, at + tl.minimum(q + 2, last) * C, bias, live, HAS_RESIDUAL, True)
    x3 = _row(x_ptr, residual_ptr, at + tl.minimum(q + 3, last) * C, bias, live, HAS_RESIDUAL, True)
    x4 = _row(x_ptr, residual_ptr, at + tl.minimum(q + 4, last) * C, bias, live, HAS_RESIDUAL, True)
    x5 = _row(x_ptr, residual_ptr, at + tl.minimum(q + 5, last) * C, bias, live, HAS_RESIDUAL, True)

    # Activated samples of the rows from 3 before to 2 after. Of the first only the odd one is used, and its even
    # one, clamped or not, is nobody's: any row of the right type stands in for x[q-6].
    _unused, om3 = _pair(xm5, xm5, xm4, xm3, xm2, xm1, x0, g0, g1, g2, g3, g4, g5, turn, size, x0, live, True, COSINE)
    em2, om2 = _pair(
        xm5, xm4, xm3, xm2, xm1, x0, x1, g0, g1, g2, g3, g4, g5, turn, size, om3, q - 2 < length, True, COSINE
    )
    em1, om1 = _pair(
        xm4, xm3, xm2, xm1, x0, x1, x2, g0, g1, g2, g3, g4, g5, turn, size, om2, q - 1 < length, True, COSINE
    )
    e0, o0 = _pair(xm3, xm2, xm1, x0, x1, x2, x3, g0, g1, g2, g3, g4, g5, turn, size, om1, q < length, True, COSINE)
    e1, o1 = _pair(xm2, xm1, x0, x1, x2, x3, x4, g0, g1, g2, g3, g4, g5, turn, size, o0, q + 1 < length, True, COSINE)
    e2, o2 = _pair(xm1, x0, x1, x2, x3, x4, x5, g0, g1, g2, g3, g4, g5, turn, size, o1, q + 2 < length, True, COSINE)
    # Before the first sample the activated signal is its first sample, which is not what clamped inputs give.
    first = q == 0
    om3 = tl.where(first, e0, om3)
    em2 = tl.where(first, e0, em2)
    om2 = tl.where(first, e0, om2)
    em1 = tl.where(first, e0, em1)
    om1 = tl.where(first, e0, om1)

    # Are all rows that these lanes will look at rows of their signals? Then there is nothing to be clamped or masked.
    segment = (first_lane // C) % segments
    segment += (first_lane + LANES - 1) // C - first_lane // C
    whole = (segment < segments) & ((segment + 1) * walk_rows + 10 <= length) & (first_lane + LANES <= walks * C)
    if whole:
        here = at + q * C
        n6 = _row(x_ptr, residual_ptr, here + 6 * C, bias, live, HAS_RESIDUAL, False)
        n7 = _row(x_ptr, residual_ptr, here + 7 * C, bias, live, HAS_RESIDUAL, False)
        n8 = _row(x_ptr, residual_ptr, here + 8 * C, bias, live, HAS_RESIDUAL, False)
        n9 = _row(x_ptr, residual_ptr, here + 9 * C, bias, live, HAS_RESIDUAL, False)
        turns: tl.constexpr = 1 if HAS_RESIDUAL else 2  # more save copies, but make the compiler slow
        for _step in range(0, walk_rows, 4 * turns):
            for _turn in tl.static_range(turns):
                x6, x7, x8, x9 = n6, n7, n8, n9
                # The next four are on their way while these are worked on.
                n6 = _row(x_ptr, residual_ptr, here + 10 * C, bias, live, HAS_RESIDUAL, False)
                n7 = _row(x_ptr, residual_ptr, here + 11 * C, bias, live, HAS_RESIDUAL, False)
                n8 = _row(x_ptr, residual_ptr, here + 12 * C, bias, live, HAS_RESIDUAL, False)
                n9 = _row(x_ptr, residual_ptr, here + 13 * C, bias, live, HAS_RESIDUAL, False)
                e3, o3 = _pair(x0, x1, x2, x3, x4, x5, x6, g0, g1, g2, g3, g4, g5, turn, size, o2, True, False, COSINE)
                e4, o4 = _pair(x1, x2, x3, x4, x5, x6, x7, g0, g1, g2, g3, g4, g5, turn, size, o3, True, False, COSINE)
                e5, o5 = _pair(x2, x3, x4, x5, x6, x7, x8, g0, g1, g2, g3, g4, g5, turn, size, o4, True, False, COSINE)
                e6, o6 = _pair(x3, x4, x5, x6, x7, x8, x9, g0, g1, g2, g3, g4, g5, turn, size, o5, True, False, COSINE)
                y0 = _lowpass(om3, em2, om2, em1, om1, e0, o0, e1, o1, e2, o2, e3, f0, f1, f2, f3, f4, f5, offset)
                y1 = _lowpass(om2, em1, om1, e0, o0, e1, o1, e2, o2, e3, o3, e4, f0, f1, f2, f3, f4, f5, offset)
                y2 = _lowpass(om1, e0, o0, e1, o1, e2, o2, e3, o3, e4, o4, e5, f0, f1, f2, f3, f4, f5, offset)
                y3 = _lowpass(o0, e1, o1, e2, o2, e3, o3, e4, o4, e5, o5, e6, f0, f1, f2, f3, f4, f5, offset)
                _put(out_ptr, here, y0, y1, y2, y3, C)
                if KEEP_SUM:
                    _put(sum_ptr, here, x0, x1, x2, x3, C)
                # The window moves without copies: `turns` rounds later everything has its name again.
                om3, em2, om2, em1, om1, e0, o0, e1, o1, e2, o2 = o1, e2, o2, e3, o3, e4, o4, e5, o5, e6, o6
                x0, x1, x2, x3, x4, x5 = x4, x5, x6, x7, x8, x9
                here += 4 * C
    else:
        for _step in range(walk_rows):
            x6 = _row(x_ptr, residual_ptr, at + tl.minimum(q + 6, last) * C, bias, live, HAS_RESIDUAL, True)
            own, held = q < length, live & (q < padded)
            e3, o3 = _pair(
                x0, x1, x2, x3, x4, x5, x6, g0, g1, g2, g3, g4, g5, turn, size, o2, q + 3 < length, True, COSINE
            )
            y = _lowpass(om3, em2, om2, em1, om1, e0, o0, e1, o1, e2, o2, e3, f0, f1, f2, f3, f4, f5, offset)
            here = at + q * C
            tl.store(out_ptr + here, tl.where(own, y, 0.0).to(out_ptr.dtype.element_ty), mask=held)
            if KEEP_SUM:
                tl.store(sum_ptr + here, tl.where(own, x0, 0.0), mask=held)
            om3, em2, om2, em1, om1, e0, o0, e1, o1, e2, o2 = om2, em1, om1, e0, o0, e1, o1, e2, o2, e3, o3
            x0, x1, x2, x3, x4, x5 = x1, x2, x3, x4, x5, x6
            q += 1


@dataclass(frozen=True)
class Walk:
    """How the kernel cuts the time axis: rows that a lane walks, a multiple of eight, and lanes of one program."""

    rows: int
    lanes: int = _LANES

    def __post_init__(self) -> None:
        if self.rows % 8:
            raise ValueError(f"a lane walks a multiple of eight rows, not {self.rows}")

    @classmethod
    def suited(cls, batch: int, length: int, channels: int) -> Walk:
        """Long walks repeat least; short ones keep the card busy on little data."""
        for rows in reversed(_SEGMENTS):
            if batch * -(-length // rows) * channels >= _BUSY_LANES:
                return cls(rows)
        return cls(_SEGMENTS[0])


class TritonSnakeOps(TritonOps):
    """`TritonOps` with the activation above.

    Args:
        walk: how to cut the time axis; by default what suits each size.
        cosine: whether half-precision results are made with the card's own cosine, which the interpreter has not.

    Raises:
        ValueError: as `TritonOps`.
    """

    def __init__(self, walk: Walk | None = None, *, cosine: bool | None = None) -> None:
        super().__init__(None if walk is None else walk.lanes)
        self.walk = walk
        self._cosine = not interpreted() if cosine is None else cosine

    def activate(
        self,
        x: Tensor,
        snake: SnakeParameters,
        extent: Extent,
        *,
        bias: Tensor | None = None,
        residual: Tensor | None = None,
        keep: bool = False,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor | None]:
        batch, padded, channels = x.shape
        check_rows(x, extent, rows=(residual,), vectors=(bias, snake.frequency, snake.amplitude))
        walk = self.walk or Walk.suited(batch, padded, channels)
        segments = -(-padded // walk.rows)
        check_countable((batch * segments + 1) * channels + walk.lanes + BEYOND, x)
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
                extent.frames,
                *snake.taps,
                extent.rows_per_frame,
                padded,
                segments,
                walks,
                walk.rows,
                C=channels,
                HAS_BIAS=bias is not None,
                HAS_RESIDUAL=residual is not None,
                KEEP_SUM=keep,
                COSINE=self._cosine and dtype != torch.float32,
                LANES=walk.lanes,
                num_warps=WARPS,
                enable_fp_fusion=True,
            )
        return out, kept
