"""Copy synthesis: a waveform to a mel and back, at the length it had."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from .resample import resample

if TYPE_CHECKING:
    from .mel.spec import MelSpec
    from .vocoder import VocoderBase


def analyze(wave: torch.Tensor, sample_rate: int, vocoder: VocoderBase) -> torch.Tensor:
    """The mel of a waveform in the format that `vocoder` takes, with no sample left out at the end.

    Args:
        wave: [channels, samples].
        sample_rate: of `wave`, in Hz; it is resampled if the format asks for another.

    Returns:
        [channels, n_mels, T], T * hop_length >= samples.
    """
    spec = vocoder.mel
    wave = resample(wave[:, None], sample_rate, spec.sample_rate)[:, 0]
    samples = wave.shape[-1]
    return spec.analyze(torch.nn.functional.pad(wave, (0, filled(samples, spec) - samples)))


def filled(samples: int, spec: MelSpec) -> int:
    """How many samples, those and silence after them, are analysed to frames that hold all of the sound.

    Frames are `hop_length` long, and where `n_fft - hop_length` is odd, half a sample is missing in the padding on
    each side: without one sample more, such a format would have no frame for the last `hop_length` samples.
    """
    frames = -(-samples // spec.hop_length)
    seen = (frames - 1) * spec.hop_length + spec.n_fft - 2 * spec.padding
    return max(frames * spec.hop_length, seen, spec.padding + 1)


def resynthesize(
    wave: torch.Tensor,
    sample_rate: int,
    vocoder: VocoderBase,
    *,
    progress: bool | Callable[[int, int], None] = False,
) -> torch.Tensor:
    """Analyse a waveform and vocode the mel: what the vocoder makes of this sound.

    Args:
        wave: [channels, samples]; channels are treated alike and apart.
        sample_rate: of `wave`, in Hz.
        progress: as for `VocoderBase.mel_to_waveform`.

    Returns:
        [channels, samples] at `vocoder.sample_rate`, as long as `wave` in seconds, to the nearest sample.
    """
    mel = analyze(wave, sample_rate, vocoder)
    result = vocoder.mel_to_waveform(mel, progress=progress)[:, 0]
    samples = round(wave.shape[-1] * vocoder.sample_rate / sample_rate)
    return torch.nn.functional.pad(result, (0, max(0, samples - result.shape[-1])))[:, :samples]
