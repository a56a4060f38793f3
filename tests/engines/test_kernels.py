"""Compiled kernels in bad times: Ctrl-C, no memory, a fork, files on disk that are old or cut off."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_core.engines import team

pytest.importorskip("numba")

from distill_bigvgan.engines import snake_kernels
from distill_core.engines import compiled


@pytest.mark.parametrize("name", ["fp32", "bf16", "first_sum", "later_sum"])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_kernel_without_memory_is_an_error(name: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """numba would say so on stderr, return, and leave in the output what lay there."""
    something = np.ones(64, np.float32)
    descriptor = np.empty(snake_kernels.DESCRIPTOR, np.int64)
    descriptor[:] = [0, 0, *[something.ctypes.data] * (snake_kernels.DESCRIPTOR - 2)]
    descriptor[snake_kernels.D_LENGTH], descriptor[snake_kernels.D_CHANNELS] = 1, 1 << 55
    monkeypatch.setattr(team.torch, "get_num_threads", lambda: threads)
    with pytest.raises(MemoryError, match="compiled kernel"):
        team.run(snake_kernels.KERNELS.address(name), descriptor, 1 << 20)


class Work:
    """Stands for a kernel that two threads are in, one of which is interrupted."""

    def __init__(self, interrupted: bool = True) -> None:
        self.begun, self.done = threading.Event(), threading.Event()
        self.interrupted = interrupted
        self.runs = 0

    def __call__(self, place: int) -> None:
        self.runs += 1
        if threading.current_thread() is not threading.main_thread():
            self.begun.set()
            time.sleep(0.3)
            self.done.set()
        elif self.interrupted:
            assert self.begun.wait(10)
            raise KeyboardInterrupt


def test_who_interrupts_waits_for_the_threads_that_are_in_the_callers_memory() -> None:
    work = Work()
    with pytest.raises(KeyboardInterrupt):
        team._by_threads(work, np.zeros(2, np.int64), 2)
    assert work.done.is_set()


@pytest.mark.parametrize("interrupted", [True, False], ids=["second", "only"])
def test_an_interrupt_of_the_wait_does_not_leave_them_either(
    interrupted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(interrupted)
    real = team._Helper
    closed = []

    class Impatient:
        """A lock at which somebody presses Ctrl-C once more."""

        def __init__(self) -> None:
            self.lock = threading.Lock()

        def __enter__(self) -> None:
            if threading.current_thread() is threading.main_thread() and not closed:
                closed.append(True)
                raise KeyboardInterrupt
            self.lock.acquire()

        def __exit__(self, *_: object) -> None:
            self.lock.release()

    def helper(*arguments: Any) -> Any:
        made = real(*arguments)
        made.working = Impatient()  # type: ignore[assignment]
        return made

    monkeypatch.setattr(team, "_Helper", helper)
    with pytest.raises(KeyboardInterrupt):
        team._by_threads(work, np.zeros(2, np.int64), 2)
    assert closed
    assert work.done.is_set() == work.begun.is_set()  # without the first, the helper may have been called off in time


def test_a_helper_that_never_began_is_called_off(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting: list[Any] = []

    class Pool:
        def submit(self, helper: Any) -> None:
            waiting.append(helper)

    monkeypatch.setattr(team, "_pool", lambda process: Pool())
    work = Work(interrupted=False)
    team._by_threads(work, np.zeros(2, np.int64), 3)
    for helper in waiting:
        helper()  # its turn comes at last, when the memory is somebody else's
    assert (len(waiting), work.runs) == (2, 1)


def test_an_interpreter_that_ends_computes_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pool:
        def submit(self, helper: Any) -> None:
            raise RuntimeError("cannot schedule new futures after shutdown")

    monkeypatch.setattr(team, "_pool", lambda process: Pool())
    work = Work(interrupted=False)
    team._by_threads(work, np.zeros(2, np.int64), 3)
    assert work.runs == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_forked_while_another_thread_compiles_can_compile() -> None:
    compiling = threading.Event()

    def compile_slowly() -> None:
        with compiled.PREPARING:
            compiling.set()
            time.sleep(0.5)

    thread = threading.Thread(target=compile_slowly)
    thread.start()
    compiling.wait()
    child = os.fork()
    if not child:
        os._exit(0 if compiled.PREPARING.acquire(timeout=5) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    thread.join()
    assert compiled.PREPARING.acquire(timeout=5)
    compiled.PREPARING.release()


FOR_ANOTHER = """
import llvmlite.binding as llvm

llvm.get_host_cpu_features = lambda: {"avx512f": True}

import numba
from distill_bigvgan.engines import snake_kernels
from distill_core.engines.kernels import OPTIONS

made = numba.cfunc(numba.types.void(numba.types.voidptr), **OPTIONS)(snake_kernels._bf16).inspect_llvm()
print([name in made for name in ("avx512.mask.reduce.ps.512", "avx512bf16.cvtneps2bf16.512")])
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="instructions of x86")
@pytest.mark.parametrize("features", ["+avx512f", "+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx512bf16"])
def test_what_only_some_processors_can_is_asked_of_those_alone(features: str) -> None:
    environment = {**os.environ, "NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": features}
    command = [sys.executable, "-c", FOR_ANOTHER]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{['bf16' in features] * 2}\n"


KERNEL = """
import ctypes
import numba
import numpy as np
from distill_core.engines import team
from distill_core.engines.kernels import Kernels
import answer

VALUE = answer.VALUE

def body(argument):
    d = numba.carray(argument, 3, np.int64)
    d[2] = VALUE

KERNELS = Kernels({"body": body}, made_of=[answer])

if __name__ == "kernel":
    descriptor = np.zeros(3, np.int64)
    team.run(KERNELS.address("body"), descriptor, 1)
    print(descriptor[2])
"""


@pytest.fixture
def computed(tmp_path: Path) -> Any:
    """What a kernel makes that is generated from a module beside it, in a process of its own."""
    (tmp_path / "kernel.py").write_text(KERNEL)

    def run(value: int | None = None) -> int:
        if value is not None:
            (tmp_path / "answer.py").write_text(f"VALUE = {value}\n")
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
        environment["NUMBA_CACHE_DIR"] = str(tmp_path / "cache")
        command = [sys.executable, "-c", "import kernel"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    return run


def kept(folder: Path, ending: str) -> list[Path]:
    return sorted((folder / "cache").rglob(f"*.{ending}"))


def test_machine_code_is_kept_until_what_it_is_made_of_changes(tmp_path: Path, computed: Any) -> None:
    assert computed(1) == 1
    first = {path: path.stat().st_mtime_ns for path in kept(tmp_path, "nbc")}
    assert len(first) == 1
    assert computed() == 1
    assert {path: path.stat().st_mtime_ns for path in kept(tmp_path, "nbc")} == first
    assert computed(2) == 2  # in a release of the module beside, the kernel's own file being the same
    assert computed(1) == 1


@pytest.mark.parametrize(("ending", "left"), [("nbi", 0), ("nbc", 100)])
def test_files_that_were_cut_off_are_made_anew(tmp_path: Path, computed: Any, ending: str, left: int) -> None:
    assert computed(1) == 1
    (damaged,) = kept(tmp_path, ending)
    damaged.write_bytes(damaged.read_bytes()[:left])
    assert computed() == 1
    assert computed() == 1
    (again,) = kept(tmp_path, ending)
    assert again.stat().st_size > 200
