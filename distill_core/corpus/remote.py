"""Files that are not on this machine's file systems: URLs, by way of fsspec.

What holds of writing: an object store shows an object when it is whole, or not at all. Elsewhere (ftp, sftp, smb ...)
a file is put under another name first and then renamed.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import CorpusError, DistillError, MissingDependencyError
from ..wording import on_one_line

Identity = tuple[int, int]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

_WHOLE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "cos", "tos", "r2"}
"""Protocols of stores that show a file when all of it has arrived."""

_STAMPS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "updated", "mtime", "modify")
"""What file systems call that which changes when a file does."""

_LISTED_AFTER = 8
_LISTINGS = 64


def is_url(location: str) -> bool:
    """Whether a location is a URL, and not a path."""
    return _URL.match(location) is not None


def identity(url: str) -> Identity | None:
    """Bytes of a file, and a number that tells its state from others; None if there is none."""
    fs, path = _filesystem(url)
    try:
        with _words(url):
            about = fs.info(path)
    except FileNotFoundError:
        return None
    return None if about.get("type") == "directory" else _identity(about)


class Listings:
    """Identities of many files, folder by folder: after a few of one folder all of it is listed, and remembered."""

    def __init__(self) -> None:
        self._asked: dict[str, int] = {}
        self._known: OrderedDict[str, dict[str, Identity]] = OrderedDict()
        self._lock = threading.Lock()

    def identity(self, url: str) -> Identity | None:
        folder, _, name = url.rpartition("/")
        with self._lock:
            if folder not in self._known:
                self._asked[folder] = self._asked.get(folder, 0) + 1
                if self._asked[folder] <= _LISTED_AFTER:
                    return identity(url)
                self._keep(folder, {each: known for each, known, is_folder in entries(folder) if not is_folder})
            self._known.move_to_end(folder)
            return self._known[folder].get(name)

    def _keep(self, folder: str, listing: dict[str, Identity]) -> None:
        self._known[folder] = listing
        if len(self._known) > _LISTINGS:
            self._known.popitem(last=False)
        if len(self._asked) > 100_000:
            self._asked.clear()

    def forget(self) -> None:
        with self._lock:
            self._asked.clear()
            self._known.clear()


def entries(url: str) -> list[tuple[str, Identity, bool]]:
    """What lies in a folder, by name: (name, identity, whether it is a folder). Empty if there is no such folder."""
    fs, path = _filesystem(url)
    try:
        with _words(url):
            found = fs.ls(path, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    itself = path.strip("/")
    listed = []
    for each in found:
        name = str(each["name"])
        if name.strip("/") != itself:
            listed.append((name.rstrip("/").rpartition("/")[2], _identity(each), each.get("type") == "directory"))
    return sorted(listed)


def is_folder(url: str) -> bool:
    fs, path = _filesystem(url)
    with _words(url):
        return bool(fs.isdir(path))


def walk(url: str, below: str = "") -> Iterator[str]:
    """Paths of all files below a folder, relative to it, sorted; nothing hidden."""
    for name, _, folder in entries(join(url, below) if below else url):
        if name.startswith("."):
            continue
        path = f"{below}/{name}" if below else name
        if folder:
            yield from walk(url, path)
        else:
            yield path


def matching(pattern: str) -> list[str]:
    """URLs of the files that a glob matches, sorted; nothing hidden."""
    base = glob_base(pattern)
    fs, path = _filesystem(pattern)
    _, root = _filesystem(base)
    with _words(pattern):
        found = fs.glob(path, detail=True)
    prefix = len(root.strip("/")) + 1 if root.strip("/") else 0
    names = [name.strip("/")[prefix:] for name, about in found.items() if about.get("type") != "directory"]
    return [join(base, name) for name in sorted(names) if not any(part.startswith(".") for part in name.split("/"))]


def glob_base(pattern: str) -> str:
    """The folder in front of a glob's first wildcard."""
    fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    return fixed.rpartition("/")[0]


