"""The anti-aliased snake activation as compiled kernels, by numba: one pass over memory.

With f the 12 taps and x clamped at its ends, the doubled signal is

    u[2q]     = 2 * sum_j f[11 - 2j] x[q - 3 + j]        j = 0..5
    u[2q + 1] = 2 * sum_j f[10 - 2j] x[q - 2 + j]
    v         = u + amplitude * sin^2(frequency * u)
    y[q]      = sum_k f[k] v[2q + k - 5]                 k = 0..11, v clamped at its ends

A tile of rows is kept in the cache: its x as fp32, v's even and odd positions apart, then y. All loops
run along memory, over channels, or over rows and channels at once where channels are few. Arithmetic is
fp32 throughout; bfloat16 enters and leaves as its 16 bits.

The descriptor of `kernels` holds the `D_…` below.
"""

from __future__ import annotations

import functools

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from distill_core.engines.kernels import LANES, OPTIONS, Kernels, Vector, pointer, take_next

D_NEXT, D_X, D_BRANCH, D_SUM, D_OUT, D_FREQUENCY, D_AMPLITUDE, D_UP, D_DOWN = range(9)
D_LENGTH, D_CHANNELS, D_PARAMETERS = range(9, 12)
DESCRIPTOR = 12

ROWS = 64
"""Rows of a tile."""
COLUMNS = 128
"""Channels of a tile; fewer than this are never split."""
_LEAST_RUN = 128



def group(channels: int) -> int:
    """Rows whose channels are looped over at once: as many as make a loop worth vectorising."""
    return 1 if channels >= _LEAST_RUN // 2 else -(-_LEAST_RUN // channels)


@intrinsic
def _bits(typing, value):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), generate


@intrinsic
def _float(typing, value):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


def _load(value):
    raise NotImplementedError("compiled only")


@overload(_load, inline="always")
def _load_overload(value):
    if isinstance(value, types.Float):
        return lambda value: value
    return lambda value: _float(np.uint32(value) << np.uint32(16))


def _rounded(value, like):
    raise NotImplementedError("compiled only")


@overload(_rounded, inline="always")
def _rounded_overload(value, like):
    """To the nearest bfloat16, ties to even."""
    if isinstance(like.dtype, types.Float):
        return lambda value, like: value

    def to_bf16(value, like):
        bits = _bits(value)
        return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))

    return to_bf16


# sin^2(pi sqrt(y)) / y over 0 <= y <= 1/4, least squares at Chebyshev nodes: good to 2e-7. The highest power first.
_SIN_SQUARED = (
    0.7419801213276097,
    -3.913077712618829,
    13.206610352070026,
    -30.121754360250904,
    42.72838511692426,
    -32.46969664558595,
    9.869604400158666,
)


@intrinsic
def _v_of_lanes(typing, x, step, frequency, amplitude, v, filter_):
    """`LANES` values of v, to the address `v`, from x at the address `x` and `step`, `2 * step` … bytes behind it."""

    def generate(context, builder, signature, arguments):
        x, step, frequency, amplitude, v, filter_ = arguments
        taps = [Vector.every(builder, tap) for tap in cgutils.unpack_tuple(builder, filter_)]
        terms = [tap * Vector.at(builder, x, step, k) for k, tap in enumerate(taps)]
        u = functools.reduce(Vector.__add__, terms)
        turns = u * Vector.at(builder, frequency)
        rest = turns - turns.rounded()
        y = rest * rest
        powers = [Vector.constant(builder, factor) for factor in _SIN_SQUARED]
        sine = functools.reduce(lambda sum_, factor: sum_ * y + factor, powers) * y
        (u + Vector.at(builder, amplitude) * sine).store(v)
        return context.get_dummy_value()

    address = types.int64
    return types.void(address, address, address, address, address, filter_), generate


