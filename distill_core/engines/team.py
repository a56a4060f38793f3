"""Threads for a compiled kernel: those that torch's own operations run on.

torch leaves its OpenMP threads waiting, spinning, between two operations. A second pool would fight
with them for the cores; so the kernel is sent to the same threads, through the entry point that
compilers use for a parallel region. Where torch brings another OpenMP, plain threads do.
"""

from __future__ import annotations

import ctypes
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

_KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

VALUES_PER_THREAD = 1 << 15
"""Less is sooner done than a second thread is woken."""


WITHIN = 1
"""Where in a descriptor stands how many threads have entered the kernel and not come to its end."""


def run(address: int, descriptor: NDArray[np.int64], values: int) -> None:
    """Send torch's threads, or as many as so many values are worth, into the kernel at `address` with a descriptor.

    Thread-safe. Like torch's own operations it waits without holding the interpreter's lock.

    Raises:
        MemoryError: a thread found no memory for what it needs, and left its work undone.
    """
    threads = min(torch.get_num_threads(), 1 + values // VALUES_PER_THREAD)
    place = descriptor.ctypes.data
    parallel = _gomp_parallel() if threads > 1 else None
    if parallel is not None:
        parallel(address, place, threads, 0)
    else:
        _by_threads(_KERNEL(address), descriptor, threads)
    if descriptor[WITHIN]:
        raise MemoryError("There is not enough memory for a compiled kernel of the channels-last engine.")


class _Helper:
    """One more thread's way through a kernel, which can be called off until it is taken.

    Args:
        kernel: the function.
        descriptor: its argument, which lives as long as this does.
    """

    def __init__(self, kernel: Any, descriptor: NDArray[np.int64]) -> None:
        self._kernel, self._descriptor = kernel, descriptor
        self.called_off = False
        self.working = threading.Lock()

    def __call__(self) -> None:
        with self.working:
            if not self.called_off:
                self._kernel(self._descriptor.ctypes.data)


def _by_threads(kernel: Any, descriptor: NDArray[np.int64], threads: int) -> None:
    helpers = [_Helper(kernel, descriptor) for _ in range(threads - 1)]
    try:
        for helper in helpers:
            try:
                _pool(os.getpid()).submit(helper)
            except RuntimeError:  # the interpreter ends, and takes no more work for threads: this one does it all
                break
        kernel(descriptor.ctypes.data)
    finally:
        _finish(helpers)


def _finish(helpers: list[_Helper]) -> None:
    """Leave no helper behind in memory that the caller is about to use again, whoever presses Ctrl-C meanwhile."""
    for helper in helpers:
        helper.called_off = True
    interrupted: BaseException | None = None
    while helpers:
        try:
            with helpers[-1].working:
                helpers.pop()
        except BaseException as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted


@lru_cache(maxsize=1)
def _gomp_parallel() -> Any:
    """`GOMP_parallel` of the OpenMP runtime torch has loaded, or None."""
    loaded = getattr(os, "RTLD_NOLOAD", None)
    if loaded is None:  # Windows
        return None
    package = Path(torch.__file__).parent
    candidates = [*package.glob("lib/libgomp*"), *package.parent.glob("torch.libs/libgomp*"), Path("libgomp.so.1")]
    for library in candidates:
        try:
            function = ctypes.CDLL(str(library), mode=loaded | os.RTLD_LAZY).GOMP_parallel
        except (OSError, AttributeError):
            continue
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        function.restype = None
        return function
    return None


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    """Keyed by process: the threads of a parent do not live in its forks."""
    return ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="distill-kernels")
