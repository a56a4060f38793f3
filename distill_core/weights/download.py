"""A pin's files from the Hub into the cache: looked up, completed, verified, and only then put in place."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import WeightsDownloadError, WeightsError
from ..progress import bar_hidden, calling_a_bar
from . import cache, transfer
from .digest import remember, sha256_of
from .faults import Target, refused
from .hub import wrong_with
from .locks import alone
from .pin import WeightsPin, is_commit

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One file to fetch: where from, what it should be, where it is put together and where it goes."""

    target: Target
    etag: str
    size: int | None
    sha256: str | None

    @property
    def partial(self) -> Path:
        return cache.partial(self.target.repo, self.etag)

    @property
    def blob(self) -> Path:
        return cache.blob(self.target.repo, self.etag)

    @property
    def arrived(self) -> int:
        """Bytes that earlier attempts left behind."""
        return transfer.size_of(self.partial)


def download(pin: WeightsPin, progress: bool, tqdm_class: Any) -> Path:
    """Fetch what the cache lacks of a pin; returns the snapshot folder. The caller holds the lock.

    Raises:
        WeightsError, OSError: see `hub.ensure`.
    """
    commit, jobs = _look_up(pin)
    blobs = cache.storage(pin.repo) / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    arrived = sum(job.arrived for job in jobs)
    total = _total([job.size for job in jobs])
    if total is not None:
        _check_space(pin, blobs, total - arrived)
    log.info("downloading %s at %s: %s", pin.repo, commit, ", ".join(job.target.name for job in jobs))
    with _bar(progress, tqdm_class, pin.repo, total, arrived) as advance:
        for job in jobs:
            with alone(cache.lock_file(pin.repo, job.etag), f"Another program is downloading {job.target}"):
                sha256 = _fetch(job, advance)
                remember(cache.publish(pin, job.target.name, commit, job.blob), sha256)
    return cache.storage(pin.repo) / "snapshots" / commit


@contextmanager
def others_bar(pin: WeightsPin, progress: bool, tqdm_class: Any) -> Iterator[Callable[[], object]]:
    """The caller's own bar for what another process downloads; what this gives brings it up to date.

    On stderr there is none: the other one's bar may be there already, and beside it those of many that wait.
    """
    blobs = cache.storage(pin.repo) / "blobs"
    etags: set[str] = set()

    def arrived() -> int:
        etags.update(path.stem for path in blobs.glob("*.incomplete"))
        places = [(cache.blob(pin.repo, etag), cache.partial(pin.repo, etag)) for etag in etags]
        return sum(max(map(transfer.size_of, either)) for either in places)

    shown, total = arrived(), _total([size for size, _ in pin.files.values()])
    with _bar(progress and tqdm_class is not None, tqdm_class, pin.repo, total, shown) as advance:

        def look() -> None:
            nonlocal shown
            more = max(0, arrived() - shown)
            shown += more
            advance(more)

        yield look


def _look_up(pin: WeightsPin) -> tuple[str, list[Job]]:
    """The commit, and what is to be fetched. All files come from the commit the first one named."""
    revision = pin.revision
    jobs = []
    for name, (size, sha256) in pin.files.items():
        if is_commit(revision):
            here = cache.storage(pin.repo) / "snapshots" / revision / name
            if wrong_with(pin, name, here) is None:
                continue
        found = transfer.look_up(pin.repo, revision, name)
        if not is_commit(revision):
            if found.commit is None:
                raise WeightsDownloadError(
                    f"{found.target.host} does not say which commit of {pin.repo} {revision!r} is, as the Hub does. "
                    "Is HF_ENDPOINT a full mirror, or is there a login portal in between?"
                )
            revision = found.commit
        if size is not None and found.size not in (None, size):
            raise refused(found.target, f"{found.target.host} offers {found.size} bytes, pinned are {size}")
        # Only the Hub's ETags are hashes of the content, by which the cache may be ordered.
        etag = found.etag if found.commit is not None else sha256
        if etag is None:
            raise WeightsDownloadError(
                f"{found.target.host} sends no ETag for {found.target}, as the Hub does. "
                "Is HF_ENDPOINT a full mirror, or is there a login portal in between?"
            )
        jobs.append(Job(found.target.at(revision), etag, found.size if size is None else size, sha256))
    return revision, jobs


def _fetch(job: Job, advance: Callable[[int], object]) -> str:
    """Have the whole, verified content of a job as its blob; returns its sha256."""
    if job.blob.is_file() and _fault(job, job.blob, sha256 := sha256_of(job.blob)) is None:
        return sha256  # another file, or another tool, brought it
    transfer.download(job.target, job.partial, job.size, advance)
    sha256 = sha256_of(job.partial)
    if fault := _fault(job, job.partial, sha256):
        job.partial.unlink()
        raise refused(job.target, fault)
    with job.partial.open("rb+") as file:
        os.fsync(file.fileno())  # a name that survives a power failure must not outlive its content
    os.replace(job.partial, job.blob)
    return sha256


def _fault(job: Job, path: Path, sha256: str) -> str | None:
    """What speaks against a complete file, by the pin; where that is silent, by the Hub's own hash of it."""
    size = path.stat().st_size
    page = " (it is a web page: a login portal, or a proxy's notice)" if _is_web_page(path) else ""
    if job.size is not None and size != job.size:
        return f"it has {size} bytes instead of {job.size}{page}"
    if job.sha256 is not None:
        return None if sha256 == job.sha256 else f"its sha256 is {sha256}, pinned is {job.sha256}{page}"
    found = {64: sha256, 40: _git_hash(path, size) if len(job.etag) == 40 else ""}.get(len(job.etag), job.etag)
    return None if found == job.etag else f"its hash is {found}, the Hub says {job.etag}{page}"


def _git_hash(path: Path, size: int) -> str:
    """What git calls a file of this content: the Hub's ETag of files that are not large."""
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    digest.update(path.read_bytes())
    return digest.hexdigest()


def _is_web_page(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(256).lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _total(sizes: Sequence[int | None]) -> int | None:
    return None if None in sizes else sum(size for size in sizes if size is not None)


def _check_space(pin: WeightsPin, folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise WeightsError(
            f"The disk is too full: {pin.repo} needs {needed / 1e6:.1f} MB more, and {folder} has room for "
            f"{free / 1e6:.1f} MB. Make room, or point HF_HOME at another disk."
        )


@contextmanager
def _bar(
    progress: bool, tqdm_class: Any, repo: str, total: int | None, arrived: int
) -> Iterator[Callable[[int], object]]:
    if not progress or (tqdm_class is None and bar_hidden()):
        yield lambda count: None
        return
    if tqdm_class is None:
        from huggingface_hub import utils

        tqdm_class = utils.tqdm  # type: ignore[attr-defined]  # heeds HF_HUB_DISABLE_PROGRESS_BARS
    with calling_a_bar():
        bar = tqdm_class(total=total, initial=arrived, unit="B", unit_scale=True, desc=repo.rpartition("/")[2])

    def advance(count: int) -> None:
        with calling_a_bar():
            bar.update(count)

    try:
        yield advance
    finally:
        with calling_a_bar():
            bar.close()
