"""One at a time, among processes and threads."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)


@contextmanager
def alone(lock_file: Path, waiting: str) -> Iterator[None]:
    """Hold a lock; `waiting` is said if someone else has it first. A process that dies gives its locks up."""
    from filelock import FileLock, Timeout

    lock_file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_file)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("%s: waiting for it to finish.", waiting)
            lock.acquire()
    except NotImplementedError:  # a file system without locks: two may download, and both end well
        log.info("there are no locks in %s", lock_file.parent)
    try:
        yield
    finally:
        lock.release()
