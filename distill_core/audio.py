"""Audio files in and out, by way of soundfile."""

from __future__ import annotations

import errno
import math
import os
import re
import secrets
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .errors import DistillError, InvalidAudioError, MissingDependencyError, OutputExistsError
from .resample import MAX_RATE, checked_rate

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

FORMATS = (".wav", ".flac", ".ogg")
"""Endings of the audio files that can be written."""

_MAX_CHANNELS = 1024  # libsndfile's

_HOLDS = {"OGG": (255, 200_000), "FLAC": (8, 655_350)}
"""Channels and Hz that a format holds at most; beyond, libsndfile's Vorbis ends the process. Others: as libsndfile."""

_HOLDS_MORE = ("FLOAT", "DOUBLE", "VORBIS", "OPUS")
"""Encodings that hold samples beyond -1..1."""

_STEPS = {"PCM_U8": 1 << 7, "PCM_S8": 1 << 7, "PCM_16": 1 << 15, "PCM_24": 1 << 23}
"""From 0 to full scale in integers that are shorter than float32's digits reach."""

_OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
"""All that Opus can be, in Hz."""

READ = (
    ".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64", ".snd", ".w64", ".wav",
)  # fmt: skip
"""What is taken for sound in a folder. A file named by itself may have any ending."""

_PROMISED = re.compile(r"(\d+) \(should be (\d+)\)")
"""libsndfile's words on the sizes in a header of which less is in the file."""
_SLACK = 4096
"""Bytes, or samples, that a sloppy header may promise too much."""
_STREAMED = 0x7FFF0000
"""Sizes from here on are what is written into the header of a stream whose end is not known."""
_UNKNOWN = 1 << 60

_PIECE = 1 << 16
"""Samples handed to libsndfile at once; its Vorbis encoder overflows the stack with millions."""


def read_audio(path: str | os.PathLike[str], *, max_seconds: float | None = None) -> tuple[torch.Tensor, int]:
    """An audio file as (waveform [channels, samples] of float32, full scale at 1, sample rate in Hz).

    Files of floats, and lossy ones, may hold samples beyond -1..1; they are left as they are.

    Args:
        max_seconds: no more than this is read from its beginning.

    Raises:
        InvalidAudioError: there is no such file, it is no audio, it is empty or was cut off, its header does not say
            how long it is, or it holds NaN or infinity; or `max_seconds` is no length.
        MissingDependencyError: soundfile is not installed.
    """
    import torch

    soundfile = _soundfile()
    path = path_of(path, "A sound")
    most = None if max_seconds is None else _checked_seconds(max_seconds, f"{path}: max_seconds")
    check_is_sound(path, str(path))
    try:
        with soundfile.SoundFile(for_libsndfile(path)) as file:
            rate, promised = file.samplerate, file.frames
            check_header(file, str(path))
            # Of encodings in which libsndfile cannot seek, as telephones use, soundfile wants to be told how many.
            frames = promised if most is None else max(1, round(min(most * rate, promised)))
            samples = file.read(frames, dtype="float32", always_2d=True)
    except MemoryError as error:
        raise InvalidAudioError(
            f"{path}: its header promises {promised} times {file.channels} samples, more than memory holds. Is it "
            "damaged? max_seconds reads its beginning."
        ) from error
    except soundfile.LibsndfileError as error:
        reason = str(error.error_string).rstrip(".")
        raise InvalidAudioError(f"{path}: cannot be read as audio ({reason}). Use wav, flac, ogg or mp3.") from error
    wave = torch.from_numpy(samples).T.contiguous()
    if wave.shape[1] == 0:
        raise InvalidAudioError(f"{path}: holds no samples.")
    if most is None:
        check_length(wave.shape[1], promised, str(path))
    if not bool(torch.isfinite(wave).all()):
        raise InvalidAudioError(f"{path}: holds samples that are NaN or infinite.")
    return wave, rate


