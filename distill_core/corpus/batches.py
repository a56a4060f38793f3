"""The unit of work: files of about one length, which go through the model together.

Which files make a batch follows from the plan alone, not from who runs it or how many do: results are the same
whatever the engine. Lengths come from headers; no file is read.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ..audio import check_header, check_is_file, for_libsndfile
from . import files
from .plan import Item

WINDOW = 4096
"""Items that are looked at together: bounds memory, and how far the order departs from the plan's."""

MAX_ITEMS = 128
MAX_SECONDS = 10.0

_SHARE = 1 / 8
"""Of what is left of a window, the most that a batch holds, so that all workers are done at about the same time."""
_LEAST_SECONDS = MAX_SECONDS / 4
"""A smaller batch than this is not worth it."""

_BYTES_PER_SECOND = {".wav": 90_000, ".aif": 90_000, ".aiff": 90_000, ".au": 90_000, ".flac": 50_000}
"""Of a sound elsewhere: a guess."""

_BYTES_PER_FRAME = 400
"""Of a mel whose file has no header to speak of: a guess, for the order and the bar only."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Items to be done together, and how long each is, in seconds of sound, as far as its header tells."""

    items: tuple[Item, ...]
    seconds: tuple[float, ...]

    def only(self, keep: Iterable[int]) -> Batch:
        """The items with these positions."""
        keep = list(keep)
        return Batch(tuple(self.items[i] for i in keep), tuple(self.seconds[i] for i in keep))


def batches(
    items: Iterable[Item], frame_seconds: float, measured: Callable[[int, float], None] = lambda files, seconds: None
) -> Iterator[Batch]:
    """All items in batches, the longest of each `WINDOW` first; looks one window ahead.

    Args:
        frame_seconds: what a frame of a mel lasts.
        measured: is told of each window how many files it has, and seconds in all.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(4, thread_name_prefix="headers") as threads:
        while window := list(itertools.islice(iterator, WINDOW)):
            extents = list(threads.map(lambda item: extent(item, frame_seconds), window))
            measured(len(window), sum(each.seconds for each in extents))
            yield from group(window, extents, frame_seconds)


@dataclass(frozen=True, slots=True)
class Extent:
    """How much sound there is in a file: so many rows, channels or mels, of so many seconds each."""

    rows: int
    each: float

    @property
    def seconds(self) -> float:
        """Of all rows together."""
        return self.rows * self.each


def group(items: list[Item], extents: list[Extent], frame_seconds: float) -> Iterator[Batch]:
    """Items in batches of at most `MAX_ITEMS` and `MAX_SECONDS` in all, at least one; the longest rows first.

    Rows of as many frames go through a model together: those of a batch are, if there are enough of them. Towards the
    end batches become smaller.
    """
    frames = [math.ceil(extent.each / frame_seconds) for extent in extents]
    order = sorted(range(len(items)), key=lambda i: (-frames[i], items[i].output))
    chosen: list[int] = []
    total, left = 0.0, sum(extent.seconds for extent in extents)
    for i in order:
        length = extents[i].seconds
        most = min(MAX_SECONDS, max(_LEAST_SECONDS, left * _SHARE))
        is_full = len(chosen) == MAX_ITEMS or total + length > most
        if chosen and (is_full or (total > _LEAST_SECONDS and frames[i] != frames[chosen[-1]])):
            yield Batch(tuple(items[j] for j in chosen), tuple(extents[j].seconds for j in chosen))
            left -= total
            chosen, total = [], 0.0
        chosen.append(i)
        total += length
    if chosen:
        yield Batch(tuple(items[j] for j in chosen), tuple(extents[j].seconds for j in chosen))


def extent(item: Item, frame_seconds: float) -> Extent:
    """How long an item's sound is; nothing for what cannot be read, which costs nothing."""
    try:
        if files.is_url(item.input):  # it is read once, by a worker: until then its size has to do
            size = (files.identity(item.input, listed=True) or (0, 0))[0]
            if item.is_mel:
                return Extent(1, size / _BYTES_PER_FRAME * frame_seconds)
            return Extent(1, size / _BYTES_PER_SECOND.get(os.path.splitext(item.input)[1].lower(), 16_000))
        with files.local(item.input) as path:
            if item.is_mel:
                mels, frames = _frames(path)
                return Extent(mels, frames * frame_seconds)
            import soundfile

            check_is_file(path, item.input)  # a pipe would be waited for
            with soundfile.SoundFile(for_libsndfile(path)) as sound:
                check_header(sound, item.input)
                return Extent(sound.channels, sound.frames / sound.samplerate)
    except Exception:  # whatever is wrong with it, reading it will say so
        return Extent(0, 0.0)


def _frames(path: os.PathLike[str]) -> tuple[int, float]:
    """How many mels are in a file, and frames of each."""
    kind = os.path.splitext(path)[1].lower()
    if kind == ".npy":
        import numpy

        shape = numpy.load(path, mmap_mode="r", allow_pickle=False).shape
        return (shape[0] if len(shape) > 2 else 1), shape[-1]
    return 1, os.stat(path).st_size / _BYTES_PER_FRAME
