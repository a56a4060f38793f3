"""A convolution by one of the schemes of `winograd_schemes` as one compiled kernel, for several threads.

A row of the transformed signal is a group of outputs. A thread takes a tile of rows at a time through all three steps,
while they lie in its own caches: transforms the signal, a slab of its channels after the other; multiplies them with
the weights, for each point; transforms the products back into the result, where bias and leaky ReLU are applied.

What a group makes does not depend on where it lies, nor on how many threads there are: each of its sums is made in the
same order.
"""

from __future__ import annotations

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from . import winograd_schemes
from .kernels import AVX512, LANES, OPTIONS, Kernels, Vector, linear, pointer, take_next, take_thread
from .winograd_schemes import SCHEMES

D_NEXT, D_WITHIN, D_THREAD = range(3)
D_SIGNAL, D_BASE, D_RESULT, D_WEIGHT, D_BIAS, D_SLOPE, D_SCRATCH = range(3, 10)
D_INPUTS, D_OUTPUTS, D_SLAB, D_SCHEME, D_POINTS, D_GROUP, D_BLOCKS, D_TILE = range(10, 18)
D_OWN, D_EDGE, D_SIGNAL_STEP, D_PRODUCT_STEP = range(18, 22)
D_ITEMS, D_LENGTH, D_PITCH, D_DILATION, D_EACH, D_LEFT, D_BEFORE, D_AFTER = range(22, 30)
DESCRIPTOR = 30
"""Places in a descriptor: the counters, of which the second stays 0, for no memory is asked for; addresses of the first
rows of the signal, of what the result is added to (0 if nothing) and of the result, of weights, bias, the slope below 0
and the scratch memory; channels in, channels out and those transformed at once; the scheme's number, its points and its
group; blocks of the kernel; rows of a tile; bytes of scratch memory for a thread, for a group at an end, and from point
to point of the transformed signal and of products; items, their rows, rows from one item to the next, dilation, groups
of an item and phase, rows of the signal before an output; its rows before a single item and behind it."""

PANEL = 2 * LANES
"""Outputs multiplied at once; at the end `LANES`, where the channels are no multiple of it."""
ROWS = (12, 8, 4) if AVX512 else (6, 4, 2)
"""Rows multiplied at once, the fewest that do for those that are left: with the outputs, as many sums as registers."""


def _product(rows, vectors):
    """A function for kernels: rows of values times a matrix of `vectors` vectors a row.

    `function(source, source_step, matrix, count, target, target_step, fresh)`: sums of `count` products, in the place
    of the targets if `fresh`, else added to them.
    """

    @intrinsic
    def function(typing, source, source_step, matrix, count, target, target_step, fresh):
        def generate(context, builder, signature, arguments):
            source, source_step, matrix, count, target, target_step, fresh = arguments
            whole = ir.IntType(64)
            start, loop, done = builder.block, *map(builder.append_basic_block, ("products", "sums"))
            builder.branch(loop)
            builder.position_at_end(loop)
            number = builder.phi(whole)
            before = [[builder.phi(Vector.TYPE) for _ in range(vectors)] for _ in range(rows)]
            following = builder.add(number, ir.Constant(whole, 1))
            number.add_incoming(ir.Constant(whole, 0), start)
            number.add_incoming(following, loop)
            here = builder.add(matrix, builder.mul(number, ir.Constant(whole, 4 * LANES * vectors)))
            factors = [Vector.at(builder, here, ir.Constant(whole, 4 * LANES), v) for v in range(vectors)]
            column = builder.add(source, builder.mul(number, ir.Constant(whole, 4)))
            zero = Vector.constant(builder, 0.0)
            sums = []
            for row, phis in enumerate(before):
                place = builder.add(column, builder.mul(source_step, ir.Constant(whole, row)))
                value = Vector.every(builder, builder.load(builder.inttoptr(place, ir.FloatType().as_pointer())))
                for phi, factor in zip(phis, factors, strict=True):
                    after = value * factor + Vector(builder, phi)
                    phi.add_incoming(zero.value, start)
                    phi.add_incoming(after.value, loop)
                    sums.append(after)
            builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
            builder.position_at_end(done)
            replace = builder.icmp_signed("!=", fresh, ir.Constant(whole, 0))
            for position, made in enumerate(sums):
                row, v = divmod(position, vectors)
                place = builder.add(target, builder.mul(target_step, ir.Constant(whole, row)))
                place = builder.add(place, ir.Constant(whole, 4 * LANES * v))
                (zero.where(replace, Vector.at(builder, place)) + made).store(place)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), generate

    return function


