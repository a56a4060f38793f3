"""The weights of `winograd_compiled`, evaluated at a scheme's points and put in the order they are read, by a kernel.

Plain torch does it in thousands of small operations, each of which waits for its second thread: that took nearly twice
as long, and four times where four other processes wanted the same two cores.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from . import team, winograd_kernels
from .kernels import OPTIONS, Kernels, pointer, take_next, take_thread
from .winograd_kernels import PANEL
from .winograd_schemes import Scheme

D_WEIGHT, D_MATRIX, D_RESULT, D_SCRATCH = range(3, 7)
D_INPUTS, D_OUTPUTS, D_KERNEL, D_TAPS, D_POINTS, D_BLOCKS, D_SLAB = range(7, 14)
DESCRIPTOR = 14
"""Places in a descriptor, behind the counters: addresses of the weight [outputs, inputs, kernel], the scheme's matrix
[points, taps] in fp64, the result, and scratch memory, for a thread [TAKEN, blocks * taps, PANEL] in fp64; channels in
and out, taps of the kernel and of a block, the scheme's points, blocks of the kernel, channels of a slab."""

TAKEN = 8
"""Input channels of which a panel's taps are taken at once: what is read and written then are runs of some length."""


def packed(weight: Tensor, scheme: Scheme, slab: int) -> Tensor:
    """A weight as `winograd_kernels` reads it, rounded from fp64.

    Args:
        weight: [C_out, C_in, kernel].
        scheme: the way to convolve.
        slab: input channels that are transformed at once, of which C_in is a multiple.

    Returns:
        [slabs, values]: of a slab, for each panel of outputs [points, blocks, slab, panel].
    """
    outputs, inputs, kernel = weight.shape
    blocks = scheme.blocks(kernel)
    weight = weight.to(torch.float32).contiguous()
    matrix = np.ascontiguousarray(scheme.filter)
    shape = inputs // slab, scheme.points * blocks * slab * outputs
    result = torch.empty(shape, dtype=torch.float32, device="cpu")
    size = torch.get_num_threads(), TAKEN, blocks * scheme.taps, PANEL
    scratch = torch.empty(size, dtype=torch.float64, device="cpu")
    addresses = weight.data_ptr(), matrix.ctypes.data, result.data_ptr(), scratch.data_ptr()
    sizes = inputs, outputs, kernel, scheme.taps, scheme.points, blocks, slab
    descriptor = np.array([0, 0, 0, *addresses, *sizes], dtype=np.int64)
    team.run(KERNELS.address("pack"), descriptor, result.numel())
    return result


@numba.njit(**OPTIONS)
def _pack_panel(d, first, panel, width, weight, matrix, taken, result):
    """Of a slab's inputs, from `first` on, and a panel of `width` outputs: [points, blocks, slab, width]."""
    inputs, kernel, taps, blocks, slab = d[D_INPUTS], d[D_KERNEL], d[D_TAPS], d[D_BLOCKS], d[D_SLAB]
    for start in range(0, slab, TAKEN):
        channels = min(TAKEN, slab - start)
        for output in range(width):
            source = ((panel * PANEL + output) * inputs + first + start) * kernel
            for channel in range(channels):
                for tap in range(kernel):
                    taken[channel, tap, output] = weight[source + channel * kernel + tap]
        for point in range(d[D_POINTS]):
            for block in range(blocks):
                place = ((point * blocks + block) * slab + start) * width
                for channel in range(channels):
                    for output in range(width):
                        made = 0.0
                        for tap in range(taps):
                            made += matrix[point * taps + tap] * taken[channel, block * taps + tap, output]
                        result[place + channel * width + output] = made


@numba.njit(**OPTIONS)
def _pack(d):
    inputs, outputs, slab, all_taps = d[D_INPUTS], d[D_OUTPUTS], d[D_SLAB], d[D_BLOCKS] * d[D_TAPS]
    grown = d[D_POINTS] * d[D_BLOCKS] * slab  # values of a slab that each output has
    weight = numba.carray(pointer(d[D_WEIGHT]), outputs * inputs * d[D_KERNEL], np.float32)
    matrix = numba.carray(pointer(d[D_MATRIX]), d[D_POINTS] * d[D_TAPS], np.float64)
    own = d[D_SCRATCH] + take_thread(d) * TAKEN * all_taps * PANEL * 8
    taken = numba.carray(pointer(own), (TAKEN, all_taps, PANEL), np.float64)
    taken[:] = 0.0  # beyond the kernel its last block goes on with zeros
    panels = (outputs + PANEL - 1) // PANEL
    while True:
        number = take_next(d)
        if number >= panels * (inputs // slab):
            break
        first, panel = number // panels * slab, number % panels
        width = min(PANEL, outputs - panel * PANEL)
        place = d[D_RESULT] + grown * (first // slab * outputs + panel * PANEL) * 4
        result = numba.carray(pointer(place), grown * width, np.float32)
        _pack_panel(d, first, panel, width, weight, matrix, taken, result)


def _packed(pointer_):
    _pack(numba.carray(pointer_, DESCRIPTOR, np.int64))


KERNELS = Kernels({"pack": _packed}, made_of=[winograd_kernels])
