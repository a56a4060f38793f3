"""Audio files written from Python: what goes in comes back, and what is no waveform is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill_core.audio import read_audio, write_audio
from distill_core.errors import InvalidAudioError, InvalidMelError, OutputExistsError
from distill_core.mel_files import read_mel

WAVE = torch.linspace(-0.5, 0.5, 400).reshape(1, 400)


@pytest.mark.parametrize(
    "wave",
    [
        WAVE,
        WAVE[0],
        WAVE[None],
        WAVE.double(),
        WAVE.clone().requires_grad_(),
        WAVE.numpy(),
        WAVE.numpy()[:, ::-1].copy()[:, ::-1],
        WAVE.numpy().astype(">f8"),
    ],
    ids=["as documented", "one channel", "as a vocoder makes it", "double", "grad", "numpy", "backwards", "big-endian"],
)
def test_what_is_written_is_read(tmp_path: Path, wave: Any) -> None:
    write_audio(tmp_path / "x.wav", wave, 22050.0, subtype="FLOAT")  # type: ignore[arg-type]
    back, rate = read_audio(tmp_path / "x.wav")
    assert (rate, back.shape) == (22050, (1, 400))
    assert torch.equal(back, WAVE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_written(tmp_path: Path, dtype: torch.dtype) -> None:
    write_audio(tmp_path / "x.wav", WAVE.to(dtype), 22050, subtype="FLOAT")
    assert torch.equal(read_audio(tmp_path / "x.wav")[0], WAVE.to(dtype).float())


@pytest.mark.parametrize(
    ("wave", "rate", "words"),
    [
        (WAVE.expand(3, 1, 400), 22050, ["batch of 3", "wave[i]"]),
        (torch.zeros(1, 1, 1, 400), 22050, ["[channels, samples]", "[1, 1, 1, 400]"]),
        (torch.zeros(0, 400), 22050, ["[0, 400]"]),
        (torch.zeros(5000, 2), 22050, ["5000 channels", "wave.T"]),
        (WAVE.mul(100).int(), 22050, ["int32", "32768"]),
        (WAVE * float("nan"), 22050, ["NaN"]),
        ("x", 22050, ["str"]),
        (None, 22050, ["NoneType"]),
        (WAVE, 22050.5, ["sample_rate", "22050.5"]),
        (WAVE, "22050", ["sample_rate", "'22050'"]),
        (WAVE, 0, ["sample_rate", "0"]),
        (WAVE, None, ["sample_rate", "None"]),
    ],
)
def test_what_is_no_waveform_is_named_and_nothing_is_written(
    tmp_path: Path, wave: Any, rate: Any, words: list[str]
) -> None:
    with pytest.raises(InvalidAudioError) as caught:
        write_audio(tmp_path / "x.wav", wave, rate)
    for word in ["x.wav", *words]:
        assert word in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_stays_and_the_message_says_how_to_replace_it(tmp_path: Path) -> None:
    write_audio(tmp_path / "x.wav", WAVE, 22050)
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        write_audio(tmp_path / "x.wav", WAVE[:, :10], 22050)
    assert read_audio(tmp_path / "x.wav")[0].shape == (1, 400)
    write_audio(tmp_path / "x.wav", WAVE[:, :10], 22050, overwrite=True)
    assert read_audio(tmp_path / "x.wav")[0].shape == (1, 10)


def test_a_mel_may_be_stored_in_any_order_of_bytes(tmp_path: Path) -> None:
    mel = np.random.default_rng(0).standard_normal((1, 80, 7)).astype(np.float32)
    np.save(tmp_path / "x.npy", mel.astype(">f4"))
    assert torch.equal(read_mel(tmp_path / "x.npy"), torch.from_numpy(mel))


def test_a_folder_is_not_called_missing(tmp_path: Path) -> None:
    (tmp_path / "x.npy").mkdir()
    with pytest.raises(InvalidMelError, match="is a folder"):
        read_mel(tmp_path / "x.npy")
    with pytest.raises(InvalidMelError, match="no such file"):
        read_mel(tmp_path / "y.npy")
