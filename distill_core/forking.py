"""What has to change in a child that is forked: locks that another thread held are made anew there."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    def after_fork(self) -> None: ...


_living: weakref.WeakSet[Forked] = weakref.WeakSet()
_watching = False


def watch(living: Forked) -> None:
    """Have `living.after_fork()` called in every child that is forked while it lives."""
    global _watching
    if not _watching and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_in_child)
        _watching = True
    _living.add(living)


def _in_child() -> None:
    for each in list(_living):
        each.after_fork()
