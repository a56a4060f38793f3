"""What kernels compiled by numba are made of, and how they are compiled and kept.

A kernel takes one pointer, to a descriptor of int64 whose first is a counter, and works on tiles until none is left:
any number of threads may be sent into it with the same descriptor (`team.run`). The second counts who is within, for
a thread that finds no memory leaves a kernel without a word. A kernel knows no shapes and is compiled once for all of
them; machine code is kept on disk, for later processes, as long as the sources are the same that it was made of, and
`LANES`: a folder may be shared by machines for whose processors numba is told to compile alike.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

from .compiled import PREPARING
from .team import WITHIN

log = logging.getLogger(__name__)

OPTIONS: Mapping[str, Any] = {"fastmath": {"contract", "nsz"}, "error_model": "numpy", "boundscheck": False}
"""For `numba.njit` of what kernels call."""

AVX512 = bool(llvm.get_host_cpu_features().get("avx512f"))
LANES = 16 if AVX512 else 8
"""Values that are worked on at once: a register of AVX-512 or of AVX2, two of others."""


def _has(instructions: str) -> bool:
    """Whether numba compiles for a processor with an extension of AVX-512: mostly this one, but it can be told another.

    LLVM ends the process where it is asked for an instruction that there is not.
    """
    told = numba.config.CPU_FEATURES
    return AVX512 and f"+{instructions}" in (get_host_cpu_features() if told is None else told).split(",")


@intrinsic
def pointer(typing, address):
    """The address, an int64, as a pointer."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), generate


def _counter(place: int, step: int) -> Any:
    """A function for kernels: what stands in a place of the descriptor; the next to ask finds it `step` further."""

    @intrinsic
    def function(typing, descriptor):
        def generate(context, builder, signature, arguments):
            array = context.make_array(signature.args[0])(context, builder, arguments[0])
            address = cgutils.gep_inbounds(builder, array.data, place)
            return builder.atomic_rmw("add", address, ir.Constant(ir.IntType(64), step), "monotonic")

        return types.int64(descriptor), generate

    return function


take_next = _counter(0, 1)
"""The number of the next tile."""
enter, leave = _counter(WITHIN, 1), _counter(WITHIN, -1)
"""What a kernel does before it asks for memory, and at its end."""
take_thread = _counter(2, 1)
"""The number of the thread, where a descriptor's third is a counter for that."""


