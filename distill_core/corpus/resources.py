"""How many workers a machine is good for."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

_BASE = 0.6e9
_PER_PARAMETER = 14.0
"""Bytes to reckon with for a worker: so many, and so many for each of the model's parameters.

That makes BigVGAN's 122 million parameters the 2.3 GB of docs/performance.md; HiFi-GAN takes half of what it says.
"""


_DRIVERS = ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/kfd", "/dev/dxg")
"""Of NVIDIA, Jetson, ROCm and WSL. Not /dev/nvidia0: a container may have been given another card, and that alone."""


def cores() -> int:
    """Processors that this process may use: its affinity, and what a container's quota is worth."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        count = os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        count = min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or "max"
        pass
    return count


def memory() -> float:
    """Bytes of memory that can be had, or on macOS that there are; infinity where the system tells neither."""
    if sys.platform == "win32":
        return _memory_of_windows()
    available = float("inf")
    try:
        available = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
        limit = float(Path("/sys/fs/cgroup/memory.max").read_text())
        available = min(available, limit - float(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, ValueError, StopIteration):
        pass
    return available


def _memory_of_windows() -> float:
    class Status(ctypes.Structure):
        """MEMORYSTATUSEX."""

        _fields_ = (
            ("size", ctypes.c_uint32),
            ("load", ctypes.c_uint32),
            ("physical", ctypes.c_uint64),
            ("available", ctypes.c_uint64),
            ("others", ctypes.c_uint64 * 5),
        )

    kernel: Any = vars(ctypes)["windll"].kernel32
    status = Status(ctypes.sizeof(Status))
    return float(status.available) if kernel.GlobalMemoryStatusEx(ctypes.byref(status)) else float("inf")


def accelerator_seen() -> bool:
    """Whether the machine looks like one with a GPU that torch can use. Imports no torch, which knows better."""
    return sys.platform == "darwin" or any(os.path.exists(name) for name in _DRIVERS)


def default_workers(parameters: int | None, threads: int = 1) -> int:
    """Processes that compute on CPUs side by side: as many as cores and memory allow, at least one.

    Args:
        parameters: of the model, if known.
        threads: that each computes with.
    """
    each = _BASE + _PER_PARAMETER * (parameters or 0)
    by_memory = 0.8 * memory() / each
    return max(1, int(min(cores() // threads, by_memory)))