@numba.njit(**OPTIONS)
def _half_of_v(x, first, n, rows, group, filter_, frequency, amplitude, v, to):
    """Every second position of v: `rows` rows of n channels from row `to`, from x's rows from `first`.

    Vectors reach beyond the rows where these do not fill them, there and in all that is read.
    """
    f, a = frequency.ctypes.data, amplitude.ctypes.data
    for row in range(0, rows, group):
        values = min(group, rows - row) * n
        source = x.ctypes.data + (first + row) * n * 4
        target = v.ctypes.data + (to + row) * n * 4
        for i in range(0, values * 4, LANES * 4):
            _v_of_lanes(source + i, n * 4, f + i, a + i, target + i, filter_)


@numba.njit(**OPTIONS)
def _copy_row(rows, n, source, to):
    for i in range(n):
        rows[to * n + i] = rows[source * n + i]


@numba.njit(**OPTIONS)
def _read(x, branch, start, m, d):
    s = x[start : start + m]
    if branch is None:
        for i in range(m):
            d[i] = _load(s[i])
    else:
        b = branch[start : start + m]
        for i in range(m):
            d[i] = _load(s[i]) + _load(b[i])


@numba.njit(**OPTIONS)
def _activate(x, branch, total, out, frequency, amplitude, up, down, length, channels, group, descriptor):
    """y of x, or of x + branch, which then is written to `total`. Flat arrays of length * channels."""
    across = (channels + COLUMNS - 1) // COLUMNS
    along = (length + ROWS - 1) // ROWS
    width = min(COLUMNS, channels)
    xs = np.zeros((ROWS + 12) * width + LANES, np.float32)
    even = np.empty((ROWS + 6) * width + LANES, np.float32)
    odd = np.empty((ROWS + 6) * width + LANES, np.float32)
    two = np.float32(2.0)
    to_even = (two * up[11], two * up[9], two * up[7], two * up[5], two * up[3], two * up[1])
    to_odd = (two * up[10], two * up[8], two * up[6], two * up[4], two * up[2], two * up[0])
    k0, k1, k2, k3, k4, k5 = down[0], down[1], down[2], down[3], down[4], down[5]
    k6, k7, k8, k9, k10, k11 = down[6], down[7], down[8], down[9], down[10], down[11]
    while True:
        tile = take_next(descriptor)
        if tile >= along * across:
            break
        c0 = tile % across * COLUMNS
        n = min(COLUMNS, channels - c0)
        whole_rows = n == channels
        q0 = tile // across * ROWS
        q1 = min(length, q0 + ROWS)

        # x from row q0 - 6 to q1 + 5, its ends replicated
        lo, hi = q0 - 6, q1 + 6
        first, last = max(lo, 0), min(hi, length)
        if whole_rows:
            m = (last - first) * n
            _read(x, branch, first * n, m, xs[(first - lo) * n : (first - lo) * n + m])
        else:
            for q in range(first, last):
                _read(x, branch, q * channels + c0, n, xs[(q - lo) * n : (q - lo + 1) * n])
        for q in range(lo, first):
            _copy_row(xs, n, first - lo, q - lo)
        for q in range(last, hi):
            _copy_row(xs, n, last - 1 - lo, q - lo)
        if total is not None:
            for q in range(q0, q1):
                start = q * channels + c0
                s, d = xs[(q - lo) * n : (q - lo + 1) * n], total[start : start + n]
                for i in range(n):
                    d[i] = s[i]

        # v from row q0 - 3 to q1 + 2, its ends replicated
        p0, p1 = max(q0 - 3, 0), min(q1 + 3, length)
        skip = p0 - (q0 - 3)
        f, a = frequency[c0:], amplitude[c0:]
        _half_of_v(xs, skip, n, p1 - p0, group, to_even, f, a, even, skip)
        _half_of_v(xs, skip + 1, n, p1 - p0, group, to_odd, f, a, odd, skip)
        for row in range(skip):
            _copy_row(even, n, skip, row)
            for i in range(n):
                odd[row * n + i] = even[skip * n + i]
        end = skip + p1 - p0
        for row in range(end, q1 - q0 + 6):
            _copy_row(odd, n, end - 1, row)
            for i in range(n):
                even[row * n + i] = odd[(end - 1) * n + i]

        step = q1 - q0 if whole_rows else 1
        m = step * n
        for row in range(0, q1 - q0, step):
            s = row * n
            o0, o1, o2 = odd[s : s + m], odd[s + n : s + n + m], odd[s + 2 * n : s + 2 * n + m]
            e1, e2 = even[s + n : s + n + m], even[s + 2 * n : s + 2 * n + m]
            s += 3 * n
            o3, o4, o5 = odd[s : s + m], odd[s + n : s + n + m], odd[s + 2 * n : s + 2 * n + m]
            e3, e4, e5 = even[s : s + m], even[s + n : s + n + m], even[s + 2 * n : s + 2 * n + m]
            e6 = even[s + 3 * n : s + 3 * n + m]
            start = (q0 + row) * channels + c0
            d = out[start : start + m]
            for i in range(m):
                y = k0 * o0[i] + k1 * e1[i] + k2 * o1[i] + k3 * e2[i] + k4 * o2[i] + k5 * e3[i]
                y += k6 * o3[i] + k7 * e4[i] + k8 * o4[i] + k9 * e5[i] + k10 * o5[i] + k11 * e6[i]
                d[i] = _rounded(y, out)


