"""Audio files written from Python: what goes in comes back, and what is no waveform is named."""

from __future__ import annotations

import io
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill_core.audio import check_free, read_audio, write_audio
from distill_core.corpus.batches import Extent, extent
from distill_core.corpus.blocks import Sound
from distill_core.corpus.plan import Item
from distill_core.corpus.write import UnwritableError, write
from distill_core.errors import InvalidAudioError, InvalidMelError, OutputExistsError
from distill_core.mel_files import read_mel

soundfile = pytest.importorskip("soundfile")

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


@pytest.mark.parametrize("name", ["x.wav", "x.flac"])
def test_what_exceeds_full_scale_is_clipped_by_every_encoding_that_cannot_hold_it(tmp_path: Path, name: str) -> None:
    """libsndfile clips for PCM alone; in the others, what is a little too loud came out at the other end."""
    loud = 1.2 * torch.sin(torch.linspace(0, 60, 4000))[None]
    kinds = {"x.wav": ("PCM_16", "PCM_U8", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM"), "x.flac": ("PCM_24", "PCM_S8")}
    for subtype in (None, *kinds[name]):
        write_audio(tmp_path / name, loud, 22050, subtype=subtype, overwrite=True)
        back = read_audio(tmp_path / name)[0][:, :4000]
        assert (back - loud.clamp(-1, 1)).abs().max() < 0.1, subtype
    assert loud.max() > 1.19


@pytest.mark.parametrize(
    ("name", "subtype", "bits"),
    [("x.wav", "PCM_U8", 8), ("x.wav", None, 16), ("x.wav", "PCM_24", 24), ("x.flac", None, 16)],
)
def test_integers_are_the_nearest_to_what_was_written(
    tmp_path: Path, name: str, subtype: str | None, bits: int
) -> None:
    """libsndfile rounds for FLAC, and for WAV takes the step below: half a step of offset, twice the error."""
    wave = np.random.default_rng(0).uniform(-0.9, 0.9, (1, 20_000))
    for dtype in (np.float32, np.float64):
        write_audio(tmp_path / name, wave.astype(dtype), 22050, subtype=subtype, overwrite=True)
        error = (read_audio(tmp_path / name)[0].double().numpy() - wave.astype(dtype)) * 2 ** (bits - 1)
        assert np.abs(error).max() <= 0.5
        assert abs(error.mean()) < 0.02
        write_audio(tmp_path / name, np.array([-1e-9, 1e-9, -1, 1], dtype), 22050, subtype=subtype, overwrite=True)
        assert read_audio(tmp_path / name)[0].tolist() == [[0, 0, -1, 1 - 2.0 ** (1 - bits)]]


@pytest.mark.parametrize(("subtype", "bits"), [("PCM_U8", 8), ("PCM_16", 16), ("PCM_24", 24)])
def test_what_was_read_from_integers_is_written_to_the_same(tmp_path: Path, subtype: str, bits: int) -> None:
    every = np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1), max(1, 2 ** (bits - 16))) / 2 ** (bits - 1)
    write_audio(tmp_path / "x.wav", every, 22050, subtype=subtype)
    assert np.array_equal(read_audio(tmp_path / "x.wav")[0][0].numpy(), every)


def test_what_holds_more_than_full_scale_is_given_it(tmp_path: Path) -> None:
    loud = torch.linspace(-1.5, 1.5, 400)[None]
    for subtype in ("FLOAT", "DOUBLE"):
        write_audio(tmp_path / "x.wav", loud, 22050, subtype=subtype, overwrite=True)
        assert torch.equal(read_audio(tmp_path / "x.wav")[0], loud)


def test_an_encoding_is_named_by_a_word(tmp_path: Path) -> None:
    with pytest.raises(InvalidAudioError, match="no encoding 16; it has .*PCM_16"):
        write_audio(tmp_path / "x.wav", WAVE, 22050, subtype=16)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
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
        (WAVE.double() * 1e300, 22050, ["infinite in float32"]),
        (WAVE.to("meta"), 22050, ["plain tensor", "meta"]),
        (WAVE.to_sparse(), 22050, ["plain tensor", "sparse"]),
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


