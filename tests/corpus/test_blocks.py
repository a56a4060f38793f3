"""A sound analysed block by block is the sound analysed as a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from distill_core import MelSpec
from distill_core.corpus.blocks import Sound, analyze_blocks, cut
from distill_core.errors import InvalidAudioError
from distill_core.resample import resample
from tests import toy

soundfile = pytest.importorskip("soundfile")

CENTRED = MelSpec(16000, 512, 160, 400, 40, 0.0, None, "slaney", "slaney", 2.0, "log10", 1e-10, True)
ODD = MelSpec(16000, 512, 125, 512, 30, 0.0, None, "slaney", "slaney", 1.0, "ln", 1e-5, False)


def whole(wave: torch.Tensor, rate: int, spec: MelSpec) -> torch.Tensor:
    """What `resynthesis.analyze` makes of it, in steps of its own."""
    wave = resample(wave, rate, spec.sample_rate)
    samples = wave.shape[1]
    length = max(-(-samples // spec.hop_length) * spec.hop_length, spec.padding + 1)
    while spec.frames(length) * spec.hop_length < samples:
        length += 1
    return spec.analyze(torch.nn.functional.pad(wave, (0, length - samples)))


@pytest.mark.parametrize(
    "spec", [toy.MEL, CENTRED, ODD, MelSpec.preset("hifigan-22khz-80band")], ids=lambda s: s.n_mels
)
@pytest.mark.parametrize("rate", [8000, 44100])
@pytest.mark.parametrize("samples", [1, 63, 1000, 160_000])
def test_blocks_of_any_size_give_the_mel_of_the_whole(spec: MelSpec, rate: int, samples: int) -> None:
    generator = torch.Generator().manual_seed(samples)
    wave = 0.1 * torch.randn(2, samples, generator=generator)
    want = whole(wave, rate, spec)
    for size in (997, 20_000, 1 << 20):
        pieces = list(analyze_blocks(iter(wave.split(size, dim=1)), rate, spec))
        assert all(piece.shape[-1] for piece in pieces)
        got = torch.cat(pieces, dim=-1)
        assert got.shape == want.shape
        assert (got - want).abs().max() < 1e-4
        if samples > 100_000 and size < samples:
            assert len(pieces) > 1  # else nothing was shown


@pytest.mark.parametrize("samples", [5, 30_000, 99_999, 100_000, 100_007, 140_000])
def test_the_end_is_cut_or_filled_whatever_the_pieces(samples: int) -> None:
    wave = torch.arange(100_000.0)[None]
    got = torch.cat(list(cut(wave.split(7001, dim=1), lambda: samples)), dim=1)
    if samples < 100_000 - (1 << 15):
        assert got.shape[1] >= samples  # the true end is always nearer than what is held back
    else:
        assert torch.equal(got, torch.nn.functional.pad(wave, (0, samples - 100_000)))


def test_samples_are_those_that_were_there(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, (3000, 8)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 192_000, subtype="FLOAT")
    with Sound(tmp_path / "a.wav", "a.wav") as sound:
        assert (sound.samples, sound.channels, sound.sample_rate) == (3000, 8, 192_000)
        assert np.array_equal(sound.whole().T.numpy(), wave)


@pytest.mark.parametrize("kind", ["wav", "aiff", "au", "w64", "flac", "mp3"])
def test_a_file_that_was_cut_off_is_told_from_a_whole_one(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 48_000)
    soundfile.write(path, wave, 48_000)
    with Sound(path, str(path)) as sound:
        assert abs(sound.whole().shape[1] - 48_000) < 4096
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(InvalidAudioError, match=r"cut off|cannot be read"), Sound(path, str(path)) as sound:
        sound.whole()


def test_a_recorder_that_did_not_know_the_end_wrote_no_broken_file(tmp_path: Path) -> None:
    path = tmp_path / "streamed.wav"
    soundfile.write(path, np.full(20_000, 0.1), 48_000)
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff" * 4
    path.write_bytes(content)
    with Sound(path, str(path)) as sound:
        assert sound.whole().shape == (1, 20_000)
