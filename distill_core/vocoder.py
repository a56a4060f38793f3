"""The base class of all vocoders: check -> adapt -> chunk -> run -> join.

A back-end implements `_vocode` on mels that are known to be good, and states its halo; everything
around that is done here, once, for all of them.
"""

from __future__ import annotations

import abc
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, cast

import torch

from . import chunking, forking
from .card import Variant
from .checks import (
    check_finite,
    check_returned,
    checked_chunk_frames,
    checked_lengths,
    checked_mel,
    checked_pieces,
    is_whole,
)
from .device import KINDS, check_precision, is_out_of_memory, no_room, parsed, select_device
from .errors import DistillError, PluginError
from .feed import BufferFeed, StreamFeed, TensorFeed, WholeFeed
from .flow import Flow
from .mel import detect
from .mel.spec import MelSpec
from .progress import Progress, frames_progress
from .report import EngineReport
from .runs import Current, Run
from .turns import Turn
from .untraced import each_untraced, untraced

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Self

DEFAULT_CHUNK_FRAMES = 256
_OPENING_FRAMES = 64
"""How much of a stream is looked at to tell whether its mels are in the right format."""


class _Unset:
    """Stands for what `VocoderBase.__init__` sets, for a subclass that does not call it."""

    def __get__(self, vocoder: Any, owner: type) -> Any:
        if vocoder is None:
            return self
        raise PluginError(
            f"{owner.__name__}.__init__ does not call super().__init__(variant, halo=…), which a VocoderBase needs."
        )


