"""A loaded vocoder with other mels going in, or another sample rate coming out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from .card import Variant
from .feed import BufferFeed, StreamFeed, WholeFeed
from .flow import Flow
from .mel import MelAdapter
from .mel.compare import check_convertible
from .mel.spec import MelSpec
from .report import EngineReport
from .resample import Resampler, checked_rate, out_samples, resample
from .vocoder import VocoderBase

if TYPE_CHECKING:
    from typing_extensions import Self


class AdaptedVocoder(VocoderBase):
    """What `registry.get(mel=…, sample_rate=…)` returns: shares the loaded model with the plain vocoder.

    `mel` is the format of the caller's mels and `sample_rate` the rate the caller asked for; `halo` and
    `hop_length` stay those of the model, in its own frames and samples.

    Args:
        inner: the loaded vocoder.
        adapter: converts the caller's mels to the model's format; None if they are in it.
        sample_rate: of the output, in Hz; None for the model's own.
    """

    def __init__(self, inner: VocoderBase, adapter: MelAdapter | None, sample_rate: int | None) -> None:
        self._inner = inner
        super().__init__(
            inner.variant,
            halo=inner.halo,
            device=inner.device,
            precision=inner.precision,
            chunk_frames=inner.chunk_frames,
        )
        self._adapter = adapter
        self._rate = inner.sample_rate if sample_rate is None else sample_rate
        self._turn = inner._turn  # one model, one turn

    def after_fork(self) -> None:
        self._inner.after_fork()
        self._turn = self._inner._turn

    @classmethod
    def around(cls, inner: VocoderBase, *, mel: MelSpec | None = None, sample_rate: int | None = None) -> VocoderBase:
        """`inner` adapted as asked, or `inner` itself where there is nothing to adapt.

        Raises:
            MelMismatch: mels of that format cannot be converted; the message says why.
            InvalidAudioError: the sample rate is not a positive whole number, or cannot be made.
            MissingDependencyError: another sample rate is asked for, and soxr is not installed.
        """
        adapter = None if mel is None or mel == inner.mel else MelAdapter(mel, inner.mel, device=inner.device)
        if sample_rate is not None and (sample_rate := checked_rate(sample_rate)) == inner.sample_rate:
            sample_rate = None
        if sample_rate is not None:
            Resampler(inner.sample_rate, sample_rate)  # fails now rather than at the first mel
        return inner if adapter is None and sample_rate is None else cls(inner, adapter, sample_rate)

    @property
    def mel(self) -> MelSpec:
        return self._inner.mel if self._adapter is None else self._adapter.source

    @property
    def sample_rate(self) -> int:
        return self._rate

    @property
    def device(self) -> torch.device:
        return self._inner.device

    @property
    def precision(self) -> str:
        return self._inner.precision

    @property
    def chunk_frames(self) -> int:
        return self._inner.chunk_frames

    @chunk_frames.setter
    def chunk_frames(self, frames: int) -> None:
        self._inner.chunk_frames = frames

    @property
    def model(self) -> Any:
        """The torch module inside, if the back-end is one."""
        return self._inner.model

    @model.setter
    def model(self, model: Any) -> None:
        self._inner.model = model

    def to(self, device: torch.device | str) -> Self:
        self._inner.to(device)  # which also chooses its engine anew
        if self._adapter is not None:
            self._adapter.to(self._inner.device)
        return self

    def report(self) -> EngineReport:
        report = self._inner.report()
        notes = list(report.notes)
        if self._adapter is not None:
            how = "value by value" if self._adapter.pointwise else "analytically"
            if self._adapter.refined:
                how = "with the learned refinement"
            notes.append(f"Mels are converted {how}: {self._adapter.source} -> {self._adapter.target}.")
            notes += [f"Lost in this: {lost}." for lost in self._adapter.comparison.lost]
        if self._rate != self._inner.sample_rate:
            notes.append(f"The waveform is resampled from {self._inner.sample_rate} to {self._rate} Hz by soxr, VHQ.")
        return EngineReport(report.engine, report.device, report.precision, tuple(notes))

    def _stream(self, mels: Iterator[torch.Tensor], check_format: bool) -> Iterator[torch.Tensor]:
        resampler = None
        for wave in super()._stream(mels, check_format):
            if self._rate == self._inner.sample_rate:
                yield wave
                continue
            if resampler is None:
                resampler = Resampler(self._inner.sample_rate, self._rate, channels=wave.shape[0])
            made = resampler.process(wave[:, 0])
            if made.shape[-1]:
                yield made[:, None]
        if resampler is not None:
            rest = resampler.flush(like=wave)
            if rest.shape[-1]:
                yield rest[:, None]

    def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
        self._inner._context = self._context
        try:
            return self._inner._vocode(mel)
        finally:
            self._inner._context = (0, 0)

    def _flow(self) -> Flow | None:
        return self._inner._flow()

    def _was_full(self) -> None:
        self._inner._was_full()

    def _place(self, device: torch.device) -> None:
        self._inner._place(device)
        if self._adapter is not None:
            self._adapter.to(device)

    def _feed(self, mel: torch.Tensor, lengths: list[int]) -> WholeFeed:
        if self._adapter is None:
            return super()._feed(mel, lengths)
        self._adapter.check_loudness(mel, lengths)  # now, where the items still have the caller's numbers
        return _AdaptedFeed(self._adapter, mel, lengths)

    def _stream_feed(self) -> StreamFeed:
        return super()._stream_feed() if self._adapter is None else _AdaptedBuffer(self._adapter)

    def _delivered(self, wave: torch.Tensor, samples: Sequence[int]) -> torch.Tensor:
        native = self._inner.sample_rate
        if self._rate == native:
            return wave
        if len(set(samples)) == 1:
            return resample(wave, native, self._rate)
        # Beyond the end of a short item lies nothing, not even the resampler's ringing.
        made = wave.new_zeros(wave.shape[0], 1, out_samples(wave.shape[-1], native, self._rate))
        for row, count in enumerate(samples):
            piece = resample(wave[row, :, :count], native, self._rate)
            made[row, :, : piece.shape[-1]] = piece
        return made


def check_adaptable(variant: Variant, *, mel: MelSpec | None = None, sample_rate: int | None = None) -> None:
    """See that a vocoder of a variant can be adapted so, before it is loaded.

    Raises:
        MelMismatch, InvalidAudioError, MissingDependencyError: as `AdaptedVocoder.around`.
    """
    if mel is not None:
        check_convertible(mel, variant.mel)
    if sample_rate is not None:
        Resampler(variant.sample_rate, checked_rate(sample_rate))


class _AdaptedFeed:
    """A mel of the caller's format, read in the model's: converted window by window."""

    def __init__(self, adapter: MelAdapter, mel: torch.Tensor, lengths: list[int]) -> None:
        self.adapter = adapter
        self.mel = mel
        self.source_lengths = lengths
        self.lengths = [adapter.out_frames(length) for length in lengths]
        self.rows = mel.shape[0]

    def read(self, rows: Sequence[int], lo: int, hi: int) -> torch.Tensor:
        # Rows of one length in the model's frames may differ by a frame in the caller's.
        parts: dict[int, torch.Tensor] = {}
        for total in sorted({self.source_lengths[row] for row in rows}):
            chosen = [row for row in rows if self.source_lengths[row] == total]
            first, last = self.adapter.window(lo, hi, total)
            made = _converted(self.adapter, self.mel[chosen, :, first:last], first, lo, hi, total)
            parts.update(zip(chosen, made, strict=True))
        return torch.stack([parts[row] for row in rows])


class _AdaptedBuffer:
    """A mel of the caller's format that is still arriving, read in the model's."""

    def __init__(self, adapter: MelAdapter) -> None:
        self.adapter = adapter
        self.source = BufferFeed()
        self.available = 0
        self.finished = False

    @property
    def rows(self) -> int:
        return self.source.rows

    def push(self, mel: torch.Tensor) -> None:
        self.adapter.check_loudness(mel, first_frame=self.source.available)
        self.source.push(mel)
        self.available = self.adapter.ready(self.source.available)

    def finish(self) -> None:
        self.finished = True
        self.available = self.adapter.out_frames(self.source.available)

    def drop_before(self, frame: int) -> None:
        # Of those that have arrived: beyond the last one, which a vocoder without a halo may be, that one stands.
        self.source.drop_before(self.adapter.window(frame, frame + 1, self.source.available)[0])

    def read(self, rows: Sequence[int], lo: int, hi: int) -> torch.Tensor:
        total = self.source.available if self.finished else None
        first, last = self.adapter.window(lo, hi, total)
        return _converted(self.adapter, self.source.read(rows, first, last), first, lo, hi, total)


def _converted(
    adapter: MelAdapter, piece: torch.Tensor, first: int, lo: int, hi: int, total: int | None
) -> torch.Tensor:
    """The model's frames [lo, hi) from the caller's, of which a piece begins at `first`."""
    piece = piece.to(torch.float32).to(adapter.device)  # in this order: MPS has no float64
    return adapter.convert(piece, offset=first, start=lo, stop=hi, total=total)
