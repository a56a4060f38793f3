"""Where files are, and whose they were."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from distill_core.corpus import files


def test_processes_that_are_there_and_that_are_no_more() -> None:
    assert files.alive(os.getpid())
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert not files.alive(process.pid)


@pytest.mark.parametrize(
    ("state", "there"), [("running", True), ("ended, and its id still held", False), ("none", False), ("foreign", True)]
)
def test_on_windows_no_process_is_sent_anything_to_see_whether_it_is_there(
    monkeypatch: pytest.MonkeyPatch, state: str, there: bool
) -> None:
    def open_process(access: int, inherit: bool, pid: int) -> int:
        assert (access, inherit, pid) == (0x100000, False, 4321)
        if state == "none":
            raise OSError(22, "The parameter is incorrect")
        if state == "foreign":
            raise PermissionError(13, "Access is denied")
        return 7

    closed: list[int] = []
    windows = SimpleNamespace(
        SYNCHRONIZE=0x100000,
        WAIT_TIMEOUT=258,
        OpenProcess=open_process,
        WaitForSingleObject=lambda handle, milliseconds: 258 if state == "running" else 0,
        CloseHandle=closed.append,
    )
    monkeypatch.setitem(sys.modules, "_winapi", windows)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "kill", lambda pid, number: pytest.fail("os.kill(pid, 0) is Ctrl-C on Windows"))
    assert files.alive(4321) is there
    assert closed == ([7] if state in ("running", "ended, and its id still held") else [])
