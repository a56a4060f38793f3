"""Whose turn it is with a model that threads share."""

from __future__ import annotations

import threading


class Turn:
    """One run at a time: calls from several threads wait for one another, a thread that has it may ask again.

    Attributes:
        running: whether a run is going on, which the thread that has the turn could only disturb from within: from
            a signal handler, or from the model itself.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.running = False

    def acquire(self, timeout: float = -1) -> bool:
        return self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> Turn:
        self._lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()
