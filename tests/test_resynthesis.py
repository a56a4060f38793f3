"""Copy synthesis loses nothing of a sound, whatever the format's sizes."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from distill_core.resynthesis import analyze
from tests import toy


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("hop", [15, 16, 64])
@pytest.mark.parametrize("n_fft", [64, 65])
def test_frames_hold_all_of_a_sound(n_fft: int, hop: int, center: bool) -> None:
    """Also where n_fft - hop is odd, as for 10 ms at 44.1 kHz: there the last frame was missing, and its sound."""
    spec = replace(toy.MEL, n_fft=n_fft, hop_length=hop, center=center)
    vocoder: Any = SimpleNamespace(mel=spec, sample_rate=spec.sample_rate)
    for samples in (1, hop, 10 * hop - 1, 10 * hop, 10 * hop + 1):
        frames = analyze(torch.ones(1, samples), spec.sample_rate, vocoder).shape[-1]
        assert frames * hop >= samples
        assert frames <= max(-(-samples // hop), spec.frames(spec.padding + 1)) + center
