"""Where the frames of a run come from: a mel that is all there, or one that is still arriving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from .errors import InvalidMelError


class Feed(Protocol):
    """Frames in the model's own mel format, counted from 0."""

    @property
    def rows(self) -> int: ...

    def read(self, rows: Sequence[int], lo: int, hi: int) -> torch.Tensor:
        """Frames [lo, hi) of some rows: [len(rows), n_mels, hi - lo]."""


class WholeFeed(Feed, Protocol):
    """A mel that is all there: `lengths` are the frames of each row."""

    lengths: list[int]


class StreamFeed(Feed, Protocol):
    """A mel that arrives in pieces: `available` frames can be read by now."""

    available: int

    def push(self, mel: torch.Tensor) -> None:
        """Take in a piece [B, n_mels, t]."""

    def finish(self) -> None:
        """Nothing more will come."""

    def drop_before(self, frame: int) -> None:
        """Frames before this one will not be read again."""


class TensorFeed:
    """A mel [B, n_mels, T] of which row i has `lengths[i]` frames."""

    def __init__(self, mel: torch.Tensor, lengths: list[int]) -> None:
        self.mel = mel
        self.lengths = lengths
        self.rows = mel.shape[0]

    def read(self, rows: Sequence[int], lo: int, hi: int) -> torch.Tensor:
        if len(rows) == self.rows:
            return self.mel[:, :, lo:hi]
        return self.mel[list(rows), :, lo:hi]


class BufferFeed:
    """The pieces of a mel that may still be needed, joined."""

    def __init__(self) -> None:
        self.rows = 0
        self.available = 0
        self._first = 0  # the number of the buffer's first frame
        self._buffer: torch.Tensor | None = None

    def push(self, mel: torch.Tensor) -> None:
        if self._buffer is None:
            self.rows = mel.shape[0]
            self._buffer = mel.clone()  # whoever makes the pieces may use their memory again
        elif mel.shape[0] != self.rows:
            raise InvalidMelError(
                f"The pieces of a stream must have one batch size; it began with {self.rows}, now comes {mel.shape[0]}."
            )
        else:
            self._buffer = torch.cat([self._buffer, mel.to(self._buffer.device)], dim=-1)
        self.available += mel.shape[-1]

    def finish(self) -> None:
        """Nothing to do: what has arrived can be read."""

    def drop_before(self, frame: int) -> None:
        if self._buffer is not None and frame > self._first:
            self._buffer = self._buffer[:, :, frame - self._first :].clone()
            self._first = frame

    def read(self, rows: Sequence[int], lo: int, hi: int) -> torch.Tensor:
        assert self._buffer is not None and lo >= self._first
        return self._buffer[list(rows), :, lo - self._first : hi - self._first]
