"""Tones that stand alone are found as what they are, and nothing else is taken for one."""

from __future__ import annotations

import math

import pytest
import torch

from distill_core.mel import MelAdapter, MelSpec
from distill_core.mel.inversion import band_values
from distill_core.mel.tones import Tones

VAE = MelSpec.preset("distill-vae")
BIGVGAN = MelSpec.preset("bigvgan-44khz-128band-512x")


@pytest.fixture(scope="module")
def tones() -> Tones:
    return Tones(VAE, BIGVGAN, torch.device("cpu"))


def bands(wave: torch.Tensor) -> torch.Tensor:
    """The app's band values of the inner frames."""
    return band_values(VAE.analyze(wave.float()), VAE)[..., 10:-10]


def sine(hertz: float, amplitude: float = 0.5) -> torch.Tensor:
    return amplitude * torch.sin(2 * math.pi * hertz * torch.arange(VAE.sample_rate).double() / VAE.sample_rate)


@pytest.mark.parametrize("amplitude", [0.9, 0.01])
@pytest.mark.parametrize("hertz", [60.0, 97.3, 440.0, 1013.7, 5555.0, 14_000.0])
def test_a_tone_is_taken_out_whole_and_comes_out_as_the_target_has_it(
    tones: Tones, hertz: float, amplitude: float
) -> None:
    source = bands(sine(hertz, amplitude))
    rest, found = tones(source)
    assert float(rest.sum() / source.sum()) < 1e-3
    clock = torch.arange(BIGVGAN.sample_rate).double() / BIGVGAN.sample_rate
    wave = amplitude * torch.sin(2 * math.pi * hertz * clock)
    true = BIGVGAN.analyze(wave.float())[0, :, 10:-10].exp().mean(-1)
    loud = true > 0.1 * true.max()
    torch.testing.assert_close(found[0].mean(-1)[loud], true[loud], rtol=0.06, atol=0.0)


def test_two_tones_far_apart_are_both_found(tones: Tones) -> None:
    source = bands(sine(300.0) + sine(2500.0, 0.2))
    rest, _ = tones(source)
    assert float(rest.sum() / source.sum()) < 2e-3


def test_of_noise_and_silence_next_to_nothing_is_taken(tones: Tones) -> None:
    generator = torch.Generator().manual_seed(5)
    noise = bands(0.2 * torch.randn(VAE.sample_rate, generator=generator, dtype=torch.float64))
    rest, _ = tones(noise)
    assert float((noise - rest).sum() / noise.sum()) < 0.02
    rest, found = tones(torch.zeros(1, 128, 5))
    assert not rest.any()
    assert not found.any()


@pytest.mark.parametrize("other", [1023.0, 1090.0, 1300.0])
def test_beating_tones_keep_their_level(other: float) -> None:
    """Next to each other they may pass for one; then it must be as loud as both."""
    mels = []
    for spec in (VAE, BIGVGAN):
        clock = 2 * math.pi * torch.arange(2 * spec.sample_rate).double() / spec.sample_rate
        mels.append(spec.analyze((0.4 * torch.sin(1000.0 * clock) + 0.4 * torch.sin(other * clock)).float()))
    made = MelAdapter(VAE, BIGVGAN, refine=False)(mels[0])[..., 40:-40]
    energy = [float(mel.exp().square().sum(1).mean()) for mel in (made, mels[1][..., 40:-40])]
    assert abs(10 * math.log10(energy[0] / energy[1])) <= 1.5


def test_a_decoders_noise_on_silence_is_no_tone(tones: Tones) -> None:
    """Clamped at 0, it leaves single bands between empty ones, as a faint tone would."""
    generator = torch.Generator().manual_seed(5)
    mel = (0.05 * torch.randn(1, 128, 200, generator=generator)).clamp(min=0.0)
    _, found = tones(band_values(mel, VAE))
    assert not found.any()


def test_a_frame_comes_out_the_same_whichever_stand_beside_it(tones: Tones) -> None:
    """Where two candidates fit as well, rounding, which depends on the shape, must not choose between them."""
    mel = 3.0 * torch.rand(1, 128, 200, generator=torch.Generator().manual_seed(2))
    mel[..., 150:] = VAE.analyze((sine(997.0) + sine(5000.5, 0.1)).float())[..., 10:60]
    source = band_values(mel, VAE)
    whole = tones(source)
    assert whole[1].any()
    for frame in range(200):
        for part, every in zip(tones(source[..., frame : frame + 1]), whole, strict=True):
            one = every[..., frame : frame + 1]
            torch.testing.assert_close(part, one, rtol=1e-5, atol=1e-6 * float(one.max()))
