"""One at a time, among processes and threads."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

log = logging.getLogger(__name__)

INTERVAL = 0.5
"""Seconds between two calls of what is done while waiting."""

Look = Callable[[], object]


@contextmanager
def alone(
    lock_file: Path,
    waiting: str,
    meanwhile: Callable[[], AbstractContextManager[Look]] = lambda: nullcontext(lambda: None),
) -> Iterator[None]:
    """Hold a lock. A process that dies gives its locks up.

    Args:
        lock_file: the lock.
        waiting: what is said if someone else has it first.
        meanwhile: entered for as long as that takes. What it gives is called again and again; what that raises ends
            the waiting, and comes out of here.
    """
    from filelock import FileLock, Timeout

    lock_file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_file)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("%s: waiting for it to finish.", waiting)
            with meanwhile() as look:
                while not lock.is_locked:
                    look()
                    with suppress(Timeout):
                        lock.acquire(timeout=INTERVAL)
    except NotImplementedError:  # a file system without locks: two may download, and both end well
        log.info("there are no locks in %s", lock_file.parent)
    try:
        yield
    finally:
        lock.release()
