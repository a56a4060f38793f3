"""BigVGAN's anti-aliased activation as the GPU engine takes it: its parameters, and what it computes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .._vendor.bigvgan import Activation1d, kaiser_sinc_taps

_TAPS = len(kaiser_sinc_taps())
_TAP_TOLERANCE = 1e-6
"""Taps of a checkpoint may differ by their own rounding between filters and between mirrored places."""


@dataclass(frozen=True)
class SnakeParameters:
    """An anti-aliased activation, ready to use: `u + amplitude * sin²(pi * frequency * u)` between two filters.

    `frequency` and `amplitude` are [C] in fp32; `taps` is one half of the symmetric filter, outermost first.
    """

    frequency: Tensor
    amplitude: Tensor
    taps: tuple[float, ...]

    @classmethod
    def of(cls, activation: Activation1d, device: torch.device) -> SnakeParameters:
        """From the vendored module. `ValueError` if its two filters are not one symmetric filter of 12 taps."""
        up = activation.upsample.filter.detach().double().flatten()
        down = activation.downsample.lowpass.filter.detach().double().flatten()
        limit = _TAP_TOLERANCE * float(up.abs().max())
        if len(up) != _TAPS or len(down) != _TAPS or not _close(up, down, limit) or not _close(up, up.flip(0), limit):
            raise ValueError("the checkpoint's resampling filters are not the symmetric ones of 12 taps")
        frequency, amplitude = (c.detach().double().flatten() for c in activation.act.coefficients())
        return cls(
            (frequency / torch.pi).to(device, torch.float32),
            amplitude.to(device, torch.float32),
            tuple(((up + up.flip(0)) / 2)[: _TAPS // 2].tolist()),
        )

    def plain(self, rows: Tensor) -> Tensor:
        """See `distill_core.engines.gpu.ops.Activation`."""
        channels = rows.shape[-1]
        taps = rows.new_tensor([*self.taps, *reversed(self.taps)]).expand(channels, 1, _TAPS)
        u = F.pad(rows.transpose(1, 2), (3, 3), mode="replicate")
        u = F.conv_transpose1d(u, 2 * taps, stride=2, padding=_TAPS - 1, groups=channels)
        u = u + self.amplitude[:, None] * torch.sin(torch.pi * self.frequency[:, None] * u).square()
        u = F.conv1d(F.pad(u, (5, 6), mode="replicate"), taps, stride=2, groups=channels)
        return u.transpose(1, 2)

    def to(self, device: torch.device) -> SnakeParameters:
        return replace(self, frequency=self.frequency.to(device), amplitude=self.amplitude.to(device))


def _close(a: Tensor, b: Tensor, limit: float) -> bool:
    return bool(((a - b).abs() <= limit).all())  # a NaN is close to nothing
