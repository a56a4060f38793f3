"""Short runs on a CUDA device recorded once and replayed: some 250 launches become one.

A run of so many frames is good for any mel that has no more, so mels are lengthened by zeros to one of a few lengths,
and nearly every sentence finds a recording. It is made when a length comes for the second time, and its first replay
is held against the plain run before it is ever used. Whatever goes wrong on the way ends the recording for good, with
a reason, and nothing else. Once there is no more room a length has to come more often: a recording costs several
runs, and empties torch's caches.
"""

from __future__ import annotations

import logging
import math
import threading
import weakref
from collections import OrderedDict
from typing import Any, Protocol

import torch
from torch import Tensor

from ...wording import on_one_line
from .generator import Padded, run_padded

log = logging.getLogger(__name__)

MOST_GRAPHS = 32
MOST_FRAMES = 512
"""Of all items together, halo counted: what is longer keeps the GPU busy while the next launches are made."""

_MOST_SHAPES = 64
_WORTH_A_PLACE = 16
"""So often a shape comes before another one's graph goes for it: batches that come and go are not worth recording."""

_TOLERANCE = 1e-3

_capturing = threading.RLock()
"""Held while a graph is captured: torch allows one capture at a time in a process, and vocoders have a turn each."""


class Recorder(Protocol):
    """Turns a function and examples of its arguments into a faster function for arguments of those shapes."""

    def __call__(self, function: Padded, mel: Tensor, frames: Tensor) -> Padded: ...


def places(frames: int, multiple: int) -> int:
    """A length for a mel of so many frames: some `multiple`, an eighth too long at most where it is many times that."""
    units = -(-frames // multiple)
    coarse = 1 << max(0, (units - 1).bit_length() - 4)
    return -(-units // coarse) * coarse * multiple


class ReplayCache:
    """A mel [B, n_mels, T] -> [B, samples], by graphs where they pay. One thread at a time.

    Args:
        function: launches the same kernels for every mel of one shape, and copies nothing to the host.
        multiple: so many frames, or some times as many, are what it is fastest for.
        recorder: makes a graph; by default CUDA's.
        most_graphs: how many are kept; the one that was used longest ago goes.
        most_frames: B * T beyond which a run is not recorded.
    """

    def __init__(
        self,
        function: Padded,
        *,
        multiple: int = 1,
        recorder: Recorder | None = None,
        most_graphs: int = MOST_GRAPHS,
        most_frames: int = MOST_FRAMES,
    ) -> None:
        self._function = function
        self._multiple = multiple
        self._recorder = CudaRecorder() if recorder is None else recorder
        self._most_graphs = most_graphs
        self._most_frames = most_frames
        self._graphs: OrderedDict[tuple[int, ...], Padded] = OrderedDict()
        self._met: OrderedDict[tuple[int, ...], int] = OrderedDict()  # how often, without a graph
        self.trouble: str | None = None

    def __len__(self) -> int:
        return len(self._graphs)

    def __call__(self, mel: Tensor) -> Tensor:
        items, _, frames = mel.shape
        if self.trouble is not None or items * frames > self._most_frames:
            return run_padded(self._function, mel, self._multiple)
        # Recorded or not, a mel goes the same way, to the same samples.
        return run_padded(self._run, mel, places(frames, self._multiple))

    def _run(self, mel: Tensor, frames: Tensor) -> Tensor:
        shape = tuple(mel.shape)
        if graph := self._graphs.get(shape):
            self._graphs.move_to_end(shape)
            return graph(mel, frames)
        wave = self._function(mel, frames)
        self._met[shape] = self._met.get(shape, 0) + 1
        self._met.move_to_end(shape)
        if len(self._met) > _MOST_SHAPES:
            self._met.popitem(last=False)
        if self._met[shape] >= (2 if len(self._graphs) < self._most_graphs else _WORTH_A_PLACE):
            self._record(mel, frames, wave)
        return wave

    def clear(self) -> None:
        """Give the memory of all graphs back."""
        self._graphs.clear()
        self._met.clear()

    def _record(self, mel: Tensor, frames: Tensor, wave: Tensor) -> None:
        size = float(wave.norm())
        if not math.isfinite(size):  # it went beyond the range of fp16, and no replay could be held against it
            return
        shape = tuple(mel.shape)
        del self._met[shape]
        while len(self._graphs) >= self._most_graphs:
            self._graphs.popitem(last=False)
        try:
            graph = self._recorder(self._function, mel, frames)
            again = graph(mel, frames)
            error = float((again - wave).norm()) / max(size, 1e-12)
        except Exception as failure:  # capture has many ways to fail; the plain run above is right in any case
            self._give_up(f"recording failed with {on_one_line(failure, 200)}")
            return
        if not error <= _TOLERANCE:
            self._give_up(f"a replay differed from the plain run by {error:.1e}")
            return
        self._graphs[shape] = graph

    def _give_up(self, reason: str) -> None:
        self.clear()
        self.trouble = reason
        log.warning("Running without CUDA graphs: %s", reason)


class CudaRecorder:
    """Records CUDA graphs that share one private pool of memory.

    They may: each replay computes everything anew from its own input, its output is copied at once, and an event
    keeps replays in order whichever streams they come from.
    """

    def __init__(self) -> None:
        self._pool: Any = None
        self._graphs: weakref.WeakSet[torch.cuda.CUDAGraph] = weakref.WeakSet()
        self._done = torch.cuda.Event()

    def __call__(self, function: Padded, mel: Tensor, frames: Tensor) -> Padded:
        # torch leaves a thread on the stream of a capture that failed; the outer context brings it back.
        with _capturing, torch.cuda.device(mel.device), torch.cuda.stream(torch.cuda.current_stream()):
            return self._record(function, mel, frames)

    def _record(self, function: Padded, mel: Tensor, frames: Tensor) -> Padded:
        own = (mel.clone(), frames.clone())
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            function(*own)  # workspaces and handles that belong to the stream are made here, not in the graph
        torch.cuda.current_stream().wait_stream(stream)
        if not self._graphs:  # torch takes no pool again whose last graph is gone
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # "thread_local": what other threads of the program do with the device meanwhile is their affair.
        with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
            made = function(*own)
        self._graphs.add(graph)

        def replay(mel: Tensor, frames: Tensor) -> Tensor:
            with torch.cuda.device(own[0].device):
                current = torch.cuda.current_stream()
                current.wait_event(self._done)
                for mine, given in zip(own, (mel, frames), strict=True):
                    mine.record_stream(current)  # its memory is not given away before, should the graph be dropped
                    mine.copy_(given)
                graph.replay()
                wave = made.clone()
                self._done.record(current)
            return wave

        return replay
