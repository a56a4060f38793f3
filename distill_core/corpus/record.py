"""What was done in an output folder: how a rerun knows which outputs are there, whole and current.

Every process that writes keeps a journal of its own in OUTDIR/.distill/done, so runs on one folder, at the same time
or one after another, are in nobody's way. A line is added just before a file appears under its name: whenever a
process is killed, each output either is the file that a line tells of, or is not done. Lines that a kill cut off
are passed over.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..errors import CorpusError
from . import files, remote
from .files import Identity
from .hashes import Hashes
from .plan import Item, numbered

_SEGMENT = 48_000
"""Bytes of a journal in an object store, about 200 files: it is put again with each."""


class Record:
    """What is known of an output folder, at some 16 bytes a file.

    Args:
        folder: the output folder.
        settings: what the outputs depend on besides their inputs, as `VocodeJob.settings` says it.
    """

    def __init__(self, folder: str, settings: str) -> None:
        self.folder = folder
        self.settings = settings
        self._done = Hashes()
        self._ours = Hashes()
        self._parts: dict[str, set[int]] = {}  # how many outputs items had, where it was ever more than one
        self._read: dict[str, int] = {}  # journal -> bytes read of it
        self.refresh()

    def refresh(self) -> None:
        """Read what has been added since, by whichever process."""
        files.forget()
        if files.is_url(self.folder):
            self._fetch()
            return
        done = Path(files.join(self.folder, files.FOLDER, "done"))
        try:
            # Of a pipe by that name nothing would ever come.
            journals = sorted(path for path in done.iterdir() if path.suffix == ".jsonl" and path.is_file())
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise CorpusError(f"{done}: cannot be read ({error.strerror}).") from error
        for journal in journals:
            try:
                self._follow(journal)
            except OSError as error:
                raise CorpusError(
                    f"{journal}: cannot be read ({error.strerror}), and it tells which outputs are done. "
                    "Have whoever wrote it let you read it; without it, what it tells of is done again."
                ) from error

    def _follow(self, journal: Path) -> None:
        """Take what a journal has more than when it was last read."""
        with journal.open("rb") as lines:
            lines.seek(self._read.get(journal.name, 0))
            for line in lines:
                if line.endswith(b"\n"):  # else it is still being written, or never will be
                    self._take(line)
                    self._read[journal.name] = self._read.get(journal.name, 0) + len(line)

    def _fetch(self) -> None:
        """`refresh` for a folder elsewhere."""
        done = files.join(self.folder, files.FOLDER, "done")
        grown = [
            name
            for name, (size, _), _ in remote.entries(done)
            if name.endswith(".jsonl") and size > self._read.get(name, 0)
        ]
        with ThreadPoolExecutor(16, thread_name_prefix="journals") as threads:
            contents = threads.map(lambda name: remote.read_bytes(remote.join(done, name)), grown)
            for name, content in zip(grown, contents, strict=True):
                for line in content.splitlines():
                    self._take(line)
                self._read[name] = len(content)

    def _take(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            name, parts, out = entry["output"], entry["parts"], tuple(entry["out"])
            part = entry["part"]
            self._done.add((name, part, parts, tuple(entry["in"]), out, entry["settings"]))
            self._ours.add((numbered(name, part, parts), out))
            if parts > 1:
                self._parts.setdefault(name, set()).add(parts)
        except (ValueError, KeyError, TypeError, RecursionError):  # damaged: what it told of is done again
            return

    def is_current(self, item: Item) -> bool:
        """Whether an item's outputs are there as they were written, from the input as it is, with these settings."""
        name = relative(item.output, self.folder)
        source = files.identity(item.input, listed=True)
        if source is None:
            return False
        settings = settings_of(item, self.settings)

        def is_done(part: int, parts: int) -> bool:
            there = files.written(numbered(item.output, part, parts))
            return there is not None and (name, part, parts, source, there, settings) in self._done

        # A mel file that was written to anew may hold fewer mels than it did, or one; which came last no journal tells.
        counts = (1, *self._parts.get(name, ()))
        return any(all(is_done(part, parts) for part in range(parts)) for parts in counts)

    def places(self, item: Item) -> Iterator[str]:
        """Where an item's outputs may lie: of a mel also those with numbers, as many as it had and as there are."""
        yield item.output
        most = max(self._parts.get(relative(item.output, self.folder), ()), default=0)
        for part in itertools.count() if item.is_mel else ():
            place = numbered(item.output, part, 2)
            if part >= most and files.written(place) is None:
                return
            yield place

    def is_ours(self, output: str) -> bool:
        """Whether what lies at an output, if anything does, is what a run has written there."""
        there = files.written(output)
        return there is None or (relative(output, self.folder), there) in self._ours


class Journal:
    """Where one process writes down what it does in an output folder. Its file is made when it is needed."""

    def __init__(self, folder: str, settings: str) -> None:
        self.folder = folder
        self.settings = settings
        self._file: int | None = None
        self._torn = False
        self._segment, self._content = "", b""

    def add(self, item: Item, part: int, parts: int, source: Identity, output: Identity) -> None:
        """One output of an item is complete, and about to appear.

        Raises:
            OSError: it cannot be written down.
        """
        entry: dict[str, Any] = {"output": relative(item.output, self.folder), "part": part, "parts": parts}
        entry |= {"in": source, "out": output, "settings": settings_of(item, self.settings)}
        line = (json.dumps(entry) + "\n").encode("ascii")
        if files.is_url(self.folder):
            self._put(line)
            return
        if self._file is None:
            done = Path(files.join(self.folder, files.FOLDER, "done"))
            done.mkdir(parents=True, exist_ok=True)
            path = done / f"{os.getpid()}-{secrets.token_hex(8)}.jsonl"
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o666)
        if self._torn:
            line = b"\n" + line
        self._torn = True
        count = os.write(self._file, line)
        if count < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._torn = False

    def _put(self, line: bytes) -> None:
        """`add` for a folder elsewhere, where nothing can be added to: the journal is put again, until it is long."""
        if not self._segment or len(self._content) > _SEGMENT:
            name = f"{os.getpid()}-{secrets.token_hex(8)}.jsonl"
            self._segment, self._content = files.join(self.folder, files.FOLDER, "done", name), b""
        self._content += line
        remote.write_bytes(self._segment, self._content)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def prepare(folder: str) -> None:
    """See that an output folder can be written to, and remove what dead processes have left half-written there.

    Raises:
        CorpusError: it cannot be written to.
    """
    if files.is_url(folder):
        probe = files.join(folder, files.FOLDER, f"probe-{secrets.token_hex(8)}")
        files.write_bytes(probe, b"")
        files.remove(probe)
        return
    try:
        os.makedirs(files.join(folder, files.FOLDER, "done"), exist_ok=True)
        with files.scratch(folder, folder) as path:
            path.write_bytes(b"")
        files.sweep(folder)
    except OSError as error:
        raise CorpusError(f"{folder}: cannot be written to ({error.strerror}).") from error


def relative(output: str, folder: str) -> str:
    """An output's name below its folder, by which it is known whatever path the folder is reached by."""
    return output[len(folder.rstrip("/")) + 1 :] if files.is_url(folder) else os.path.relpath(output, folder)


def settings_of(item: Item, settings: str) -> str:
    """What an item's outputs depend on besides its input."""
    return settings if item.mel is None else f"{settings} {item.mel}"
