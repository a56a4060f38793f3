"""The anti-aliased snake activation as compiled kernels, by numba: one pass over memory.

With f the 12 taps of both filters, f[k] = f[11 - k], and x clamped at its ends, the doubled signal is

    u[2q]     = 2 * sum_j f[2j] x[q - 3 + j]             j = 0..5
    u[2q + 1] = 2 * sum_j f[2j + 1] x[q - 2 + j]
    v         = u + amplitude * sin^2(frequency * u)
    y[q]      = sum_k f[k] v[2q + k - 5]                 k = 0..11, v clamped at its ends

What is computed is v divided by the root of 2, with taps as many times larger: both filters are the same six then. And
it is computed in turns of the sine, by factors of a channel that are put into its taps: rounds of the loop have none.

A tile is kept in the cache as fp32: its x, then y. A few channels of it are gone through from the first row to the
last, what is needed of v's last positions being kept in registers. Arithmetic is fp32 throughout; bfloat16 enters and
leaves as its 16 bits.

The descriptor of `kernels` holds the `D_…` below. Beside the activation stands the mean of blocks, in whose descriptor
are the `M_…`.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from distill_core.engines.kernels import LANES, OPTIONS, Kernels, Vector, enter, leave, pointer, take_next

D_NEXT, D_WITHIN, D_X, D_BRANCH, D_SUM, D_OUT, D_FREQUENCY, D_AMPLITUDE, D_TAPS = range(9)
D_LENGTH, D_CHANNELS, D_FIRST, D_STOP = range(9, 13)
DESCRIPTOR = 13
M_TOTAL, M_X, M_BRANCH, M_SIZE, M_FIRST, M_SHARES = range(2, 8)
M_DESCRIPTOR = 8

VALUES, TILES, LEAST_ROWS = 1 << 15, 16, 24
"""Of a tile: about so many, or fewer for so many tiles to come about, in so many rows at least."""

_PERIOD = 6
"""Rows after which what is kept of v lies in the registers as it did before."""
_LINE = 16
"""Values in a line of the cache."""
_AROUND = 6
"""Rows of x before a tile's and after it that its y depends on."""


def _exact(array: Any) -> bool:
    """Whether an array, by its type, holds fp32 and not the bits of bfloat16."""
    return isinstance(array.dtype, types.Float)


@intrinsic
def _read(typing, x, branch, source, added, target):
    """`LANES` values of x, plus those of a branch in bfloat16 if there is one, from and to these addresses."""

    def generate(context, builder, signature, arguments):
        _, _, source, added, target = arguments
        value = Vector.at(builder, source) if _exact(x) else Vector.at_bf16(builder, source)
        if not isinstance(branch, types.NoneType):
            value += Vector.at_bf16(builder, added)
        value.store(target)
        return context.get_dummy_value()

    return types.void(x, branch, *[types.int64] * 3), generate


@intrinsic
def _write(typing, out, source, target):
    """`LANES` values of fp32 into `out`, from and to these addresses."""

    def generate(context, builder, signature, arguments):
        _, source, target = arguments
        value = Vector.at(builder, source)
        if _exact(out):
            value.store(target)
        else:
            value.store_bf16(target)
        return context.get_dummy_value()

    return types.void(out, types.int64, types.int64), generate


# sin^2(pi sqrt(y)) / y over 0 <= y <= 1/4, least squares at Chebyshev nodes, the highest power first: sin^2 is good to
# 2e-8, and to 8e-5 where what comes of it is rounded to bfloat16.
_SIN_SQUARED = (
    -3.3565926215407536,
    13.050098920170726,
    -30.101465841294555,
    42.727196336515924,
    -32.46967117172002,
    9.869604311707741,
)
_SIN_SQUARED_FOR_BF16 = (-24.166442427963972, 41.83057945145165, -32.42560859054849, 9.869263674025536)


