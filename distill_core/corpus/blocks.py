"""A sound too long to hold, block by block: read, analysed, vocoded and written in constant memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..audio import _soundfile, check_header, check_is_sound, check_length, for_libsndfile
from ..errors import InvalidAudioError
from ..resample import Resampler
from ..resynthesis import filled

if TYPE_CHECKING:
    from ..mel.spec import MelSpec

BLOCK = 1 << 20
"""Samples of all channels together that are read at once."""

_END = 1 << 15
"""Samples held back until it is known where the end is; a mel's last frame reaches beyond it by less."""


class Sound:
    """A sound file that is read block by block.

    Args:
        path: where it is.
        name: what it is called.

    `samples` is what the header says, of each channel; once all blocks are read, what there was.

    Raises:
        InvalidAudioError: there is none, it is none, it has no samples, or its header promises more than is there.
    """

    def __init__(self, path: Path, name: str) -> None:
        soundfile = _soundfile()
        self.name = name
        check_is_sound(path, name)
        try:
            self._file = soundfile.SoundFile(for_libsndfile(path))
        except soundfile.LibsndfileError as error:
            if not os.access(path, os.R_OK):
                raise InvalidAudioError(f"{name}: may not be read (permission denied).") from error
            raise self._unreadable(error) from error
        self.samples: int = self._file.frames
        self.channels: int = self._file.channels
        self.sample_rate: int = self._file.samplerate
        if self.samples == 0:
            raise InvalidAudioError(f"{name}: holds no samples.")
        check_header(self._file, name)

    def __enter__(self) -> Sound:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Blocks [channels, n] of float32.

        Raises:
            InvalidAudioError: NaN or infinity in one of them, damage, or far fewer samples than the header says.
        """
        read, size = 0, max(1, BLOCK // self.channels)
        while True:
            try:
                block = self._file.read(size, dtype="float32", always_2d=True)
            except _soundfile().LibsndfileError as error:
                raise self._unreadable(error) from error
            if len(block) == 0:
                break
            wave = torch.from_numpy(block).T.contiguous()
            if not bool(torch.isfinite(wave).all()):
                raise InvalidAudioError(f"{self.name}: holds samples that are NaN or infinite.")
            read += wave.shape[1]
            yield wave
        check_length(read, self.samples, self.name)
        self.samples = read

    def whole(self) -> torch.Tensor:
        """All of it: [channels, samples]."""
        return torch.cat(list(self), dim=1)

    def _unreadable(self, error: Exception) -> InvalidAudioError:
        reason = str(getattr(error, "error_string", error)).rstrip(".").removeprefix("Error : ")
        return InvalidAudioError(f"{self.name}: cannot be read as audio ({reason}). Use wav, flac, ogg or mp3.")


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
            mel = spec.analyze(torch.nn.functional.pad(held, (0, filled(samples, spec) - samples)))
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
        # A header may name a rate so low that a block of it would fill any memory.
        for part in block.split(max(1, block.shape[1] * source // max(source, target)), dim=1):
            made = resampler.process(part)
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


def cut(waves: Iterable[torch.Tensor], samples: Callable[[], int]) -> Iterator[torch.Tensor]:
    """Pieces [channels, n] as a waveform of so many samples: its end cut off, or silence added.

    Args:
        samples: says how many, when all pieces have come.
    """
    held: torch.Tensor | None = None
    given = 0
    for wave in waves:
        held = wave if held is None else torch.cat([held, wave], dim=1)
        if held.shape[1] > _END:
            yield held[:, :-_END]
            given += held.shape[1] - _END
            held = held[:, -_END:]
    if held is not None:
        rest = max(0, samples() - given)
        yield torch.nn.functional.pad(held, (0, max(0, rest - held.shape[1])))[:, :rest]
