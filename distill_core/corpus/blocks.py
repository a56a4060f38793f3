"""A sound too long to hold, block by block: read, analysed, vocoded and written in constant memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..audio import _soundfile
from ..errors import InvalidAudioError
from ..resample import Resampler

if TYPE_CHECKING:
    import soundfile

    from ..mel.spec import MelSpec

BLOCK = 1 << 20
"""Samples of all channels together that are read at once."""


@contextmanager
def opened(path: Path, name: str) -> Iterator[soundfile.SoundFile]:
    """A sound file, to be read.

    Raises:
        InvalidAudioError: there is none, it is none, or it has no samples; `name` is what it is called.
    """
    soundfile = _soundfile()
    try:
        sound = soundfile.SoundFile(os.fsencode(path))
    except soundfile.LibsndfileError as error:
        if not path.is_file():
            raise InvalidAudioError(f"{name}: there is no such file.") from error
        reason = str(error.error_string).rstrip(".")
        raise InvalidAudioError(f"{name}: cannot be read as audio ({reason}). Use wav, flac, ogg or mp3.") from error
    with sound:
        if sound.frames == 0:
            raise InvalidAudioError(f"{name}: holds no samples.")
        yield sound


def read_whole(sound: soundfile.SoundFile, name: str) -> torch.Tensor:
    """All of a sound file: [channels, samples].

    Raises:
        InvalidAudioError: as `read_blocks`.
    """
    return torch.cat(list(read_blocks(sound, name)), dim=1)


def read_blocks(file: soundfile.SoundFile, name: str) -> Iterator[torch.Tensor]:
    """An open sound file as blocks [channels, samples] of float32.

    Raises:
        InvalidAudioError: NaN or infinity in one of them, or fewer samples than the header says.
    """
    read = 0
    size = max(1, BLOCK // file.channels)
    while True:
        try:
            block = file.read(size, dtype="float32", always_2d=True)
        except _soundfile().LibsndfileError as error:
            reason = str(error.error_string).rstrip(".")
            raise InvalidAudioError(f"{name}: breaks off after {read} samples ({reason}).") from error
        if len(block) == 0:
            break
        wave = torch.from_numpy(block).T.contiguous()
        if not bool(torch.isfinite(wave).all()):
            raise InvalidAudioError(f"{name}: holds samples that are NaN or infinite.")
        read += wave.shape[1]
        yield wave
    if read < file.frames:
        raise InvalidAudioError(f"{name}: is cut off: of {file.frames} samples, {read} are there.")


def analyze_blocks(blocks: Iterable[torch.Tensor], sample_rate: int, spec: MelSpec) -> Iterator[torch.Tensor]:
    """The mel of a waveform that comes in blocks: put together, what `resynthesis.analyze` makes of it as a whole.

    A run of samples is analysed with as much sound on both sides as the frames at its edges reach into; at the true
    ends of the sound, and nowhere else, the format's own padding applies.

    Args:
        blocks: [channels, n] each, n of 1 or more.
        sample_rate: of the blocks, in Hz.

    Yields:
        [channels, n_mels, t], t of 1 or more.
    """
    hop = spec.hop_length
    ahead = spec.n_fft - spec.padding  # samples from a frame's nominal start to the end of what it sees
    margin = -(-spec.padding // hop)  # frames at the left edge of a run that see the padding
    held: torch.Tensor | None = None
    first = 0  # the frame at whose nominal start `held` begins
    done = 0  # frames handed out
    for piece, last in _with_last(_resampled(blocks, sample_rate, spec.sample_rate)):
        held = piece if held is None else torch.cat([held, piece], dim=1)
        if last:
            samples = held.shape[1]
            whole = max(-(-samples // hop) * hop, spec.padding + 1)
            mel = spec.analyze(torch.nn.functional.pad(held, (0, whole - samples)))
            if mel.shape[-1] > done - first:
                yield mel[..., done - first :]
            return
        ready = first + (held.shape[1] - ahead) // hop + 1
        if ready - done < 256 or held.shape[1] <= spec.padding:
            continue
        mel = spec.analyze(held)
        yield mel[..., done - first : ready - first]
        done = ready
        keep = max(first, done - margin - 1)
        held = held[:, (keep - first) * hop :].clone()
        first = keep


def _resampled(blocks: Iterable[torch.Tensor], source: int, target: int) -> Iterator[torch.Tensor]:
    resampler: Resampler | None = None
    for block in blocks:
        if resampler is None:
            resampler = Resampler(source, target, channels=block.shape[0])
        made = resampler.process(block)
        if made.shape[1]:
            yield made
    if resampler is not None:
        rest = resampler.flush()
        if rest.shape[1]:
            yield rest


def _with_last(pieces: Iterator[torch.Tensor]) -> Iterator[tuple[torch.Tensor, bool]]:
    """Each piece, and whether it is the last."""
    before: torch.Tensor | None = None
    for piece in pieces:
        if before is not None:
            yield before, False
        before = piece
    if before is not None:
        yield before, True


def cut(waves: Iterable[torch.Tensor], samples: int) -> Iterator[torch.Tensor]:
    """Pieces [channels, n] as a waveform of so many samples: its end cut off, or silence added."""
    left = samples
    channels = 1
    for wave in waves:
        channels = wave.shape[0]
        if left > 0:
            yield wave[:, :left]
        left -= wave.shape[1]
    if left > 0:
        yield torch.zeros(channels, left)
