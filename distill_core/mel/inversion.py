"""Band values of one format -> band values of another, frame by frame, from first principles.

The bands of a source frame are explained by a spectrum, with Richardson's and Lucy's iteration, the
multiplicative rule for W x = p with everything non-negative: it starts from an even filling of the bands,
sharpens peaks that neighbouring bands agree on, and cannot ring. The spectrum is one of two kinds:

- powers of steady sines, half a bin or one bin apart, each of which the source's window spreads over its
  neighbourhood, and the target's over the target's bins: a tone is one of them, noise is all of them;
- the source's own Fourier bins, moved to the target's in Hz, as energy per Hz, which is what two analyses of
  one sound agree on. For magnitudes, which do not add as powers do, and for the refinements, which were
  trained on it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .analysis import compress, expand
from .filters import band_edges, filterbank, line_powers
from .spec import MelSpec

if TYPE_CHECKING:
    from .filters import Floats

# Rounds, and the power that ratios are raised to: below 2 the iteration still converges, and sooner. More rounds
# sharpen peaks further, but also the estimation errors; with these, recordings come out with the least bias.
SINES = (10, 1.5)
BINS = (5, 1.0)
# Sines lie half a bin apart where the source's bands are narrower than so many bins, above them one bin.
_FINE = 4.0
# (E|X|)² / E|X|² of a Fourier bin of noise (Rayleigh's distribution).
RAYLEIGH = math.pi / 4
_TINY = 1e-20


class Inversion:
    """The conversion of single frames; frames of the source stay at their own times.

    Args:
        source, target: mel formats with a common range of frequencies.
        device: where the constants live.
        sines: what the spectrum is made of, if the source has powers; else, bins of the source.
    """

    def __init__(self, source: MelSpec, target: MelSpec, device: torch.device, *, sines: bool = False) -> None:
        self.source = source
        self.target = target
        self.sines = sines and source.power == 2.0
        self.rounds, self.relaxation = SINES if self.sines else BINS
        lines, spread = _lines(source, target) if self.sines else _bins(source, target)
        filters = filterbank(source) @ lines
        per_line = filters.sum(axis=0)
        per_band = filters.sum(axis=1)
        covered = per_line > 1e-9 * per_line.max()
        weight = np.divide(1.0, per_line, out=np.zeros_like(per_line), where=covered)
        start = (filters * weight).T / np.maximum(per_band, 1e-12)
        own = np.arange(source.n_fft // 2 + 1) * (source.sample_rate / source.n_fft)
        theirs = np.arange(target.n_fft // 2 + 1) * (target.sample_rate / target.n_fft)
        evenness = _evenness(filterbank(source))

        def constant(values: Floats) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device)

        with torch.inference_mode(False):
            self.filters = constant(filters)
            self.back = constant((filters * weight).T)
            self.start = constant(start)
            self.spread = constant(spread)
            self.target_filters = constant(filterbank(target))
            self.evenness = constant(evenness[:, None])
            self.spread_evenness = constant(np.interp(theirs, own, evenness)[:, None])

    def __call__(self, bands: Tensor) -> Tensor:
        """Source band values `[B, n, T]` -> the target's before its floor and logarithm, `[B, m, T]`."""
        found = self.start @ bands
        for _ in range(self.rounds):
            ratio = self.back @ (bands / (self.filters @ found + _TINY))
            found = found * (ratio if self.relaxation == 1.0 else ratio.pow(self.relaxation))
        if self.source.power == 1.0:
            found = found.square() / self.evenness
        if self.target.power == 1.0 and not self.sines:
            found = found * self.evenness
        bins = self.spread @ found
        if self.target.power == 1.0 and self.sines:
            bins = bins * self.spread_evenness
        bins = bins + self.target.eps
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


def _lines(source: MelSpec, target: MelSpec) -> tuple[Floats, Floats]:
    """Powers of sines -> powers of the source's bins and of the target's, `[bins, lines]` each."""
    assert source.fmax is not None
    step = source.sample_rate / source.win_length
    edges = band_edges(source)
    wide = edges[1:][np.diff(edges) > _FINE * step]
    fine_until = float(wide[0]) if wide.size else source.fmax
    frequencies = np.concatenate(
        [np.arange(source.fmin, fine_until, step / 2), np.arange(fine_until, source.fmax + step / 2, step)]
    )
    return line_powers(source, frequencies), line_powers(target, frequencies)


def _bins(source: MelSpec, target: MelSpec) -> tuple[Floats, Floats]:
    """The source's bins as they are, and the matrix from their powers to the target's, `[bins_t, bins_s]`.

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
    spread = weights * (target_step / step) * (target.n_fft / source.n_fft) * window_energy
    return np.eye(frequencies.size), np.asarray(spread)
