"""Ray, started on this machine or joined where it runs, and kept quiet.

One that was started here leaves nothing behind: no process, no session folder, no token in the home folder. Whoever
would use it from elsewhere does not know its token, and it reports to nobody.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import secrets
import shutil
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from ..errors import CorpusError, MissingDependencyError
from .files import alive

_STORE = 128 << 20
"""Bytes of shared memory for what is on its way: parcels of names, never sound."""

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # else what still runs after an interruption would start another Ray
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

_OF_OURS = {"RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
"""For a Ray started here: a token, which is not written to the home folder then and which Ray reads once in a process;
and that its processes do not wait a minute for one another after this one was killed."""

_FOLDER = "distill-ray-"

_ROOT = Path("/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir())
"""Where session folders are: a short name, as sockets need."""

log = logging.getLogger(__name__)


@contextlib.contextmanager
def session(address: str | None, *, cpus: int | None = None) -> Iterator[Any]:
    """The module `ray`, connected.

    Args:
        address: "local" starts Ray on this machine for as long as this lasts; "auto" joins the cluster that this
            machine is part of, "host:6379" another, "ray://host:10001" one from outside. None for $RAY_ADDRESS, or
            else "local". If this process is connected already, that is what is used.
        cpus: to be used of this machine, for "local".

    Raises:
        MissingDependencyError: Ray is not installed.
        CorpusError: nothing answers at the address, or Ray does not start.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    verbose = "RAY_BACKEND_LOG_LEVEL" in os.environ  # who set it wants to see what Ray says
    settings = {name: value for name, value in _QUIET.items() if name not in os.environ}
    if address == "local":
        settings |= {name: value for name, value in _OF_OURS.items() if name not in os.environ}
    with _environment(settings), warnings.catch_warnings():
        ray = _imported()
        if not verbose:
            warnings.filterwarnings("ignore", module=r"ray\.")
            warnings.filterwarnings("ignore", message="The minimum number of concurrent actors")
        if ray.is_initialized():
            yield ray
            return
        with _without_ray(sys.stdout if not verbose else None):
            _sweep()
            folder = tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-", dir=_ROOT)
            try:
                _connect(ray, address, cpus, folder, verbose)
                try:
                    yield ray
                finally:
                    ray.shutdown()
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                _sweep()  # the processes of one that was killed may have gone on writing for a while


def _imported() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingDependencyError(f"--engine ray needs Ray ({error}): pip install 'distill-core[ray]'") from error
    return ray


def _connect(ray: Any, address: str, cpus: int | None, folder: str, verbose: bool) -> None:
    options: dict[str, Any] = {"log_to_driver": verbose}
    if not verbose:
        options["logging_level"] = logging.ERROR
    if address == "local":
        options |= {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": _STORE}
        options |= {"_temp_dir": folder}
    elif address != "auto":
        _reach(address)
    try:
        with contextlib.nullcontext() if verbose else _silent_stderr():
            ray.init(address=address, **options)
    except Exception as error:  # ConnectionError, RuntimeError, ValueError, AuthenticationError, TimeoutError ...
        reason = " ".join(str(error).split())
        what = "Ray did not start on this machine" if address == "local" else f"{address}: this Ray cannot be joined"
        raise CorpusError(f"{what} ({reason[:400]}).") from error


def _sweep() -> None:
    """Remove what sessions have left whose processes were killed."""
    for left in _ROOT.glob(f"{_FOLDER}*"):
        pid = left.name.removeprefix(_FOLDER).partition("-")[0]
        if pid.isdigit() and not alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


def _reach(address: str) -> None:
    """See that something listens at an address: Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise CorpusError(f"{address}: an address is local, auto, HOST:6379 or ray://HOST:10001.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise CorpusError(f"{address}: no Ray answers there ({error}). On its head node `ray status` tells.") from error


@contextlib.contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in (*settings, "RAY_AUTH_MODE")}  # which Ray itself sets
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """What is written to file descriptor 2 meanwhile, by Ray's own C++ as well, goes nowhere."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


class _WithoutRay(io.TextIOBase):
    """A stream that passes on what is written to it, but for what Ray's threads have to say."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        if threading.current_thread().name.startswith("ray_"):
            if text.strip():
                log.debug("%s", text.strip())
            return len(text)
        return self.stream.write(text)

    def flush(self) -> None:
        self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def _without_ray(stream: TextIO | None) -> Iterator[None]:
    """Ray prints which workers died to stdout, where a program may expect JSON."""
    if stream is None:
        yield
        return
    with contextlib.redirect_stdout(_WithoutRay(stream)):
        yield
