"""Sound files written piece by piece."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from distill_core.audio import read_audio

pytest.importorskip("soundfile")

from distill_core.corpus.write import write


@pytest.mark.parametrize("subtype", [None, "PCM_16", "ULAW", "ALAW", "MS_ADPCM"])
def test_what_exceeds_full_scale_is_clipped_by_every_encoding_that_cannot_hold_it(
    tmp_path: Path, subtype: str | None
) -> None:
    loud = 1.2 * torch.sin(torch.linspace(0, 60, 4000))[None]
    write(tmp_path / "x.wav", loud.split(1500, dim=1), 22050, 1, name="x.wav", subtype=subtype)
    back = read_audio(tmp_path / "x.wav")[0][:, :4000]
    assert (back - loud.clamp(-1, 1)).abs().max() < 0.1
    assert loud.max() > 1.19


def test_what_holds_more_than_full_scale_is_given_it(tmp_path: Path) -> None:
    loud = 1.2 * torch.sin(torch.linspace(0, 60, 4000))[None]
    write(tmp_path / "x.wav", [loud], 22050, 1, name="x.wav", subtype="FLOAT")
    assert torch.equal(read_audio(tmp_path / "x.wav")[0], loud)


def test_integers_are_the_nearest_to_what_was_written(tmp_path: Path) -> None:
    wave = 0.9 * torch.rand(1, 20_000, generator=torch.Generator().manual_seed(0)) - 0.45
    write(tmp_path / "x.wav", wave.split(7000, dim=1), 22050, 1, name="x.wav")
    assert (read_audio(tmp_path / "x.wav")[0] - wave).abs().max() <= 0.5 / 32768


@pytest.mark.parametrize("channels", [1, 2])
def test_a_wav_that_might_outgrow_its_sizes_has_longer_ones(tmp_path: Path, channels: int) -> None:
    fits = (3 << 30) // (8 * channels)
    for expected, begins in ((fits, b"RIFF"), (fits + 1, b"RF64")):
        write(tmp_path / "x", [torch.zeros(channels, 9)], 8000, channels, name="x.wav", expected=expected)
        assert (tmp_path / "x").read_bytes()[:4] == begins
