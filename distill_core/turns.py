"""Whose turn it is with a model that threads share."""

from __future__ import annotations

import _thread


class Turn(_thread.RLock):  # type: ignore[misc]  # final for mypy, not for Python
    """One run at a time: calls from several threads wait for one another, a thread that has it may ask again.

    It is a lock rather than has one: between a lock's `acquire` and the end of an `__enter__` in Python Ctrl-C could
    come, and nobody would ever give the turn back.

    Attributes:
        running: whether a run is going on, which the thread that has the turn could only disturb from within: from
            a signal handler, or from the model itself.
    """

    running = False