@intrinsic
def _strip(typing, out, x, made, step, rows, first, length, frequency, amplitude, taps):
    """y of `LANES` channels, as exact as the type of `out` is.

    All but the numbers of rows and the taps are addresses or bytes. `x` is three rows before row `first` of the
    signal, which may lie before its beginning; v is computed for `rows` rows from there, and a few more, and y of
    three rows before each, to `made` row by row.
    """
    powers = _SIN_SQUARED if _exact(out) else _SIN_SQUARED_FOR_BF16

    def generate(context, builder, signature, arguments):
        _, x, made, step, rows, first, length, frequency, amplitude, taps = arguments
        half = [Vector.every(builder, tap) for tap in cgutils.unpack_tuple(builder, taps)]
        frequency, amplitude = Vector.at(builder, frequency), Vector.at(builder, amplitude)
        up = [tap * frequency for tap in (*half, *half[::-1])]
        down = [tap / frequency for tap in half]
        factors = [Vector.constant(builder, power) * (amplitude * frequency) for power in powers]

        def number(value: int) -> Any:
            return ir.Constant(ir.IntType(64), value)

        def activated(u: list[Vector]) -> list[Vector]:
            """v of each u, step by step of all of them, which do not wait for one another."""
            rest = [each.fraction() for each in u]
            y = [each * each for each in rest]
            sums = [factors[0] * each + factors[1] for each in y]
            for added in (*([factor] * len(u) for factor in factors[2:]), u):
                sums = [sum_ * each + one for sum_, each, one in zip(sums, y, added, strict=True)]
            return sums

        before = builder.neg(first)
        behind = builder.sub(length, first)

        def one_row(v: list[Vector], row: Any, *, ends: bool) -> list[Vector]:
            """y of a row, and what is kept of v behind it. The signal's ends are looked for if there may be any."""
            place = row
            if ends:  # before its first position v is what it is there, and behind its last
                early = builder.icmp_signed("<", row, before)
                late = builder.icmp_signed(">=", row, behind)
                place = builder.select(early, before, row)
            here = builder.add(x, builder.mul(place, step))
            seen = [Vector.at(builder, here, step, k) for k in range(7)]
            even, odd = activated([_halves(seen[:6], up[::2]), _halves(seen[1:], up[1::2])])
            if ends:
                even = v[-1].where(late, even)
                odd = even.where(builder.or_(early, late), odd)
            span = [*v[1:], even]
            terms = [(one + other, tap) for one, other, tap in zip(span, span[::-1], down, strict=False)]
            _sum(terms[::-1]).store(builder.add(made, builder.mul(row, step)))  # what is there last comes last
            return [*v[2:], even, odd]

        kept = [cgutils.alloca_once(builder, Vector.TYPE) for _ in range(2 * _PERIOD)]
        for place in kept:
            builder.store(Vector.constant(builder, 0.0).value, place)
        rounds = builder.sdiv(builder.add(rows, number(_PERIOD - 1)), number(_PERIOD))
        with cgutils.for_range(builder, rounds) as loop:
            start = builder.mul(loop.index, number(_PERIOD))
            within = builder.and_(
                builder.icmp_signed(">=", start, before),
                builder.icmp_signed("<=", builder.add(start, number(_PERIOD)), behind),
            )
            with builder.if_else(within, likely=True) as branches:
                for branch, ends in zip(branches, (False, True), strict=True):
                    with branch:
                        v = [Vector(builder, builder.load(place)) for place in kept]
                        for i in range(_PERIOD):
                            v = one_row(v, builder.add(start, number(i)), ends=ends)
                        for value, place in zip(v, kept, strict=True):
                            builder.store(value.value, place)
        return context.get_dummy_value()

    return types.void(out, *[types.int64] * 8, taps), generate


def _halves(values: list[Vector], taps: list[Vector]) -> Vector:
    """The sum of their products, as two short sums, which wait less for one another than a long one."""
    terms = list(zip(values, taps, strict=True))
    return _sum(terms[:3]) + _sum(terms[3:])


def _sum(terms: list[tuple[Vector, Vector]]) -> Vector:
    return functools.reduce(Vector.__add__, [value * tap for value, tap in terms])


