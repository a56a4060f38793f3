"""Ways to convolve with fewer multiplications: which points polynomials are evaluated at, and the matrices for that.

`group` outputs of a filter of `taps` taps are a product of two polynomials, read backwards: evaluate both at
`group + taps - 1` points, multiply, interpolate. The points, with infinity as the last, were chosen for the smallest
rounding error: it is that of the plain sum times 3.3, 7.5 and 12.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_CACHED = 1 << 15
"""Values of a weight that are evaluated at once."""


@dataclass(frozen=True)
class Scheme:
    """One way.

    A kernel of more taps than `taps` is cut into blocks of so many. These have to be as many as `group`: then blocks
    are as far apart as groups are, and one transform of the signal serves all of them.
    """

    taps: int
    """Of a block."""
    group: int
    """Outputs that are made together."""
    finite: tuple[float, ...]
    """The points but infinity."""

    @property
    def points(self) -> int:
        """All of them, infinity included."""
        return len(self.finite) + 1

    def blocks(self, kernel: int) -> int:
        """Into how many a kernel is cut."""
        return -(-kernel // self.taps)

    def cost(self, kernel: int) -> float:
        """Multiplications for an output."""
        blocks = self.blocks(kernel)
        return blocks * self.points / self.group if blocks == 1 or self.taps == self.group else float("inf")

    def _evaluate(self, terms: int) -> np.ndarray:
        """[points, terms]: a polynomial's values by its coefficients; at infinity, its highest."""
        powers = [[point**power for power in range(terms)] for point in self.finite]
        return np.array([*powers, [0.0] * (terms - 1) + [1.0]])

    @cached_property
    def _interpolate(self) -> np.ndarray:
        # The product of polynomials is interpolate(evaluate(taps) * evaluate(outputs)); its transpose with respect to
        # the outputs is the correlation with the taps.
        matrix: np.ndarray = np.linalg.inv(self._evaluate(self.points)).T
        return matrix

    @cached_property
    def _scale(self) -> np.ndarray:
        scale: np.ndarray = np.abs(self._interpolate).max(axis=1, keepdims=True)
        return scale

    @cached_property
    def signal(self) -> np.ndarray:
        """[points, points]: of a group and what it looks at."""
        return _clean(self._interpolate / self._scale)

    @cached_property
    def filter(self) -> np.ndarray:
        """[points, taps]: of a filter's block."""
        evaluate: np.ndarray = self._evaluate(self.taps) * self._scale
        return evaluate

    @cached_property
    def out_of(self) -> np.ndarray:
        """[group, points]: back."""
        return self._evaluate(self.group).T

    @cached_property
    def constant(self) -> np.ndarray:
        """[points]: what comes back as 1 in all outputs of a group."""
        return _clean(np.linalg.pinv(self.out_of).sum(axis=1))


def _clean(matrix: np.ndarray) -> np.ndarray:
    """Without what would be 0 if it were computed exactly."""
    cleaned: np.ndarray = np.where(np.abs(matrix) < 1e-12, 0.0, matrix)
    return cleaned


def _paired(*points: float) -> tuple[float, ...]:
    return tuple(signed for point in points for signed in ((-point, point) if point else (0.0,)))


SCHEMES = (
    Scheme(taps=3, group=6, finite=_paired(0, 1 / 2, 1, 2)),
    Scheme(taps=7, group=4, finite=_paired(0, 2 / 5, 4 / 5, 5 / 4, 5 / 2)),
    Scheme(taps=6, group=6, finite=_paired(1 / 5, 1 / 2, 1, 4 / 3, 5 / 2)),
)


@lru_cache(maxsize=64)
def scheme_for(kernel: int) -> Scheme:
    """The one that takes the fewest multiplications."""
    return min(SCHEMES, key=lambda scheme: scheme.cost(kernel))


def evaluated(weight: Tensor, scheme: Scheme) -> Iterator[tuple[int, Tensor]]:
    """A weight at the scheme's points, a few of its first dimension at a time.

    Args:
        weight: [n, m, kernel], n and m the channels in or out.

    Yields:
        The first of some of the n, and what they become: [points, some, m, blocks], in fp64.
    """
    kernel = weight.shape[2]
    blocks = scheme.blocks(kernel)
    matrix = torch.from_numpy(scheme.filter)
    some = max(1, _CACHED // (weight.shape[1] * kernel))
    for first in range(0, len(weight), some):
        padded = F.pad(weight[first : first + some].double(), (0, scheme.taps * blocks - kernel))
        taps = padded.unflatten(2, (blocks, scheme.taps)).permute(3, 0, 1, 2)
        yield first, (matrix @ taps.flatten(1)).unflatten(1, taps.shape[1:])
