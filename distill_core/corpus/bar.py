"""One bar for a whole corpus, whose length is learnt on the way."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from typing import Any


class Bar(AbstractContextManager["Bar"]):
    """Seconds of sound that are done, of an estimate of all: files whose headers were read stand for the others.

    Args:
        quiet: show nothing.
        files: how many there are.
        seconds: how long they are, if that is known.
    """

    def __init__(self, quiet: bool, files: int, seconds: float | None = None) -> None:
        self._bar: Any = None
        self._files = files
        self._ended = self._measured = 0
        self._seconds = 0.0
        if quiet:
            return
        from tqdm import tqdm

        self._bar = tqdm(
            total=seconds or 0.0,
            unit=" s of sound",
            desc=self._words(),
            bar_format="{desc} {percentage:3.0f}%|{bar}| {rate_noinv_fmt}, {remaining} left",
            smoothing=0.05,
            leave=False,
            delay=0.5,
            mininterval=0.3 if sys.stderr.isatty() else 30.0,  # logs want a line now and then
            dynamic_ncols=True,
        )

    def expect(self, files: int, seconds: float) -> None:
        """So many files turned out to hold so many seconds, channels counted each."""
        self._measured += files
        self._seconds += seconds
        self._stretch()

    def skip(self) -> None:
        """A file need not be done."""
        self._files -= 1
        self._stretch()

    def advance(self, seconds: float) -> None:
        """So many more seconds are computed."""
        if self._bar is not None:
            # The last frame of each file goes beyond its end.
            self._bar.total = max(self._bar.total, self._bar.n + seconds)
            self._bar.update(seconds)

    def file_done(self) -> None:
        """A file has come to its end, good or bad."""
        self._ended += 1
        if self._bar is not None:
            self._bar.set_description_str(self._words(), refresh=False)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def _stretch(self) -> None:
        if self._bar is not None and self._measured:
            self._bar.total = max(self._bar.n, self._seconds * self._files / self._measured)

    def _words(self) -> str:
        return f"{self._ended}/{self._files} files"
