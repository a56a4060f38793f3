"""Whether kernels that numba compiles can be had here."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

PREPARING = threading.RLock()
"""Held by whoever imports numba and compiles. A fork waits for it: numba has a lock of its own, and so has each module
while it is imported, which in a child that is forked meanwhile nobody would ever open."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=PREPARING.acquire, after_in_parent=PREPARING.release, after_in_child=PREPARING.release)


def why_not(prepare: Callable[[], None]) -> str | None:
    """What keeps kernels from being used.

    Args:
        prepare: imports them, and numba with them, and compiles those that are needed.

    Returns:
        None when they are ready; else why they are not and what to do, as the rest of a sentence.
    """
    try:
        with PREPARING:
            prepare()
    except ModuleNotFoundError as error:
        if error.name != "numba":
            raise
        return "numba is not installed. pip install 'distill-core[cpu]' adds it."
    except Exception as error:  # a numba that does not fit this numpy, a processor it cannot compile for
        log.warning("numba does not work here (%s: %s)", type(error).__name__, error)
        return f"numba does not work here ({type(error).__name__}: {str(error).partition(chr(10))[0]})."
    return None