class Vector:
    """`LANES` values in fp32 as an expression in LLVM's terms, for the making of intrinsics.

    Args:
        builder: of the code that it becomes a part of.
        value: in LLVM's type.
    """

    TYPE = ir.VectorType(ir.FloatType(), LANES)
    _BITS, _HALF_OF_THEM = (ir.VectorType(ir.IntType(bits), LANES) for bits in (32, 16))

    def __init__(self, builder: Any, value: Any) -> None:
        self._builder = builder
        self.value = value

    @classmethod
    def constant(cls, builder: Any, value: float) -> Vector:
        """The same number in all lanes."""
        return cls(builder, ir.Constant(cls.TYPE, [float(value)] * LANES))

    @classmethod
    def every(cls, builder: Any, scalar: Any) -> Vector:
        """The same scalar in all lanes."""
        nothing = ir.Constant(cls.TYPE, ir.Undefined)
        first = builder.insert_element(nothing, scalar, ir.Constant(ir.IntType(32), 0))
        order = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return cls(builder, builder.shuffle_vector(first, nothing, order))

    @classmethod
    def at(cls, builder: Any, address: Any, step: Any = None, row: int = 0) -> Vector:
        """What is in memory `row` times `step` bytes behind an address."""
        value = builder.load(cls._place(builder, address, step, row))
        value.align = 4
        return cls(builder, value)

    def store(self, address: Any, step: Any = None, row: int = 0) -> None:
        """Write it there."""
        self._builder.store(self.value, self._place(self._builder, address, step, row), align=4)

    @classmethod
    def at_bf16(cls, builder: Any, address: Any) -> Vector:
        """What is in memory there as bfloat16."""
        half = builder.load(builder.inttoptr(address, cls._HALF_OF_THEM.as_pointer()))
        half.align = 2
        bits = builder.shl(builder.zext(half, cls._BITS), cls._bits(16))
        return cls(builder, builder.bitcast(bits, cls.TYPE))

    def store_bf16(self, address: Any) -> None:
        """Write it there, rounded to bfloat16, ties to even."""
        builder = self._builder
        place = builder.inttoptr(address, self._HALF_OF_THEM.as_pointer())
        if _has("avx512bf16"):
            half = self._called(f"llvm.x86.avx512bf16.cvtneps2bf16.{32 * LANES}", self._HALF_OF_THEM, self.value)
            builder.store(half, place, align=2)
            return
        bits = builder.bitcast(self.value, self._BITS)
        odd = builder.and_(builder.lshr(bits, self._bits(16)), self._bits(1))
        rounded = builder.lshr(builder.add(bits, builder.add(odd, self._bits(0x7FFF))), self._bits(16))
        builder.store(builder.trunc(rounded, self._HALF_OF_THEM), place, align=2)

    @classmethod
    def _bits(cls, value: int) -> Any:
        return ir.Constant(cls._BITS, [value] * LANES)

    @classmethod
    def _place(cls, builder: Any, address: Any, step: Any, row: int) -> Any:
        if row:
            address = builder.add(address, builder.mul(step, ir.Constant(ir.IntType(64), row)))
        return builder.inttoptr(address, cls.TYPE.as_pointer())

    def __mul__(self, other: Vector) -> Vector:
        return Vector(self._builder, self._builder.fmul(self.value, other.value, flags=("contract",)))

    def __add__(self, other: Vector) -> Vector:
        return Vector(self._builder, self._builder.fadd(self.value, other.value, flags=("contract",)))

    def __sub__(self, other: Vector) -> Vector:
        return Vector(self._builder, self._builder.fsub(self.value, other.value, flags=("contract",)))

    def __truediv__(self, other: Vector) -> Vector:
        return Vector(self._builder, self._builder.fdiv(self.value, other.value))

    def fraction(self) -> Vector:
        """What is left of them without the nearest whole numbers, of two the even one."""
        if not _has("avx512dq"):
            return self - Vector(self._builder, self._called(f"llvm.rint.v{LANES}f32", self.TYPE, self.value))
        nearest, nothing = (ir.Constant(ir.IntType(32), number) for number in (0, 4))
        all_lanes = ir.Constant(ir.IntType(LANES), -1)
        name, arguments = "llvm.x86.avx512.mask.reduce.ps.512", (self.value, nearest, self.value, all_lanes, nothing)
        return Vector(self._builder, self._called(name, self.TYPE, *arguments))

    def _called(self, name: str, returns: Any, *arguments: Any) -> Any:
        """What a function of LLVM's makes of them."""
        signature = ir.FunctionType(returns, [argument.type for argument in arguments])
        return self._builder.call(cgutils.get_or_insert_function(self._builder.module, signature, name), arguments)

    def where(self, condition: Any, other: Vector) -> Vector:
        """These lanes if the condition, one for all, is true, else the other's."""
        return Vector(self._builder, self._builder.select(condition, self.value, other.value))

    def leaky(self, slope: Vector) -> Vector:
        """Times `slope` where it is below 0."""
        below = self._builder.fcmp_ordered("<", self.value, self.constant(self._builder, 0.0).value)
        return Vector(self._builder, self._builder.select(below, (self * slope).value, self.value))


def linear(matrix: np.ndarray, *, biased: bool = False, added: bool = False) -> Any:
    """A function for kernels: `matrix` times rows of values, of `LANES` columns.

    Two rows of the matrix, or two of its columns, that differ in signs alone share their products.

    Args:
        matrix: [outputs, inputs]; what is 0 in it costs nothing.
        biased: a row is added to each of the results, and those below 0 are multiplied by a slope.
        added: and before that, rows of the results' kind are.

    Returns:
        `function(source, source_step, target, target_step)`: addresses of the first rows and bytes from one row to the
        next. If biased, `(..., bias, slope)`: address of the row, factor. If added, `(..., base)`: address of the first
        of those rows, as far apart as targets are and possibly the same.
    """

    def generate(context, builder, signature, arguments):
        source, source_step, target, target_step, *behind = arguments
        rows = [Vector.at(builder, source, source_step, number) for number in range(matrix.shape[1])]
        for number, made in _products(builder, matrix, rows):
            if added:
                made = Vector.at(builder, behind[2], target_step, number) + made
            if biased:
                made = (made + Vector.at(builder, behind[0])).leaky(Vector.every(builder, behind[1]))
            made.store(target, target_step, number)
        return context.get_dummy_value()

    # what a kernel calls has its arguments one by one
    if added:

        @intrinsic
        def function(typing, source, source_step, target, target_step, bias, slope, base):
            return types.void(*[types.int64] * 5, types.float32, types.int64), generate
    elif biased:

        @intrinsic
        def function(typing, source, source_step, target, target_step, bias, slope):
            return types.void(*[types.int64] * 5, types.float32), generate
    else:

        @intrinsic
        def function(typing, source, source_step, target, target_step):
            return types.void(*[types.int64] * 4), generate

    return function


