"""Band values of one format -> band values of another, frame by frame, from first principles.

The bands of a source frame are turned into a spectrum on the source's own Fourier bins by Richardson's and
Lucy's iteration, the multiplicative rule for W x = p with everything non-negative: it starts from an even
filling of the bands, sharpens peaks that neighbouring bands agree on, and cannot ring. The spectrum is
moved to the target's bins in Hz, as energy per Hz, which is what two analyses of one sound agree on, and
summed by the target's filters.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .analysis import compress, expand
from .filters import filterbank
from .spec import MelSpec

if TYPE_CHECKING:
    from .filters import Floats

# More sharpen peaks further, but also the estimation errors; the benchmark's figures are flat from 4 to 30.
ITERATIONS = 5
# (E|X|)² / E|X|² of a Fourier bin of noise (Rayleigh's distribution).
RAYLEIGH = math.pi / 4
_TINY = 1e-20


class Inversion:
    """The conversion of single frames; frames of the source stay at their own times.

    Args:
        source, target: mel formats with a common range of frequencies.
        device: where the constants live.
    """

    def __init__(self, source: MelSpec, target: MelSpec, device: torch.device) -> None:
        self.source = source
        self.target = target
        filters = filterbank(source)
        per_bin = filters.sum(axis=0)
        per_band = filters.sum(axis=1)
        covered = per_bin > 0
        weight = np.divide(1.0, per_bin, out=np.zeros_like(per_bin), where=covered)
        start = (filters * weight).T / np.maximum(per_band, 1e-12)
        move = _move(source, target)

        def constant(values: Floats) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device)

        with torch.inference_mode(False):
            self.filters = constant(filters)
            self.back = constant((filters * weight).T)
            self.start = constant(start)
            self.move = constant(move)
            self.target_filters = constant(filterbank(target))
            self.evenness = constant(_evenness(filters)[:, None])

    def __call__(self, mel: Tensor) -> Tensor:
        """Source mel `[B, n, T]` -> the target's band values before its floor and logarithm, `[B, m, T]`."""
        bands = band_values(mel, self.source)
        spectrum = self.start @ bands
        for _ in range(ITERATIONS):
            spectrum = spectrum * (self.back @ (bands / (self.filters @ spectrum + _TINY)))
        if self.source.power == 1.0:
            spectrum = spectrum.square() / self.evenness
        if self.target.power == 1.0:
            spectrum = spectrum * self.evenness
        bins = self.move @ spectrum + self.target.eps
        return self.target_filters @ (bins.sqrt() if self.target.power == 1.0 else bins)


def band_values(mel: Tensor, spec: MelSpec) -> Tensor:
    """Mel values to band values, float32; what lies at the floor is silence and becomes 0."""
    bands = expand(mel.float(), spec)
    return torch.where(bands <= spec.floor * 1.001, torch.zeros_like(bands), bands)


def finish(bands: Tensor, spec: MelSpec) -> Tensor:
    """Band values to mel values of the target: floor and logarithm."""
    return compress(bands, spec)


def _evenness(filters: Floats) -> Floats:
    """(mean |X|)² / mean |X|² over the bins a band at hand averages, for noise, `[bins]`: 1 to `RAYLEIGH`.

    The bias of taking the root of a mean, or the square: none where a band is one bin, so that its value
    is that bin's, and all of Rayleigh's where it is many. Under a Hann window only every other bin is
    independent, but recordings fill their bands less evenly than noise: counting all bins leaves the
    smaller bias on them.
    """
    count = filters.sum(axis=1) ** 2 / np.maximum((filters**2).sum(axis=1), 1e-30)
    per_bin = np.maximum(filters.sum(axis=0), 1e-30)
    at_bin = np.maximum((filters * count[:, None]).sum(axis=0) / per_bin, 1.0)
    return np.asarray(RAYLEIGH + (1.0 - RAYLEIGH) / at_bin)


def _move(source: MelSpec, target: MelSpec) -> Floats:
    """The matrix from powers of the source's bins to powers of the target's, `[bins_t, bins_s]`.

    Each target bin takes the mean density around its frequency, over a triangle as wide as the coarser
    of the two grids, so that no energy between coarse bins is missed. By Parseval, the sum of |X|² over
    bins is n_fft · sum(window²) times the energy per frame, for tones and for noise alike.
    """
    step, target_step = source.sample_rate / source.n_fft, target.sample_rate / target.n_fft
    frequencies = np.arange(source.n_fft // 2 + 1) * step
    target_frequencies = np.arange(target.n_fft // 2 + 1) * target_step
    distance = np.abs(target_frequencies[:, None] - frequencies[None, :])
    weights = np.maximum(0.0, 1.0 - distance / max(step, target_step))
    # With the finer grid the source's, the triangle's weights sum to about target_step / step.
    weights *= step / max(step, target_step)
    window_energy = target.win_length / source.win_length  # Hann's sum of squares is 3/8 of its length
    return np.asarray(weights * (target_step / step) * (target.n_fft / source.n_fft) * window_energy)
