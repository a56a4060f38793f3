"""Resampling of waveforms, in one piece or as a stream, by soxr at its highest quality.

soxr (the SoX resampler) was chosen because it streams, is kept well, and at "VHQ" is flat to 91 % of the
lower Nyquist frequency with images beyond the reach of 24 bits. It is linear-phase, and its delay is
compensated: sample n of the output lies at n / target_rate seconds of the input.

Levels are never changed. Between the samples of a waveform that touches full scale lie peaks above it, so
resampled values may exceed ±1 by a few percent; whoever writes integers has to decide what to do then.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .errors import InvalidAudioError, MissingDependencyError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

QUALITY = "VHQ"

MAX_RATE = 2**31 - 1
"""In Hz: a C int, in which soxr and libsndfile count. Beyond, soxr ends the process."""

MAX_RATIO = 1 << 16
"""Of one rate to the other. From some 2^19 on soxr never returns, or ends the process; 1 Hz to 48 kHz is within."""

_AT_ONCE = 1 << 24
"""Samples that soxr takes or gives in one call: it counts them in a C int, and ends the process beyond."""


def out_samples(samples: int, source_rate: int, target_rate: int) -> int:
    """How many samples so many become: their duration, rounded up, so that nothing is trimmed."""
    return -(-samples * target_rate // source_rate)


def checked_rate(rate: Any, name: str = "sample_rate") -> int:
    """A sample rate in Hz as an int.

    Raises:
        InvalidAudioError: it is no positive whole number, or above `MAX_RATE`.
    """
    try:
        whole = 0 if isinstance(rate, bool | str) else int(rate)
        if whole == rate and 1 <= whole <= MAX_RATE:
            return whole
    except (TypeError, ValueError, OverflowError):
        whole = 0
    if whole > MAX_RATE:
        shown = f", not {whole}" if whole < 10**20 else ""
        raise InvalidAudioError(f"{name} must be {MAX_RATE} Hz at most{shown}.")
    raise InvalidAudioError(f"{name} must be a positive whole number of Hz, not {rate!r}.")


class Resampler:
    """A stream of audio at another rate; the pieces put together are `resample` of the pieces put together.

    Not thread-safe: one per stream.

    Args:
        source_rate: of what comes in, in Hz.
        target_rate: of what goes out, in Hz.
        channels: signals resampled side by side.

    Raises:
        InvalidAudioError: a rate or number of channels that is not a positive whole number, or rates of which one is
            more than `MAX_RATIO` times the other.
        MissingDependencyError: soxr is not installed.
    """

    def __init__(self, source_rate: int, target_rate: int, *, channels: int = 1) -> None:
        self.source_rate = source_rate = checked_rate(source_rate, "source_rate")
        self.target_rate = target_rate = checked_rate(target_rate, "target_rate")
        if isinstance(channels, bool) or not isinstance(channels, int) or channels < 1:
            raise InvalidAudioError(f"channels must be a positive whole number, not {channels!r}.")
        if max(source_rate, target_rate) > MAX_RATIO * min(source_rate, target_rate):
            raise InvalidAudioError(
                f"{source_rate} Hz cannot be resampled to {target_rate} Hz: one may be {MAX_RATIO} times the other at "
                "most. Is the rate right?"
            )
        self.channels = channels
        self._stream: Any = None
        if source_rate != target_rate:
            try:
                self._stream = _soxr().ResampleStream(
                    source_rate, target_rate, channels, dtype="float32", quality=QUALITY
                )
            except (RuntimeError, ValueError) as error:
                raise InvalidAudioError(
                    f"soxr cannot resample {channels} channel(s) from {source_rate} to {target_rate} Hz: {error}"
                ) from error
        self._taken = 0
        self._given = 0
        self._ended = False

    def process(self, chunk: Tensor) -> Tensor:
        """What can be said after this chunk: `[C, n]` -> `[C, m]`, float32, m of 0 or more.

        Raises:
            InvalidAudioError: another rank or number of channels, or integers.
            RuntimeError: `flush` was called before.
        """
        import torch

        from .arrays import check_plain

        self._check_open()
        if not isinstance(chunk, torch.Tensor):
            raise InvalidAudioError(f"A chunk must be a tensor [{self.channels}, samples], not {type(chunk).__name__}.")
        check_plain(chunk, "A chunk", InvalidAudioError)
        if chunk.ndim != 2 or chunk.shape[0] != self.channels or not chunk.is_floating_point():
            raise InvalidAudioError(
                f"Expected a floating-point chunk [{self.channels}, samples], got {list(chunk.shape)} of {chunk.dtype}."
            )
        self._taken += chunk.shape[1]
        if self._stream is None:
            self._given += chunk.shape[1]
            return chunk.float()
        if chunk.shape[1] == 0:
            return chunk.float()
        size = max(1, _AT_ONCE * self.source_rate // (max(self.source_rate, self.target_rate) * self.channels))
        parts = chunk.split(size, dim=1)
        made = [self._out(self._stream.resample_chunk(self._in(part)), chunk.device) for part in parts]
        return made[0] if len(made) == 1 else torch.cat(made, dim=1)

    def flush(self, like: Tensor | None = None) -> Tensor:
        """The rest of the stream, `[C, m]`, float32; the stream ends here.

        Args:
            like: a tensor on the device wanted; default: the CPU.

        Raises:
            RuntimeError: `flush` was called before.
        """
        import numpy as np
        import torch

        self._check_open()
        self._ended = True
        device = torch.device("cpu") if like is None else like.device
        if self._stream is None or self._taken == 0:
            return torch.zeros(self.channels, 0, dtype=torch.float32, device=device)
        missing = out_samples(self._taken, self.source_rate, self.target_rate) - self._given
        # soxr rounds the length to nearest. Beyond its end it takes the input to be silent, so some silence
        # changes nothing but that the last sample of a length rounded up is there as well.
        silence = np.zeros((2 + 2 * self.source_rate // self.target_rate, self.channels), np.float32)
        made = self._stream.resample_chunk(silence[:, 0] if self.channels == 1 else silence, last=True)
        return self._out(made[:missing], device)

    def _check_open(self) -> None:
        if self._ended:
            raise RuntimeError("This Resampler was flushed; make another for the next stream.")

    def _in(self, chunk: Tensor) -> NDArray[np.float32]:
        array = chunk.detach().float().cpu().numpy()
        return array[0] if self.channels == 1 else array.T.copy()

    def _out(self, made: NDArray[np.float32], device: torch.device) -> Tensor:
        import torch

        self._given += made.shape[0]
        rows = made[None] if made.ndim == 1 else made.T
        return torch.from_numpy(rows.copy()).to(device)


def resample(wave: Tensor | NDArray[Any], source_rate: int, target_rate: int) -> Tensor:
    """A waveform at another rate: `[..., samples]` -> `[..., out_samples(samples)]`, float32.

    Raises:
        InvalidAudioError: rates as `Resampler` refuses them, integers, or a single number.
        MissingDependencyError: soxr is not installed.
    """
    import torch

    from .arrays import check_plain, check_unmasked, tensor_of

    check_unmasked(wave, "A waveform", InvalidAudioError)
    check_plain(wave, "A waveform", InvalidAudioError)
    if not isinstance(wave, torch.Tensor):
        try:
            wave = tensor_of(wave)
        except (TypeError, ValueError) as error:
            raise InvalidAudioError(f"A {type(wave).__name__} is no waveform [..., samples].") from error
    if wave.ndim == 0:
        raise InvalidAudioError("A waveform must have shape [..., samples]; this is a single number.")
    source_rate, target_rate = checked_rate(source_rate, "source_rate"), checked_rate(target_rate, "target_rate")
    flat = wave.reshape(math.prod(wave.shape[:-1]), wave.shape[-1])
    if flat.shape[0] == 0:
        size = out_samples(wave.shape[-1], source_rate, target_rate)
        return wave.new_zeros(*wave.shape[:-1], size, dtype=torch.float32)
    resampler = Resampler(source_rate, target_rate, channels=flat.shape[0])
    made = torch.cat([resampler.process(flat), resampler.flush(flat)], dim=1)
    return made.reshape(*wave.shape[:-1], made.shape[-1])


def _soxr() -> Any:
    try:
        import soxr
    except ImportError as error:
        raise MissingDependencyError('Resampling needs the package soxr: pip install "distill-core[audio]".') from error
    return soxr