def _products(builder: Any, matrix: np.ndarray, rows: list[Vector]) -> Iterator[tuple[int, Vector]]:
    """The rows of `matrix` times `rows`: (number, product)."""
    if columns := _twins(matrix.T):
        sums, differences, matrix = list(rows), list(rows), matrix.copy()
        for one, other in columns:
            sums[one], differences[one] = rows[one] + rows[other], rows[one] - rows[other]
        for number, factors in enumerate(matrix):
            terms = list(rows)
            for one, other in columns:
                terms[one] = (sums if factors[one] * factors[other] > 0 else differences)[one]
                factors[other] = 0.0
            yield number, _combined(builder, factors, terms)
        return
    pairs = _twins(matrix)
    for one, other in pairs:
        alike = matrix[one] * matrix[other] > 0
        same, opposite = (_combined(builder, matrix[one] * each, rows) for each in (alike, ~alike))
        yield one, same + opposite
        yield other, same - opposite
    for number in sorted({*range(len(matrix))}.difference(*pairs)):
        yield number, _combined(builder, matrix[number], rows)


def _combined(builder: Any, factors: np.ndarray, rows: list[Vector]) -> Vector:
    products = [Vector.constant(builder, f) * row for f, row in zip(factors, rows, strict=True) if f]
    return functools.reduce(Vector.__add__, products)


def _twins(matrix: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of rows that differ in signs alone, and in some but not all of them."""
    pairs: dict[int, int] = {}
    for one, other in itertools.combinations(range(len(matrix)), 2):
        both = {-1.0, 1.0} <= set(np.sign(matrix[one] * matrix[other]))
        alike = np.allclose(abs(matrix[one]), abs(matrix[other]), rtol=1e-9, atol=0.0)
        if both and alike and not {one, other} & {*pairs, *pairs.values()}:
            pairs[one] = other
    return list(pairs.items())


class Kernels:
    """Kernels by name, compiled when they are asked for, once a process.

    Args:
        bodies: functions of a pointer.
        made_of: modules, besides this one and the bodies' own, whose change makes other machine code.
    """

    def __init__(self, bodies: Mapping[str, Callable[[Any], None]], made_of: Iterable[ModuleType] = ()) -> None:
        self._bodies = dict(bodies)
        self._made_of = tuple(made_of)
        self._compiled: dict[str, Any] = {}

    def address(self, name: str) -> int:
        """Where the machine code of a kernel is."""
        if name not in self._compiled:
            with PREPARING:
                if name not in self._compiled:
                    self._compiled[name] = _compiled(self._bodies[name], self._made_of)
        return int(self._compiled[name].address)

    def ready(self) -> tuple[str, ...]:
        """Those that this process has compiled, or read from what an earlier one compiled."""
        return tuple(self._compiled)


def _compiled(body: Callable[[Any], None], made_of: tuple[ModuleType, ...]) -> Any:
    signature = types.void(types.voidptr)
    # numba looks whether the file is the same that the body stands in, and calls what it keeps by the body's name.
    own = sys.modules[body.__module__]
    plain = body.__qualname__.partition(".")[0]
    body.__qualname__ = f"{plain}.{_digest(sys.modules[__name__], own, *made_of)}"
    try:
        return numba.cfunc(signature, cache=True, **OPTIONS)(body)
    except Exception as error:  # no folder to write to, a full disk, a file that was cut off
        log.info("a compiled kernel is not kept on disk (%s: %s)", type(error).__name__, error)
        _forget(body)
        return numba.cfunc(signature, **OPTIONS)(body)


def _digest(*modules: ModuleType) -> str:
    """Of `LANES`, which callers of a kernel count on as well, and of the modules' sources, as far as there are any."""
    digest = hashlib.sha256(str(LANES).encode())
    for module in modules:
        try:
            digest.update(Path(str(module.__file__)).read_bytes())
        except OSError:
            digest.update(b"-")
    return digest.hexdigest()[:12]


def _forget(body: Callable[[Any], None]) -> None:
    """Have the next process compile a kernel and keep it, where what is kept of it cannot be read."""
    try:
        from numba.core.caching import FunctionCache

        FunctionCache(body).flush()
    except Exception as error:
        log.debug("what is kept of a kernel stays (%s: %s)", type(error).__name__, error)
