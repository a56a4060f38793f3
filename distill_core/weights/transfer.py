"""One file over HTTP, from where the last attempt stopped.

huggingface_hub's own downloads start from nothing after every interruption (since it deletes, or names
at random, what is incomplete), which for half a gigabyte over a bad line means never. So the bytes are
fetched here, with its session: proxies, tokens, endpoints and offline mode keep their meaning.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from ..errors import WeightsDownloadError
from . import faults
from .faults import Fault, Target
from .pin import is_commit

log = logging.getLogger(__name__)

WAITS = (0.5, 1.0, 2.0, 4.0)
"""Seconds before each further attempt, as long as not one new byte arrives."""

MAX_WAIT = 60.0
"""Seconds that a server may ask us to wait; beyond, the person decides."""

_CHUNK = 1 << 16
_SMALL_CHUNK = 1 << 10
_MAX_REDIRECTS = 5
_FLAGS = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0)
# In a cache that others write to, a link there must not lead to a file of ours, nor a pipe be waited for.
_FLAGS |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_SIZE = re.compile(r"[0-9]{1,18}\Z")  # what else counts as a digit, or more of them, int() may refuse
_SAFE_ETAG = re.compile(r"[0-9A-Za-z_-]{1,128}\Z")


@dataclass(frozen=True)
class RemoteFile:
    """What the Hub says of a file: its `etag` and `commit` if it names them, and its size in bytes."""

    target: Target
    etag: str | None
    commit: str | None
    size: int | None


def look_up(repo: str, revision: str, name: str) -> RemoteFile:
    """Ask the Hub for a file's size, ETag and commit; the file itself is not touched.

    Raises:
        WeightsError: the subclass and message say what is wrong.
    """
    target = Target.of(repo, revision, name)
    for wait in (*WAITS[:2], None):
        try:
            return _head(target)
        except Exception as error:
            _pause_or_raise(faults.explain(error, target), error, wait)
    raise AssertionError("the last attempt returns or raises")


def download(target: Target, partial: Path, size: int | None, advance: Callable[[int], object]) -> None:
    """Complete the file `partial`, of which a part may be there already.

    `advance` is told how many bytes were added (or, negative, thrown away). Bytes are written at their
    place in the file, never appended, so that even two writers end with the same file.

    Raises:
        WeightsError: the subclass and message say what is wrong; `partial` keeps what has arrived, unless
            it cannot belong to the file.
    """
    idle = 0
    arrived = False
    while True:
        before = size_of(partial)
        try:
            return _get(target, partial, size, advance)
        except Exception as error:
            fault = faults.explain(error, target)
            if size_of(partial) > before:
                idle, arrived = 0, True
            if fault.unreachable and arrived:
                fault = Fault(WeightsDownloadError(str(fault.error)), transient=True)
            _pause_or_raise(fault, error, WAITS[idle] if idle < len(WAITS) else None)
            idle += 1


def _head(target: Target) -> RemoteFile:
    from huggingface_hub import constants
    from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

    url = target.url
    for _ in range(_MAX_REDIRECTS):
        response = _request_head(url, _headers(), constants.HF_HUB_ETAG_TIMEOUT)
        if not 300 <= response.status_code < 400 or "X-Linked-Etag" in response.headers:
            break
        # A redirect on the same host is a renamed repository; one to another host leads to the content.
        onward = _onward(target, url, response.headers.get("Location", ""))
        if not _same_host(url, onward):
            break
        url = onward
    hf_raise_for_status(response)
    redirected = 300 <= response.status_code < 400
    etag = response.headers.get("X-Linked-Etag") or (None if redirected else response.headers.get("ETag"))
    size = response.headers.get("X-Linked-Size") or (None if redirected else response.headers.get("Content-Length"))
    commit = response.headers.get("X-Repo-Commit")
    etag = etag.removeprefix("W/").strip('"') if etag else None
    return RemoteFile(
        target,
        etag if etag and _SAFE_ETAG.match(etag) else None,
        commit if commit and is_commit(commit) else None,
        _size(size),
    )


def _get(target: Target, partial: Path, size: int | None, advance: Callable[[int], object]) -> None:
    from huggingface_hub import constants
    from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

    have = size_of(partial)
    if size is not None and have > size:
        advance(-have)
        partial.unlink()
        have = 0
    if size is not None and have == size:
        return
    headers = _headers()
    if have:
        headers["Range"] = f"bytes={have}-"
        log.info("%s: going on at byte %d", target, have)
    with _stream(target.url, headers, constants.HF_HUB_DOWNLOAD_TIMEOUT) as (response, chunks):
        if response.status_code == 416:
            # The file ends before what we have, so what we have is of another file.
            advance(-have)
            partial.unlink(missing_ok=True)
            raise faults.refused(target, f"it ends before byte {have}, where an earlier download had come to")
        hf_raise_for_status(response)
        if (response.headers.get("Content-Type") or "").startswith("text/html"):
            raise faults.refused(target, f"{target.host} sent a web page instead (a login portal, or a proxy's notice)")
        start = _first_byte(response)
        if start != have:  # the server does not do ranges, or does them wrong
            if start:
                raise WeightsDownloadError(f"{target.host} sent bytes from {start} on, where {have} was asked for.")
            advance(-have)
        announced = _announced_size(response, start)
        if size is not None and announced is not None and announced != size:
            raise faults.refused(target, f"it has {announced} bytes on the server, not {size}")
        _write(target, partial, start, size, chunks, advance)
    have = size_of(partial)
    if size is None:
        size = announced
    if size is not None and have < size:
        raise WeightsDownloadError(f"The connection to {target.host} broke off at byte {have} of {size} of {target}.")


def _write(
    target: Target,
    partial: Path,
    start: int,
    size: int | None,
    chunks: Iterator[bytes],
    advance: Callable[[int], object],
) -> None:
    descriptor = os.open(partial, _FLAGS, 0o666)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        if not start:
            file.truncate(0)
        file.seek(start)
        for chunk in chunks:
            view = memoryview(chunk)
            start += len(view)
            if size is not None and start > size:
                file.truncate(0)
                raise faults.refused(target, f"{target.host} sent more than its {size} bytes")
            while view:
                written = file.write(view)
                advance(written)
                view = view[written:]


def _pause_or_raise(fault: Fault, cause: Exception, wait: float | None) -> None:
    if wait is None or not fault.transient or (fault.wait or 0) > MAX_WAIT:
        raise fault.error from (None if fault.error is cause else cause)
    wait = wait if fault.wait is None else fault.wait
    log.warning("%s Trying again in %.1f s.", str(fault.error).partition(" What has arrived")[0], wait)
    time.sleep(wait)


def _headers() -> dict[str, str]:
    """Token and user agent. huggingface_hub's own header builder would first ask the Hub for other things."""
    from huggingface_hub import __version__, constants, get_token

    headers = {"user-agent": f"distill-core; hf_hub/{__version__}", "Accept-Encoding": "identity"}
    token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
    if token:
        headers["authorization"] = f"Bearer {token}"
    return headers


