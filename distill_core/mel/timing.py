"""Which source frames a target frame lies between, in exact arithmetic: no drift, however long."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .spec import MelSpec


@dataclass(frozen=True)
class FrameClock:
    """Frame centres of two formats matched in seconds.

    Target frame j is centred `position(j)` source frames after the centre of source frame 0.

    Args:
        source, target: mel formats.
    """

    source: MelSpec
    target: MelSpec

    @property
    def _terms(self) -> tuple[int, int, int]:
        """step, shift, unit with position(j) = (j * step + shift) / unit, all whole numbers."""
        s, t = self.source, self.target
        # Twice first_center is whole also where n_fft is odd.
        shift = (t.n_fft - 2 * t.padding) * s.sample_rate - (s.n_fft - 2 * s.padding) * t.sample_rate
        return 2 * t.hop_length * s.sample_rate, shift, 2 * s.hop_length * t.sample_rate

    def before(self, frame: int) -> int:
        """The source frame at or before the centre of a target frame; -1 before the first."""
        step, shift, unit = self._terms
        return (frame * step + shift) // unit

    def positions(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """For target frames [start, stop): the source frame at or before, and how far past it (0 to 1)."""
        step, shift, unit = self._terms
        numerators = torch.arange(start, stop, dtype=torch.int64, device="cpu") * step + shift
        whole = torch.div(numerators, unit, rounding_mode="floor")
        return whole, ((numerators - whole * unit).double() / unit).float()

    def count_before(self, frame: int) -> int:
        """How many target frames lie strictly before the centre of source frame `frame`."""
        step, shift, unit = self._terms
        return max(0, -((shift - frame * unit) // step))

    def duration(self, frames: int) -> int:
        """How many target frames hold the sound of so many source frames, rounded up; 0 for 0, else at least 1.

        T centred frames span (T - 1) hops, from the centre of the first to that of the last (an inverse
        STFT returns as much); T frames that lie between samples span T hops.
        """
        s, t = self.source, self.target
        if frames <= 0:
            return 0
        hops = frames - s.center
        whole = -(-hops * s.hop_length * t.sample_rate // (s.sample_rate * t.hop_length))
        return max(1, whole + t.center)
