"""The transforms of `winograd_transforms` as compiled kernels: all groups of a tile in one call, by several threads."""

from __future__ import annotations

import numba
import numpy as np

from .kernels import LANES, OPTIONS, Kernels, linear, pointer, take_next
from .winograd_transforms import GROUP, OUT_OF, POINTS, SIGNAL

D_NEXT, D_SIGNAL, D_TRANSFORMED, D_FIRST, D_ROWS, D_CHANNELS = range(6)
D_ITEMS, D_LENGTH, D_PITCH, D_DILATION, D_EACH, D_SEQUENCE, D_LEFT, D_SLOPE = range(6, 14)
DESCRIPTOR = 14
"""Places in a descriptor: the counter; addresses of the signal's first row and of the tile of the transformed one;
its first row and how many; values in a row of the signal; the rest as in `winograd_transforms.Groups`."""

ROWS = 16
"""Groups that a thread takes at once."""

_into = linear(SIGNAL)
_out = linear(OUT_OF)
_add = linear(OUT_OF, add=True)


@numba.njit(**OPTIONS)
def _place(d, row):
    """Where the group of a row of the transformed signal begins: (item, its first position, whether it has one)."""
    sequence = row // d[D_SEQUENCE]
    group = row - sequence * d[D_SEQUENCE]
    item = sequence // d[D_DILATION]
    return item, sequence - item * d[D_DILATION] + GROUP * d[D_DILATION] * group, group < d[D_EACH]


@numba.njit(**OPTIONS)
def _transform(d):
    channels, length, dilation = d[D_CHANNELS], d[D_LENGTH], d[D_DILATION]
    size = 4 * channels
    edge = np.empty(POINTS * channels, np.float32)
    all_rows = d[D_ITEMS] * dilation * d[D_SEQUENCE]
    stop = min(d[D_ROWS], all_rows - d[D_FIRST])
    while True:
        start = take_next(d) * ROWS
        if start >= stop:
            break
        for row in range(start, min(start + ROWS, stop)):
            item, first, _ = _place(d, d[D_FIRST] + row)
            first -= d[D_LEFT]
            last = first + (POINTS - 1) * dilation
            begin = d[D_SIGNAL] + item * d[D_PITCH] * size
            source, step = begin + first * size, dilation * size
            if first < 0 or last >= length:
                signal = numba.carray(pointer(begin), length * channels, np.float32)
                for point in range(POINTS):
                    here = first + point * dilation
                    if 0 <= here < length:
                        for c in range(channels):
                            edge[point * channels + c] = signal[here * channels + c]
                    else:
                        for c in range(channels):
                            edge[point * channels + c] = np.float32(0.0)
                source, step = edge.ctypes.data, size
            target = d[D_TRANSFORMED] + row * POINTS * size
            for c in range(0, size, 4 * LANES):
                _into(source + c, step, target + c, size, np.float32(1.0))


@numba.njit(**OPTIONS)
def _transform_back(d, add):
    channels, length, dilation = d[D_CHANNELS], d[D_LENGTH], d[D_DILATION]
    size = 4 * channels
    edge = np.empty(GROUP * channels, np.float32)
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
            source = d[D_TRANSFORMED] + row * POINTS * size
            target, step = begin + first * size, dilation * size
            valid = min(GROUP, (length - first + dilation - 1) // dilation)
            if valid < GROUP:
                signal = numba.carray(pointer(begin), length * channels, np.float32)
                if add:
                    for j in range(valid):
                        for c in range(channels):
                            edge[j * channels + c] = signal[(first + j * dilation) * channels + c]
                target, step = edge.ctypes.data, size
            if add:
                for c in range(0, size, 4 * LANES):
                    _add(source + c, size, target + c, step, slope)
            else:
                for c in range(0, size, 4 * LANES):
                    _out(source + c, size, target + c, step, slope)
            if valid < GROUP:
                for j in range(valid):
                    for c in range(channels):
                        signal[(first + j * dilation) * channels + c] = edge[j * channels + c]


def _into_points(pointer_):
    _transform(numba.carray(pointer_, DESCRIPTOR, np.int64))


def _out_of_points(pointer_):
    _transform_back(numba.carray(pointer_, DESCRIPTOR, np.int64), False)


def _added(pointer_):
    _transform_back(numba.carray(pointer_, DESCRIPTOR, np.int64), True)


KERNELS = Kernels({"into": _into_points, "out": _out_of_points, "add": _added})
