"""How far a long run has come: a bar on stderr, or a call to the caller."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any


def bar_hidden() -> bool:
    """Whether there is nowhere to show a bar: an app with windows and without a terminal may have no stderr."""
    return sys.stderr is None


@contextmanager
def calling_a_bar() -> Iterator[None]:
    """Around calls of a bar, which the caller may have brought: what it raises is told by `raised_by_a_bar`."""
    try:
        yield
    except Exception as error:
        error._raised_by_a_bar = True  # type: ignore[attr-defined]
        raise


def raised_by_a_bar(error: BaseException) -> bool:
    """Whether it is the caller's, such as to cancel, and no failure of the line, the disk or a plug-in."""
    return getattr(error, "_raised_by_a_bar", False)


class Progress(AbstractContextManager["Progress"]):
    """Progress that nobody wants to see."""

    def advance(self, frames: int) -> None:
        """So many more frames are done."""

    def __exit__(self, *_: object) -> None:
        pass


class _Call(Progress):
    def __init__(self, call: Callable[[int, int], None], total: int) -> None:
        self.call = call
        self.total = total
        self.done = 0

    def advance(self, frames: int) -> None:
        self.done += frames
        self.call(self.done, self.total)


class _Bar(Progress):
    def __init__(self, total: int, seconds_per_frame: float) -> None:
        from tqdm import tqdm

        self.bar: Any = tqdm(
            total=total,  # in frames, whose sum is exact: tqdm warns of seconds that add up to a little more than all
            unit_scale=seconds_per_frame,
            desc="vocoding",
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} s of audio [{elapsed}<{remaining}]",
            delay=0.5,
            leave=False,
            disable=bar_hidden(),
        )

    def advance(self, frames: int) -> None:
        self.bar.update(frames)

    def __exit__(self, *_: object) -> None:
        self.bar.close()


def frames_progress(progress: bool | Callable[[int, int], None], total: int, seconds_per_frame: float) -> Progress:
    """The progress of a run over `total` frames; see `VocoderBase.mel_to_waveform`."""
    if callable(progress):
        return _Call(progress, total)
    return _Bar(total, seconds_per_frame) if progress else Progress()