def test_a_sound_that_was_cut_off_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    for name in ("x.wav", "x.mp3"):  # of which one says so at its beginning, and the other when all is read
        path = tmp_path / name
        soundfile.write(path, np.zeros(22_050), 22050)
        assert read_audio(path)[0].shape[1] == pytest.approx(22_050, abs=1200)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(InvalidAudioError, match="is cut off"):
            read_audio(path)
    with pytest.raises(InvalidAudioError, match="is cut off"):
        read_audio(tmp_path / "x.wav", max_seconds=0.1)


def test_libsndfile_is_handed_no_more_at_once_than_its_encoders_can_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its Vorbis encoder puts it on the stack: an .ogg of a minute ended the process."""
    handed: list[int] = []
    original = soundfile.SoundFile.write
    monkeypatch.setattr(
        soundfile.SoundFile, "write", lambda file, samples: handed.append(len(samples)) or original(file, samples)
    )
    wave = torch.zeros(1, 200_000)
    write_audio(tmp_path / "x.ogg", wave, 8000)
    write(tmp_path / "y.ogg", [wave], 8000, 1, name="y.ogg")
    assert max(handed) <= 1 << 16
    for name in ("x.ogg", "y.ogg"):
        assert read_audio(tmp_path / name)[0].shape == (1, 200_000)


@pytest.mark.parametrize("name", ["x.wav", "x.flac", "x.ogg"])
def test_a_file_for_whose_end_there_is_no_room_is_no_result(tmp_path: Path, name: str) -> None:
    """libsndfile does not tell where it finds no room for what an encoder kept to the end."""
    resource = pytest.importorskip("resource", reason="limits of POSIX")
    wave = torch.rand(1, 40_000, generator=torch.Generator().manual_seed(0)) - 0.5
    write_audio(tmp_path / name, wave, 22050)
    content = (tmp_path / name).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) - 100, limits[1]))
    try:
        with pytest.raises(InvalidAudioError, match="cannot be written"):
            write_audio(tmp_path / name, wave, 22050, overwrite=True)
        assert [path.name for path in tmp_path.iterdir()] == [name]
        with pytest.raises(UnwritableError, match="cannot be written"):
            write(tmp_path / "new", [wave], 22050, 1, name=name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / name).read_bytes() == content


def test_a_flac_that_was_written_to_a_pipe_is_told_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "x.flac"
    write_audio(path, WAVE, 22050)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # of the number of samples, 36 bits in all
    content[22:26] = bytes(4)
    path.write_bytes(content)
    for seconds in (None, 0.001):
        with pytest.raises(InvalidAudioError, match="does not say how long it is.* ffmpeg"):
            read_audio(path, max_seconds=seconds)
    with pytest.raises(InvalidAudioError, match="does not say how long it is"):
        Sound(path, path.name)
    assert extent(Item(str(path), "out.wav"), 0.01) == Extent(0, 0.0)  # else one file takes all of a run's time


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


def test_opus_has_rates_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(InvalidAudioError, match="OPUS holds 8000, .*48000 Hz, not 22050"):
        write_audio(tmp_path / "x.ogg", WAVE, 22050, subtype="opus")
    write_audio(tmp_path / "x.ogg", WAVE, 24000, subtype="OPUS")
    assert read_audio(tmp_path / "x.ogg")[1] == 24000


@pytest.mark.parametrize(("name", "rate"), [("x.ogg", 200_000), ("x.flac", 655_350), ("x.wav", 2**31 - 1)])
def test_what_a_format_just_holds_is_written(tmp_path: Path, name: str, rate: int) -> None:
    write_audio(tmp_path / name, torch.zeros(1, 1000), rate)
    assert read_audio(tmp_path / name)[1] == rate


def test_names_that_can_be_no_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path, words in ((tmp_path / "file" / "x.wav", "is a file and no folder"), (tmp_path / f"{'x' * 300}.wav", "")):
        with pytest.raises(InvalidAudioError, match=f"cannot be written.*{words}"):
            write_audio(path, WAVE, 22050)
    for path in (tmp_path / "new" / f"{'x' * 300}.wav", tmp_path / "new" / ("x" * 300) / "x.wav"):
        with pytest.raises(InvalidAudioError, match="cannot be written .File name too long"):
            check_free(path, overwrite=False)
    longest = tmp_path / f"{'x' * 251}.wav"
    write_audio(longest, WAVE, 22050)
    assert read_audio(longest)[1] == 22050
    with pytest.raises(InvalidAudioError, match="cannot be read"):
        read_audio(tmp_path / f"{'x' * 300}.wav")


def test_a_name_beyond_the_code_page_is_opened_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = soundfile._snd

    class Windows:
        """libsndfile as it is there: what is given as bytes is a name in the code page of the system."""

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def sf_open(self, name: bytes, mode: int, info: Any) -> Any:
            return real.sf_open(name.decode("cp1252").encode(), mode, info)

        def sf_wchar_open(self, name: str, mode: int, info: Any) -> Any:
            return real.sf_open(name.encode(), mode, info)

    path = tmp_path / "Grüße 音声.wav"
    write_audio(path, WAVE, 22050)
    monkeypatch.setattr(soundfile, "_snd", Windows())
    monkeypatch.setattr(sys, "platform", "win32")
    item = Item(str(path), str(tmp_path / "Übung.wav"))
    assert extent(item, 0.01).seconds == 400 / 22050
    with Sound(path, path.name) as sound:
        assert sound.samples == 400
    write(Path(item.output), [WAVE], 22050, 1, name=item.output)
    assert read_audio(item.output)[0].shape == (1, 400)
    write_audio(path.parent / "ß" / "é.flac", WAVE, 22050)
    assert read_audio(path.parent / "ß" / "é.flac")[0].shape == (1, 400)


@pytest.mark.parametrize("path", ["", b"x.wav", 3, None, "a\0.wav", io.BytesIO()])
def test_what_names_no_file(path: Any) -> None:
    words = "named by the path of its file" if path else "this name is empty"
    if path is None:
        words = "not by None"
    with pytest.raises(InvalidAudioError, match=words):
        read_audio(path)
    with pytest.raises(InvalidAudioError, match=words):
        write_audio(path, WAVE, 22050)
    with pytest.raises(InvalidMelError, match=words):
        read_mel(path)


@pytest.mark.parametrize(
    "seconds",
    [0, -1, float("nan"), float("inf"), "1", True, 10**400, np.array([1.0, 2.0]), torch.ones(2), [1]],
    ids=lambda each: type(each).__name__,
)
def test_a_length_that_is_none(tmp_path: Path, seconds: Any) -> None:
    write_audio(tmp_path / "x.wav", WAVE, 22050)
    with pytest.raises(InvalidAudioError, match="max_seconds must be above 0"):
        read_audio(tmp_path / "x.wav", max_seconds=seconds)
    assert read_audio(tmp_path / "x.wav", max_seconds=0.01)[0].shape == (1, 220)
    assert read_audio(tmp_path / "x.wav", max_seconds=1e300)[0].shape == (1, 400)


def test_an_archive_of_arrays_is_called_what_it_is(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", mel=np.zeros((80, 3), np.float32))
    with pytest.raises(InvalidAudioError, match=r"archive of arrays.*\.npy"):
        read_audio(tmp_path / "m.npz")


def test_no_code_in_an_array_of_objects_is_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    np.save(tmp_path / "x.npy", np.array([Bomb()], dtype=object))
    with pytest.raises(InvalidMelError, match="nothing was run"):
        read_mel(tmp_path / "x.npy")
    assert extent(Item(str(tmp_path / "x.npy"), "out.wav"), 0.01) == Extent(0, 0.0)
    assert not (tmp_path / "ran").exists()


def test_a_mel_among_other_tensors_is_the_one_that_is_called_mel(tmp_path: Path) -> None:
    mel, other = torch.rand(80, 7), torch.zeros(3)
    for name, content in (("one.pt", {"x": mel, "rate": 8000}), ("named.pt", {"x": other, "mel": mel})):
        torch.save(content, tmp_path / name)
        assert torch.equal(read_mel(tmp_path / name), mel[None])
    none: list[tuple[Any, str]] = [
        ({"x": mel, "y": other}, "it holds x, y"),
        ({"a": 1}, "it holds none"),
        ([mel], "list"),
    ]
    for content, words in none:
        torch.save(content, tmp_path / "no.pt")
        with pytest.raises(InvalidMelError, match=words):
            read_mel(tmp_path / "no.pt")


def test_a_file_that_would_run_code_is_told_in_words(tmp_path: Path) -> None:
    torch.save({"mel": np.zeros((80, 3), np.float32)}, tmp_path / "x.pt")
    torch.save(torch.nn.Linear(1, 1), tmp_path / "y.pt")
    words = r"would run code.*nothing was run.*torch\.save\(torch\.as_tensor\(mel\), path\)"
    for name in ("x.pt", "y.pt"):
        with pytest.raises(InvalidMelError, match=words) as caught:
            read_mel(tmp_path / name)
        assert "damaged" not in str(caught.value)
        assert ("numpy" if name == "x.pt" else "torch.nn.modules.linear.Linear") in str(caught.value)


def test_an_array_of_no_numbers_is_told_what_it_holds(tmp_path: Path) -> None:
    np.save(tmp_path / "words.npy", np.array(["no", "mel"]))
    with pytest.raises(InvalidMelError, match=r"numpy\.str_"):
        read_mel(tmp_path / "words.npy")


@pytest.mark.parametrize("name", ["empty.pt", "text.pt", "cut.pt", "junk.npy", "objects.npy"])
def test_no_advice_of_a_library_to_load_a_file_unsafely_is_passed_on(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "objects.npy":
        np.save(path, np.array([{}], dtype=object))
    elif name == "cut.pt":
        torch.save(torch.zeros(80, 3), path)
        path.write_bytes(path.read_bytes()[:200])
    else:
        path.write_bytes(b"" if name == "empty.pt" else b"hello \x1b[1mworld")
    with pytest.raises(InvalidMelError, match=f"{name}: cannot be read") as caught:
        read_mel(path)
    said = str(caught.value)
    for words in ("weights_only", "allow_pickle", "unsafely", "\x1b", "()"):
        assert words not in said
    assert said.endswith(("Is it damaged?", "torch.save(mel, path).", "np.save(path, mel)."))


@pytest.mark.parametrize("bomb", ["compressed", "expanded", "promised"])
def test_a_mel_file_fills_no_more_memory_than_it_has_bytes(
    tmp_path: Path, bomb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.pt"
    if bomb == "expanded":
        torch.save(torch.zeros(80, 1).expand(80, 1 << 40), path)
    elif bomb == "promised":
        torch.save(torch.zeros(80, 1000), path, _use_new_zipfile_serialization=False)
        data = path.read_bytes()
        path.write_bytes(data[: data.index(b"\x80\x02]q\x00X")] + b"\x80\x02]q\x00.")  # no numbers follow
    else:
        torch.save(torch.zeros(80, 1000), tmp_path / "plain.pt")
        with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as small:
            for name in plain.namelist():
                small.writestr(name, plain.read(name))
        for owner, name in ((torch, "load"), (zipfile.ZipFile, "open"), (zipfile.ZipFile, "read")):
            monkeypatch.setattr(owner, name, lambda *_, **__: pytest.fail("it was unpacked"))
    with pytest.raises(InvalidMelError, match=r"more numbers than|was not unpacked"):
        read_mel(path)


@pytest.mark.parametrize("mel", [torch.eye(80).to_sparse(), torch.zeros(80, 3, device="meta")], ids=["sparse", "meta"])
def test_a_mel_file_holds_its_numbers_plainly(tmp_path: Path, mel: torch.Tensor) -> None:
    torch.save(mel, tmp_path / "x.pt")
    with pytest.raises(InvalidMelError, match=r"x\.pt: a mel must be a plain tensor"):
        read_mel(tmp_path / "x.pt")


@pytest.mark.parametrize(("name", "subtype"), [("x.wav", "GSM610"), ("x.wav", "G721_32"), ("x.au", "G723_24")])
def test_encodings_of_telephones_are_read(tmp_path: Path, name: str, subtype: str) -> None:
    soundfile.write(tmp_path / name, np.sin(np.arange(3200) / 5) / 2, 8000, subtype=subtype)
    wave, rate = read_audio(tmp_path / name)
    assert rate == 8000
    assert 3200 <= wave.shape[1] < 3300  # the last block is filled up
    assert wave.abs().max() > 0.3


def test_a_flac_that_promises_more_than_memory_holds(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.flac", np.zeros(3200), 8000)
    content = bytearray((tmp_path / "x.flac").read_bytes())
    length = slice(21, 26)  # of STREAMINFO; four bits before it are of something else
    known = int.from_bytes(content[length], "big")
    content[length] = ((known >> 36 << 36) | (1 << 36) - 1).to_bytes(5, "big")
    (tmp_path / "x.flac").write_bytes(content)
    with pytest.raises(InvalidAudioError, match="promises|cannot"):
        read_audio(tmp_path / "x.flac")
    assert read_audio(tmp_path / "x.flac", max_seconds=0.1)[0].shape == (1, 800)
