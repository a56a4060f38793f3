"""The two transforms around a convolution with fewer multiplications, see `winograd`: by numba, else by torch.

A signal of rows [n, C] becomes one of rows [m, points * C]: a row for each group of outputs.
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
from .winograd_schemes import SCHEMES, Scheme


@dataclass(frozen=True)
class Groups:
    """Where the groups of a signal lie when it is transformed.

    For each item, for each of `dilation` phases: its groups, one row each, and `blocks - 1` rows that the last ones
    look at.
    """

    scheme: Scheme
    parts: int
    """In which products come, to be added."""
    layout: Layout
    dilation: int
    blocks: int
    left: int
    """Rows of the signal before an output that it looks at."""

    @property
    def each(self) -> int:
        """Groups of an item and phase."""
        return -(-self.layout.length // (self.scheme.group * self.dilation))

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


def _matrix(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).float().contiguous()


class TorchTransforms:
    """By batched products of small matrices."""

    worth = 64, 440
    looks_beyond = True

    def __init__(self) -> None:
        self._into = {scheme: _matrix(scheme.signal) for scheme in SCHEMES}
        self._out_of = {scheme: _matrix(scheme.out_of) for scheme in SCHEMES}

    def into(self, x: Tensor, groups: Groups, first: int, transformed: Tensor) -> None:
        channels, dilation, scheme = x.shape[1], groups.dilation, groups.scheme
        for here, count, item, position in _runs(groups, first, len(transformed)):
            row = item * (groups.layout.length + groups.layout.gap) + position - groups.left
            shape = (count, scheme.points, channels)
            strides = (scheme.group * dilation * channels, dilation * channels, 1)
            seen = x.as_strided(shape, strides, x.storage_offset() + row * channels)
            # baddbmm takes all groups in one go where its result is contiguous, and bmm does not
            target = transformed[here : here + count].view(shape)
            target.baddbmm_(self._into[scheme].expand(count, -1, -1), seen, beta=0.0)

    def out_of(self, products: Tensor, groups: Groups, first: int, out: Tensor, *, add: bool, slope: float) -> None:
        channels, layout, dilation = out.shape[1], groups.layout, groups.dilation
        items = layout.split(out)
        for here, count, item, position in _runs(groups, first, len(products)):
            product = products[here : here + count].unflatten(1, (groups.scheme.points, groups.parts, channels)).sum(2)
            made = torch.bmm(self._out_of[groups.scheme].expand(count, -1, -1), product).flatten(0, 1)
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
        yield row - first, count, item, phase + groups.scheme.group * groups.dilation * group
        row += count


class CompiledTransforms:
    """By numba, on torch's threads."""

    worth = 32, 96
    looks_beyond = False

    def __init__(self) -> None:
        from .winograd_kernels import KERNELS

        self._address = KERNELS.address
        self._slope = torch.ones(1, dtype=torch.float32, device="cpu")

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
                0,
                signal.data_ptr(),
                transformed.data_ptr(),
                first,
                len(transformed),
                signal.shape[1],
                SCHEMES.index(groups.scheme),
                groups.scheme.points,
                groups.scheme.group,
                groups.parts,
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
        team.run(self._address(kernel), descriptor, transformed.numel())


def transforms() -> tuple[Transforms, str | None]:
    """The fastest that work here, and why they are not faster ones."""

    def prepare() -> None:
        from . import winograd_kernels

        for kernel in ("into", "out", "add"):
            winograd_kernels.KERNELS.address(kernel)

    missing = compiled.why_not(prepare)
    return (CompiledTransforms(), None) if missing is None else (TorchTransforms(), missing)
