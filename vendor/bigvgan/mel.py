"""The mel spectrogram that the published checkpoints were trained on, in torch alone."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.config import as_attr_dict

# Slaney's scale: linear up to 1 kHz, then 27 bands for each factor of 6.4
_BAND_HZ = 200 / 3
_BREAK_HZ = 1000.0
_BREAK_BAND = _BREAK_HZ / _BAND_HZ
_LOG_STEP = math.log(6.4) / 27


def mel_spectrogram(
    y: Tensor,
    n_fft: int,
    num_mels: int,
    sampling_rate: int,
    hop_size: int,
    win_size: int,
    fmin: float,
    fmax: float | None = None,
    center: bool = False,
) -> Tensor:
    """Waveform [B, samples] within [-1, 1] -> natural-log mel [B, num_mels, samples // hop_size].

    Reflects (n_fft - hop_size) / 2 samples at both ends, so frame `j` is centred at sample
    (j + 0.5) * hop_size. Frequencies in Hz; `fmax=None` is half the sample rate.
    """
    pad = (n_fft - hop_size) // 2
    y = F.pad(y.unsqueeze(1), (pad, pad), mode="reflect").squeeze(1)
    window = torch.hann_window(win_size, dtype=y.dtype, device=y.device)
    spectrum = torch.stft(y, n_fft, hop_size, win_size, window, center=center, pad_mode="reflect", return_complex=True)
    magnitude = torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-9)
    bank = _filterbank(sampling_rate, n_fft, num_mels, float(fmin), fmax).to(magnitude)
    return torch.log(torch.clamp(bank @ magnitude, min=1e-5))


def get_mel_spectrogram(wav: Tensor, h: object) -> Tensor:
    """`mel_spectrogram` with the settings of a configuration. [B, samples] -> [B, num_mels, T]."""
    h = as_attr_dict(h)
    return mel_spectrogram(wav, h.n_fft, h.num_mels, h.sampling_rate, h.hop_size, h.win_size, h.fmin, h.fmax)


@lru_cache(maxsize=16)
def _filterbank(sampling_rate: int, n_fft: int, num_mels: int, fmin: float, fmax: float | None) -> Tensor:
    """Triangles of area 1 on Slaney's scale. [num_mels, n_fft // 2 + 1], fp64."""
    with torch.inference_mode(False):
        top = sampling_rate / 2 if fmax is None else float(fmax)
        bands = torch.linspace(_to_band(fmin), _to_band(top), num_mels + 2, dtype=torch.float64, device="cpu")
        edges = torch.where(
            bands < _BREAK_BAND, bands * _BAND_HZ, _BREAK_HZ * torch.exp(_LOG_STEP * (bands - _BREAK_BAND))
        )
        left, centre, right = (edges[i : i + num_mels].unsqueeze(1) for i in range(3))
        bins = torch.linspace(0, sampling_rate / 2, n_fft // 2 + 1, dtype=torch.float64, device="cpu")
        rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
        return torch.minimum(rising, falling).clamp(min=0) * 2 / (right - left)


def _to_band(hz: float) -> float:
    return hz / _BAND_HZ if hz < _BREAK_HZ else _BREAK_BAND + math.log(hz / _BREAK_HZ) / _LOG_STEP
