"""The analytic conversion of single frames: lone tones exactly, the rest by an inversion."""

from __future__ import annotations

import torch
from torch import Tensor

from .inversion import Inversion
from .spec import MelSpec
from .tones import Tones


class Conversion:
    """Band values of one format -> band values of another; frames stay at their own times.

    Args:
        source, target: mel formats with a common range of frequencies.
        device: where the constants live.
    """

    def __init__(self, source: MelSpec, target: MelSpec, device: torch.device) -> None:
        self.inversion = Inversion(source, target, device, sines=True)
        # Magnitudes of tones and of what surrounds them do not add, so none can be taken out of them.
        self.tones = Tones(source, target, device) if source.power == 2.0 else None
        self.power = target.power

    def __call__(self, bands: Tensor, *, tones_only: bool = False) -> tuple[Tensor, Tensor]:
        """Source band values `[B, n, T]` -> the target's, and the tones' share of their energy, both `[B, m, T]`.

        With `tones_only`, frames without a tone may be left at 0: they are most, and the inversion is what takes time.
        """
        if self.tones is None:
            found = self.inversion(bands)
            return found, torch.zeros_like(found)
        rest, tones = self.tones(bands)
        # What adds up is energy.
        own = tones.pow(2.0 / self.power)
        if tones_only:
            item, frame = (own > 0).any(dim=1).nonzero(as_tuple=True)
            inverted = torch.zeros_like(own)
            if len(frame):
                inverted[item, :, frame] = self.inversion(rest[item, :, frame].T[None])[0].T
        else:
            inverted = self.inversion(rest)
        total = inverted.pow(2.0 / self.power) + own
        return total.pow(self.power / 2.0), own / total.clamp(min=1e-30)