def write_audio(
    path: str | os.PathLike[str],
    wave: torch.Tensor | NDArray[Any],
    sample_rate: int,
    *,
    subtype: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write a waveform to a file, whole or not at all.

    Args:
        path: its ending chooses the format.
        wave: [channels, samples], [samples], or [1, 1, samples] as a vocoder makes it; floating point, full scale
            at 1: integer formats hold the nearest step, and what exceeds -1..1 is clipped.
        sample_rate: in Hz.
        subtype: libsndfile's name for the encoding, such as "PCM_16" or "FLOAT"; None for the format's usual.
        overwrite: replace a file that is there.

    Raises:
        OutputExistsError: the file exists and `overwrite` is False.
        InvalidAudioError: the path, waveform or sample rate is none, the ending or subtype is unknown, the format
            cannot hold so many channels or such a rate, the folder cannot be written to, or the disk is full.
        MissingDependencyError: soundfile is not installed.
    """
    soundfile = _soundfile()
    path = path_of(path, "A sound")
    samples, sample_rate = _writable_samples(path, wave), checked_rate(sample_rate, f"{path}: sample_rate")
    check_writable(path, overwrite=overwrite, force="overwrite=True")
    file_format = path.suffix[1:].upper()
    channels = samples.shape[1]
    check_encoding(str(path), file_format, subtype, channels=channels, sample_rate=sample_rate)
    try:
        with replacing(path) as temporary:
            write_samples(temporary, [samples], sample_rate, channels, file_format, subtype)
    except soundfile.LibsndfileError as error:
        raise InvalidAudioError(f"{path}: cannot be written ({str(error.error_string).rstrip('.')}).") from error
    except OSError as error:
        raise InvalidAudioError(f"{path}: cannot be written ({error.strerror}).") from error


def path_of(name: Any, what: str, error: type[DistillError] = InvalidAudioError) -> Path:
    """The path of a file that is read or written; `what` is what the message calls the file.

    Raises:
        InvalidAudioError, or what `error` says: it is none.
    """
    given = os.fspath(name) if isinstance(name, os.PathLike) else name
    if given == "":
        raise error(f"{what} is named by the path of its file; this name is empty.")
    if not isinstance(given, str) or "\0" in given:
        raise error(f"{what} is named by the path of its file, not by {name!r}.")
    return Path(given)


def _checked_seconds(seconds: Any, name: str) -> float:
    try:
        value = math.nan if isinstance(seconds, bool | str) else float(seconds)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        value = math.nan
    if not 0 < value < math.inf:
        raise InvalidAudioError(f"{name} must be above 0, or None for all, not {seconds!r}.")
    return value


def _writable_samples(path: Path, wave: Any) -> NDArray[Any]:
    """[samples, channels] in float32 or float64."""
    import torch

    from .arrays import check_plain, check_unmasked, tensor_of

    check_unmasked(wave, f"{path}: a waveform", InvalidAudioError)
    check_plain(wave, f"{path}: a waveform", InvalidAudioError)
    try:
        audio = wave.detach() if isinstance(wave, torch.Tensor) else tensor_of(wave)
    except (TypeError, ValueError) as error:
        raise InvalidAudioError(f"{path}: a {type(wave).__name__} is no waveform [channels, samples].") from error
    shape = list(audio.shape)
    if not audio.dtype.is_floating_point:
        raise InvalidAudioError(
            f"{path}: a waveform must be floating point with full scale at 1, not {audio.dtype}. "
            "Divide 16-bit samples by 32768."
        )
    if audio.ndim == 3 and shape[0] > 1:
        raise InvalidAudioError(f"{path}: {shape} is a batch of {shape[0]} waveforms: write one file of each, wave[i].")
    if audio.ndim == 3:
        audio = audio[0]
    elif audio.ndim == 1:
        audio = audio[None]
    if audio.ndim != 2 or audio.shape[0] == 0:
        raise InvalidAudioError(f"{path}: a waveform must have shape [channels, samples], not {shape}.")
    if audio.shape[0] > _MAX_CHANNELS:
        hint = " It looks transposed: wave.T." if audio.shape[1] <= _MAX_CHANNELS else ""
        raise InvalidAudioError(f"{path}: {shape} has {audio.shape[0]} channels, [channels, samples].{hint}")
    if not bool(torch.isfinite(audio.float()).all()):
        raise InvalidAudioError(
            f"{path}: the waveform holds samples that are NaN or infinite in float32; nothing was written."
        )
    samples: NDArray[Any] = (audio if audio.dtype == torch.float64 else audio.float()).T.cpu().numpy()
    return samples


def check_writable(path: Path, *, overwrite: bool, force: str = "--force") -> None:
    """See before any work is done that a result could be written there.

    Raises:
        OutputExistsError, InvalidAudioError: as `write_audio`.
    """
    if path.suffix.lower() not in FORMATS:
        what = path.suffix or "a file without ending"
        raise InvalidAudioError(f"{path}: cannot write {what}; use {', '.join(FORMATS)}.")
    check_free(path, overwrite=overwrite, force=force)
    check_folder(path)


def check_free(path: Path, *, overwrite: bool, force: str = "--force") -> None:
    """See that a file could be written there as far as what is there goes.

    Raises:
        OutputExistsError: there is a file, and `overwrite` is False; `force` is how one would say otherwise.
        InvalidAudioError: there is a folder, or can be no file of this name.
    """
    # As it will be when the folders on the way there have been made: no/../a is a.
    there = Path(os.path.realpath(path))
    try:
        exists, is_folder = there.exists(), there.is_dir()
        above = next(parent for parent in there.parents if parent.exists())
    except OSError as error:
        raise InvalidAudioError(f"{path}: cannot be written ({error.strerror}).") from error
    if is_folder:
        raise InvalidAudioError(f"{path}: is a folder; a file is to be written there.")
    if not above.is_dir():
        raise InvalidAudioError(f"{path}: cannot be written, for {above} is a file and no folder.")
    for part in there.relative_to(above).parts:  # whether it may be a name is only said where there is a folder
        try:
            (above / part).lstat()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise InvalidAudioError(f"{path}: cannot be written ({error.strerror}).") from error
    if exists and not overwrite:
        raise OutputExistsError(f"{path}: exists already. Use {force} to overwrite it.")


def check_folder(path: Path) -> None:
    """See that something may be put into the folder that a file belongs in, or that this folder is made in.

    Raises:
        InvalidAudioError: it may not.
    """
    above = next(parent for parent in Path(os.path.realpath(path)).parents if parent.exists())
    if not os.access(above, os.W_OK):
        raise InvalidAudioError(f"{path}: cannot be written, for nothing may be put into {above}.")


def check_is_file(path: Path, name: str, error: type[DistillError] = InvalidAudioError) -> None:
    """See that there is something to be read, and that reading it comes to an end.

    Raises:
        InvalidAudioError, or what `error` says: it is not; `name` is what the message calls it.
    """
    try:
        if path.is_file():
            return
    except OSError as problem:
        raise error(f"{name}: cannot be read ({problem.strerror}).") from problem
    if path.is_dir():
        raise error(f"{name}: is a folder, not a file.")
    if path.exists():
        raise error(f"{name}: is a pipe or a device, which cannot be read here; write it to a file first.")
    raise error(f"{name}: there is no such file.")


def check_is_sound(path: Path, name: str) -> None:
    """See that there is a file, and none that is known to be no sound.

    Raises:
        InvalidAudioError: there is none, or it is a mel or numpy's archive; `name` is what the message calls it.
    """
    from .mel_files import FORMATS as MELS

    check_is_file(path, name)
    if name.lower().endswith(MELS):
        raise InvalidAudioError(f"{name}: is a mel by its name; a recording is wanted here, a wav, flac, ogg or mp3.")
    if name.lower().endswith(".npz"):
        raise InvalidAudioError(
            f"{name}: is an archive of arrays, no sound. A mel is read from .npy (np.save writes one), .pt or "
            ".safetensors."
        )


def encodable(samples: NDArray[Any], file_format: str, subtype: str | None) -> NDArray[Any]:
    """Samples of any shape as libsndfile should be given them for an encoding, None for the format's usual.

    Clipped to -1..1 where it does not hold more: libsndfile clips for PCM alone, other encodings wrap around. And
    rounded to the steps of PCM: in a wav, libsndfile takes the step below, which lowers all by half a step on
    average, makes the error four times as large in power, and of silence that is not quite 0 makes noise.
    """
    kind = (subtype or _soundfile().default_subtype(file_format)).upper()
    if kind in _HOLDS_MORE:
        return samples
    samples = samples.clip(-1.0, 1.0)
    steps = _STEPS.get(kind)
    return samples if steps is None else (samples * steps).round() / steps


def write_samples(
    path: Path,
    pieces: Iterable[NDArray[Any]],
    sample_rate: int,
    channels: int,
    file_format: str,
    subtype: str | None,
) -> int:
    """Write pieces [samples, channels] to a new file, and see that they are all there.

    Returns:
        How many samples, of each channel.

    Raises:
        LibsndfileError, AssertionError: libsndfile cannot write them.
        OSError: what it wrote is not all there; of a disk that is full it need not tell.
    """
    soundfile = _soundfile()
    written = 0
    with soundfile.SoundFile(
        for_libsndfile(path), "w", sample_rate, channels, subtype=subtype, format=file_format
    ) as sound:
        for piece in pieces:
            for start in range(0, len(piece), _PIECE):
                sound.write(encodable(piece[start : start + _PIECE], file_format, subtype))
            written += len(piece)
    # There are more in encodings of blocks, whose last is filled up. A FLAC that could not be ended says no number.
    if written and not written <= soundfile.info(for_libsndfile(path)).frames < _UNKNOWN:
        raise OSError(errno.EIO, "less came to be in the file than was written to it")
    return written


def check_header(file: Any, name: str) -> None:
    """See that a header says how much is in a soundfile.SoundFile, and that as much is there.

    Raises:
        InvalidAudioError: it does not, or it was cut off; `name` is what the message calls it.
    """
    if file.frames >= _UNKNOWN:
        raise InvalidAudioError(
            f"{name}: its header does not say how long it is, as of a FLAC that was written to a pipe or is cut off. "
            "Write it again to a file: ffmpeg -i does that."
        )
    for promised, there in _PROMISED.findall(file.extra_info):
        if int(there) + _SLACK < int(promised) < _STREAMED:
            raise InvalidAudioError(f"{name}: is cut off: its header promises {promised} bytes, {there} are there.")


def check_length(read: int, promised: int, name: str) -> None:
    """See that about as many samples were in a file as it promised.

    Raises:
        InvalidAudioError: it was cut off; `name` is what the message calls it.
    """
    # Decoders of mp3 estimate the length; one that is off by more than 2 % was told of more than there is.
    if read + max(_SLACK, promised // 50) < promised:
        raise InvalidAudioError(f"{name}: is cut off: of {promised} samples, {read} are there.")


def check_encoding(
    name: str, file_format: str, subtype: str | None, *, channels: int = 1, sample_rate: int | None = None
) -> None:
    """See that a format has an encoding, None being its usual one, and room for so many channels and Hz.

    Raises:
        InvalidAudioError: it has not; the message begins with `name` and says what it has.
    """
    soundfile = _soundfile()
    most, fastest = _HOLDS.get(file_format.upper(), (_MAX_CHANNELS, MAX_RATE))
    if channels > most:
        raise InvalidAudioError(f"{name}: {file_format.upper()} holds {most} channels at most, not {channels}.")
    if sample_rate is not None and sample_rate > fastest:
        raise InvalidAudioError(f"{name}: {file_format.upper()} holds {fastest} Hz at most, not {sample_rate}.")
    if sample_rate is not None and str(subtype).upper() == "OPUS" and sample_rate not in _OPUS_RATES:
        listed = ", ".join(map(str, _OPUS_RATES))
        raise InvalidAudioError(f"{name}: OPUS holds {listed} Hz, not {sample_rate}; choose one as the sample rate.")
    if subtype is not None and not (isinstance(subtype, str) and soundfile.check_format(file_format.upper(), subtype)):
        known = ", ".join(sorted(soundfile.available_subtypes(file_format.upper())))
        raise InvalidAudioError(f"{name}: {file_format.upper()} has no encoding {subtype!r}; it has {known}.")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place if nothing goes wrong, and vanishes if it does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def for_libsndfile(path: str | os.PathLike[str]) -> str | bytes:
    """A path as soundfile opens it, whatever is in the name.

    As bytes, which need not be text and do not depend on the locale; but Windows takes bytes for its code page's.
    """
    return os.fspath(path) if sys.platform == "win32" else os.fsencode(path)


def _soundfile() -> ModuleType:
    try:
        import soundfile
    except ImportError as error:
        raise MissingDependencyError(
            "Reading and writing audio files needs soundfile: pip install 'distill-core[audio]'"
        ) from error
    module: ModuleType = soundfile
    return module