@numba.njit(**OPTIONS)
def _room(values):
    """For so many of fp32, all 0, from the beginning of a line of the cache on."""
    room = np.zeros(values + _LINE, np.float32)
    return room[-room.ctypes.data % (4 * _LINE) // 4 :]


@numba.njit(**OPTIONS)
def _copy_row(rows, n, source, to):
    for i in range(n):
        rows[to * n + i] = rows[source * n + i]


@numba.njit(**OPTIONS)
def _take(x, branch, start, m, target):
    """m values of x, plus those of the branch, from `start` to an address."""
    if m < LANES:
        few, more = np.zeros(LANES, x.dtype), np.zeros(LANES, np.uint16)
        for i in range(m):
            few[i] = x[start + i]
            if branch is not None:
                more[i] = branch[start + i]
        _read(few, None if branch is None else more, few.ctypes.data, more.ctypes.data, target)
        return
    source = x.ctypes.data + start * x.itemsize
    added = 0 if branch is None else branch.ctypes.data + start * 2
    for i in range(0, m, LANES):
        at = min(i, m - LANES)
        _read(x, branch, source + at * x.itemsize, added + at * 2, target + at * 4)


@numba.njit(**OPTIONS)
def _put(source, out, start, m):
    """m values of fp32 from an address into `out`, from `start`."""
    if m < LANES:
        few = np.zeros(LANES, out.dtype)
        _write(few, source, few.ctypes.data)
        for i in range(m):
            out[start + i] = few[i]
        return
    target = out.ctypes.data + start * out.itemsize
    for i in range(0, m, LANES):
        at = min(i, m - LANES)
        _write(out, source + at * 4, target + at * out.itemsize)


@numba.njit(**OPTIONS)
def _activate(x, branch, total, out, frequency, amplitude, taps, length, channels, first_row, stop, descriptor):
    """y of x, or of x + branch, which then is written to `total`, from a row to another.

    Flat arrays: x and branch of `length` rows of `channels`, out and total of those that are made.
    """
    rows = max(LEAST_ROWS, min(VALUES // channels, (stop - first_row) // TILES) // _PERIOD * _PERIOD)
    # Rows, what the last round of a strip goes beyond them, and its last vector.
    xs = _room((rows + 2 * _AROUND + _PERIOD) * channels + LANES)
    made = _room((rows + _AROUND + _PERIOD) * channels + LANES)
    seen, row = xs.ctypes.data, channels * 4
    while True:
        q0 = first_row + take_next(descriptor) * rows
        if q0 >= stop:
            break
        q1 = min(stop, q0 + rows)

        # x with what its y depends on, the signal's ends replicated
        lo, hi = q0 - _AROUND, q1 + _AROUND
        first, last = max(lo, 0), min(hi, length)
        _take(x, branch, first * channels, (last - first) * channels, seen + (first - lo) * row)
        for q in range(lo, first):
            _copy_row(xs, channels, first - lo, q - lo)
        for q in range(last, hi):
            _copy_row(xs, channels, last - 1 - lo, q - lo)
        if total is not None:
            _put(seen + _AROUND * row, total, (q0 - first_row) * channels, (q1 - q0) * channels)

        # Where the channels are no multiple of `LANES`, the last strip goes over some of the one before again; where
        # they are fewer than that, over the next row, whose own values come later.
        for i in range(0, channels, LANES):
            c = max(0, min(i, channels - LANES))
            _strip(
                out,
                seen + c * 4,
                made.ctypes.data + c * 4,
                row,
                q1 - q0 + _AROUND,
                q0 - _AROUND // 2,
                length,
                frequency.ctypes.data + c * 4,
                amplitude.ctypes.data + c * 4,
                taps,
            )

        _put(made.ctypes.data + _AROUND * row, out, (q0 - first_row) * channels, (q1 - q0) * channels)


@numba.njit(**OPTIONS)
def _run(d, x, branch, total, out):
    length, channels = d[D_LENGTH], d[D_CHANNELS]
    frequency = numba.carray(pointer(d[D_FREQUENCY]), channels + LANES, np.float32)
    amplitude = numba.carray(pointer(d[D_AMPLITUDE]), channels + LANES, np.float32)
    f = numba.carray(pointer(d[D_TAPS]), 6, np.float32)
    taps = (f[0], f[1], f[2], f[3], f[4], f[5])
    enter(d)
    _activate(x, branch, total, out, frequency, amplitude, taps, length, channels, d[D_FIRST], d[D_STOP], d)
    leave(d)


def _fp32(argument):
    d = numba.carray(argument, DESCRIPTOR, np.int64)
    size, made = d[D_LENGTH] * d[D_CHANNELS], (d[D_STOP] - d[D_FIRST]) * d[D_CHANNELS]
    x = numba.carray(pointer(d[D_X]), size, np.float32)
    out = numba.carray(pointer(d[D_OUT]), made, np.float32)
    _run(d, x, None, None, out)


def _bf16(argument):
    d = numba.carray(argument, DESCRIPTOR, np.int64)
    size, made = d[D_LENGTH] * d[D_CHANNELS], (d[D_STOP] - d[D_FIRST]) * d[D_CHANNELS]
    x = numba.carray(pointer(d[D_X]), size, np.uint16)
    out = numba.carray(pointer(d[D_OUT]), made, np.uint16)
    _run(d, x, None, None, out)


def _first_sum(argument):
    d = numba.carray(argument, DESCRIPTOR, np.int64)
    size, made = d[D_LENGTH] * d[D_CHANNELS], (d[D_STOP] - d[D_FIRST]) * d[D_CHANNELS]
    x = numba.carray(pointer(d[D_X]), size, np.uint16)
    branch = numba.carray(pointer(d[D_BRANCH]), size, np.uint16)
    total = numba.carray(pointer(d[D_SUM]), made, np.float32)
    out = numba.carray(pointer(d[D_OUT]), made, np.uint16)
    _run(d, x, branch, total, out)


def _later_sum(argument):
    d = numba.carray(argument, DESCRIPTOR, np.int64)
    size, made = d[D_LENGTH] * d[D_CHANNELS], (d[D_STOP] - d[D_FIRST]) * d[D_CHANNELS]
    x = numba.carray(pointer(d[D_X]), size, np.float32)
    branch = numba.carray(pointer(d[D_BRANCH]), size, np.uint16)
    total = numba.carray(pointer(d[D_SUM]), made, np.float32)
    out = numba.carray(pointer(d[D_OUT]), made, np.uint16)
    _run(d, x, branch, total, out)


@numba.njit(**OPTIONS)
def _wide(half):
    """bfloat16, from its bits."""
    return np.uint32(np.uint32(half) << np.uint32(16)).view(np.float32)


def _mean(argument):
    """`x + branch` into `total`, or onto it, and that times a share: in one pass."""
    d = numba.carray(argument, M_DESCRIPTOR, np.int64)
    share = np.float32(1.0) / np.float32(d[M_SHARES])
    while True:
        start = take_next(d) * VALUES
        size = min(VALUES, d[M_SIZE] - start)
        if size <= 0:
            break
        # arrays that begin where the work does: an index from 0 on is known not to count from the end
        total = numba.carray(pointer(d[M_TOTAL] + start * 4), size, np.float32)
        x = numba.carray(pointer(d[M_X] + start * 4), size, np.float32)
        branch = numba.carray(pointer(d[M_BRANCH] + start * 2), size, np.uint16)
        if d[M_FIRST]:
            for i in range(size):
                total[i] = (x[i] + _wide(branch[i])) * share
        else:
            for i in range(size):
                total[i] = (total[i] + (x[i] + _wide(branch[i]))) * share


KERNELS = Kernels({"fp32": _fp32, "bf16": _bf16, "first_sum": _first_sum, "later_sum": _later_sum, "mean": _mean})
"""By input: fp32 to fp32, bf16 to bf16; and with a bf16 branch added to a bf16 or an fp32 stream. And the mean."""


def needed(*, half: bool) -> tuple[str, ...]:
    """The kernels that a model in bf16, or in fp32, calls."""
    return ("fp32", "bf16", "first_sum", "later_sum", "mean") if half else ("fp32",)
