"""Sounds to begin with: a spoken sentence, and two that are made up on the spot."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

RATE = 44_100
PARTIALS = ((0.5, 0.3), (1.0, 1.0), (1.19, 0.5), (1.5, 0.3), (2.0, 0.6), (2.66, 0.3), (4.1, 0.25), (7.3, 0.1))
SPEECH = Path(__file__).with_name("speech.flac")


def write_examples(folder: Path) -> dict[str, Path]:
    """Name -> file in `folder`, in the order in which to offer them."""
    from ..audio import read_audio, write_audio

    found: dict[str, Path] = {}
    folder.mkdir(parents=True, exist_ok=True)
    if SPEECH.is_file():  # a link where links are not to be had (a checkout on Windows) is no sound
        wave, rate = read_audio(SPEECH)
        write_audio(folder / "speech.wav", wave, rate, overwrite=True)  # Chromium cannot seek to the end of a FLAC
        found["Spoken sentence"] = folder / "speech.wav"
    for name, file, wave in (("Sung vowel", "vowel.wav", vowel()), ("Stereo bells", "bells.wav", bells())):
        path = folder / file
        write_audio(path, wave, RATE, overwrite=True)
        found[name] = path
    return found


def vowel(seconds: float = 2.5) -> torch.Tensor:
    """A glottal pulse train with vibrato through the formants of "a" and "i", [1, samples]: source and filter."""
    import torch

    time = torch.arange(round(seconds * RATE), dtype=torch.float64) / RATE
    share = time / seconds
    pitch = 165 * 2 ** (share * 4 / 12) * (1 + 0.012 * torch.sin(2 * math.pi * 5.5 * time) * share)
    phase = 2 * math.pi * torch.cumsum(pitch, 0) / RATE
    wave = torch.zeros_like(time)
    blend = 0.5 - 0.5 * torch.cos(2 * math.pi * share)
    for harmonic in range(1, 60):
        hz = harmonic * pitch
        level = torch.zeros_like(time)
        for a, i, width, gain in ((730, 280, 90, 1.0), (1090, 2250, 110, 0.5), (2440, 2900, 160, 0.25)):
            centre = a + (i - a) * blend
            level += gain / (1 + ((hz - centre) / width) ** 2)
        wave += level / harmonic**0.5 * torch.sin(harmonic * phase) * (hz < 0.45 * RATE)
    return _finished(wave[None], time, seconds)


def bells(seconds: float = 3.0) -> torch.Tensor:
    """Four struck bells from left to right, [2, samples]: inharmonic, sharp onsets, up to 15 kHz."""
    import torch

    time = torch.arange(round(seconds * RATE), dtype=torch.float64) / RATE
    wave = torch.zeros(2, len(time), dtype=torch.float64)
    for index, note in enumerate((0, 4, 7, 12)):
        start = 0.05 + 0.45 * index
        since = (time - start).clamp(min=0)
        struck = (time >= start).double()
        tone = torch.zeros_like(time)
        for partial, gain in PARTIALS:
            hz = 880 * 2 ** (note / 12) * partial
            tone += gain * torch.exp(-since * (1.2 + 0.9 * partial)) * torch.sin(2 * math.pi * hz * since)
        pan = index / 3 * math.pi / 2
        wave += struck * tone * torch.tensor([[math.cos(pan)], [math.sin(pan)]])
    return _finished(wave, time, seconds)


def _finished(wave: torch.Tensor, time: torch.Tensor, seconds: float) -> torch.Tensor:
    """Faded at both ends, its peak at 0.7."""
    fade = (time / 0.02).clamp(max=1) * ((seconds - time) / 0.15).clamp(0, 1)
    return (0.7 * wave * fade / (wave * fade).abs().max()).float()