def _products(vectors):
    """The same for any number of rows. Some behind the last are made as well, of anything."""
    many, some, few = ROWS
    of_many, of_some, of_few = (_product(rows, vectors) for rows in ROWS)
    width = 4 * LANES * vectors

    @numba.njit(**OPTIONS)
    def over(rows, source, source_step, matrix, count, target, fresh):
        row = 0
        while row < rows:
            here, there = source + row * source_step, target + row * width
            if rows - row > some:
                of_many(here, source_step, matrix, count, there, width, fresh)
                row += many
            elif rows - row > few:
                of_some(here, source_step, matrix, count, there, width, fresh)
                row += some
            else:
                of_few(here, source_step, matrix, count, there, width, fresh)
                row += few

    return over


_multiply, _multiply_last = _products(PANEL // LANES), _products(1)

_into_0, _into_1, _into_2 = (linear(scheme.signal) for scheme in SCHEMES)
_out_0, _out_1, _out_2 = (linear(scheme.out_of, biased=True) for scheme in SCHEMES)
_add_0, _add_1, _add_2 = (linear(scheme.out_of, biased=True, added=True) for scheme in SCHEMES)


@numba.njit(**OPTIONS)
def _into(scheme, size, source, source_step, target, target_step):
    if scheme == 0:
        for c in range(0, size, 4 * LANES):
            _into_0(source + c, source_step, target + c, target_step)
    elif scheme == 1:
        for c in range(0, size, 4 * LANES):
            _into_1(source + c, source_step, target + c, target_step)
    else:
        for c in range(0, size, 4 * LANES):
            _into_2(source + c, source_step, target + c, target_step)


@numba.njit(**OPTIONS)
def _out_of(scheme, size, source, source_step, target, target_step, bias, slope):
    if scheme == 0:
        for c in range(0, size, 4 * LANES):
            _out_0(source + c, source_step, target + c, target_step, bias + c, slope)
    elif scheme == 1:
        for c in range(0, size, 4 * LANES):
            _out_1(source + c, source_step, target + c, target_step, bias + c, slope)
    else:
        for c in range(0, size, 4 * LANES):
            _out_2(source + c, source_step, target + c, target_step, bias + c, slope)


@numba.njit(**OPTIONS)
def _added(scheme, size, source, source_step, base, target, target_step, bias, slope):
    if scheme == 0:
        for c in range(0, size, 4 * LANES):
            _add_0(source + c, source_step, target + c, target_step, bias + c, slope, base + c)
    elif scheme == 1:
        for c in range(0, size, 4 * LANES):
            _add_1(source + c, source_step, target + c, target_step, bias + c, slope, base + c)
    else:
        for c in range(0, size, 4 * LANES):
            _add_2(source + c, source_step, target + c, target_step, bias + c, slope, base + c)


@numba.njit(**OPTIONS)
def _place(d, row):
    """Of a row of the transformed signal: (item, group, phase)."""
    turn = row // d[D_DILATION]
    item = turn // (d[D_EACH] + d[D_BLOCKS] - 1)
    return item, turn - item * (d[D_EACH] + d[D_BLOCKS] - 1), row - turn * d[D_DILATION]


@numba.njit(**OPTIONS)
def _after(d, item, group, phase):
    """Of the next row. The phases of a group are neighbours: together they look at one piece of the signal."""
    phase += 1
    if phase == d[D_DILATION]:
        phase = 0
        group += 1
        if group == d[D_EACH] + d[D_BLOCKS] - 1:
            group = 0
            item += 1
    return item, group, phase


@numba.njit(**OPTIONS)
def _copy(source, source_step, target, target_step, rows, columns):
    for row in range(rows):
        values = numba.carray(pointer(source + row * source_step), columns, np.float32)
        copy = numba.carray(pointer(target + row * target_step), columns, np.float32)
        for c in range(columns):
            copy[c] = values[c]


@numba.njit(**OPTIONS)
def _transform(d, first_row, rows, channel, target, target_step, edge):
    """Rows of the transformed signal, of the slab of channels from this one on."""
    size, slab = 4 * d[D_INPUTS], 4 * d[D_SLAB]
    start, length, dilation, points = -d[D_BEFORE], d[D_LENGTH] + d[D_AFTER], d[D_DILATION], d[D_POINTS]
    item, group, phase = _place(d, first_row)
    for row in range(rows):
        first = phase + d[D_GROUP] * dilation * group - d[D_LEFT]
        source = d[D_SIGNAL] + (item * d[D_PITCH] + first) * size + 4 * channel
        step = dilation * size
        if first < start or first + (points - 1) * dilation >= length:
            copy = numba.carray(pointer(edge), points * d[D_SLAB], np.float32)
            copy[:] = np.float32(0.0)
            before = (max(0, start - first) + dilation - 1) // dilation
            within = min(points, (length - first + dilation - 1) // dilation) - before
            _copy(source + before * step, step, edge + before * slab, slab, within, d[D_SLAB])
            source, step = edge, slab
        _into(d[D_SCHEME], slab, source, step, target + row * slab, target_step)
        item, group, phase = _after(d, item, group, phase)


@numba.njit(**OPTIONS)
def _transform_back(d, first_row, rows, products, product_step, edge, slope):
    """Rows of products, panel by panel, into the result."""
    size, dilation, points = 4 * d[D_OUTPUTS], d[D_DILATION], d[D_POINTS]
    item, group, phase = _place(d, first_row)
    for row in range(rows):
        if group < d[D_EACH]:
            first = phase + d[D_GROUP] * dilation * group
            place, step = (item * d[D_PITCH] + first) * size, dilation * size
            result, base = d[D_RESULT] + place, d[D_BASE] + place
            valid = min(d[D_GROUP], (d[D_LENGTH] - first + dilation - 1) // dilation)
            target, target_step = result, step
            if valid < d[D_GROUP]:
                target, target_step = edge, size
                if d[D_BASE]:
                    _copy(base, step, edge, size, valid, d[D_OUTPUTS])
                    base = edge
            source = products
            for c in range(0, size, 4 * PANEL):
                width = 4 * PANEL if c + 4 * PANEL <= size else 4 * LANES
                here, bias = source + row * width, d[D_BIAS] + c
                if d[D_BASE]:
                    _added(d[D_SCHEME], width, here, product_step, base + c, target + c, target_step, bias, slope)
                else:
                    _out_of(d[D_SCHEME], width, here, product_step, target + c, target_step, bias, slope)
                source += points * product_step
            if valid < d[D_GROUP]:
                _copy(edge, size, result, step, valid, d[D_OUTPUTS])
        item, group, phase = _after(d, item, group, phase)


@numba.njit(**OPTIONS)
def _convolve(d):
    slope = numba.carray(pointer(d[D_SLOPE]), 1, np.float32)[0]
    points, blocks, slab, tile, outputs = d[D_POINTS], d[D_BLOCKS], d[D_SLAB], d[D_TILE], d[D_OUTPUTS]
    beyond = (blocks - 1) * d[D_DILATION]
    all_rows = d[D_ITEMS] * (d[D_EACH] + blocks - 1) * d[D_DILATION] - beyond  # behind those nothing is made
    signal_step, product_step = d[D_SIGNAL_STEP], d[D_PRODUCT_STEP]
    edge = d[D_SCRATCH] + take_thread(d) * d[D_OWN]
    signal = edge + d[D_EDGE]
    products = signal + points * signal_step
    while True:
        start = take_next(d) * tile
        if start >= all_rows:
            break
        rows = min(tile, all_rows - start)
        weight = d[D_WEIGHT]
        for channel in range(0, d[D_INPUTS], slab):
            _transform(d, start, rows + beyond, channel, signal, signal_step, edge)
            target = products
            for output in range(0, outputs, PANEL):
                whole = output + PANEL <= outputs
                for point in range(points):
                    for block in range(blocks):
                        source = signal + point * signal_step + 4 * slab * block * d[D_DILATION]
                        fresh = channel == 0 and block == 0
                        if whole:
                            _multiply(rows, source, 4 * slab, weight, slab, target, fresh)
                        else:
                            _multiply_last(rows, source, 4 * slab, weight, slab, target, fresh)
                        weight += 4 * slab * (PANEL if whole else LANES)
                    target += product_step
        _transform_back(d, start, rows, products, product_step, edge, slope)


def _convolved(pointer_):
    _convolve(numba.carray(pointer_, DESCRIPTOR, np.int64))


KERNELS = Kernels({"convolve": _convolved}, made_of=[winograd_schemes])
