"""Steady tones that stand alone: what bands say of their frequency and power, exactly.

A sine fills the bands around it in a pattern that depends on its frequency alone. Where one such pattern
explains the bands of a neighbourhood, the target's bands follow from the sine; a spectrum that merely has the
right band sums would be too wide, and below about 300 Hz, where two grids of Fourier bins sample the peak in
different places, out of tune.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .filters import band_edges, filterbank, line_powers
from .spec import MelSpec

if TYPE_CHECKING:
    from .filters import Floats

# Candidates lie so many to a bin, or to a band where bands are wider; from the first on, a fit finds the rest.
_PER_WIDTH = 12
# Below so many bins, a sine's two lobes overlap.
_LOWEST = 2.2
# Residual energy, over that of the neighbourhood, up to which a tone is taken for one, and from which it is not.
CERTAIN, UNLIKELY = 3e-4, 3e-3
# What a tone leaves unexplained that is not taken for something else: of a band's own, near it and farther off, where
# sidelobes differ most from their mean; and near it also of its peak.
_OWN, _FARTHER, _PEAK = 0.01, 0.5, 0.001
# Residual energies below this are rounding's.
_ROUNDING = 1e-5
# Steps from a candidate up to which it stands for a tone, and from which the next one does.
_OWNED, _FARTHEST = 0.45, 0.6
_TINY = 1e-20


class Tones:
    """The sines in single frames.

    Args:
        source: a format of powers.
        target: the format wanted.
        device: where the constants live.
    """

    def __init__(self, source: MelSpec, target: MelSpec, device: torch.device) -> None:
        # What a fit leaves is a small difference of large numbers, so it is found in doubles; Metal has none.
        self.fine = torch.float32 if device.type == "mps" else torch.float64
        tables = _tables(source, target)
        with torch.inference_mode(False):
            self.local, self.local_slope, self.near, self.across, self.spread = (
                tables[name].to(device, self.fine) for name in ("local", "local_slope", "near", "across", "spread")
            )
            self.pattern, self.slope, self.wanted, self.wanted_slope, self.tolerance, self.length = (
                tables[name].to(device, torch.float32)
                for name in ("pattern", "slope", "wanted", "wanted_slope", "tolerance", "length")
            )
        # In log1p, a decoder's noise leaves what looks like faint tones.
        self.quietest = 1.0 if source.log == "log1p" else _TINY
        self.exponent = target.power / 2

    def __call__(self, bands: Tensor) -> tuple[Tensor, Tensor]:
        """Source band values `[B, n, T]` -> what is left of them without the tones, and the tones' target values.

        Returns:
            `[B, n, T]` and `[B, m, T]`, none of them negative.
        """
        if not self.length.numel():  # among so few bands no tone can stand alone
            return bands, bands.new_zeros(bands.shape[0], self.wanted.shape[0], bands.shape[2])
        power, distance, energy, residual = self._fits(bands.to(self.fine))
        # Of candidates in each other's reach, the nearest that fits; where two fit as well, each has its share, so
        # that a little rounding changes little.
        near = ((_FARTHEST - distance.abs()) / (_FARTHEST - _OWNED)).clamp(0.0, 1.0) * (energy > _TINY)
        weight = near * (_ROUNDING / residual).pow(4)
        reach = 4 * _PER_WIDTH + 1
        around = F.avg_pool1d(weight.transpose(1, 2), reach, stride=1, padding=reach // 2).transpose(1, 2) * reach
        share = weight / around.clamp(min=_TINY)
        loud = ((energy.sqrt() / self.quietest - 1.0) / 3.0).clamp(0.0, 1.0)
        sure = (torch.log(UNLIKELY / residual) / math.log(UNLIKELY / CERTAIN)).clamp(0.0, 1.0) * loud
        level = sure * power / self.length
        energies, values = share * level, share * level.pow(self.exponent)
        rest = bands - self.pattern @ energies - self.slope @ (energies * distance) - self.tolerance @ energies
        found = self.wanted @ values + self.wanted_slope @ (values * distance)
        return rest.clamp(min=0.0), found.clamp(min=0.0)

    def _fits(self, bands: Tensor) -> tuple[Tensor, ...]:
        """At each candidate the best fit to the bands around it, `[B, candidates, T]` each.

        Returns:
            Its power; how far from the candidate it lies, in steps; the energy there was; the share that is left.
        """
        along, aside = self.local @ bands, self.local_slope @ bands
        energy = self.near @ bands.square()
        # Least squares for the power at a candidate, and that times the distance from it.
        moved = (aside - self.across * along).div_(self.spread)
        power = along - self.across * moved
        left = energy - along.mul_(power) - aside.mul_(moved)
        residual = left.div_(energy.clamp(min=_TINY)).clamp_(min=_ROUNDING)
        distance = moved.div_(power.clamp_(min=_TINY)).clamp_(-1.0, 1.0)
        return power.float(), distance.float(), energy.float(), residual.float()


@lru_cache(maxsize=4)
def _tables(source: MelSpec, target: MelSpec) -> dict[str, Tensor]:
    """What `Tones` multiplies by, on the CPU. Shared by all, who must not write to it."""
    frequencies, steps = _candidates(source, target)
    pattern, slope = _with_slope(lambda hertz: filterbank(source) @ _powers(source, hertz), frequencies, steps)
    wanted, wanted_slope = _with_slope(lambda hertz: _bands(target, hertz), frequencies, steps)
    near = pattern > 1e-4 * pattern.max(axis=0)
    # A band on either side must be empty for a tone to stand alone.
    near[1:] |= near[:-1].copy()
    near[:-1] |= near[1:].copy()
    local, local_slope = pattern * near, slope * near
    length = np.sqrt((local**2).sum(axis=0))
    across = (local * local_slope).sum(axis=0)[:, None] / length[:, None] ** 2
    slopes = (local_slope**2).sum(axis=0)[:, None] / length[:, None] ** 2
    tables = {
        # Scaled to unit length, so that products of energies stay within range.
        "local": (local / length).T,
        "local_slope": (local_slope / length).T,
        "near": near.T.astype(np.float64),
        "length": length[:, None],
        "across": across,
        "spread": np.maximum(slopes - across**2, _TINY),
        "pattern": pattern,
        "slope": slope,
        "tolerance": pattern * np.where(near, _OWN, _FARTHER) + _PEAK * pattern.max(axis=0) * near,
        "wanted": wanted,
        "wanted_slope": wanted_slope,
    }
    with torch.inference_mode(False):
        return {name: torch.tensor(values, dtype=torch.float64, device="cpu") for name, values in tables.items()}


def _candidates(source: MelSpec, target: MelSpec) -> tuple[Floats, Floats]:
    """Frequencies to look at in Hz, and the steps between them."""
    assert source.fmax is not None and target.fmax is not None
    bin_width = source.sample_rate / source.win_length
    edges = band_edges(source)
    last = min(edges[-2], 0.95 * source.nyquist, target.fmax)
    found, steps = [max(_LOWEST * bin_width, edges[1])], []
    while found[-1] < last:
        width = max(bin_width, float(np.interp(found[-1], edges[1:], np.diff(edges))))
        steps.append(width / _PER_WIDTH)
        found.append(found[-1] + steps[-1])
    return np.array(found[:-1]), np.array(steps)


def _with_slope(function: Callable[[Floats], Floats], frequencies: Floats, steps: Floats) -> tuple[Floats, Floats]:
    """Values at frequencies, `[bands, frequencies]`, and their growth in a step: between half a step on either side."""
    above, below = function(frequencies + steps / 2), function(frequencies - steps / 2)
    return function(frequencies), above - below


def _powers(spec: MelSpec, frequencies: Floats) -> Floats:
    """The power of sines of amplitude 1 in the bins, both their lobes, on the average over phases."""
    return line_powers(spec, frequencies) + line_powers(spec, -frequencies)


def _bands(spec: MelSpec, frequencies: Floats) -> Floats:
    """Band values of sines of amplitude 1, `[n_mels, frequencies]`."""
    powers = _powers(spec, frequencies)
    return np.asarray(filterbank(spec) @ (np.sqrt(powers) if spec.power == 1.0 else powers))
