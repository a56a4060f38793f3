"""What kernels compiled by numba are made of, and how they are compiled and kept.

A kernel takes one pointer, to a descriptor of int64 whose first is a counter, and works on tiles until none is left:
any number of threads may be sent into it with the same descriptor (`team.run`). It knows no shapes and is compiled
once for all of them; machine code is kept on disk, for later processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

OPTIONS: Mapping[str, Any] = {"fastmath": {"contract", "nsz"}, "error_model": "numpy", "boundscheck": False}
"""For `numba.njit` of what kernels call."""

LANES = 16
"""Values that `linear` works on at once: a register of AVX-512, several of others."""


@intrinsic
def pointer(typing, address):
    """The address, an int64, as a pointer."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), generate


@intrinsic
def take_next(typing, descriptor):
    """The counter in the descriptor's first place, increased by whoever asks first."""

    def generate(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = cgutils.gep_inbounds(builder, array.data, 0)
        return builder.atomic_rmw("add", place, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(descriptor), generate


def linear(matrix: np.ndarray, *, add: bool = False) -> Any:
    """A function for kernels: `matrix` times rows of values, of `LANES` columns.

    Args:
        matrix: [outputs, inputs]; what is 0 in it costs nothing.
        add: the product to what is there, instead of in its place.

    Returns:
        `function(source, source_step, target, target_step, slope)`: addresses of the first row and bytes from one row
        to the next; results below 0 are multiplied by `slope`.
    """
    vector = ir.VectorType(ir.FloatType(), LANES)

    def at(builder: Any, address: Any, step: Any, row: int) -> Any:
        place = builder.add(address, builder.mul(step, ir.Constant(ir.IntType(64), row)))
        return builder.inttoptr(place, vector.as_pointer())

    def every(value: float) -> Any:
        return ir.Constant(vector, [float(value)] * LANES)

    @intrinsic
    def function(typing, source, source_step, target, target_step, slope):
        def generate(context, builder, signature, arguments):
            source, source_step, target, target_step, slope = arguments
            rows = []
            for number in range(matrix.shape[1]):
                row = builder.load(at(builder, source, source_step, number))
                row.align = 4
                rows.append(row)
            one = builder.insert_element(ir.Constant(vector, ir.Undefined), slope, ir.Constant(ir.IntType(32), 0))
            order = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
            slopes = builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), order)
            for number, factors in enumerate(matrix):
                place = at(builder, target, target_step, number)
                made = None
                if add:
                    made = builder.load(place)
                    made.align = 4
                for factor, row in zip(factors, rows, strict=True):
                    if factor:
                        product = builder.fmul(row, every(factor), flags=("contract",))
                        made = product if made is None else builder.fadd(made, product, flags=("contract",))
                below = builder.fcmp_ordered("<", made, every(0.0))
                made = builder.select(below, builder.fmul(made, slopes), made)
                builder.store(made, place, align=4)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64, types.int64, types.float32), generate

    return function


class Kernels:
    """Kernels by name, compiled when they are asked for, once a process.

    Args:
        bodies: functions of a pointer.
    """

    def __init__(self, bodies: Mapping[str, Callable[[Any], None]]) -> None:
        self._bodies = dict(bodies)
        self._compiled: dict[str, Any] = {}

    def address(self, name: str) -> int:
        """Where the machine code of a kernel is."""
        if name not in self._compiled:
            self._compiled[name] = _compiled(self._bodies[name])
        return int(self._compiled[name].address)

    def ready(self) -> tuple[str, ...]:
        """Those that this process has compiled, or read from what an earlier one compiled."""
        return tuple(self._compiled)


def _compiled(body: Callable[[Any], None]) -> Any:
    signature = types.void(types.voidptr)
    try:
        return numba.cfunc(signature, cache=True, **OPTIONS)(body)
    except RuntimeError:  # numba found no folder to write to
        return numba.cfunc(signature, **OPTIONS)(body)
