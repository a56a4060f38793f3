"""BigVGAN's weights in processes of their own: killed, offline, eight at once, traced."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from tests import checkpoints
from tests.hub_server import Fault, HubServer

VARIANT = checkpoints.VARIANT
REPO = f"nvidia/bigvgan_{VARIANT}"
NAME = "bigvgan_generator.pt"

COMMAND = [sys.executable, "-c", "from distill_core.cli import main; raise SystemExit(main())"]
IS_CACHED = f"from distill_bigvgan import is_bigvgan_cached; print(is_bigvgan_cached({VARIANT!r}))"
ENSURE = f"from distill_bigvgan import ensure_bigvgan_weights; print(ensure_bigvgan_weights({VARIANT!r}))"
VOCODE = f"""
import torch
torch.set_num_threads(1)
from distill_core import registry
vocoder = registry.get("bigvgan", variant={VARIANT!r}, device="cpu")
print(tuple(vocoder.mel_to_waveform(torch.zeros(1, 80, 4)).shape))
"""


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return checkpoints.bigvgan_files()


@pytest.fixture
def size(hub: HubServer, files: dict[str, bytes]) -> int:
    """Bytes of the checkpoint the Hub holds as `VARIANT`, beside what nobody should ask for."""
    hub.add(REPO, {**files, "bigvgan_discriminator_optimizer.pt": b"x" * 100_000})
    return len(files[NAME])


@pytest.fixture
def run(hub: HubServer, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python code, or a command, with this Hub and a cache of the test's own."""

    def run(code: str | list[str], **env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code] if isinstance(code, str) else code
        return subprocess.run(
            command, env=hub.env(tmp_path, **env), capture_output=True, text=True, timeout=120, check=False
        )

    return run


