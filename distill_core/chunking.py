"""How a long mel is cut into windows whose outputs join without a seam."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """A run of frames [start, stop) and the wider run [lo, hi) that has to be computed to get it right."""

    start: int
    stop: int
    lo: int
    hi: int

    @property
    def frames(self) -> int:
        return self.stop - self.start

    @property
    def context(self) -> tuple[int, int]:
        """Frames before `start` and after `stop`."""
        return self.start - self.lo, self.hi - self.stop

    def halves(self, halo: int, total: int) -> tuple[Window, Window]:
        """The same frames as two windows, for when one is too much."""
        middle = (self.start + self.stop) // 2
        return window(self.start, middle, halo, total), window(middle, self.stop, halo, total)


def window(start: int, stop: int, halo: int, total: int) -> Window:
    """The window for frames [start, stop) of a mel of `total` frames.

    Context is cut off at the true ends of the mel, where the model's own padding belongs.
    """
    return Window(start, stop, max(0, start - halo), min(total, stop + halo))


def windows(start: int, stop: int, *, chunk: int, halo: int, total: int) -> Iterator[Window]:
    """Frames [start, stop) in windows of at most `chunk` frames, as equal as they can be.

    Equal ones cost no more, and a last window of a single frame would pay a whole halo for itself.
    """
    frames = stop - start
    count = -(-frames // chunk)
    edges = [start + frames * index // count for index in range(count + 1)]
    for left, right in itertools.pairwise(edges):
        yield window(left, right, halo, total)


def batches(
    lengths: Sequence[int], *, chunk: int, halo: int, start: int = 0, stop: int | None = None
) -> Iterator[tuple[tuple[int, ...], Window, int]]:
    """Windows over frames [start, stop) of a ragged batch: (rows, window, total), each to be run as one.

    Rows of equal length are cut alike and run together, as many as keep rows x frames within `chunk`,
    at least one. Each row is cut by its own length, so it gets what it would have got alone.
    """
    by_length: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        by_length.setdefault(length, []).append(row)
    for total, rows in by_length.items():
        for each in windows(start, total if stop is None else stop, chunk=chunk, halo=halo, total=total):
            together = max(1, chunk // each.frames)
            for first in range(0, len(rows), together):
                yield tuple(rows[first : first + together]), each, total
