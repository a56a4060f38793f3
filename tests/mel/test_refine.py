"""Which of the two refinements is asked, and what there is to see around a frame."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from distill_core.mel import MelAdapter, MelSpec, refine

VAE, BIGVGAN = MelSpec.preset("distill-vae"), MelSpec.preset("bigvgan-44khz-128band-512x")


def noisy(mel: torch.Tensor, sigma: float) -> torch.Tensor:
    noise = torch.randn(mel.shape, generator=torch.Generator().manual_seed(5))
    return (mel + sigma * noise).clamp(min=0.0)


@pytest.fixture
def shares(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The share of noise in each frame that was converted, filled as adapters run."""
    found: list[torch.Tensor] = []
    plain = refine.Refinement.forward

    def forward(self: refine.Refinement, seen: refine.Seen, phase: torch.Tensor) -> torch.Tensor:
        found.append(seen.noise)
        return plain(self, seen, phase)

    monkeypatch.setattr(refine.Refinement, "forward", forward)
    return found


@pytest.mark.parametrize(("sigma", "share"), [(0.0, 0.0), (1e-6, 0.0), (0.01, 1.0), (0.02, 1.0), (0.05, 1.0)])
def test_noise_is_told_from_speech(
    speech_files: list[Path], shares: list[torch.Tensor], sigma: float, share: float
) -> None:
    from training import recordings

    adapter = MelAdapter(VAE, BIGVGAN)
    for path in speech_files:
        adapter(noisy(VAE.analyze(recordings.load(path, VAE.sample_rate)), sigma))
    assert torch.cat(shares).eq(share).float().mean() > 0.97


def test_a_frame_between_the_two_is_the_same_in_any_slice(
    speech_files: list[Path], shares: list[torch.Tensor]
) -> None:
    from training import recordings

    mel = noisy(VAE.analyze(recordings.load(speech_files[0], VAE.sample_rate)), 8e-4)
    adapter = MelAdapter(VAE, BIGVGAN)
    whole = adapter(mel)
    assert ((shares[0] > 0.05) & (shares[0] < 0.95)).sum() > 20
    frames = mel.shape[-1]
    for start in range(0, whole.shape[-1], 13):
        stop = min(start + 13, whole.shape[-1])
        lo, hi = adapter.window(start, stop, frames)
        part = adapter.convert(mel[:, :, lo:hi], offset=lo, start=start, stop=stop, total=frames)
        torch.testing.assert_close(part, whole[:, :, start:stop], rtol=0, atol=2e-5)


@pytest.mark.parametrize("frames", [3, 10, 40])
def test_what_stands_still_beyond_the_ends_does_not_hide_the_noise(frames: int, shares: list[torch.Tensor]) -> None:
    """Before the first frame a mel is taken to be as it is there, which makes it no steadier."""
    MelAdapter(VAE, BIGVGAN)(noisy(torch.zeros(1, 128, frames), 0.02))
    assert torch.cat(shares).eq(1.0).all()


def test_means_are_of_what_is_there() -> None:
    values = torch.rand(1, 4, 30, generator=torch.Generator().manual_seed(1))
    padded = torch.cat([values[..., :1].expand(-1, -1, 200), values], dim=-1)
    fresh = refine._fresh(padded)
    assert fresh.sum() == 29
    index = torch.tensor([[200 + 29 - refine.AFTER]])
    means = refine._means(padded, fresh, index)[0]
    torch.testing.assert_close(means[refine._LONGEST], values[0, :, 1:].mean(dim=-1), rtol=0, atol=4e-3)


@pytest.mark.parametrize(
    ("sigma", "expected"), [(0.0, [-2.846, -8.767, -3.403, -4.596]), (0.05, [-2.796, -6.384, -3.295, -4.491])]
)
def test_the_networks_are_shown_what_they_were_trained_on(sigma: float, expected: list[float]) -> None:
    """What is shown in another way makes their weights worth less, mostly by too little for a test of the sound.

    Weights that are trained anew give other numbers.
    """
    band, frame = torch.arange(128.0, dtype=torch.float64)[:, None], torch.arange(200.0, dtype=torch.float64)
    mel = (1.0 + torch.sin(band / 9 + frame / 50) + 0.5 * torch.sin(band / 2 - frame / 90)).clamp(min=0.0)
    made = MelAdapter(VAE, BIGVGAN)(noisy(mel[None].float(), sigma))
    torch.testing.assert_close(made[0, 10::30, 60], torch.tensor(expected), rtol=0, atol=5e-3)


def test_the_bands_beside_a_band_lie_on_either_side_of_it() -> None:
    bands = torch.arange(float(VAE.n_mels))
    below, at, above = (refine.warp_matrix(VAE, BIGVGAN, shift) @ bands for shift in refine.BESIDE)
    inner = (at > 1) & (at < VAE.n_mels - 2)
    assert inner.sum() > 100
    torch.testing.assert_close(below[inner], at[inner] - 1)
    torch.testing.assert_close(above[inner], at[inner] + 1)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_mel_that_stands_still_has_no_noise(value: float, shares: list[torch.Tensor]) -> None:
    made = MelAdapter(VAE, BIGVGAN)(torch.full((1, VAE.n_mels, 40), value))
    assert made.isfinite().all()
    assert torch.cat(shares).eq(0.0).all()


def test_a_refinement_that_is_not_there_is_missed_aloud(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As in an app that was frozen without the data files."""
    monkeypatch.setattr(refine, "WEIGHTS", dict.fromkeys(refine.WEIGHTS, "left-behind.safetensors"))
    refine.load.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, "distill_core"):
            assert not MelAdapter(VAE, BIGVGAN).refined
    finally:
        refine.load.cache_clear()
    assert "left-behind.safetensors is missing" in caplog.text