def start(code: str, env: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def asked_for(hub: HubServer) -> set[str]:
    return {request.rpartition(" ")[2] for request in hub.asked()}


def test_first_two_files_with_progress_then_no_socket(hub: HubServer, size: int, run, files) -> None:
    # An agent's environment makes huggingface_hub's own calls ask the Hub for more than the files.
    first = run(VOCODE, AI_AGENT="1")
    assert first.stdout == "(1, 1, 1024)\n", first.stderr
    assert f"bigvgan_{VARIANT}: 100%" in first.stderr
    assert asked_for(hub) == {"config.json", NAME}
    assert hub.sent(NAME) == size
    hub.close()
    guard = """
import sys
def hook(event, arguments):
    if event.startswith("socket."):
        raise SystemExit(f"a socket: {event} {arguments}")
sys.addaudithook(hook)
"""
    for env in ({}, {"HF_HUB_OFFLINE": "1"}):
        again = run(guard + VOCODE, **env)
        assert again.stdout == "(1, 1, 1024)\n", again.stderr
        assert again.stderr == ""


def test_a_tracer_sees_no_socket(hub: HubServer, size: int, run, tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    # Not signals: a torch built for CUDA runs `ldconfig`, whose end is one.
    seen = ["-e", "trace=network", "-e", "signal=none", "-o", str(tmp_path / "trace")]
    trace = ["strace", "-f", "-qq", *seen, sys.executable, "-c"]
    first = run([*trace, ENSURE])
    if "ptrace" in first.stderr or "PTRACE" in first.stderr:
        pytest.skip(f"tracing is not permitted here: {first.stderr.splitlines()[0]}")
    assert "connect(" in (tmp_path / "trace").read_text(), first.stderr  # it does see them
    again = run([*trace, VOCODE], HF_HUB_OFFLINE="1")
    assert again.stdout == "(1, 1, 1024)\n", again.stderr
    assert (tmp_path / "trace").read_text() == ""


def test_offline_with_nothing_cached_says_what_to_do(hub: HubServer, size: int, run, tmp_path: Path) -> None:
    done = run([*COMMAND, "weights", "fetch", "bigvgan", "--variant", VARIANT], HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "pass weights=DIR (in the terminal --weights DIR, for compare NAME=DIR)" in line
    assert hub.requests == []

    told = re.search(r"`(hf download .*?)`", line)
    assert told is not None
    folder = tmp_path / "brought"
    command = shlex.split(told[1].replace("DIR", str(folder)))
    command[0] = shutil.which("hf", path=str(Path(sys.executable).parent)) or "hf"
    assert run(command).returncode == 0
    code = VOCODE.replace('device="cpu"', f'device="cpu", weights={str(folder)!r}')
    assert run(code, HF_HUB_OFFLINE="1").stdout == "(1, 1, 1024)\n"


def test_killed_in_the_middle(hub: HubServer, size: int, run, tmp_path: Path) -> None:
    hub.faults.append(Fault(NAME, pace=0.05))
    process = start(ENSURE, hub.env(tmp_path))
    blobs = tmp_path / "hub" / f"models--{REPO.replace('/', '--')}" / "blobs"
    try:
        deadline = time.monotonic() + 60
        while not any(path.stat().st_size > size // 4 for path in blobs.glob("*.incomplete")):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.kill()
        process.communicate()
    (partial,) = blobs.glob("*.incomplete")
    arrived = partial.stat().st_size
    assert arrived < size
    assert run(IS_CACHED).stdout == "False\n"

    hub.forget()
    done = run(ENSURE)
    assert done.returncode == 0, done.stderr
    assert hub.sent(NAME) == size - arrived
    assert run(IS_CACHED).stdout == "True\n"
    assert run(VOCODE).stdout == "(1, 1, 1024)\n"


def test_eight_processes_at_once(hub: HubServer, size: int, tmp_path: Path) -> None:
    all_wait = threading.Event()
    hub.faults.append(Fault(NAME, hold=all_wait))
    env = hub.env(tmp_path, HF_HUB_DOWNLOAD_TIMEOUT="100")
    waiting: list[str] = []

    def listen(stderr: IO[str]) -> None:
        for line in stderr:
            if "Another process is downloading" in line and "waiting" in line:
                waiting.append(line)
                if len(waiting) == 7:
                    all_wait.set()

    processes = [start(VOCODE, env) for _ in range(8)]
    listeners = [threading.Thread(target=listen, args=[process.stderr]) for process in processes]
    for listener in listeners:
        listener.start()
    outputs = [process.stdout.read() for process in processes]
    for process, listener in zip(processes, listeners, strict=True):
        listener.join()
        assert process.wait() == 0
    assert outputs == ["(1, 1, 1024)\n"] * 8
    assert len(waiting) == 7
    assert hub.sent(NAME) == size
    assert hub.asked().count("HEAD " + NAME) == 1


def test_a_process_that_waits_takes_over_from_one_that_is_killed(hub: HubServer, size: int, tmp_path: Path) -> None:
    hub.faults.append(Fault(NAME, stall=0.5, times=1))
    env = hub.env(tmp_path)
    first = start(ENSURE, env)
    second = None
    try:
        deadline = time.monotonic() + 60
        while hub.sent(NAME) < size // 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        second = start(ENSURE, env)
        assert "waiting" in second.stderr.readline()
    finally:
        first.kill()
        first.communicate()
        if second is not None:
            out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert VARIANT in out
    assert hub.sent(NAME) == size


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(status=401), "401"),
        (Fault(status=404, headers={"X-Error-Code": "RevisionNotFound"}), "no revision"),
        (Fault(NAME, content=b"<html>", kind="text/html"), "web page"),
        (Fault(status=429, headers={"Retry-After": "500"}), "in 500 s"),
    ],
    ids=["401", "404", "login page", "429"],
)
def test_no_traceback_at_the_terminal(hub: HubServer, size: int, run, fault: Fault, said: str) -> None:
    hub.faults.append(fault)
    done = run([*COMMAND, "weights", "fetch", "bigvgan", "--variant", VARIANT, "--quiet"])
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert said in line


def test_an_air_gap(hub: HubServer, size: int, run, tmp_path: Path, files) -> None:
    """Fetched to a folder on one machine, used from it on another that has neither cache nor network."""
    folder = tmp_path / "stick" / "bigvgan"
    fetch = [*COMMAND, "weights", "fetch", "bigvgan", "--variant", VARIANT, "--to", str(folder)]
    done = run(fetch)
    assert done.stdout == f"{folder}\n", done.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert run(fetch).returncode == 0  # the same again is no overwriting
    (folder / "config.json").write_text("{}")
    refused = run(fetch)
    assert refused.returncode == 1
    assert "--force" in refused.stderr
    assert run([*fetch, "--force"]).returncode == 0
    hub.close()
    code = VOCODE.replace('device="cpu"', f'device="cpu", weights={str(folder)!r}')
    done = run(code, HF_HOME=str(tmp_path / "empty"), HF_HUB_OFFLINE="1")
    assert done.stdout == "(1, 1, 1024)\n", done.stderr


def test_a_cache_that_cannot_be_written(hub: HubServer, size: int, run, tmp_path: Path) -> None:
    """As in a container's image; mounted, since permissions do not bind root."""
    assert run(ENSURE).returncode == 0
    home = tmp_path / "image"
    home.mkdir()
    bind = subprocess.run(["mount", "--bind", str(tmp_path), str(home)], capture_output=True, text=True, check=False)
    if bind.returncode:
        pytest.skip(f"mounting is not permitted here: {bind.stderr.strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(home)], check=True)
        hub.close()
        for assets in (home / "assets", home / "no-such-folder"):  # with the notes, and without
            done = run(VOCODE, HF_HOME=str(home), HF_ASSETS_CACHE=str(assets))
            assert done.stdout == "(1, 1, 1024)\n", done.stderr
    finally:
        subprocess.run(["umount", str(home)], check=True)


def test_a_copied_cache_works_without_a_network(hub: HubServer, size: int, run, tmp_path: Path) -> None:
    assert run(ENSURE).returncode == 0
    copy = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "hub", copy / "hub", symlinks=True)
    hub.close()
    done = run(VOCODE, HF_HOME=str(copy), HF_HUB_OFFLINE="1")
    assert done.stdout == "(1, 1, 1024)\n", done.stderr


def test_status_and_verify_for_programs(hub: HubServer, size: int, run) -> None:
    def row() -> dict:
        done = run([*COMMAND, "weights", "status", "bigvgan", "--variant", VARIANT, "--json"])
        (found,) = json.loads(done.stdout)
        return found["weights"]

    assert (row()["cached"], row()["trust"], row()["revision"]) == (False, "unrecorded", "main")
    assert run(ENSURE).returncode == 0
    after = row()
    assert after["cached"] is True
    assert after["trust"] == "recorded"
    assert after["revision"] == hub.branches[REPO]["main"]
    info = run([*COMMAND, "info", "bigvgan", "--variant", VARIANT])
    assert f"what came first is held to, as {after['record']} says" in info.stdout
    verify = [*COMMAND, "weights", "verify", "--json"]
    done = run(verify)
    assert done.returncode == 0
    assert {Path(check["path"]).name for check in json.loads(done.stdout)} == {"config.json", NAME}
    (Path(after["path"]) / NAME).resolve().write_bytes(b"x" * size)
    done = run(verify)
    assert done.returncode == 1
    assert [Path(check["path"]).name for check in json.loads(done.stdout) if check["problem"]] == [NAME]
    table = run([*COMMAND, "weights", "status"])
    assert len(table.stdout.splitlines()) == 1 + 9 + 2  # every variant of both vocoders