def _request_head(url: str, headers: dict[str, str], timeout: float) -> Any:
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    session: Any = get_session()
    follow = {"follow_redirects": False} if callable(session.stream) else {"allow_redirects": False}
    return session.request("HEAD", url, headers=headers, timeout=timeout, **follow)


@contextmanager
def _stream(url: str, headers: dict[str, str], timeout: float) -> Iterator[tuple[Any, Iterator[bytes]]]:
    """A response and its body in pieces, by httpx (huggingface_hub 1 and later) or requests (before)."""
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    session: Any = get_session()
    if callable(session.stream):  # of requests it is a setting
        with session.stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response:
            yield response, response.iter_bytes()  # as they arrive: what waits in a buffer is lost with the line
    else:
        with session.get(url, headers=headers, timeout=timeout, stream=True) as response:
            yield response, _as_they_arrive(response)


def _as_they_arrive(response: Any) -> Iterator[bytes]:
    """The body of a response of requests. Its `iter_content` waits until a piece is full, and loses what it has of it.

    Over a line that breaks within every piece, that would be all that ever came.
    """
    read1: Any = getattr(response.raw, "read1", None)
    if read1 is None:  # an older urllib3
        yield from response.iter_content(_SMALL_CHUNK)
    else:
        yield from iter(lambda: read1(_CHUNK, decode_content=True), b"")


def _first_byte(response: Any) -> int:
    if response.status_code != 206:
        return 0
    match = re.match(r"bytes ([0-9]{1,18})-", response.headers.get("Content-Range") or "")
    return int(match[1]) if match else 0


def _announced_size(response: Any, start: int) -> int | None:
    total = _size((response.headers.get("Content-Range") or "").rpartition("/")[2])
    if total is not None:
        return total
    length = _size(response.headers.get("Content-Length"))
    return start + length if length is not None and "Content-Encoding" not in response.headers else None


def _size(said: str | None) -> int | None:
    return int(said) if said and _SIZE.match(said) else None


def size_of(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _onward(target: Target, url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise WeightsDownloadError(f"{target.host} redirects {target} to what is no address ({error}).") from error


def _same_host(url: str, other: str) -> bool:
    return urlsplit(url)[:2] == urlsplit(other)[:2]
