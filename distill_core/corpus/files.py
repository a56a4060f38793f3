"""Where files are: every look at an input or an output of a corpus goes through here.

A location is a string: a path, or a URL of the kind that fsspec understands. Readers and writers of sound and
mels want a local file, so a location is brought here (`local`) and sent there (`commit`) as one.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = ".distill"
"""Below an output folder: what is known about it, and what is being written."""

Identity = tuple[int, int]
"""What tells one state of a file from another: bytes, and nanoseconds of its last change."""


def join(folder: str, *parts: str) -> str:
    """A location below a folder."""
    return os.path.join(folder, *parts)


def identity(location: str) -> Identity | None:
    """Size and time of a file as it is now, None if there is none."""
    try:
        about = os.stat(location)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return about.st_size, about.st_mtime_ns


@contextmanager
def local(location: str) -> Iterator[Path]:
    """A path at which the file can be read."""
    yield Path(location)


@contextmanager
def scratch(folder: str | None, target: str) -> Iterator[Path]:
    """A path of a new file to write to, on the file system of `target`; what is left of it at the end is removed.

    Args:
        folder: the output folder that a run works on, whose leftovers `sweep` finds; None for beside `target`.
    """
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
    at `target` either is what the record tells of or is not.
    """
    about = path.stat()
    record((about.st_size, about.st_mtime_ns))
    os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
    os.replace(path, target)


def sweep(folder: str) -> None:
    """Remove what processes of this machine that are no more were writing when they ended."""
    part = Path(join(folder, FOLDER, "part"))
    prefix = f".{_here()}-"
    for path in part.glob(f"{prefix}*.part") if part.is_dir() else ():
        pid = path.name[len(prefix) :].partition("-")[0]
        if pid.isdigit() and not _alive(int(pid)):
            path.unlink(missing_ok=True)


def _here() -> str:
    return "".join(c if c.isalnum() else "_" for c in socket.gethostname())[:32]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def read_bytes(location: str) -> bytes:
    """What is in a small file."""
    return Path(location).read_bytes()


def write_bytes(location: str, content: bytes) -> None:
    """Make a small file."""
    Path(location).parent.mkdir(parents=True, exist_ok=True)
    Path(location).write_bytes(content)


def remove(location: str) -> None:
    """Remove a file, if it is there."""
    Path(location).unlink(missing_ok=True)
