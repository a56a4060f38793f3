"""What goes through a vocoder's model in one call: windows with their context, or the frames of a stream one by one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from . import chunking
from .device import empty_caches, is_out_of_memory
from .feed import Feed, StreamFeed
from .flow import Flow
from .progress import Progress

if TYPE_CHECKING:
    from .vocoder import VocoderBase

log = logging.getLogger(__name__)


class Run:
    """The windows of one call, and what to do when the accelerator's memory runs out on the way.

    First the window is cut in halves, down to single frames; what does not fit even then is computed
    on the CPU, as is the rest of the call. At its end the vocoder is back on its device.
    """

    def __init__(self, vocoder: VocoderBase, feed: Feed, progress: Progress, *, first_frame: int = 0) -> None:
        self.vocoder = vocoder
        self.feed = feed
        self.progress = progress
        self.first_frame = first_frame  # of the waveform that is filled
        self.home = vocoder.device
        self.limit: int | None = None  # frames x rows that are known to be too many
        self.on_cpu = False

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        if self.on_cpu:
            self._come_home()
        if self.limit is not None:
            self.vocoder._was_full()

    def _come_home(self) -> None:
        vocoder = self.vocoder
        try:
            vocoder._place(self.home)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            vocoder._place(torch.device("cpu"))
            log.warning("%s stays on the CPU: there is no memory left on %s.", vocoder, self.home)
        finally:
            vocoder._turn.release()

    def __call__(self, wave: torch.Tensor, rows: tuple[int, ...], window: chunking.Window, total: int) -> None:
        """Compute `rows` of `window` into `wave` [B, samples]."""
        if not self._too_much(rows, window):
            try:
                part = self.vocoder._compute(self.feed.read(rows, window.lo, window.hi), window.context)
            except RuntimeError as error:
                if self.vocoder.device.type == "cpu" or not is_out_of_memory(error):
                    raise
                reason = str(error)
            else:
                hop, first = self.vocoder.hop_length, self.first_frame
                inner = part[:, (window.start - window.lo) * hop : (window.stop - window.lo) * hop]
                items: slice | list[int] = list(rows)
                if rows[-1] - rows[0] + 1 == len(rows):  # mostly: and a slice has no numbers to be sent to a card
                    items = slice(rows[0], rows[-1] + 1)
                samples = slice((window.start - first) * hop, (window.stop - first) * hop)
                wave[items, samples] = inner.to(wave.device, wave.dtype)
                self.progress.advance(window.frames * len(rows))
                return
            # Not before: the error's traceback holds everything that was computed so far.
            self._shrink(rows, window, reason)
        if len(rows) > 1:
            middle = len(rows) // 2
            for part_of_rows in (rows[:middle], rows[middle:]):
                self(wave, part_of_rows, window, total)
        elif window.frames > 1 and not self.on_cpu:
            for half in window.halves(self.vocoder.halo, total):
                self(wave, rows, half, total)
        else:
            self(wave, rows, window, total)

    def _too_much(self, rows: tuple[int, ...], window: chunking.Window) -> bool:
        return not self.on_cpu and self.limit is not None and len(rows) * window.frames >= self.limit

    def _shrink(self, rows: tuple[int, ...], window: chunking.Window, reason: str) -> None:
        size = len(rows) * window.frames
        empty_caches()
        if size > 1:
            log.warning(
                "Out of memory on %s with %d frames at once; trying %d. A smaller chunk_frames avoids this.",
                self.home,
                size,
                size // 2,
            )
            self.limit = size
            return
        log.warning("Out of memory on %s even for one frame; this call goes on on the CPU. (%s)", self.home, reason)
        self.vocoder._turn.acquire()  # nobody else may find the model away from its device
        self.on_cpu = True
        self.vocoder._place(torch.device("cpu"))


class Current:
    """What flows through the model of one stream, whose frames are all taken once, one after the other.

    Args:
        vocoder: whose stream it is.
        feed: where its frames come from.
    """

    def __init__(self, vocoder: VocoderBase, feed: StreamFeed) -> None:
        self._vocoder, self._feed = vocoder, feed
        self._flow: Flow | None = None
        self._taken = 0  # frames
        self._ended = False
        self._ahead: torch.Tensor | None = None  # samples that are certain, and not handed out

    def __call__(self, chunk: chunking.Window, last: bool) -> torch.Tensor | None:
        """The waveform [B, 1, n] of a chunk's frames, or None if it has to be computed without this.

        Chunks follow one another. `last` says that the frames around this one reach to the end of all.
        """
        if chunk.start == 0:
            self._flow = self._vocoder._flow()
        if self._flow is None:
            return None
        if chunk.hi > self._taken or (last and not self._ended):
            made = self._vocoder._flow_on(self._flow, self._read(chunk.hi), last)
            if made is None:  # from here on, for it has missed these frames
                self._flow = None
                return None
            self._taken, self._ended = chunk.hi, last
            self._ahead = made if self._ahead is None else torch.cat([self._ahead, made], dim=-1)
        assert self._ahead is not None
        samples = chunk.frames * self._vocoder.hop_length
        wave = self._vocoder._waveform(self._feed.rows, 1, samples)
        wave[:, 0] = self._ahead[:, :samples]
        self._ahead = self._ahead[:, samples:].clone()
        return wave

    def _read(self, stop: int) -> torch.Tensor:
        """The frames up to this one that have not been taken."""
        rows = range(self._feed.rows)
        if stop > self._taken:
            return self._feed.read(rows, self._taken, stop)
        return torch.empty(len(rows), self._vocoder.variant.mel.n_mels, 0, device=self._vocoder.device)
