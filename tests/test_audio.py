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


@pytest.mark.parametrize(
    ("name", "channels", "rate", "words"),
    [
        ("x.ogg", 1, 200_001, "OGG holds 200000 Hz at most, not 200001"),
        ("x.ogg", 256, 48_000, "OGG holds 255 channels at most, not 256"),
        ("x.flac", 1, 655_351, "FLAC holds 655350 Hz at most"),
        ("x.flac", 9, 48_000, "FLAC holds 8 channels at most"),
        ("x.wav", 1, 2**31, "2147483647 Hz at most"),
        ("x.wav", 1, 10**400, "2147483647 Hz at most"),
    ],
)
def test_what_a_format_cannot_hold_is_said_and_ends_no_process(
    tmp_path: Path, name: str, channels: int, rate: int, words: str
) -> None:
    with pytest.raises(InvalidAudioError, match=words):
        write_audio(tmp_path / name, torch.zeros(channels, 1000), rate)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "rate"), [("x.ogg", 200_000), ("x.flac", 655_350), ("x.wav", 2**31 - 1)])
def test_what_a_format_just_holds_is_written(tmp_path: Path, name: str, rate: int) -> None:
    write_audio(tmp_path / name, torch.zeros(1, 1000), rate)
    assert read_audio(tmp_path / name)[1] == rate


def test_names_that_can_be_no_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path, words in ((tmp_path / "file" / "x.wav", "is a file and no folder"), (tmp_path / f"{'x' * 300}.wav", "")):
        with pytest.raises(InvalidAudioError, match=f"cannot be written.*{words}"):
            write_audio(path, WAVE, 22050)
    longest = tmp_path / f"{'x' * 251}.wav"
    write_audio(longest, WAVE, 22050)
    assert read_audio(longest)[1] == 22050
    with pytest.raises(InvalidAudioError, match="cannot be read"):
        read_audio(tmp_path / f"{'x' * 300}.wav")


@pytest.mark.parametrize("path", ["", b"x.wav", 3, None])
def test_what_names_no_file(path: Any) -> None:
    with pytest.raises(InvalidAudioError, match="named by the path of its file"):
        read_audio(path)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_length_that_is_none(tmp_path: Path, seconds: float) -> None:
    write_audio(tmp_path / "x.wav", WAVE, 22050)
    with pytest.raises(InvalidAudioError, match="max_seconds must be above 0"):
        read_audio(tmp_path / "x.wav", max_seconds=seconds)
    assert read_audio(tmp_path / "x.wav", max_seconds=0.01)[0].shape == (1, 220)


def test_an_archive_of_arrays_is_called_what_it_is(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", mel=np.zeros((80, 3), np.float32))
    with pytest.raises(InvalidAudioError, match=r"archive of arrays.*\.npy"):
        read_audio(tmp_path / "m.npz")


def test_a_file_that_would_run_code_is_told_in_words(tmp_path: Path) -> None:
    torch.save({"mel": np.zeros((80, 3), np.float32)}, tmp_path / "x.pt")
    torch.save(torch.nn.Linear(1, 1), tmp_path / "y.pt")
    for name in ("x.pt", "y.pt"):
        with pytest.raises(InvalidMelError, match=r"would run code.*nothing was run.*torch\.save\(mel, path\)"):
            read_mel(tmp_path / name)
