"""A loaded vocoder that takes batch after batch: reading, computing and writing, at the same time if wanted."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..audio import check_encoding, check_free, check_writable
from ..checks import check_finite, checked_mel
from ..errors import DistillError
from ..mel import detect
from ..mel_files import read_mel
from ..registry import registry
from ..resynthesis import analyze
from ..wording import on_one_line
from . import files
from .batches import Batch
from .blocks import Sound, analyze_blocks, cut
from .job import Outcome, VocodeJob
from .plan import Item, numbered
from .record import Journal
from .write import UnwritableError, check_subtype, unwritable, write

if TYPE_CHECKING:
    from ..vocoder import VocoderBase

LONG_SECONDS = 60.0
LONG_SAMPLES = 1 << 23
"""A sound of more than either, all channels together, goes through in blocks and is never held as a whole."""

_MEL_FRAMES = 2048
"""Frames of a long mel that are passed on at once."""

Advance = Callable[[float], None]
"""Is told of seconds of sound, all channels together, as they are computed."""


@dataclass
class _Work:
    """An item on its way."""

    item: Item
    vocoder: VocoderBase
    source: files.Identity = (0, 0)
    mel: torch.Tensor | None = None  # [rows, n_mels, T]
    samples: int | None = None  # what the output is cut to; None for a mel's own length
    long: bool = False
    waves: list[torch.Tensor] = field(default_factory=list)  # [channels, samples], a file each
    took: float = 0.0
    outcome: Outcome | None = None


class Runner:
    """Vocodes batches as a job says.

    Raises:
        DistillError: as `VocodeJob.load`.
    """

    def __init__(self, job: VocodeJob) -> None:
        if job.threads is not None:
            torch.set_num_threads(job.threads)
        check_subtype(job.subtype)
        self.job = job
        self.vocoder = self._get(job.mel)
        self._journal = None if job.folder is None else Journal(job.folder, job.settings)

    def _get(self, mel: str | None) -> VocoderBase:
        job = self.job
        return registry.get(
            job.vocoder,
            variant=job.variant,
            device=job.device,
            precision=job.precision,
            mel=mel,
            sample_rate=job.sample_rate,
            weights=job.weights,
            **dict(job.options),
        )

    def run(self, batch: Batch, advance: Advance | None = None) -> list[Outcome]:
        """Do a batch, and say what became of each item, in their order. Raises for no file."""
        works = [self._read(item) for item in batch.items]
        self._compute(works, advance or _nobody)
        return [self._finish(work) for work in works]

    def run_all(self, batches: Iterable[Batch], emit: Callable[[Outcome], None], advance: Advance) -> None:
        """Do many batches: while one is computed, the next is read and the last is written, in threads of their own.

        Args:
            batches: taken one at a time, in the thread that reads.
            emit: is given each outcome as soon as it is certain, in the thread that writes.
            advance: is called in the thread that computes, which is the caller's.
        """
        read: queue.Queue[Any] = queue.Queue(maxsize=1)
        computed: queue.Queue[Any] = queue.Queue(maxsize=1)
        failures: list[BaseException] = []

        def reading() -> None:
            try:
                for batch in batches:
                    read.put([self._read(item) for item in batch.items])
            except BaseException as error:
                failures.append(error)
            finally:
                read.put(None)

        def writing() -> None:
            try:
                while (works := computed.get()) is not None:
                    for work in works:
                        emit(self._finish(work))
            except BaseException as error:
                failures.append(error)
                while computed.get() is not None:
                    pass

        threads = [threading.Thread(target=each, name=each.__name__, daemon=True) for each in (reading, writing)]
        for thread in threads:
            thread.start()
        try:
            while (works := read.get()) is not None:
                self._compute(works, advance)
                computed.put(works)
        finally:
            computed.put(None)
            threads[1].join()
        if failures:
            raise failures[0]

    # Reading

    def _read(self, item: Item) -> _Work:
        started = time.perf_counter()
        work = _Work(item, self.vocoder)
        try:
            work.source = files.identity(item.input) or (0, 0)
            if item.is_mel:
                self._read_mel(work)
            else:
                self._read_sound(work)
        except Exception as error:  # decoders fail in many ways; whichever it is, it is this file's
            work.outcome = _failed(item, error)
        work.took = time.perf_counter() - started
        return work

    def _read_mel(self, work: _Work) -> None:
        if work.item.mel is not None:
            work.vocoder = self._get(work.item.mel)
        self._check_output(work, 1)
        spec = work.vocoder.mel
        with files.local(work.item.input) as path:
            mel = checked_mel(read_mel(path), spec)
        frames = mel.shape[0] * mel.shape[2]
        check_finite(mel, [mel.shape[2]] * mel.shape[0])
        detect.check_format(mel, spec)
        work.mel = mel
        work.long = frames * spec.hop_length / spec.sample_rate > LONG_SECONDS

    def _read_sound(self, work: _Work) -> None:
        name = work.item.input
        with files.local(name) as path, Sound(path, name) as sound:
            self._check_output(work, sound.channels)
            rate, total = sound.sample_rate, sound.samples * sound.channels
            if total > LONG_SAMPLES or total / rate > LONG_SECONDS:
                work.long = True
                return
            wave = sound.whole()
        work.mel = analyze(wave, rate, work.vocoder)
        work.samples = round(wave.shape[1] * work.vocoder.sample_rate / rate)

    def _check_output(self, work: _Work, channels: int) -> None:
        """See before anything is computed that the result could be written."""
        output = work.item.output
        rate = work.vocoder.sample_rate
        check_encoding(output, os.path.splitext(output)[1][1:], self.job.subtype, channels=channels, sample_rate=rate)
        if not files.is_url(output):
            check_free(Path(output), overwrite=True)

    # Computing

    def _compute(self, works: list[_Work], advance: Advance) -> None:
        """Fill in the waves of a batch. Mels of equal length go through the model together."""
        together: dict[tuple[int, int], list[_Work]] = {}
        for work in works:
            if work.outcome is None and not work.long and work.mel is not None:
                together.setdefault((id(work.vocoder), work.mel.shape[-1]), []).append(work)
        for group in together.values():
            try:
                self._compute_group(group, advance)
            except Exception as error:
                for work in group:
                    if len(group) == 1:
                        work.outcome = _failed(work.item, error)
                        continue
                    try:
                        self._compute_group([work], advance)
                    except Exception as alone:
                        work.outcome = _failed(work.item, alone)
        for work in works:
            if work.outcome is None and work.long:
                self._compute_long(work, advance)

    def _compute_group(self, works: list[_Work], advance: Advance) -> None:
        vocoder = works[0].vocoder
        started = _now_that_is_ready(vocoder)
        mels = [work.mel for work in works if work.mel is not None]
        waves = vocoder.mel_to_waveform(torch.cat(mels), check_format=False, progress=_progress(vocoder, advance))
        waves = waves[:, 0].cpu()
        took = (time.perf_counter() - started) / len(works)
        for work, rows in zip(works, waves.split([mel.shape[0] for mel in mels]), strict=True):
            work.waves = list(rows[:, None]) if work.item.is_mel else [_cut(rows, work.samples)]
            work.mel = None
            work.took += took

    def _compute_long(self, work: _Work, advance: Advance) -> None:
        """Vocode and write a long item in one go."""
        started = _now_that_is_ready(work.vocoder)
        try:
            if work.mel is not None:
                rows = work.mel.shape[0]
                waves = (self._long_mel(work, row, advance) for row in range(rows))
                work.outcome = self._written(work, waves, rows, 1, started=started)
            else:
                with files.local(work.item.input) as path, Sound(path, work.item.input) as sound:
                    wave = self._long_sound(work, sound, advance)
                    work.outcome = self._written(work, [wave], 1, sound.channels, started=started)
        except Exception as error:
            work.outcome = _failed(work.item, error)

    def _long_mel(self, work: _Work, row: int, advance: Advance) -> Iterator[torch.Tensor]:
        assert work.mel is not None
        pieces = work.mel[row : row + 1].split(_MEL_FRAMES, dim=-1)
        for wave in work.vocoder.stream(pieces, check_format=False):
            advance(wave.shape[-1] / work.vocoder.sample_rate)
            yield wave[:, 0].cpu()

    def _long_sound(self, work: _Work, sound: Sound, advance: Advance) -> Iterator[torch.Tensor]:
        vocoder = work.vocoder
        pieces = vocoder.stream(analyze_blocks(sound, sound.sample_rate, vocoder.mel), check_format=False)
        waves = (piece[:, 0].cpu() for piece in pieces)
        for wave in cut(waves, lambda: round(sound.samples * vocoder.sample_rate / sound.sample_rate)):
            advance(wave.numel() / vocoder.sample_rate)
            yield wave

    # Writing

    def _finish(self, work: _Work) -> Outcome:
        if work.outcome is not None:
            return work.outcome
        try:
            return self._written(work, ([wave] for wave in work.waves), len(work.waves), work.waves[0].shape[0])
        except Exception as error:
            return _failed(work.item, error)

    def _written(
        self,
        work: _Work,
        waves: Iterable[Iterable[torch.Tensor]],
        parts: int,
        channels: int,
        *,
        started: float | None = None,
    ) -> Outcome:
        """Write each of `waves`, which come in pieces [channels, n], to a file.

        Args:
            started: when computing began, for waves that are computed while they are written.
        """
        rate, folder = work.vocoder.sample_rate, self.job.folder
        outputs = []
        total = 0
        for part, pieces in enumerate(waves):
            output = numbered(work.item.output, part, parts)
            if folder is None:
                check_writable(Path(output), overwrite=self.job.overwrite)

            def record(output: files.Identity, part: int = part) -> None:
                if self._journal is not None:
                    self._journal.add(work.item, part, parts, work.source, output)

            try:
                with files.scratch(folder, output) as path:
                    total += write(
                        path, pieces, rate, channels, name=output, subtype=self.job.subtype, expected=work.samples or 0
                    )
                    files.commit(path, output, record)
            except OSError as error:
                raise unwritable(output, error) from error
            outputs.append(output)
        if started is not None:
            work.took += time.perf_counter() - started
        return Outcome(
            work.item,
            "done",
            outputs=tuple(outputs),
            seconds=total / parts / rate,
            channels=parts * channels,
            sample_rate=rate,
            took=work.took,
        )


def _now_that_is_ready(vocoder: VocoderBase) -> float:
    """The time when computing begins. The engine, which is made once, is no part of the first file's."""
    vocoder.report()
    return time.perf_counter()


def _failed(item: Item, error: Exception) -> Outcome:
    """The outcome of an item that an error is about, in words that begin with its name."""
    if isinstance(error, DistillError):
        text = str(error)
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}."
    else:
        text = on_one_line(error)
    if not text.startswith((item.input, item.output)):
        text = f"{item.input}: {text}"
    return Outcome(item, "failed", text, fatal=isinstance(error, UnwritableError) and error.fatal)


def _cut(rows: torch.Tensor, samples: int | None) -> torch.Tensor:
    """[channels, n] as so many samples."""
    if samples is None:
        return rows
    return torch.nn.functional.pad(rows, (0, max(0, samples - rows.shape[-1])))[:, :samples]


def _progress(vocoder: VocoderBase, advance: Advance) -> Callable[[int, int], None]:
    """`advance` as `mel_to_waveform` wants it."""
    frame = vocoder.hop_length / vocoder.variant.sample_rate
    before = 0

    def call(done: int, _: int) -> None:
        nonlocal before
        advance((done - before) * frame)
        before = done

    return call


def _nobody(seconds: float) -> None:
    pass
