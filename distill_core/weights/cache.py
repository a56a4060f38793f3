"""Where files lie in huggingface_hub's cache, which is shared with every other tool that uses it.

    models--owner--name/blobs/<etag>                 the content
    models--owner--name/blobs/<etag>.incomplete      a download that was interrupted
    models--owner--name/snapshots/<commit>/<file>    a link to the content
    models--owner--name/refs/<branch>                the commit a branch stood at
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from .pin import WeightsPin, is_commit


def hub_cache() -> Path:
    """The cache's folder (`HF_HUB_CACHE`, or `hub` in `HF_HOME`). It begins with "~" where there is no home folder."""
    from huggingface_hub import constants

    return Path(os.path.expanduser(constants.HF_HUB_CACHE))


def storage(repo: str) -> Path:
    """The folder of one repository."""
    return hub_cache() / f"models--{repo.replace('/', '--')}"


def lock_file(repo: str, name: str = "distill") -> Path:
    """The lock of one blob by its ETag, as huggingface_hub names it, or of distill's work on a repository."""
    return hub_cache() / ".locks" / storage(repo).name / f"{name}.lock"


def snapshot(pin: WeightsPin) -> Path | None:
    """The folder a pin's files would lie in, or None if its branch or tag was never resolved here."""
    commit = pin.revision
    if not is_commit(commit):
        try:
            commit = (storage(pin.repo) / "refs" / pin.revision).read_text().strip()
        except (OSError, ValueError):  # it is not there, or is damaged and no text
            return None
        if not is_commit(commit):
            return None
    return storage(pin.repo) / "snapshots" / commit


def blob(repo: str, etag: str) -> Path:
    """Where the content of this ETag lies, or would."""
    return storage(repo) / "blobs" / etag


def partial(repo: str, etag: str) -> Path:
    """Where the content of this ETag is put together."""
    return storage(repo) / "blobs" / f"{etag}.incomplete"


def publish(pin: WeightsPin, name: str, commit: str, content: Path) -> Path:
    """Make a blob visible as a file of a commit; returns its path. Readers see all of it or nothing."""
    from huggingface_hub import constants

    pointer = storage(pin.repo) / "snapshots" / commit / name
    pointer.parent.mkdir(parents=True, exist_ok=True)
    temporary = pointer.with_name(f".{pointer.name}.{uuid.uuid4().hex[:8]}")
    try:
        if getattr(constants, "HF_HUB_DISABLE_SYMLINKS", False):
            raise OSError("links are not wanted")
        temporary.symlink_to(os.path.relpath(content, pointer.parent))
        os.replace(temporary, pointer)
    except (OSError, NotImplementedError):  # a file system without links: the content itself goes there
        temporary.unlink(missing_ok=True)
        os.replace(content, pointer)
    if not is_commit(pin.revision):
        reference = storage(pin.repo) / "refs" / pin.revision
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(commit)
    return pointer
