"""Through the adapter and a trained HiFi-GAN: does the app's mel sound as the vocoder's own?"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from distill_core import Registry
from distill_core.mel import MelSpec
from distill_core.resample import resample
from distill_core.vocoder import VocoderBase

VAE = MelSpec.preset("distill-vae")
HIFIGAN = MelSpec.preset("hifigan-22khz-80band")


@pytest.fixture(scope="module")
def vocoders(trained_hifigan: Path) -> tuple[VocoderBase, VocoderBase]:
    """HiFi-GAN on its own mels, and on the app's."""
    registry = Registry()
    own = registry.get("hifigan", variant="universal", device="cpu")
    adapted = registry.get("hifigan", variant="universal", device="cpu", mel="distill-vae")
    return own, adapted


def both(vocoders: tuple[VocoderBase, VocoderBase], wave: torch.Tensor, rate: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`[samples]` at `rate` -> what the vocoder makes of it from its own mel and from the app's, at 22050 Hz."""
    made = []
    for vocoder, spec in zip(vocoders, (HIFIGAN, VAE), strict=True):
        mel = spec.analyze(resample(wave, rate, spec.sample_rate))
        made.append(vocoder.mel_to_waveform(mel)[0, 0])
    return made[0], made[1]


def decibels(wave: torch.Tensor) -> float:
    return 20 * math.log10(float(wave.double().square().mean().sqrt()) + 1e-12)


def test_speech_from_the_apps_mel_is_as_good_and_as_loud(
    vocoders: tuple[VocoderBase, VocoderBase], speech_files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """PESQ-WB within 0.25 of that from the vocoder's own mel, in the mean; level within 0.5 dB in each file."""
    pesq = pytest.importorskip("pesq")
    soundfile = pytest.importorskip("soundfile")
    scores: list[tuple[float, float]] = []
    levels = []
    for path in speech_files:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        wave = torch.from_numpy(samples.mean(axis=1))
        wave = wave * (0.95 / wave.abs().max())
        pair = both(vocoders, wave, rate)
        reference = resample(wave, rate, 16000).numpy()
        heard = [resample(made, 22050, 16000).numpy() for made in pair]
        scores.append(tuple(pesq.pesq(16000, reference, each[: reference.size], "wb") for each in heard))  # type: ignore[arg-type]
        levels.append(decibels(pair[1]) - decibels(pair[0]))
    own, adapted = (sum(score[n] for score in scores) / len(scores) for n in (0, 1))
    with capsys.disabled():
        print(f"\n  PESQ-WB {own:.3f} from its own mel, {adapted:.3f} from the app's, mean of {len(scores)}")
        print("  level against the native path: " + ", ".join(f"{level:+.2f}" for level in levels) + " dB")
    assert adapted >= own - 0.25
    assert max(abs(level) for level in levels) <= 0.5


def test_silence_is_no_louder_than_in_the_vocoders_own_format(vocoders: tuple[VocoderBase, VocoderBase]) -> None:
    own, adapted = both(vocoders, torch.zeros(48000), 48000)
    inner = slice(4000, -4000)
    assert decibels(adapted[inner]) <= decibels(own[inner]) + 0.01


@pytest.mark.parametrize("frequency", [880.0, 1760.0, 3520.0])
def test_the_pitch_is_that_of_the_native_path(vocoders: tuple[VocoderBase, VocoderBase], frequency: float) -> None:
    """Within 5 cents, for a tone with up to three harmonics.

    Lower tones HiFi-GAN itself does not hold: from its own mel of 466 Hz it makes 456 Hz. What the mel
    says of them is tested in test_adapter.py.
    """
    time = torch.arange(72_000).double() / 48_000
    wave = sum(0.4 / n * torch.sin(2 * math.pi * frequency * n * time) for n in (1, 2, 3) if frequency * n < 7500)
    own, adapted = (pitch(made[6000:-6000], frequency) for made in both(vocoders, wave.float(), 48_000))  # type: ignore[union-attr]
    assert abs(1200 * math.log2(adapted / own)) <= 5


def pitch(wave: torch.Tensor, near: float) -> float:
    """The strongest frequency within a semitone, in Hz, by parabolic interpolation of a log spectrum."""
    size = 1 << 18
    window = torch.hann_window(wave.numel(), dtype=torch.float64)
    spectrum = torch.fft.rfft(wave.double() * window, n=size).abs()
    step = 22050 / size
    low, high = round(near * 2 ** (-1 / 12) / step), round(near * 2 ** (1 / 12) / step)
    peak = low + int(spectrum[low : high + 1].argmax())
    a, b, c = (float(spectrum[peak + n].log()) for n in (-1, 0, 1))
    return (peak + 0.5 * (a - c) / (a - 2 * b + c)) * step
