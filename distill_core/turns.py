"""Whose turn it is with a model that threads share."""

from __future__ import annotations

import _thread


class _Door(_thread.RLock):  # type: ignore[misc]  # final for mypy, not for Python
    """Where the one who is next waits. Who is through leaves it to another before the end of a `with`."""

    def leave(self) -> None:
        """Let the next one in, if it is this thread that stands there."""
        if self._is_owned():  # type: ignore[attr-defined]
            self.release()

    def __exit__(self, *_: object) -> None:
        self.leave()


class Turn(_thread.RLock):  # type: ignore[misc]  # final for mypy, not for Python
    """One run at a time: calls from several threads wait for one another, a thread that has it may ask again.

    A lock goes to whoever asks first when it is free, which mostly is the thread that has just given it back: a short
    call would wait while a long one makes several of its chunks. So those that want a run come through a door: the
    one who waits there has the next turn, and a thread that has had one comes after it.

    It is a lock rather than has one: between a lock's `acquire` and the end of an `__enter__` in Python Ctrl-C could
    come, and nobody would ever give the turn back.

    Attributes:
        door: entered before the turn, by a thread that has none, and left once it has it.
        running: whether a run is going on, which the thread that has the turn could only disturb from within: from
            a signal handler, or from the model itself.
    """

    running = False

    def __init__(self) -> None:
        self.door = _Door()

    def taken_here(self) -> bool:
        """Whether this thread has the turn."""
        return bool(self._is_owned())  # type: ignore[attr-defined]