@numba.njit(**OPTIONS)
def _run(d, x, branch, total, out):
    length, channels, parameters = d[D_LENGTH], d[D_CHANNELS], d[D_PARAMETERS]
    frequency = numba.carray(pointer(d[D_FREQUENCY]), parameters + LANES, np.float32)
    amplitude = numba.carray(pointer(d[D_AMPLITUDE]), parameters + LANES, np.float32)
    up = numba.carray(pointer(d[D_UP]), 12, np.float32)
    down = numba.carray(pointer(d[D_DOWN]), 12, np.float32)
    group = parameters // channels
    _activate(x, branch, total, out, frequency, amplitude, up, down, length, channels, group, d)


def _fp32(argument):
    d = numba.carray(argument, DESCRIPTOR, np.int64)
    size = d[D_LENGTH] * d[D_CHANNELS]
    x = numba.carray(pointer(d[D_X]), size, np.float32)
    out = numba.carray(pointer(d[D_OUT]), size, np.float32)
    _run(d, x, None, None, out)


def _bf16(argument):
    d = numba.carray(argument, DESCRIPTOR, np.int64)
    size = d[D_LENGTH] * d[D_CHANNELS]
    x = numba.carray(pointer(d[D_X]), size, np.uint16)
    out = numba.carray(pointer(d[D_OUT]), size, np.uint16)
    _run(d, x, None, None, out)


def _first_sum(argument):
    d = numba.carray(argument, DESCRIPTOR, np.int64)
    size = d[D_LENGTH] * d[D_CHANNELS]
    x = numba.carray(pointer(d[D_X]), size, np.uint16)
    branch = numba.carray(pointer(d[D_BRANCH]), size, np.uint16)
    total = numba.carray(pointer(d[D_SUM]), size, np.float32)
    out = numba.carray(pointer(d[D_OUT]), size, np.uint16)
    _run(d, x, branch, total, out)


def _later_sum(argument):
    d = numba.carray(argument, DESCRIPTOR, np.int64)
    size = d[D_LENGTH] * d[D_CHANNELS]
    x = numba.carray(pointer(d[D_X]), size, np.float32)
    branch = numba.carray(pointer(d[D_BRANCH]), size, np.uint16)
    total = numba.carray(pointer(d[D_SUM]), size, np.float32)
    out = numba.carray(pointer(d[D_OUT]), size, np.uint16)
    _run(d, x, branch, total, out)


KERNELS = Kernels({"fp32": _fp32, "bf16": _bf16, "first_sum": _first_sum, "later_sum": _later_sum})
"""By input: fp32 to fp32, bf16 to bf16; and with a bf16 branch added to a bf16 or an fp32 stream."""


def needed(*, half: bool) -> tuple[str, ...]:
    """The kernels that a model in bf16, or in fp32, calls."""
    return ("fp32", "bf16", "first_sum", "later_sum") if half else ("fp32",)
