"""Where files are: every look at an input or an output of a corpus goes through here.

A location is a string: a path, or a URL of the kind that fsspec understands. Readers and writers of sound and
mels want a local file, so a location is brought here (`local`) and sent there (`commit`) as one.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import socket
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from ..audio import replacing
from . import remote
from .remote import Identity, is_url

__all__ = ["Identity", "is_url"]

FOLDER = ".distill"
"""Below an output folder: what is known about it, and what is being written."""

_listings = remote.Listings()


def plain(location: str) -> str:
    """A path for what is one, written as file:///..., and else what was given."""
    if location.lower().startswith("file://"):
        return url2pathname(urlsplit(location).path)
    return location


def join(folder: str, *parts: str) -> str:
    """A location below a folder."""
    return remote.join(folder, *parts) if is_url(folder) else os.path.join(folder, *parts)


def told_apart(location: str) -> str:
    """What tells a file's name from others: on macOS and Windows A.wav is a.wav, however its accents are encoded."""
    if is_url(location) or sys.platform not in ("darwin", "win32"):
        return location
    return unicodedata.normalize("NFC", location).casefold()


def identity(location: str, *, listed: bool = False) -> Identity | None:
    """What tells one state of a file from another, None if there is none: bytes, and nanoseconds of its last change.

    Of a URL, bytes and a number made of its ETag or time.

    Args:
        listed: it may be as old as the last `forget`; asking for thousands is fast then, wherever they are.
    """
    if is_url(location):
        return _listings.identity(location) if listed else remote.identity(location)
    try:
        about = os.stat(location)
    except (OSError, ValueError):  # what may not be looked at, or cannot exist, is not there
        return None
    return about.st_size, about.st_mtime_ns


def written(location: str) -> Identity | None:
    """The identity of an output as `commit` had it recorded; as old as the last `forget` at most."""
    about = identity(location, listed=True)
    return (about[0], 0) if about is not None and is_url(location) else about


def forget() -> None:
    """What was listed may have changed."""
    _listings.forget()


@contextmanager
def local(location: str) -> Iterator[Path]:
    """A path at which the file can be read."""
    if is_url(location):
        with remote.downloaded(location) as path:
            yield path
    else:
        yield Path(location)


@contextmanager
def scratch(folder: str | None, target: str) -> Iterator[Path]:
    """A path of a new file to write to, for `target`; what is left of it at the end is removed.

    Args:
        folder: the output folder that a run works on, whose leftovers `sweep` finds; None for beside `target`.
    """
    if is_url(target):
        with remote.scratch() as path:
            yield path
        return
    where = Path(join(folder, FOLDER, "part")) if folder is not None else Path(target).parent
    where.mkdir(parents=True, exist_ok=True)
    path = where / f".{_here()}-{os.getpid()}-{secrets.token_hex(6)}.part"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def commit(path: Path, target: str, record: Callable[[Identity], None]) -> None:
    """Make a file that is complete appear as `target`, and have it recorded.

    Recorded first: a file keeps its size and time when it is renamed, so whenever this is interrupted, what lies
    at `target` either is what the record tells of or is not. What time it is somewhere else nobody knows before, so
    of a URL only the size is recorded, and what was there is removed first.
    """
    about = path.stat()
    if is_url(target):
        remote.remove(target)
        record((about.st_size, 0))
        remote.upload(path, target)
        return
    record((about.st_size, about.st_mtime_ns))
    os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
    try:
        os.replace(path, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # A link or a mount below the output folder leads to another file system: what is renamed must lie there.
        with replacing(Path(target)) as beside:
            shutil.copy2(path, beside)
            about = beside.stat()
            record((about.st_size, about.st_mtime_ns))


def sweep(folder: str) -> None:
    """Remove what processes of this machine that are no more were writing when they ended."""
    if is_url(folder):  # what a store holds is whole; scratch files were on this machine, in its folder for them
        return
    part = Path(join(folder, FOLDER, "part"))
    prefix = f".{_here()}-"
    for path in part.glob(f"{prefix}*.part") if part.is_dir() else ():
        pid = path.name[len(prefix) :].partition("-")[0]
        if pid.isdecimal() and not alive(int(pid)):
            path.unlink(missing_ok=True)


def _here() -> str:
    """This machine, and on Linux whose process ids: containers may have a name in common, and ids of their own."""
    try:
        ids = "".join(filter(str.isdigit, os.readlink("/proc/self/ns/pid")))
    except OSError:
        ids = ""
    return "".join(c if c.isalnum() else "_" for c in socket.gethostname())[:32] + ids


def alive(pid: int) -> bool:
    """Whether a process of this machine is there."""
    if sys.platform == "win32":
        return _alive_on_windows(pid)
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # no process has a number that large
        return False
    except OSError:
        return True
    return True


def _alive_on_windows(pid: int) -> bool:
    """`alive` where signal 0 is Ctrl-C, which would reach every process of the terminal."""
    import _winapi

    windows: Any = _winapi
    try:
        process = windows.OpenProcess(windows.SYNCHRONIZE, False, pid)
    except PermissionError:
        return True
    except OSError:
        return False
    try:
        return bool(windows.WaitForSingleObject(process, 0) == windows.WAIT_TIMEOUT)
    finally:
        windows.CloseHandle(process)


def read_bytes(location: str) -> bytes:
    """What is in a small file."""
    return remote.read_bytes(location) if is_url(location) else Path(location).read_bytes()


def write_bytes(location: str, content: bytes) -> None:
    """Make a small file."""
    if is_url(location):
        remote.write_bytes(location, content)
        return
    Path(location).parent.mkdir(parents=True, exist_ok=True)
    Path(location).write_bytes(content)


def remove(location: str) -> None:
    """Remove a file, if it is there."""
    if is_url(location):
        remote.remove(location)
    else:
        Path(location).unlink(missing_ok=True)
