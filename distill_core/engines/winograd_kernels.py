"""The transforms of `winograd_transforms` as compiled kernels: all groups of a tile in one call, by several threads."""

from __future__ import annotations

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from . import winograd_schemes
from .kernels import LANES, OPTIONS, Kernels, Vector, enter, leave, linear, pointer, take_next
from .winograd_schemes import SCHEMES

D_NEXT, D_WITHIN, D_SIGNAL, D_TRANSFORMED, D_FIRST, D_ROWS, D_CHANNELS = range(7)
D_SCHEME, D_POINTS, D_GROUP, D_PARTS = range(7, 11)
D_ITEMS, D_LENGTH, D_PITCH, D_DILATION, D_EACH, D_SEQUENCE, D_LEFT, D_SLOPE = range(11, 19)
DESCRIPTOR = 19
"""Places in a descriptor: the counters; addresses of the signal's first row and of the tile of the transformed one;
its first row and how many; values in a row of the signal; the number of the scheme, its points and its group; the rest
as in `winograd_transforms.Groups`."""

ROWS = 16
"""Groups that a thread takes at once."""


def _in_columns(product):
    """A product of `linear` over rows of any length."""

    @numba.njit(**OPTIONS)
    def over(size, source, source_step, target, target_step, slope):
        for c in range(0, size, 4 * LANES):
            product(source + c, source_step, target + c, target_step, slope)

    return over


_into_0, _into_1, _into_2 = (_in_columns(linear(scheme.signal)) for scheme in SCHEMES)
_out_0, _out_1, _out_2 = (_in_columns(linear(scheme.out_of)) for scheme in SCHEMES)
_add_0, _add_1, _add_2 = (_in_columns(linear(scheme.out_of, add=True)) for scheme in SCHEMES)


@numba.njit(**OPTIONS)
def _into(scheme, size, source, source_step, target):
    one = np.float32(1.0)
    if scheme == 0:
        _into_0(size, source, source_step, target, size, one)
    elif scheme == 1:
        _into_1(size, source, source_step, target, size, one)
    else:
        _into_2(size, source, source_step, target, size, one)


@numba.njit(**OPTIONS)
def _out(scheme, size, source, source_step, target, target_step, slope):
    if scheme == 0:
        _out_0(size, source, source_step, target, target_step, slope)
    elif scheme == 1:
        _out_1(size, source, source_step, target, target_step, slope)
    else:
        _out_2(size, source, source_step, target, target_step, slope)


@numba.njit(**OPTIONS)
def _add(scheme, size, source, source_step, target, target_step, slope):
    if scheme == 0:
        _add_0(size, source, source_step, target, target_step, slope)
    elif scheme == 1:
        _add_1(size, source, source_step, target, target_step, slope)
    else:
        _add_2(size, source, source_step, target, target_step, slope)


@intrinsic
def _plus(typing, address, other):
    """The `LANES` values at another address added to those at the first."""

    def generate(context, builder, signature, arguments):
        address, other = arguments
        (Vector.at(builder, address) + Vector.at(builder, other)).store(address)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@numba.njit(**OPTIONS)
def _join(parts, points, size, source):
    """The parts of each point's products added, in the place of the first."""
    for point in range(points):
        first = source + point * parts * size
        for part in range(1, parts):
            for c in range(0, size, 4 * LANES):
                _plus(first + c, first + part * size + c)


@numba.njit(**OPTIONS)
def _place(d, row):
    """Where the group of a row of the transformed signal begins: (item, its first position, whether it has one)."""
    sequence = row // d[D_SEQUENCE]
    group = row - sequence * d[D_SEQUENCE]
    item = sequence // d[D_DILATION]
    return item, sequence - item * d[D_DILATION] + d[D_GROUP] * d[D_DILATION] * group, group < d[D_EACH]


@numba.njit(**OPTIONS)
def _transform(d):
    channels, length, dilation, points = d[D_CHANNELS], d[D_LENGTH], d[D_DILATION], d[D_POINTS]
    size = 4 * channels
    enter(d)
    edge = np.empty(points * channels, np.float32)
    all_rows = d[D_ITEMS] * dilation * d[D_SEQUENCE]
    stop = min(d[D_ROWS], all_rows - d[D_FIRST])
    while True:
        start = take_next(d) * ROWS
        if start >= stop:
            break
        for row in range(start, min(start + ROWS, stop)):
            item, first, _ = _place(d, d[D_FIRST] + row)
            first -= d[D_LEFT]
            last = first + (points - 1) * dilation
            begin = d[D_SIGNAL] + item * d[D_PITCH] * size
            source, step = begin + first * size, dilation * size
            if first < 0 or last >= length:
                signal = numba.carray(pointer(begin), length * channels, np.float32)
                for point in range(points):
                    here = first + point * dilation
                    if 0 <= here < length:
                        for c in range(channels):
                            edge[point * channels + c] = signal[here * channels + c]
                    else:
                        for c in range(channels):
                            edge[point * channels + c] = np.float32(0.0)
                source, step = edge.ctypes.data, size
            _into(d[D_SCHEME], size, source, step, d[D_TRANSFORMED] + row * points * size)
    leave(d)


@numba.njit(**OPTIONS)
def _transform_back(d, add):
    channels, length, dilation, group = d[D_CHANNELS], d[D_LENGTH], d[D_DILATION], d[D_GROUP]
    size = 4 * channels
    enter(d)
    edge = np.empty(group * channels, np.float32)
    slope = numba.carray(pointer(d[D_SLOPE]), 1, np.float32)[0]
    stop = min(d[D_ROWS], d[D_ITEMS] * dilation * d[D_SEQUENCE] - d[D_FIRST])
    while True:
        start = take_next(d) * ROWS
        if start >= stop:
            break
        for row in range(start, min(start + ROWS, stop)):
            item, first, real = _place(d, d[D_FIRST] + row)
            if not real:
                continue
            begin = d[D_SIGNAL] + item * d[D_PITCH] * size
            source = d[D_TRANSFORMED] + row * d[D_POINTS] * d[D_PARTS] * size
            _join(d[D_PARTS], d[D_POINTS], size, source)
            target, step = begin + first * size, dilation * size
            valid = min(group, (length - first + dilation - 1) // dilation)
            if valid < group:
                signal = numba.carray(pointer(begin), length * channels, np.float32)
                if add:
                    for j in range(valid):
                        for c in range(channels):
                            edge[j * channels + c] = signal[(first + j * dilation) * channels + c]
                target, step = edge.ctypes.data, size
            if add:
                _add(d[D_SCHEME], size, source, d[D_PARTS] * size, target, step, slope)
            else:
                _out(d[D_SCHEME], size, source, d[D_PARTS] * size, target, step, slope)
            if valid < group:
                for j in range(valid):
                    for c in range(channels):
                        signal[(first + j * dilation) * channels + c] = edge[j * channels + c]
    leave(d)


def _into_points(pointer_):
    _transform(numba.carray(pointer_, DESCRIPTOR, np.int64))


def _out_of_points(pointer_):
    _transform_back(numba.carray(pointer_, DESCRIPTOR, np.int64), False)


def _added(pointer_):
    _transform_back(numba.carray(pointer_, DESCRIPTOR, np.int64), True)


KERNELS = Kernels({"into": _into_points, "out": _out_of_points, "add": _added}, made_of=[winograd_schemes])
