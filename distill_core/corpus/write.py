"""Sound files written piece by piece, and known to be whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..audio import _soundfile, check_encoding, write_samples
from ..errors import CorpusError, InvalidAudioError

if TYPE_CHECKING:
    import torch

_RF64 = 3 << 30
"""Bytes beyond which a wav gets 64-bit sizes; plain ones end at 4 GiB."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENODEV, errno.ESTALE)


class UnwritableError(CorpusError):
    """An output could not be written; `fatal` if no other could be either."""

    def __init__(self, message: str, *, fatal: bool) -> None:
        super().__init__(message)
        self.fatal = fatal


def unwritable(name: str, error: OSError) -> UnwritableError:
    """What the system said when an output was to be written."""
    return UnwritableError(f"{name}: cannot be written ({error.strerror or error}).", fatal=error.errno in _FULL)


def check_subtype(subtype: str | None) -> None:
    """See that an encoding exists at all; whether a format has it is seen in `write`.

    Raises:
        InvalidAudioError: it does not; the message lists those that do.
    """
    known = _soundfile().available_subtypes()
    if subtype is not None and subtype.upper() not in known:
        raise InvalidAudioError(f"There is no encoding {subtype!r}; there are {', '.join(sorted(known))}.")


def write(
    path: Path,
    pieces: Iterable[torch.Tensor],
    sample_rate: int,
    channels: int,
    *,
    name: str,
    subtype: str | None = None,
    expected: int = 0,
) -> int:
    """Write pieces [channels, n] to a new file, and see that it is all there.

    Args:
        path: where to.
        name: what the file will be called: its ending chooses the format.
        subtype: libsndfile's name for the encoding; None for the format's usual.
        expected: samples that will come, as far as known.

    Returns:
        How many samples, of each channel.

    Raises:
        InvalidAudioError: the format has no such encoding, or cannot hold so many channels or such a rate; or there
            is nothing to write.
        UnwritableError: the file could not be written.
    """
    soundfile = _soundfile()
    file_format = os.path.splitext(name)[1][1:].upper()
    check_encoding(name, file_format, subtype, channels=channels, sample_rate=sample_rate)
    if file_format == "WAV" and expected * channels * 8 > _RF64:
        file_format = "RF64"
    samples = (piece.T.cpu().numpy() for piece in pieces)
    try:
        written = write_samples(path, samples, sample_rate, channels, file_format, subtype)
        if not written:
            raise InvalidAudioError(f"{name}: at {sample_rate} Hz not one sample is left to write.")
    except (soundfile.LibsndfileError, AssertionError, OSError) as error:
        failure = _failure(path.parent)
        if failure is not None:
            raise unwritable(name, failure) from error
        reason = str(getattr(error, "error_string", None) or error or "it came out cut off").rstrip(".")
        raise InvalidAudioError(f"{name}: cannot be written ({reason}).") from error
    return written


def _failure(folder: Path) -> OSError | None:
    """Why nothing can be written to a folder, or None if something can: libsndfile does not tell."""
    probe = folder / f".{os.getpid()}-{os.urandom(6).hex()}.part"
    try:
        with probe.open("wb", buffering=0) as file:
            for _ in range(16):
                if file.write(bytes(1 << 16)) < 1 << 16:
                    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        return error
    finally:
        probe.unlink(missing_ok=True)
    return None
