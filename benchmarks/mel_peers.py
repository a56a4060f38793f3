"""Other ways from one mel format to another, as they are commonly done, for `benchmarks.mel_adapter`."""

from __future__ import annotations

import torch
from torch import Tensor

from distill_core.mel import MelSpec
from distill_core.mel.analysis import compress
from distill_core.mel.filters import filterbank
from distill_core.mel.inversion import band_values
from distill_core.mel.timing import FrameClock
from distill_core.resample import resample


def pseudo_inverse(mel: Tensor, source: MelSpec, target: MelSpec) -> Tensor:
    """Least squares through the filterbank, negative energies cut off. `[1, n, T]` -> `[1, m, T']`."""
    filters = torch.tensor(filterbank(source), dtype=torch.float32)
    return _through(torch.linalg.pinv(filters) @ band_values(mel, source), source, target)


def nnls(mel: Tensor, source: MelSpec, target: MelSpec) -> Tensor:
    """Non-negative least squares."""
    return _through(_nnls(mel, source), source, target)


def _nnls(mel: Tensor, source: MelSpec, steps: int = 200) -> Tensor:
    """`[1, bins, T]`, from the pseudo-inverse with its negative energies cut off, as librosa begins.

    By Nesterov's accelerated projected gradient. Of the many solutions it finds one near its start; the
    active-set method's has no more lines than there are bands, and is further from real spectra.
    """
    filters = torch.tensor(filterbank(source), dtype=torch.float32)
    bands = band_values(mel, source)
    rate = 1.0 / float(torch.linalg.matrix_norm(filters, 2)) ** 2
    now = ahead = (torch.linalg.pinv(filters) @ bands).clamp(min=0.0)
    for step in range(1, steps + 1):
        following = (ahead - rate * (filters.T @ (filters @ ahead - bands))).clamp(min=0.0)
        ahead = following + (step - 1) / (step + 2) * (following - now)
        now = following
    return now


def griffin_lim(mel: Tensor, source: MelSpec, target: MelSpec) -> Tensor:
    """A waveform by NNLS and 32 rounds of Griffin and Lim, analysed again."""
    import librosa

    wave = librosa.griffinlim(
        _nnls(mel, source)[0].numpy() ** (1 / source.power),
        n_iter=32,
        hop_length=source.hop_length,
        win_length=source.win_length,
        n_fft=source.n_fft,
        random_state=0,
    )
    return target.analyze(resample(torch.from_numpy(wave)[None], source.sample_rate, target.sample_rate))


def _through(spectrum: Tensor, source: MelSpec, target: MelSpec) -> Tensor:
    """Spectra of the source's bins -> the target's mel: by Hz, by seconds, linearly between neighbours."""
    powers = spectrum.clamp(min=0.0) ** (2.0 / source.power)
    step, target_step = source.sample_rate / source.n_fft, target.sample_rate / target.n_fft
    positions = torch.arange(target.n_fft // 2 + 1, dtype=torch.float64) * target_step / step
    inside = positions <= powers.shape[1] - 1
    low = positions.floor().long().clamp(max=powers.shape[1] - 2)
    part = (positions - low).float()[None, :, None]
    bins = (powers[:, low] * (1 - part) + powers[:, low + 1] * part) * inside[None, :, None]
    # The same sound gives |X| as large as the window is long.
    bins = bins ** (target.power / 2) * (target.win_length / source.win_length) ** target.power
    clock = FrameClock(source, target)
    whole, phase = clock.positions(0, clock.duration(powers.shape[2]))
    last = powers.shape[2] - 1
    here, after = bins[..., whole.clamp(0, last)], bins[..., (whole + 1).clamp(0, last)]
    filters = torch.tensor(filterbank(target), dtype=torch.float32)
    return compress(filters @ (here + (after - here) * phase), target)