def join(folder: str, *parts: str) -> str:
    """A URL below a folder's; paths of this machine may be added to it, whatever is between their parts."""
    return "/".join([folder.rstrip("/"), *(part.replace(os.sep, "/") for part in parts)])


@contextmanager
def downloaded(url: str) -> Iterator[Path]:
    """The file as one of this machine's, for as long as this lasts."""
    fs, path = _filesystem(url)
    with scratch(os.path.splitext(path)[1]) as here:  # which tells mels of one kind from another
        with _words(url):
            fs.get_file(path, str(here))
        yield here


@contextmanager
def scratch(ending: str = ".part") -> Iterator[Path]:
    """A path of a new file of this machine's; what is left of it at the end is removed."""
    descriptor, name = tempfile.mkstemp(prefix=f"distill-{os.getpid()}-", suffix=ending)
    os.close(descriptor)
    os.unlink(name)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def upload(path: Path, url: str) -> None:
    """Put a file, whole or not at all, where nothing is."""
    fs, target = _filesystem(url)
    try:
        with _words(url):
            _put(fs, path, url, target)
    except FileNotFoundError as error:
        raise CorpusError(f"{url}: cannot be written ({error}).") from error


def _put(fs: Any, path: Path, url: str, target: str) -> None:
    if url.partition(":")[0].lower() in _WHOLE:
        fs.put_file(str(path), target)
        return
    folder, _, name = target.rpartition("/")
    if folder:
        fs.makedirs(folder, exist_ok=True)
    part = f"{folder}/.{name}.{os.getpid()}.part"
    try:
        fs.put_file(str(path), part)
        fs.mv(part, target)
    except BaseException:
        with suppress(Exception):
            fs.rm_file(part)
        raise


def read_bytes(url: str, start: int = 0) -> bytes:
    """What is in a file, from a byte on."""
    fs, path = _filesystem(url)
    with _words(url):
        content: bytes = fs.cat_file(path, start=start or None)
    return content


def write_bytes(url: str, content: bytes) -> None:
    """Make or replace a small file."""
    with scratch() as path:
        path.write_bytes(content)
        if url.partition(":")[0].lower() not in _WHOLE:
            remove(url)
        upload(path, url)


def remove(url: str) -> None:
    """Remove a file, if it is there."""
    fs, path = _filesystem(url)
    with suppress(FileNotFoundError), _words(url):
        fs.rm_file(path)


def _filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and what the URL's path is called there.

    Raises:
        MissingDependencyError: its package is not installed.
        CorpusError: fsspec knows no such protocol, or the URL cannot be used.
    """
    if "::" in url:
        raise CorpusError(f"{url}: a corpus takes plain URLs, not chains of them.")
    if url.lower().startswith("memory:"):
        raise CorpusError(f"{url}: the memory of this process is not seen by workers, which are others.")
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingDependencyError(f"{url}: needs fsspec: pip install fsspec") from error
    try:
        fs, path = url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise MissingDependencyError(f"{url}: {error}: pip install s3fs for s3://, gcsfs for gs://, ...") from error
    except Exception as error:  # an unknown protocol, a host that does not answer, credentials
        raise CorpusError(f"{url}: cannot be used ({on_one_line(error, 300).rstrip('.')}).") from error
    return fs, str(path)


@contextmanager
def _words(url: str) -> Iterator[None]:
    """Of whatever type an error is, what comes out is a `FileNotFoundError`, or an error that names the URL."""
    try:
        yield
    except (FileNotFoundError, DistillError):
        raise
    except Exception as error:
        raise CorpusError(f"{url}: {on_one_line(error, 300).rstrip('.')}.") from error


def _identity(about: dict[str, Any]) -> Identity:
    stamp = next((about[name] for name in _STAMPS if about.get(name) is not None), None)
    number = 0 if stamp is None else int.from_bytes(hashlib.sha256(str(stamp).encode()).digest()[:6], "big")
    return int(about.get("size") or 0), number
