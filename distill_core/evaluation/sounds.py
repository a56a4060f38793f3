"""Sounds inside a page."""

from __future__ import annotations

import io
from typing import Literal

import torch

from ..resample import resample

Audio = Literal["wav", "opus", "none"]
_HIGHEST_RATE = 48_000
_OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)


def encode(wave: torch.Tensor, sample_rate: int, kind: Audio) -> tuple[str, bytes]:
    """(media type, file) of [samples]: WAV of 16 bits, or Opus in Ogg; at most 48 kHz.

    Not FLAC, half as large: Chromium cannot seek in the last five blocks of one, and a short file has no others.

    Raises:
        MissingDependencyError: soundfile is not installed.
    """
    from ..audio import _soundfile, encodable

    rate = min(sample_rate, _HIGHEST_RATE)
    if kind == "opus":
        rate = next(each for each in _OPUS_RATES if each >= rate)
    samples = resample(wave, sample_rate, rate).clamp(-1, 1).numpy()
    file = io.BytesIO()
    if kind == "opus":
        _soundfile().write(file, samples, rate, format="OGG", subtype="OPUS")
        return "audio/ogg; codecs=opus", file.getvalue()
    _soundfile().write(file, encodable(samples, "WAV", "PCM_16"), rate, format="WAV", subtype="PCM_16")
    return "audio/wav", file.getvalue()
