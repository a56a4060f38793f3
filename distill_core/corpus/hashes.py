"""A set of hashes in eight bytes each, for corpora of millions of files."""

from __future__ import annotations

from typing import Any

_RECENT = 1 << 16
"""Kept in a set, which takes ten times as much, until there are so many."""


class Hashes:
    """Which values were added: two different ones are taken for the same once in 2^64."""

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._sorted: Any = None  # a numpy array, made when it is worth while

    def add(self, value: object) -> None:
        self._recent.add(hash(value))
        if len(self._recent) >= _RECENT:
            import numpy

            recent = numpy.fromiter(self._recent, dtype=numpy.int64, count=len(self._recent))
            self._sorted = recent if self._sorted is None else numpy.concatenate([self._sorted, recent])
            self._sorted.sort(kind="stable")  # which for runs that are sorted already is a merge
            self._recent.clear()

    def __contains__(self, value: object) -> bool:
        key = hash(value)
        if key in self._recent:
            return True
        if self._sorted is None:
            return False
        place = int(self._sorted.searchsorted(key))
        return place < len(self._sorted) and int(self._sorted[place]) == key
