"""Work that takes a while: it says how far it is, one at a time, and it can be stopped.

    job = Job()
    for state in follow(job, lambda: work(job)):   # `state` several times a second
        show(state)
    result = job.result()
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

INTERVAL = 0.15
"""Seconds between two looks at how far a job is."""


class Stopped(BaseException):
    """Somebody asked for the job to end. Not an `Exception`: nothing on the way may take it for a failure."""


@dataclass(frozen=True)
class State:
    """How far a job is.

    Args:
        stage: what is being done, such as "Downloading bigvgan_v2".
        done, total: in units; `total` is None where it is not known.
        unit: "B" for bytes, "frames", or empty.
        began: the job's own time when the stage began doing things, in seconds.
        now: the same clock, now.
        first: `done` when the stage began: what an earlier download left.
        stopping: it was asked to end and has not yet.
    """

    stage: str = ""
    done: float = 0
    total: float | None = None
    unit: str = ""
    began: float = 0
    now: float = 0
    first: float = 0
    stopping: bool = False

    @property
    def share(self) -> float | None:
        """0 to 1, or None where nobody knows."""
        return min(1.0, self.done / self.total) if self.total else None

    @property
    def seconds_left(self) -> float | None:
        """What remains at the speed so far; None before there is one."""
        gained, elapsed = self.done - self.first, self.now - self.began
        if not self.total or gained <= 0 or elapsed < 1:
            return None
        return (self.total - self.done) * elapsed / gained


class Job:
    """One piece of work. The work calls `stage`, `frames` and `tqdm_class`; whoever watches, `state` and `stop`."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._state = State()
        self._finished = threading.Event()
        self._outcome: Any = None
        self._error: BaseException | None = None
        _JOBS.add(self)

    # For the work

    def check(self) -> None:
        """Raises `Stopped` if somebody asked for it."""
        if self._stop.is_set():
            raise Stopped

    def stage(self, name: str, total: float | None = None, unit: str = "", done: float = 0) -> None:
        """Something new begins."""
        self.check()
        self._state = State(name, done, total, unit, time.monotonic(), first=done)

    def frames(self, done: int, total: int) -> None:
        """For `mel_to_waveform(progress=)`."""
        self.check()
        state = self._state
        self._state = State(state.stage, done, total, "frames", state.began)

    def tqdm_class(self, stage: str) -> Callable[..., Any]:
        """For `ensure(tqdm_class=)`: a bar that ends up here under the name `stage`."""
        job = self

        class Bar:
            def __init__(self, total: int | None = None, initial: int = 0, **_: Any) -> None:
                job.stage(stage, total, "B", initial)

            def update(self, count: int = 1) -> None:
                job.check()
                state = job._state
                job._state = State(stage, state.done + count, state.total, "B", state.began, first=state.first)

            def close(self) -> None:
                pass

        return Bar

    # For who watches

    @property
    def state(self) -> State:
        state = self._state
        return State(
            state.stage,
            state.done,
            state.total,
            state.unit,
            state.began,
            time.monotonic(),
            state.first,
            self._stop.is_set(),
        )

    def stop(self) -> None:
        """Ask it to end; it does when it next looks."""
        self._stop.set()

    def result(self) -> Any:
        """What the work returned, or raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._outcome

    def _run(self, work: Callable[[], Any]) -> None:
        try:
            self.check()
            self._outcome = work()
        except BaseException as error:
            self._error = error
        finally:
            self._finished.set()


_JOBS: weakref.WeakSet[Job] = weakref.WeakSet()


def follow(job: Job, work: Callable[[], Any], *, interval: float = INTERVAL) -> Iterator[State]:
    """Do `work` in a thread of its own, saying now and then how far it is. Who stops listening stops the job."""
    thread = threading.Thread(target=job._run, args=(work,), name="distill-vocoder job", daemon=True)
    thread.start()
    try:
        while not job._finished.wait(interval):
            yield job.state
    finally:
        if not job._finished.is_set():
            job.stop()


def stop_all(timeout: float) -> None:
    """Ask every job of this process to end, and wait so many seconds for them."""
    running = [job for job in list(_JOBS) if not job._finished.is_set()]
    for job in running:
        job.stop()
    until = time.monotonic() + timeout
    for job in running:
        job._finished.wait(max(0.0, until - time.monotonic()))


class Turn:
    """Whoever holds it computes; the others wait, say so, and can be stopped while they do."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextmanager
    def taken(self, job: Job) -> Iterator[None]:
        if not self._lock.acquire(blocking=False):
            job.stage("Waiting for another run to finish")
            while not self._lock.acquire(timeout=INTERVAL):
                job.check()
        try:
            yield
        finally:
            self._lock.release()
