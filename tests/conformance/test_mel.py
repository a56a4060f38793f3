"""Our mels against the definitions of those who trained on them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill_core.mel import MelSpec

# sampling_rate, num_mels, n_fft, hop_size, fmax of the nine published checkpoints
BIGVGAN = {
    "bigvgan_v2_44khz_128band_512x": (44100, 128, 2048, 512, None),
    "bigvgan_v2_44khz_128band_256x": (44100, 128, 1024, 256, None),
    "bigvgan_v2_24khz_100band_256x": (24000, 100, 1024, 256, None),
    "bigvgan_v2_22khz_80band_256x": (22050, 80, 1024, 256, None),
    "bigvgan_v2_22khz_80band_fmax8k_256x": (22050, 80, 1024, 256, 8000),
    "bigvgan_24khz_100band": (24000, 100, 1024, 256, 12000),
    "bigvgan_22khz_80band": (22050, 80, 1024, 256, 8000),
    "bigvgan_base_24khz_100band": (24000, 100, 1024, 256, 12000),
    "bigvgan_base_22khz_80band": (22050, 80, 1024, 256, 8000),
}


def signal(rate: int, seconds: float = 1.3) -> np.ndarray:
    """Tones, a glide, noise of two levels and digital silence, in float32."""
    rng = np.random.default_rng(rate)
    t = np.arange(int(rate * seconds)) / rate
    wave = 0.3 * np.sin(2 * np.pi * 220 * t) + 0.1 * np.sin(2 * np.pi * 300 * t * (1 + t))
    wave += np.where(t < 0.5, 1e-4, 0.05) * rng.standard_normal(t.size)
    wave[int(0.6 * rate) : int(0.8 * rate)] = 0.0
    return wave.astype(np.float32)


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize("checkpoint", BIGVGAN)
def test_nvidias_mel_spectrogram(checkpoint: str) -> None:
    meldataset = pytest.importorskip("bigvgan.meldataset", reason="NVIDIA's bigvgan is not installed")
    rate, bands, n_fft, hop, fmax = BIGVGAN[checkpoint]
    wave = torch.from_numpy(np.stack([signal(rate), signal(rate)[::-1].copy()]))
    theirs = meldataset.mel_spectrogram(wave, n_fft, bands, rate, hop, n_fft, 0, fmax)
    config = {
        "sampling_rate": rate,
        "num_mels": bands,
        "n_fft": n_fft,
        "hop_size": hop,
        "win_size": n_fft,
        "fmin": 0,
        "fmax": fmax,
    }
    spec = MelSpec.from_config(config)
    assert spec == MelSpec.preset(checkpoint)
    assert relative(spec.analyze(wave).numpy(), theirs.numpy()) <= 1e-5


@pytest.mark.parametrize("htk", [True, False])
@pytest.mark.parametrize("norm", ["slaney", None])
@pytest.mark.parametrize("power", [1.0, 2.0])
@pytest.mark.parametrize("win_length", [1024, 700])
def test_librosas_melspectrogram(htk: bool, norm: str | None, power: float, win_length: int) -> None:
    librosa = pytest.importorskip("librosa")
    wave = signal(24000)
    theirs = librosa.feature.melspectrogram(
        y=wave,
        sr=24000,
        n_fft=1024,
        hop_length=300,
        win_length=win_length,
        n_mels=40,
        fmin=50,
        fmax=11000,
        htk=htk,
        norm=norm,
        power=power,
        pad_mode="reflect",
    )
    spec = MelSpec(
        sample_rate=24000,
        n_fft=1024,
        hop_length=300,
        win_length=win_length,
        n_mels=40,
        fmin=50,
        fmax=11000,
        scale="htk" if htk else "slaney",
        norm=norm,  # type: ignore[arg-type]
        power=power,
        log=None,
        floor=0.0,
        center=True,
    )
    assert relative(spec.analyze(torch.from_numpy(wave))[0].numpy(), theirs) <= 1e-5


def torchaudio_mel(wave: np.ndarray, rate: int, n_fft: int, hop: int, bands: int, power: float) -> np.ndarray:
    """torchaudio's `MelSpectrogram` with its defaults, from its documentation alone, in numpy and float64.

    `functional.melscale_fbanks` (HTK scale, no norm): corner frequencies evenly spaced in
    2595 log10(1 + f / 700) from 0 to rate // 2, bin frequencies linspace(0, rate // 2, n_fft // 2 + 1),
    triangles max(0, min(up slope, down slope)). `Spectrogram`: periodic Hann window of n_fft, centred
    frames, reflect padding, |X| ** power.
    """
    padded = np.pad(wave.astype(np.float64), n_fft // 2, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    frames = np.stack([padded[i : i + n_fft] * window for i in range(0, padded.size - n_fft + 1, hop)])
    bins = np.abs(np.fft.rfft(frames, axis=1)) ** power
    top = 2595.0 * np.log10(1.0 + (rate // 2) / 700.0)
    corners = 700.0 * (10.0 ** (np.linspace(0.0, top, bands + 2) / 2595.0) - 1.0)
    frequencies = np.linspace(0, rate // 2, n_fft // 2 + 1)
    slopes = corners[None, :] - frequencies[:, None]
    widths = np.diff(corners)
    down = -slopes[:, :-2] / widths[:-1]
    up = slopes[:, 2:] / widths[1:]
    filters = np.maximum(0.0, np.minimum(down, up))
    return (bins @ filters).T


def test_the_apps_preset_is_torchaudios_definition_with_log1p() -> None:
    wave = signal(48000)
    theirs = np.log1p(torchaudio_mel(wave, 48000, 2048, 512, 128, 2.0))
    ours = MelSpec.preset("distill-vae").analyze(torch.from_numpy(wave))[0].numpy()
    assert ours.shape[1] == wave.size // 512 + 1
    assert relative(ours, theirs) <= 1e-5


def test_vocos_preset_is_torchaudios_definition_with_its_safe_log() -> None:
    wave = signal(24000)
    theirs = np.log(np.maximum(torchaudio_mel(wave, 24000, 1024, 256, 100, 1.0), 1e-7))
    ours = MelSpec.preset("vocos-24khz-100band").analyze(torch.from_numpy(wave.astype(np.float64)))[0].numpy()
    assert relative(ours, theirs) <= 1e-5
