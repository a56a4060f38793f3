"""Vocoders in a process that forks: what has to change in the child.

The threads of torch's OpenMP pool do not live on in a fork, and the first operation that counts on
them would wait forever. So a child of a process that holds a vocoder computes on one thread, as torch's
own data loader workers do; and locks that another thread held are made anew.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

import torch


class Forked(Protocol):
    def after_fork(self) -> None: ...


_living: weakref.WeakSet[Forked] = weakref.WeakSet()
_watching = False


def watch(vocoder: Forked) -> None:
    """Have `vocoder.after_fork()` called in every child that is forked while it lives."""
    global _watching
    if not _watching and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_in_child)
        _watching = True
    _living.add(vocoder)


def _in_child() -> None:
    vocoders = list(_living)
    if not vocoders:
        return
    torch.set_num_threads(1)
    for vocoder in vocoders:
        vocoder.after_fork()