class VocoderBase(abc.ABC):
    """A vocoder: mel spectrograms in, waveforms out.

    Args:
        variant: what is loaded: name, mel format, sample rate.
        halo: frames of context on each side that an output frame depends on, 0 or more.
        device: where it runs.
        precision: what it computes in; the waveform is float32 in any case.
        chunk_frames: how many frames (of all rows of a batch together) go through the model at once,
            halo not counted; by default 256. Bounds memory; the result does not depend on it.

    Raises:
        TypeError: `variant` is no `Variant`.
        ValueError: `halo` is no whole number of 0 or more.
        DeviceError, PrecisionError: an unknown device or precision.
        OptionError: `chunk_frames` is no whole number of 1 or more.
    """

    _kinds: Sequence[str] = KINDS
    """Of device it runs on; the registry sets those that the card lists."""

    _variant = cast(Variant, _Unset())
    _device = cast(torch.device, _Unset())

    def __init__(
        self,
        variant: Variant,
        *,
        halo: int,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
        chunk_frames: int | None = None,
    ) -> None:
        if not isinstance(variant, Variant):
            raise TypeError(
                f"{type(self).__name__} takes the Variant it is loaded as, not a {type(variant).__name__}: pass on the "
                "one that the factory is given, or make one, Variant(name, mel, sample_rate)."
            )
        self._variant = variant
        if not is_whole(halo) or halo < 0:
            raise ValueError(f"halo must be a whole number of frames, 0 or more, not {halo!r}.")
        self._halo = int(halo)
        self._device = parsed(device)
        self._precision = check_precision(precision)
        self.chunk_frames = DEFAULT_CHUNK_FRAMES if chunk_frames is None else chunk_frames
        # One run at a time: calls from several threads take turns chunk by chunk, and nobody computes
        # while the model moves from one device to another.
        self._turn = Turn()
        self._process = os.getpid()
        forking.watch(self)

    def after_fork(self) -> None:
        """In the child of a fork: nobody else is computing here, whatever the parent was doing."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._turn = Turn()
        # The threads of torch's OpenMP pool do not live on in a fork, and an operation that counts on them would
        # wait forever. torch's own data loader workers compute on one, too.
        torch.set_num_threads(1)

    def __reduce__(self) -> Any:
        raise TypeError(
            "A loaded vocoder can be neither pickled nor copied: hand on the arguments of registry.get, and call it "
            "in each process."
        )

    # What a back-end implements

    @abc.abstractmethod
    def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
        """`mel` [B, n_mels, T], float32, finite, on `self.device` -> waveform [B, T * hop_length].

        Called in inference mode, by one thread at a time.
        """

    _context = (0, 0)
    """Frames at the beginning and at the end of `_vocode`'s mel that are there for the others to depend on. Nobody
    looks at their samples: an engine may leave them at zero."""

    def _flow(self) -> Flow | None:
        """A run over a mel that arrives in pieces, of an engine that offers it; else each is computed with its halo."""
        return None

    def _move(self, device: torch.device) -> None:
        """Bring the model to another device. By default moves `self.model`."""
        if not hasattr(self, "model"):
            raise PluginError(f"{type(self).__name__} cannot be moved: it has no `model`, nor a `_move` of its own.")
        self.model.to(device)

    model: Any
    """The torch module, if the back-end is one."""

    def _was_full(self) -> None:
        """A run found less memory on the accelerator than its chunk needs: who chose the chunk may choose it anew."""
        return

    def _place(self, device: torch.device) -> None:
        self._move(device)
        self._device = device

    def report(self) -> EngineReport:
        """Which engine runs, where, in what precision, and why not a faster one."""
        return EngineReport("eager", str(self.device), self.precision)

    # What it is

    @property
    def variant(self) -> Variant:
        """What is loaded. For weights of the caller's own it describes those."""
        return self._variant

    @property
    def mel(self) -> MelSpec:
        """The format of the mels to pass in."""
        return self._variant.mel

    @property
    def sample_rate(self) -> int:
        """Of the output, in Hz."""
        return self._variant.sample_rate

    @property
    def hop_length(self) -> int:
        """Samples of output per frame of the mel format the model itself takes."""
        return self._variant.mel.hop_length

    @property
    def halo(self) -> int:
        """Frames of context on each side that an output frame depends on; the delay of `stream`."""
        return self._halo

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def precision(self) -> str:
        return self._precision

    @property
    def chunk_frames(self) -> int:
        """Frames that go through the model at once, halo not counted."""
        return self._chunk_frames

    @chunk_frames.setter
    def chunk_frames(self, frames: int) -> None:
        self._chunk_frames = checked_chunk_frames(frames)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.variant.name!r}, {self.mel.n_mels} bands -> {self.sample_rate} Hz, "
            f"{self.precision} on {self.device})"
        )

    # What it does

    def to(self, device: torch.device | str) -> Self:
        """Move to another device, as `select_device` understands it, and return self.

        Raises:
            DeviceError: it does not exist, does not work, is none the vocoder runs on, or has no memory left for it.
                The vocoder then is where it was.
        """
        target = select_device(device, among=self._kinds)
        with self._turn:
            if target != self.device:
                try:
                    self._place(target)
                except RuntimeError as error:
                    self._place(self.device)  # of a model, half may be there already
                    if target.type != "cpu" and is_out_of_memory(error):
                        raise no_room(target, repr(self), error) from error
                    raise
        return self

    @untraced
    def mel_to_waveform(
        self,
        mel: torch.Tensor | NDArray[Any],
        *,
        lengths: Sequence[int] | torch.Tensor | NDArray[Any] | None = None,
        progress: bool | Callable[[int, int], None] = False,
        check_format: bool = True,
    ) -> torch.Tensor:
        """Vocode mels of any length in bounded memory.

        Args:
            mel: [B, n_mels, T] or [B, 1, n_mels, T], floating point, in the format `self.mel`. A numpy array will do.
            lengths: true number of frames of each item of a padded batch, [B]. Each item then gets what it
                would have got alone, and zeros after its end.
            progress: True for a bar on stderr, or a callable that is given (frames done, frames in all).
            check_format: refuse a mel whose values plainly are those of another format.

        Returns:
            [B, 1, samples], float32, on `self.device`; T * hop_length samples for T frames in the model's
            own format and at its own rate. With `lengths`, T is the greatest of them.

        Raises:
            InvalidMelError: rank, bands, dtype, NaN or infinity, no frames; or `lengths` that do not fit.
            MelMismatch: the values plainly are of another mel format.
            PluginError: the model breaks the contract, or makes NaN or infinity of this mel.
        """
        mel = checked_mel(mel, self.mel)
        frames = checked_lengths(lengths, mel)
        check_finite(mel, frames)
        if check_format:
            _check_format(mel, frames, self.mel)
        return self._render(self._feed(mel, frames), progress)

    def stream(
        self, mels: Iterable[torch.Tensor | NDArray[Any]], *, check_format: bool = True
    ) -> Iterator[torch.Tensor]:
        """Vocode a mel that arrives in pieces, in constant memory and with a constant delay.

        Args:
            mels: pieces [B, n_mels, t] or [B, 1, n_mels, t], t >= 1, of one mel.
            check_format: refuse a mel whose first frames plainly are in another format.

        Yields:
            [B, 1, n] pieces of the waveform, as soon as they are certain, `halo` frames behind what has
            arrived, of `chunk_frames` frames at most; converting and resampling are further behind. Put together they
            equal `mel_to_waveform` of the pieces put together.

        Raises:
            InvalidMelError: as `mel_to_waveform`, when the piece in question arrives.
            MelMismatch: the first frames plainly are of another mel format.
            PluginError: as `mel_to_waveform`.
        """
        return each_untraced(self._stream(checked_pieces(mels, self.mel), check_format))

    # How it does it

    def _stream(self, mels: Iterator[torch.Tensor], check_format: bool) -> Iterator[torch.Tensor]:
        feed = self._stream_feed()
        current = Current(self, feed)
        opening: list[torch.Tensor] | None = [] if check_format else None
        done = arrived = 0
        for piece in mels:
            mel = checked_mel(piece, self.mel)
            check_finite(mel, [mel.shape[-1]] * mel.shape[0], first_frame=arrived)
            arrived += mel.shape[-1]
            feed.push(mel)
            if opening is not None:
                # Copies, for whoever makes the pieces may use their memory again; on one device, to be put together.
                opening.append(mel.to(opening[0].device if opening else mel.device, copy=True))
                # A few frames may well be loud in every band: judged is what can be judged.
                if arrived >= _OPENING_FRAMES:
                    _check_format(torch.cat(opening, dim=-1), [arrived] * mel.shape[0], self.mel)
                    opening = None
            ready = feed.available - self.halo
            if ready > done:
                yield from self._render_range(feed, done, ready, current)
                done = ready
                feed.drop_before(done - self.halo)
        if opening:  # as mel_to_waveform judges a mel as short as this
            _check_format(torch.cat(opening, dim=-1), [arrived] * opening[0].shape[0], self.mel)
        feed.finish()
        if feed.available > done:
            yield from self._render_range(feed, done, feed.available, current, last=True)

    def _feed(self, mel: torch.Tensor, lengths: list[int]) -> WholeFeed:
        """Frames in the model's own format from a mel in the format `self.mel`."""
        return TensorFeed(mel, lengths)

    def _stream_feed(self) -> StreamFeed:
        return BufferFeed()

    def _render(self, feed: WholeFeed, progress: bool | Callable[[int, int], None]) -> torch.Tensor:
        hop = self.hop_length
        wave = self._waveform(feed.rows, 1, max(feed.lengths) * hop)
        with (
            frames_progress(progress, sum(feed.lengths), hop / self.variant.sample_rate) as bar,
            Run(self, feed, bar) as run,
        ):
            for rows, window, total in chunking.batches(feed.lengths, chunk=self.chunk_frames, halo=self.halo):
                run(wave[:, 0], rows, window, total)
        self._check_sound(wave)
        return self._delivered(wave, [frames * hop for frames in feed.lengths])

    def _delivered(self, wave: torch.Tensor, samples: Sequence[int]) -> torch.Tensor:
        """The waveform as the caller gets it; item i of [B, 1, n] has `samples[i]` true samples."""
        return wave

    def _render_range(
        self, feed: StreamFeed, start: int, stop: int, current: Current, last: bool = False
    ) -> Iterator[torch.Tensor]:
        """The waveform of frames [start, stop), a chunk at a time; of the last ones of all, if so said."""
        for chunk in chunking.windows(start, stop, chunk=self.chunk_frames, halo=self.halo, total=feed.available):
            wave = current(chunk, last and chunk.hi == feed.available)
            if wave is None:
                wave = self._waveform(feed.rows, 1, chunk.frames * self.hop_length)
                with Run(self, feed, Progress(), first_frame=chunk.start) as run:
                    for rows, window, total in chunking.batches(
                        [feed.available] * feed.rows,
                        chunk=self.chunk_frames,
                        halo=self.halo,
                        start=chunk.start,
                        stop=chunk.stop,
                    ):
                        run(wave[:, 0], rows, window, total)
            self._check_sound(wave, chunk.start)
            yield wave

    def _check_sound(self, wave: torch.Tensor, first_frame: int = 0) -> None:
        """See that no NaN or infinity is in `wave` [B, 1, n], which begins at a frame of the model's own format."""
        if torch.stack(torch.aminmax(wave)).isfinite().all():
            return
        bad = (~torch.isfinite(wave[:, 0])).nonzero()
        item, sample = bad[bad[:, 1].argmin()].tolist()
        raise PluginError(
            f"{self.variant.name} makes NaN or infinity of this mel in {self.precision}, first in item {item}, frame "
            f"{first_frame + sample // self.hop_length}. Are its weights damaged, or is the mel none of a sound?"
        )

    def _waveform(self, *shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.float32, device=self.device)

    @untraced
    def _compute(self, mel: torch.Tensor, context: tuple[int, int]) -> torch.Tensor:
        """One run of the model: [b, n_mels, T] -> [b, T * hop_length] on `self.device`; see `_context`."""
        with self._running():
            self._context = context
            try:
                wave = self._vocode(mel.to(torch.float32).to(self.device))  # in this order: MPS has no float64
            finally:
                self._context = (0, 0)
        check_returned(f"{type(self).__name__}._vocode", wave, mel, (mel.shape[0], mel.shape[-1] * self.hop_length))
        return wave

    @untraced
    def _flow_on(self, flow: Flow, mel: torch.Tensor, last: bool) -> torch.Tensor | None:
        """The next frames of a run, as `Flow`; None if it cannot go on."""
        with self._running():
            return flow(mel.to(torch.float32).to(self.device), last)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """While the model runs."""
        door = nullcontext() if self._turn.taken_here() else self._turn.door
        # The precision is the vocoder's to choose, whatever the caller's autocast says.
        with door, self._turn, torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            self._turn.door.leave()
            if self._turn.running:
                raise DistillError(
                    "This vocoder is in the middle of a run, and was called again from within: by a signal handler, "
                    "or by its own model."
                )
            self._turn.running = True
            try:
                yield
            finally:
                self._turn.running = False


def _check_format(mel: torch.Tensor, lengths: list[int], spec: MelSpec) -> None:
    """See that no item of `mel` [B, n_mels, T], of so many true frames each, plainly is of another format."""
    for row, length in enumerate(lengths):
        what = "This mel" if len(lengths) == 1 else f"The mel of item {row}"
        detect.check_format(mel[row, :, :length], spec, what)
