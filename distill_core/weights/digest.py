"""sha256 of files, computed once: what a file hashed to is remembered beside the file's identity.

Half a gigabyte takes up to seconds to hash; its size, inode and times take none to look at. If one of
them differs from what is remembered, the file is hashed again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

_BLOCK = 1 << 20


def state_folder() -> Path:
    """Where distill keeps its notes about weights: in huggingface_hub's folder for such things (`HF_HOME`)."""
    from huggingface_hub import constants

    return Path(os.path.expanduser(constants.HF_ASSETS_CACHE)) / "distill"


def sha256_of(path: Path, advance: Callable[[int], object] | None = None) -> str:
    """The sha256 of a file's content now. Reads all of it; `advance` is told the bytes read."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            if advance is not None:
                advance(count)
    return digest.hexdigest()


def remembered_sha256(path: Path) -> str:
    """The sha256 of a file, from memory if the file is the one that was hashed before."""
    note = _note(path)
    identity = _identity(path)
    known = read_json(note)
    if isinstance(known, dict) and known.get("identity") == identity and isinstance(known.get("sha256"), str):
        return str(known["sha256"])
    log.info("hashing %s", path)
    sha256 = sha256_of(path)
    if _identity(path) == identity:  # else it changed while it was read
        remember(path, sha256)
    return sha256


def remember(path: Path, sha256: str) -> None:
    """Note what a file hashed to. Where nothing can be written, it is hashed again next time."""
    try:
        write_json(_note(path), {"path": str(path), "identity": _identity(path), "sha256": sha256})
    except OSError as error:
        log.debug("cannot remember the hash of %s: %s", path, error)


def read_json(path: Path) -> Any:
    """What a JSON file holds, or None if it is missing or damaged."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file so that readers see the old one or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _identity(path: Path) -> list[int]:
    about = path.stat()
    return [about.st_size, about.st_ino, about.st_mtime_ns, about.st_ctime_ns]


def _note(path: Path) -> Path:
    where = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:32]
    return state_folder() / "hashes" / f"{where}.json"
