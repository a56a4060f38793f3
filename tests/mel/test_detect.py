"""check_format: every mel in a wrong format is caught, none in the right one is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from distill_core.errors import MelMismatch
from distill_core.mel import MelSpec, check_format, looks_like

VAE = MelSpec.preset("distill-vae")
BIGVGAN = MelSpec.preset("bigvgan-44khz-128band-512x")
HIFIGAN = MelSpec.preset("hifigan-22khz-80band")


@pytest.fixture(scope="session")
def recorded(music_files: list[Path], speech_files: list[Path]) -> list[Path]:
    return [*music_files[:100], *speech_files]


def mel(path: Path, spec: MelSpec, level: float = 1.0) -> torch.Tensor:
    from training import recordings

    return spec.analyze(recordings.load(path, spec.sample_rate, seconds=0.7) * level)


def test_no_false_alarm_and_no_miss_on_real_mels(recorded: list[Path]) -> None:
    assert len(recorded) >= 100
    generator = torch.Generator().manual_seed(0)
    for path in recorded:
        log1p, ln = mel(path, VAE), mel(path, BIGVGAN)
        noisy = log1p + 0.05 * torch.randn(log1p.shape, generator=generator)
        for values, own, other in ((log1p, VAE, BIGVGAN), (noisy, VAE, BIGVGAN), (ln, BIGVGAN, VAE)):
            check_format(values, own)
            with pytest.raises(MelMismatch, match=f"not in the format {other.name}"):
                check_format(values, other)


def test_no_false_alarm_at_other_levels_and_in_other_formats(recorded: list[Path]) -> None:
    specs = [MelSpec.preset(name) for name in MelSpec.presets()]
    for index, path in enumerate(recorded[:40]):
        spec = specs[index % len(specs)]
        for level in (1.0, 0.1, 0.001, 0.0):
            check_format(mel(path, spec, level), spec)


@pytest.mark.parametrize("spec", [VAE, BIGVGAN, HIFIGAN])
def test_extremes_pass(spec: MelSpec) -> None:
    generator = torch.Generator().manual_seed(0)
    rate = spec.sample_rate
    for wave in (
        torch.zeros(rate),
        torch.randn(rate, generator=generator).sign(),  # as loud as noise can be
        torch.randn(rate, generator=generator) * 0.5,
        torch.sign(torch.sin(torch.arange(rate) * 0.01)),
    ):
        check_format(spec.analyze(wave), spec)
    for frames in (0, 100):  # and what many an app warms up with
        check_format(torch.zeros(1, spec.n_mels, frames), spec)


def test_the_likely_format_is_named(speech_files: list[Path]) -> None:
    with pytest.raises(MelMismatch, match="looks like distill-vae"):
        check_format(mel(speech_files[0], VAE), BIGVGAN)
    with pytest.raises(MelMismatch, match="looks like bigvgan-44khz-128band-512x"):
        check_format(mel(speech_files[0], BIGVGAN), VAE)
    # No preset of 80 bands is log1p, but what it is can be said.
    with pytest.raises(MelMismatch, match="log1p of energies"):
        check_format(mel(speech_files[0], VAE)[:, :80], HIFIGAN)


@pytest.mark.parametrize(
    ("made", "guess"),
    [
        ({"power": 2.0, "log": "log10", "floor": 1e-10}, "decibels: divided by 10"),
        ({"power": 2.0, "log": None, "floor": 0.0}, "It looks like values of which no logarithm was taken"),
        ({"power": 1.0, "log": None, "floor": 0.0}, "log1p of energies, or values of which no logarithm was taken"),
    ],
)
def test_no_format_is_guessed_whose_values_go_not_so_far(made: dict[str, Any], guess: str) -> None:
    values = replace(HIFIGAN, **made).analyze(torch.sin(torch.arange(22_050.0) * 0.1))
    if made["log"]:
        values = 10 * values
    with pytest.raises(MelMismatch, match=guess):
        check_format(values, HIFIGAN)


def test_other_representations_are_caught(speech_files: list[Path]) -> None:
    decibels = mel(speech_files[0], BIGVGAN) * 8.686
    assert not looks_like(decibels, BIGVGAN)
    scaled = (mel(speech_files[0], BIGVGAN) + 11.5) / 14
    assert not looks_like(scaled, BIGVGAN)
    assert not looks_like(VAE.analyze(torch.randn(48000)).expm1(), VAE)


def test_long_mels_are_sampled_not_read_whole() -> None:
    """A minute and a second take the same looks, from one end to the other: the time must not grow with the mel."""
    from distill_core.mel import detect

    seen = detect._sample(torch.arange(100_000.0)[None, None])
    assert 256 <= seen.numel() <= 512
    assert (seen[0], seen.diff().unique().numel()) == (0, 1) and seen[-1] > 99_600
    loud = torch.full((1, 128, 100_000), 4.0)
    with pytest.raises(MelMismatch, match="din in every band"):
        check_format(loud, BIGVGAN)


def test_a_format_whose_bands_lie_between_the_bins_holds_silence_alone() -> None:
    empty = replace(HIFIGAN, fmin=7999.0)
    assert looks_like(empty.analyze(torch.randn(1, 22_050)), empty)
    with pytest.raises(MelMismatch, match="its values go up to"):
        check_format(torch.full((1, 80, 10), 2.0), empty)


@pytest.mark.parametrize("name", ["vocos-24khz-100band", "bigvgan-44khz-128band-512x", "hifigan-22khz-80band"])
@pytest.mark.parametrize("frames", [1, 2, 200])
def test_loud_noise_is_in_its_own_format(name: str, frames: int) -> None:
    spec = MelSpec.preset(name)
    noise = torch.randn(1, 48_000, generator=torch.Generator().manual_seed(0)) * 0.4
    check_format(spec.analyze(noise.clamp(-1, 1))[..., :frames], spec)


def test_what_to_do_is_said_for_the_terminal_as_well() -> None:
    with pytest.raises(MelMismatch, match=r"mel= in Python, --mel in the terminal, Mel format in the playground"):
        check_format(VAE.analyze(0.1 * torch.randn(1, VAE.sample_rate)), BIGVGAN)
