"""Threads for a compiled kernel: those that torch's own operations run on.

torch leaves its OpenMP threads waiting, spinning, between two operations. A second pool would fight
with them for the cores; so the kernel is sent to the same threads, through the entry point that
compilers use for a parallel region. Where torch brings another OpenMP, plain threads do.
"""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

_KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

VALUES_PER_THREAD = 1 << 15
"""Less is sooner done than a second thread is woken."""


def run(address: int, descriptor: int, values: int) -> None:
    """Send torch's threads, or as many as so many values are worth, into the kernel at `address` with one argument.

    Thread-safe. Like torch's own operations it waits without holding the interpreter's lock.
    """
    threads = min(torch.get_num_threads(), 1 + values // VALUES_PER_THREAD)
    if threads <= 1:
        _KERNEL(address)(descriptor)
        return
    parallel = _gomp_parallel()
    if parallel is not None:
        parallel(address, descriptor, threads, 0)
        return
    kernel = _KERNEL(address)
    helpers = [_pool(os.getpid()).submit(kernel, descriptor) for _ in range(threads - 1)]
    kernel(descriptor)
    for helper in helpers:
        helper.result()


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
