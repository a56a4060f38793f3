"""The anti-aliased periodic activation: up-sample by 2, snake, down-sample by 2.

A snake adds harmonics above what the sample rate can hold; computed at twice the rate and
low-passed, they do not fold back. Source: Lee et al., section 3.2; Snake: Ziyin et al., 2020.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TAPS = 12
# Positions on each side of an output sample that the activation sees, at its own rate: the second
# filter reaches 5 and 6 steps at the doubled rate, the first 3 more.
REACH = 5

_CUTOFF = 0.25
_HALF_WIDTH = 0.3
_TINY = 1e-9


@lru_cache
def kaiser_sinc_taps(taps: int = TAPS, cutoff: float = _CUTOFF, half_width: float = _HALF_WIDTH) -> tuple[float, ...]:
    """A Kaiser-windowed sinc low-pass of even length and sum 1; `cutoff` in cycles per sample.

    The window's shape follows Kaiser's formulas from the transition width, 4 * `half_width` in
    units of half the sample rate.
    """
    half = taps // 2
    attenuation = 2.285 * (half - 1) * math.pi * 4 * half_width + 7.95
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation >= 21:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    else:
        beta = 0.0
    values = []
    for tap in range(taps):
        place = 2 * tap / (taps - 1) - 1
        angle = 2 * math.pi * cutoff * (tap - half + 0.5)
        values.append(_bessel_i0(beta * math.sqrt(max(0.0, 1 - place * place))) * math.sin(angle) / angle)
    total = math.fsum(values)
    return tuple(value / total for value in values)


class Snake(nn.Module):
    """`x + sin²(alpha x) / alpha`, a learnt alpha per channel. [B, C, T] -> [B, C, T].

    With `logscale` the parameter holds the logarithm of alpha.
    """

    def __init__(self, channels: int, *, logscale: bool) -> None:
        super().__init__()
        self.logscale = logscale
        self.alpha = nn.Parameter(torch.full((channels,), 0.0 if logscale else 1.0))

    def coefficients(self) -> tuple[Tensor, Tensor]:
        """Frequency and amplitude of the sine, each [C, 1], in at least fp32."""
        alpha = self._scale(self.alpha)
        return alpha, 1 / (alpha + _TINY)

    def forward(self, x: Tensor) -> Tensor:
        frequency, amplitude = (c.to(x.dtype) for c in self.coefficients())
        return x + amplitude * torch.sin(frequency * x).square()

    def apply_(self, x: Tensor) -> Tensor:
        """The same, written over `x`: half the memory, and nothing to differentiate."""
        frequency, amplitude = (c.to(x.dtype) for c in self.coefficients())
        return x.addcmul_((x * frequency).sin_().square_(), amplitude)

    def _scale(self, parameter: Tensor) -> Tensor:
        parameter = parameter.to(torch.promote_types(parameter.dtype, torch.float32)).unsqueeze(-1)
        return parameter.exp() if self.logscale else parameter


class SnakeBeta(Snake):
    """`x + sin²(alpha x) / beta`: amplitude apart from frequency. [B, C, T] -> [B, C, T]."""

    def __init__(self, channels: int, *, logscale: bool) -> None:
        super().__init__(channels, logscale=logscale)
        self.beta = nn.Parameter(torch.full((channels,), 0.0 if logscale else 1.0))

    def coefficients(self) -> tuple[Tensor, Tensor]:
        return self._scale(self.alpha), 1 / (self._scale(self.beta) + _TINY)


class _Filter(nn.Module):
    """The taps of a resampler, [1, 1, 12], in the place the checkpoint gives them."""

    filter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filter", default_filter())


class _Downsample(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lowpass = _Filter()


class Activation1d(nn.Module):
    """`act` at twice the sample rate. [B, C, T] -> [B, C, T]; the ends are replicated."""

    def __init__(self, act: Snake) -> None:
        super().__init__()
        self.act = act
        self.upsample = _Filter()
        self.downsample = _Downsample()

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        up = (2 * self.upsample.filter).expand(channels, 1, TAPS)
        down = self.downsample.lowpass.filter.expand(channels, 1, TAPS)
        # 3 replicated samples are all that the kept outputs see; the padding drops the rest
        u = F.conv_transpose1d(F.pad(x, (3, 3), mode="replicate"), up, stride=2, padding=TAPS - 1, groups=channels)
        differentiated = torch.is_grad_enabled() and (u.requires_grad or self.act.alpha.requires_grad)
        u = self.act(u) if differentiated else self.act.apply_(u)
        u = F.pad(u, (5, 6), mode="replicate")
        return F.conv1d(u, down, stride=2, groups=channels)


def default_filter(device: torch.device | str | None = None) -> Tensor:
    """The taps as the checkpoints hold them: [1, 1, 12], fp32, by default on torch's default device."""
    return torch.tensor(kaiser_sinc_taps(), dtype=torch.float32, device=device).view(1, 1, TAPS)


def _bessel_i0(x: float) -> float:
    total = term = 1.0
    k = 0
    while term > 1e-17 * total:
        k += 1
        term *= (x / (2 * k)) ** 2
        total += term
    return total
