"""The two transforms around a convolution with fewer multiplications, see `winograd`: by numba, else by torch.

A signal of rows [n, C] becomes one of rows [m, POINTS * C]: a row for each group of outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import compiled, team
from .channels_last import Layout

_FINITE = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)
POINTS = len(_FINITE) + 1
ONE = _FINITE.index(1.0)
"""The point at which a product goes into all outputs of a group as it is."""
GROUP = 4
"""Outputs that are made together, and taps of a block."""


def _evaluate(terms: int) -> np.ndarray:
    """[POINTS, terms]: a polynomial's values at the points, by its coefficients; at infinity, its highest."""
    return np.array([[point**power for power in range(terms)] for point in _FINITE] + [[0.0] * (terms - 1) + [1.0]])


# The product of polynomials is interpolate(evaluate(taps) * evaluate(outputs)); its transpose with respect to the
# outputs is the correlation with the taps.
_INTERPOLATE = np.linalg.inv(_evaluate(POINTS)).T
_SCALE = np.abs(_INTERPOLATE).max(axis=1, keepdims=True)
SIGNAL = np.where(np.abs(_INTERPOLATE) < 1e-12, 0.0, _INTERPOLATE / _SCALE)
"""[POINTS, POINTS]: of a group and what it looks at."""
TAPS = _evaluate(GROUP) * _SCALE
"""[POINTS, GROUP]: of a filter's block."""
OUT_OF = _evaluate(GROUP).T
"""[GROUP, POINTS]: back."""


@dataclass(frozen=True)
class Groups:
    """Where the groups of a signal lie when it is transformed.

    For each item, for each of `dilation` phases: its groups, one row each, and `blocks - 1` rows that the last ones
    look at.
    """

    layout: Layout
    dilation: int
    blocks: int
    left: int
    """Rows of the signal before an output that it looks at."""

    @property
    def each(self) -> int:
        """Groups of an item and phase."""
        return -(-self.layout.length // (GROUP * self.dilation))

    @property
    def sequence(self) -> int:
        """Rows of an item and phase."""
        return self.each + self.blocks - 1

    @property
    def rows(self) -> int:
        """Of all."""
        return self.layout.items * self.dilation * self.sequence


class Transforms(Protocol):
    """Between a signal in a `room()` and groups of it."""

    worth: tuple[int, int]
    """Channels, and channels times taps, from which on they cost less than they save."""
    looks_beyond: bool
    """Whether it reads what lies around the items, where then zeros have to be."""

    def into(self, x: Tensor, groups: Groups, first: int, transformed: Tensor) -> None:
        """Transform what belongs to the rows of `transformed`, counted from `first`, as far as there are so many."""

    def out_of(self, products: Tensor, groups: Groups, first: int, out: Tensor, *, add: bool, slope: float) -> None:
        """The rows `products`, counted likewise, back into `out`, or added to it; below 0, times `slope`."""


class TorchTransforms:
    """By batched products of small matrices."""

    worth = 64, 440
    looks_beyond = True

    def __init__(self) -> None:
        self._into, self._out_of = (torch.tensor(matrix, dtype=torch.float32) for matrix in (SIGNAL, OUT_OF))

    def into(self, x: Tensor, groups: Groups, first: int, transformed: Tensor) -> None:
        channels, dilation = x.shape[1], groups.dilation
        for here, count, item, position in _runs(groups, first, len(transformed)):
            row = item * (groups.layout.length + groups.layout.gap) + position - groups.left
            shape, strides = (count, POINTS, channels), (GROUP * dilation * channels, dilation * channels, 1)
            seen = x.as_strided(shape, strides, x.storage_offset() + row * channels)
            # baddbmm takes all groups in one go where its result is contiguous, and bmm does not
            target = transformed[here : here + count].view(shape)
            target.baddbmm_(self._into.expand(count, -1, -1), seen, beta=0.0)

    def out_of(self, products: Tensor, groups: Groups, first: int, out: Tensor, *, add: bool, slope: float) -> None:
        channels, layout, dilation = out.shape[1], groups.layout, groups.dilation
        items = layout.split(out)
        for here, count, item, position in _runs(groups, first, len(products)):
            product = products[here : here + count].unflatten(1, (POINTS, channels))
            made = torch.bmm(self._out_of.expand(count, -1, -1), product).flatten(0, 1)
            target = items[item, position::dilation][: len(made)]
            made = made[: len(target)]
            if add:
                target.add_(made)
            else:
                target.copy_(made if slope == 1.0 else F.leaky_relu_(made, slope))


def _runs(groups: Groups, first: int, rows: int) -> Iterator[tuple[int, int, int, int]]:
    """Rows [first, first + rows) by item and phase: (row counted from `first`, how many, item, first position)."""
    row, stop = first, min(first + rows, groups.rows)
    while row < stop:
        number, group = divmod(row, groups.sequence)
        item, phase = divmod(number, groups.dilation)
        count = min(groups.sequence - group, stop - row)
        yield row - first, count, item, phase + GROUP * groups.dilation * group
        row += count


class CompiledTransforms:
    """By numba, on torch's threads."""

    worth = 32, 220
    looks_beyond = False

    def __init__(self) -> None:
        from .winograd_kernels import KERNELS

        self._address = KERNELS.address
        self._slope = torch.ones(1)

    def into(self, x: Tensor, groups: Groups, first: int, transformed: Tensor) -> None:
        self._run("into", x, transformed, groups, first)

    def out_of(self, products: Tensor, groups: Groups, first: int, out: Tensor, *, add: bool, slope: float) -> None:
        self._slope.fill_(slope)
        self._run("add" if add else "out", out, products, groups, first)

    def _run(self, kernel: str, signal: Tensor, transformed: Tensor, groups: Groups, first: int) -> None:
        layout = groups.layout
        descriptor = np.array(
            [
                0,
                signal.data_ptr(),
                transformed.data_ptr(),
                first,
                len(transformed),
                signal.shape[1],
                layout.items,
                layout.length,
                layout.length + layout.gap,
                groups.dilation,
                groups.each,
                groups.sequence,
                groups.left,
                self._slope.data_ptr(),
            ],
            dtype=np.int64,
        )
        team.run(self._address(kernel), descriptor.ctypes.data, transformed.numel())


def transforms() -> tuple[Transforms, str | None]:
    """The fastest that work here, and why they are not faster ones."""

    def prepare() -> None:
        from . import winograd_kernels

        for kernel in ("into", "out", "add"):
            winograd_kernels.KERNELS.address(kernel)

    missing = compiled.why_not(prepare)
    return (CompiledTransforms(), None) if missing is None else (TorchTransforms(), missing)
