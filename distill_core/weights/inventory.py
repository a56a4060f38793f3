"""What weights are here, and whether they are what they should be."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from . import cache, records, transfer
from .digest import remember, sha256_of
from .hub import cached
from .pin import WeightsPin

Trust = Literal["pinned", "recorded", "unrecorded"]


@dataclass(frozen=True)
class WeightsStatus:
    """The state of one pin's files on this machine.

    Args:
        repo: of the pin.
        revision: the commit the pin is held to, where that is known; else its branch or tag.
        trust: "pinned" by sizes and hashes known beforehand, "recorded" when they first came, or
            "unrecorded": nothing came yet.
        cached: all files are here, whole and as pinned.
        size: bytes of all files together, None if not known.
        arrived: bytes of an interrupted download.
        path: the folder that holds the files, if cached.
        record: the file that says what is held to, if recorded.
    """

    repo: str
    revision: str
    trust: Trust
    cached: bool
    size: int | None
    arrived: int
    path: Path | None
    record: Path | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}


@dataclass(frozen=True)
class FileCheck:
    """One file hashed anew: `problem` is None if it is what it should be."""

    name: str
    path: Path
    size: int
    sha256: str
    problem: str | None


def status(pin: WeightsPin) -> WeightsStatus:
    """What is here of a pin. Opens no socket.

    Raises:
        WeightsIntegrityError: the record of an unconfirmed pin cannot be read.
    """
    held = records.held_to(pin)
    recorded = not pin.confirmed and held.confirmed
    folder = cached(pin)
    size = held.size
    if size is None and folder is not None:
        size = sum((folder / name).stat().st_size for name in pin.files)
    blobs = cache.storage(pin.repo) / "blobs"
    return WeightsStatus(
        repo=pin.repo,
        revision=folder.name if folder else held.revision,
        trust="pinned" if pin.confirmed else "recorded" if recorded else "unrecorded",
        cached=folder is not None,
        size=size,
        # One that another process completes meanwhile is gone by this name.
        arrived=0 if folder else sum(map(transfer.size_of, blobs.glob("*.incomplete"))),
        path=folder,
        record=records.path_of(pin) if recorded else None,
    )


def verify(pin: WeightsPin, advance: Any = None) -> list[FileCheck]:
    """Hash every file of a pin, whatever is remembered; files that are missing are left out.

    Args:
        advance: called with the bytes read, for a progress bar.

    Raises:
        WeightsIntegrityError: the record of an unconfirmed pin cannot be read.
    """
    held = records.held_to(pin)
    folder = cache.snapshot(held)
    checks = []
    for name, (size, sha256) in held.files.items():
        path = folder / name if folder else None
        if path is None or not path.is_file():
            continue
        found_size, found = path.stat().st_size, sha256_of(path, advance)
        remember(path, found)
        problem = None
        if size is not None and found_size != size:
            problem = f"has {found_size} bytes, expected {size}"
        elif sha256 is not None and found != sha256:
            problem = f"has sha256 {found}, expected {sha256}"
        checks.append(FileCheck(name, path, found_size, found, problem))
    return checks
