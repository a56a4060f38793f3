"""Audio files in and out, by way of soundfile."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from .errors import InvalidAudioError, MissingDependencyError, OutputExistsError

if TYPE_CHECKING:
    import torch

FORMATS = (".wav", ".flac", ".ogg")
"""Endings of the audio files that can be written."""

READ = (
    ".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64", ".snd", ".w64", ".wav",
)  # fmt: skip
"""What is taken for sound in a folder. A file named by itself may have any ending."""


def read_audio(path: str | os.PathLike[str], *, max_seconds: float | None = None) -> tuple[torch.Tensor, int]:
    """An audio file as (waveform [channels, samples] of float32 in -1..1, sample rate in Hz).

    Args:
        max_seconds: no more than this is read from its beginning.

    Raises:
        InvalidAudioError: there is no such file, it is no audio, it is empty, or it holds NaN or infinity.
        MissingDependencyError: soundfile is not installed.
    """
    import torch

    soundfile = _soundfile()
    path = Path(path)
    check_is_file(path, str(path))
    place = os.fsencode(path)
    try:
        frames = -1 if max_seconds is None else max(1, round(max_seconds * soundfile.info(place).samplerate))
        samples, rate = soundfile.read(place, frames, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        reason = str(error.error_string).rstrip(".")
        raise InvalidAudioError(f"{path}: cannot be read as audio ({reason}). Use wav, flac, ogg or mp3.") from error
    wave = torch.from_numpy(samples).T.contiguous()
    if wave.shape[1] == 0:
        raise InvalidAudioError(f"{path}: holds no samples.")
    if not bool(torch.isfinite(wave).all()):
        raise InvalidAudioError(f"{path}: holds samples that are NaN or infinite.")
    return wave, rate


def write_audio(
    path: str | os.PathLike[str],
    wave: torch.Tensor,
    sample_rate: int,
    *,
    subtype: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write [channels, samples] to a file, whole or not at all.

    Args:
        path: its ending chooses the format.
        wave: float samples; what exceeds -1..1 is clipped by integer formats.
        sample_rate: in Hz.
        subtype: libsndfile's name for the encoding, such as "PCM_16" or "FLOAT"; None for the format's usual.
        overwrite: replace a file that is there.

    Raises:
        OutputExistsError: the file exists and `overwrite` is False.
        InvalidAudioError: the ending or subtype is unknown, or the folder cannot be written to.
        MissingDependencyError: soundfile is not installed.
    """
    soundfile = _soundfile()
    path = Path(path)
    check_writable(path, overwrite=overwrite)
    file_format = path.suffix[1:].upper()
    check_encoding(str(path), file_format, subtype)
    try:
        with replacing(path) as temporary:
            place, samples = os.fsencode(temporary), wave.T.cpu().numpy()
            soundfile.write(place, samples, sample_rate, format=file_format, subtype=subtype)
    except soundfile.LibsndfileError as error:
        raise InvalidAudioError(f"{path}: cannot be written ({str(error.error_string).rstrip('.')}).") from error
    except OSError as error:
        raise InvalidAudioError(f"{path}: cannot be written ({error.strerror}).") from error


def check_writable(path: Path, *, overwrite: bool) -> None:
    """See before any work is done that a result could be written there.

    Raises:
        OutputExistsError, InvalidAudioError: as `write_audio`.
    """
    if path.suffix.lower() not in FORMATS:
        what = path.suffix or "a file without ending"
        raise InvalidAudioError(f"{path}: cannot write {what}; use {', '.join(FORMATS)}.")
    check_free(path, overwrite=overwrite)


def check_free(path: Path, *, overwrite: bool) -> None:
    """See that a file could be written there as far as what is there goes.

    Raises:
        OutputExistsError: there is a file, and `overwrite` is False.
        InvalidAudioError: there is a folder.
    """
    # As it will be when the folders on the way there have been made: no/../a is a.
    there = Path(os.path.realpath(path))
    if there.is_dir():
        raise InvalidAudioError(f"{path}: is a folder; a file is to be written there.")
    if there.exists() and not overwrite:
        raise OutputExistsError(f"{path}: exists already. Use --force to overwrite it.")


def check_is_file(path: Path, name: str) -> None:
    """See that there is something to be read, and that reading it comes to an end.

    Raises:
        InvalidAudioError: it is not; `name` is what the message calls it.
    """
    if path.is_file():
        return
    if path.is_dir():
        raise InvalidAudioError(f"{name}: is a folder, not a file.")
    if path.exists():
        raise InvalidAudioError(f"{name}: is a pipe or a device, which cannot be read here; write it to a file first.")
    raise InvalidAudioError(f"{name}: there is no such file.")


def check_encoding(name: str, file_format: str, subtype: str | None) -> None:
    """See that a format has an encoding; None is its usual one.

    Raises:
        InvalidAudioError: it has not; the message begins with `name` and lists those it has.
    """
    soundfile = _soundfile()
    if subtype is not None and not soundfile.check_format(file_format.upper(), subtype):
        known = ", ".join(sorted(soundfile.available_subtypes(file_format.upper())))
        raise InvalidAudioError(f"{name}: {file_format.upper()} has no encoding {subtype!r}; it has {known}.")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place if nothing goes wrong, and vanishes if it does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _soundfile() -> ModuleType:
    try:
        import soundfile
    except ImportError as error:
        raise MissingDependencyError(
            "Reading and writing audio files needs soundfile: pip install 'distill-core[audio]'"
        ) from error
    module: ModuleType = soundfile
    return module
