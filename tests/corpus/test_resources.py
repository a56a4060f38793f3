"""How many workers a machine is good for, on systems that are not this one."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from distill_core.corpus import resources

BIGVGAN = 122_000_000


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen, told as on a system without affinity."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(Path, "read_text", _absent)  # of /proc and /sys


def _absent(path: Path) -> str:
    raise FileNotFoundError(path)


def test_workers_fit_into_the_memory_of_a_mac(cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 16_384, "SC_PHYS_PAGES": 524_288}.__getitem__)
    assert resources.memory() == 8 << 30
    assert resources.default_workers(BIGVGAN) == 2
    assert resources.default_workers(None) == 11


@pytest.mark.parametrize(("told", "workers"), [(1, 2), (0, 16)])
def test_workers_fit_into_the_memory_that_windows_has_free(
    cores: None, monkeypatch: pytest.MonkeyPatch, told: int, workers: int
) -> None:
    def fill(pointer: object) -> int:
        status = pointer._obj  # type: ignore[attr-defined]
        assert ctypes.sizeof(status) == status.size == 64
        ctypes.memmove(ctypes.addressof(status) + 8, (ctypes.c_uint64 * 2)(16 << 30, 8 << 30), 16)
        return told

    monkeypatch.setattr(sys, "platform", "win32")
    kernel = SimpleNamespace(GlobalMemoryStatusEx=fill)
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
    assert resources.default_workers(BIGVGAN) == workers


def test_here_there_is_some_memory() -> None:
    assert 0 < resources.memory() < float("inf")
