"""What a corpus consists of: folders, globs, manifests and files, and where the result of each belongs.

The order is the same whenever and wherever it is enumerated: sources as given, folders by name. Nothing but names
is looked at.
"""

from __future__ import annotations

import fnmatch
import glob
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from ..audio import FORMATS as WRITTEN
from ..audio import READ as AUDIO_ENDINGS
from ..errors import CorpusError, MelFormatError, OutputExistsError
from ..mel.spec import MelSpec
from ..mel_files import FORMATS as MEL_FORMATS
from . import files, remote
from .hashes import Hashes

MANIFEST_ENDINGS = (".jsonl", ".ndjson")

_KEYS = {"input", "output", "mel"}


@dataclass(frozen=True, slots=True)
class Item:
    """One file to be vocoded.

    Args:
        input: where the sound or mel is.
        output: where the result goes; a file with several mels gives several, numbered before the ending.
        mel: the mel's format, a preset's name; None for what the job says.
    """

    input: str
    output: str
    mel: str | None = None

    @property
    def is_mel(self) -> bool:
        return os.path.splitext(self.input)[1].lower() in MEL_FORMATS


@dataclass(frozen=True)
class Plan:
    """The items of a corpus: iterating enumerates them, anew each time.

    Args:
        sources: folders, globs, manifests (.jsonl) and files.
        folder: what everything is written below.
        ending: of the outputs, such as ".wav".
        keep_endings: a.flac becomes a.flac.wav, not a.wav.

    Raises:
        CorpusError: a source or the folder is no text, or nothing is written with this ending.
    """

    sources: tuple[str, ...]
    folder: str
    ending: str = ".wav"
    keep_endings: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.sources, str):
            raise CorpusError(f"sources are several, in a tuple: ({self.sources!r},), not {self.sources!r}.")
        for each in (*self.sources, self.folder):
            if not isinstance(each, str):
                raise CorpusError(f"{each!r}: sources and folder are paths or URLs as text, str(path).")
        if self.ending not in WRITTEN:
            raise CorpusError(f"ending must be {', '.join(WRITTEN)}, not {self.ending!r}.")

    def __iter__(self) -> Iterator[Item]:
        """All items.

        Raises:
            OutputExistsError: two inputs would be written to one file, or one onto an input.
            CorpusError: a source is not there or has nothing in it, a manifest's line cannot be used, or the
                output folder is one of the sources.
        """
        taken, mels, numbers, read = Hashes(), Hashes(), Hashes(), Hashes()
        own = _real(self.folder)
        folders: dict[str, str] = {}  # of inputs and outputs, and what each really is
        roots = [_real(source) for source in self.sources if _is_folder(source)]
        if own in roots:
            raise CorpusError(f"{self.folder}: is an input as well; choose another folder to write to.")
        # A folder below the sources that is written to is not enumerated; sources below it must stay untouched.
        guarded = [root for root in roots if root.startswith(own)]
        for source in self.sources:
            for item in self._items(source):
                output = files.told_apart(item.output)
                if output in taken:
                    self._refuse(item)
                taken.add(output)
                source, target = (self._place(each, own, folders) for each in (item.input, item.output))
                read.add(source)
                if target != output:  # a link below the output folder leads elsewhere, perhaps to the inputs
                    taken.add(target)
                for place in (target, source):
                    if place in taken and place in read:
                        raise OutputExistsError(f"{place}: is an input; choose another output folder.")
                base = unnumbered(output)
                if item.is_mel and output in numbers:
                    raise OutputExistsError(might_be_numbered(item.output))
                if base is not None and base in mels:
                    raise OutputExistsError(might_be_numbered(base))
                if item.is_mel:
                    mels.add(output)
                if base is not None:
                    numbers.add(base)
                if guarded and files.told_apart(own + _relative(item.output, self.folder)).startswith(tuple(guarded)):
                    raise OutputExistsError(f"{item.output}: lies among the inputs; choose another output folder.")
                yield item

    def _refuse(self, second: Item) -> None:
        for source in self.sources:
            for first in self._items(source):
                if files.told_apart(first.output) == files.told_apart(second.output):
                    raise OutputExistsError(
                        f"{second.output}: {first.input} and {second.input} would both be written there. "
                        "--keep-endings tells a.wav from a.flac; a manifest names each output; or run them apart, "
                        "to a folder each."
                    )

    def _place(self, location: str, own: str, folders: dict[str, str]) -> str:
        """`told_apart` of where a file really is, as an output where that is in the output folder."""
        if not files.is_url(location):
            folder, name = os.path.split(location)
            if folder not in folders:
                folders[folder] = os.path.realpath(folder)
            location = os.path.join(folders[folder], name)
        location = files.told_apart(location)
        return files.told_apart(files.join(self.folder, location[len(own) :])) if location.startswith(own) else location

    def _items(self, source: str) -> Iterator[Item]:
        if _is_folder(source):
            found = False
            for relative in self._below(source):
                found = True
                yield Item(files.join(source, relative), self._output(relative))
            if not found:
                kinds = " ".join((*AUDIO_ENDINGS, *MEL_FORMATS))
                raise CorpusError(f"{source}: no sound or mel is in this folder. Taken are: {kinds}")
        elif source.lower().endswith(MANIFEST_ENDINGS):
            yield from self._manifest(source)
        elif glob.has_magic(source) and not _is_file(source):
            found = own = False
            base = glob_base(source)
            for path in matching(source, leave_out=self.folder):
                if self._own(path):
                    own = True
                    continue
                found = True
                yield Item(path, self._output(_relative(path, base)))
            if own and not found:
                raise CorpusError(f"{source}: all that matches lies in the output folder; choose another one.")
            if not found:
                hint = " Write [[] for a [ that is part of a name." if "[" in source else ""
                raise CorpusError(f"{source}: no file matches. ** goes through folders, * does not.{hint}")
        elif _is_file(source):
            yield Item(source, self._output(os.path.basename(source)))
        else:
            raise CorpusError(f"{source}: there is no such file or folder.")

    def _below(self, folder: str) -> Iterator[str]:
        """The files of a folder that are taken, relative to it."""
        if not files.is_url(folder):
            yield from walk(folder, (*AUDIO_ENDINGS, *MEL_FORMATS), leave_out=self.folder)
            return
        for relative in remote.walk(folder):
            if relative.lower().endswith((*AUDIO_ENDINGS, *MEL_FORMATS)) and not self._own(
                files.join(folder, relative)
            ):
                yield relative

    def _own(self, path: str) -> bool:
        there = path if files.is_url(path) else os.path.realpath(path)
        return files.told_apart(there).startswith(_real(self.folder))

    def _output(self, relative: str) -> str:
        name = relative if self.keep_endings else os.path.splitext(relative)[0]
        return files.join(self.folder, name + self.ending)

    def _manifest(self, source: str) -> Iterator[Item]:
        base = os.path.dirname(source)
        try:
            with files.local(source) as path, open(path, encoding="utf-8-sig") as lines:
                found = False
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        found = True
                        yield self._line(line, base, f"{source}, line {number}")
        except FileNotFoundError:
            raise CorpusError(f"{source}: there is no such manifest.") from None
        except (OSError, UnicodeDecodeError) as error:
            raise CorpusError(f"{source}: cannot be read as a manifest ({error}).") from error
        if not found:
            raise CorpusError(f'{source}: is empty; a manifest has a line for each file: {{"input": "a.wav"}}')

    def _line(self, line: str, base: str, where: str) -> Item:
        try:
            entry: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CorpusError(f"{where}: is not JSON ({error}).") from error
        if not isinstance(entry, dict) or not isinstance(entry.get("input"), str) or not entry["input"]:
            raise CorpusError(f'{where}: needs "input", the path of a sound or mel: {{"input": "a.wav"}}')
        if unknown := sorted(set(entry) - _KEYS):
            raise CorpusError(f"{where}: {unknown[0]!r} is not known; there are {', '.join(sorted(_KEYS))}.")
        output, mel = entry.get("output"), entry.get("mel")
        for name, value in (("output", output), ("mel", mel)):
            if value is not None and (not isinstance(value, str) or not value or "\0" in value):
                raise CorpusError(f"{where}: {name!r} must be text, not {value!r}.")
        if mel is not None:
            try:
                MelSpec.preset(mel)
            except MelFormatError as error:
                raise CorpusError(f"{where}: {error}") from error
        given = files.plain(entry["input"])
        location = given if os.path.isabs(given) or files.is_url(given) else files.join(base, given)
        if output is None:
            name = os.path.normpath(given) if _leads_below(given) else os.path.basename(given)
            return Item(location, self._output(name), mel)
        if not _leads_below(output):
            raise CorpusError(f"{where}: 'output' must be a path below the output folder, not {output!r}.")
        if os.path.splitext(output)[1].lower() not in WRITTEN:
            raise CorpusError(f"{where}: 'output' must end in {', '.join(WRITTEN)}, not as in {output!r}.")
        return Item(location, files.join(self.folder, os.path.normpath(output)), mel)


def _leads_below(path: str) -> bool:
    """Whether a path added to a folder's is below that: on Windows neither C:a.wav nor \\a.wav is, nor ..\\a.wav."""
    parts = PurePath(path)
    return not (files.is_url(path) or parts.anchor or ".." in parts.parts)


def numbered(output: str, part: int, parts: int) -> str:
    """The name of one of several outputs of an item: a.wav, or a.0.wav, a.1.wav."""
    stem, ending = os.path.splitext(output)
    return output if parts == 1 else f"{stem}.{part}{ending}"


def might_be_numbered(output: str) -> str:
    """What is said of an output that is a mel's, where another has a name that `numbered` could make of it."""
    first = numbered(output, 0, 2)
    return (
        f"{output}: if the mel file that it is made of holds several, they are called {first} and so on, and another "
        "file's result is called like that as well. --keep-endings tells a.0.wav from a.npy; a manifest names each "
        "output; or run them apart, to a folder each."
    )


def unnumbered(output: str) -> str | None:
    """The name of which `numbered` could have made this one."""
    stem, ending = os.path.splitext(output)
    base, part = os.path.splitext(stem)
    return base + ending if part[1:].isdecimal() and str(int(part[1:])) == part[1:] else None


def is_corpus(source: str) -> bool:
    """Whether a source stands for many files: a folder, a manifest or a glob."""
    if files.is_url(source) or os.path.isdir(source) or source.lower().endswith(MANIFEST_ENDINGS):
        return True
    return glob.has_magic(source) and not os.path.exists(source)


def glob_base(pattern: str) -> str:
    """The folder in front of a glob's first wildcard; what matches keeps its tree below it."""
    if files.is_url(pattern):
        return remote.glob_base(pattern)
    parts = Path(pattern).parts
    fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    return os.path.join(*parts[:fixed]) if fixed else "."


def matching(pattern: str, *, leave_out: str | None = None) -> list[str]:
    """The files that a glob matches, sorted. `**` goes through folders as `walk` does.

    Args:
        leave_out: a folder that `**` does not go into.

    Raises:
        CorpusError: a folder that `**` leads to cannot be listed.
    """
    if files.is_url(pattern):
        return remote.matching(pattern)
    parts = Path(pattern).parts
    if "**" not in parts:
        return sorted(path for path in glob.iglob(pattern) if os.path.isfile(path))
    # By glob.glob it would go through links in circles, and where there are two of them come to no end.
    first = parts.index("**")
    start, rest = os.path.join("", *parts[:first]), parts[first:]
    found = []
    for folder in filter(os.path.isdir, glob.iglob(start) if glob.has_magic(start) else [start or "."]):
        below = walk(folder, ("",), leave_out=leave_out)
        found += [os.path.join(folder if start else "", path) for path in below if _fits(path.split(os.sep), rest)]
    return sorted(path for path in found if os.path.isfile(path))


def _fits(names: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether the parts of a path are such as the parts of a glob allow."""
    if not patterns:
        return not names
    first, *rest = patterns
    if first == "**":
        return _fits(names, rest) or (bool(names) and _fits(names[1:], patterns))
    return bool(names) and fnmatch.fnmatch(names[0], first) and _fits(names[1:], rest)


def walk(root: str, endings: tuple[str, ...], *, leave_out: str | None = None) -> Iterator[str]:
    """Paths below a folder, relative to it, of the files with these endings, sorted; nothing hidden, no loops.

    Links to folders are followed, but not to one that the way leads through already.

    Args:
        leave_out: a folder that is not gone into.

    Raises:
        CorpusError: a folder cannot be listed.
    """
    own = None if leave_out is None else _inode(leave_out)

    def below(relative: str, way: tuple[tuple[int, int], ...]) -> Iterator[str]:
        try:
            with os.scandir(os.path.join(root, relative)) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            raise CorpusError(f"{os.path.join(root, relative)}: cannot be listed ({error.strerror}).") from error
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = os.path.join(relative, entry.name)
            try:
                if entry.is_dir():
                    here = _inode(entry.path)
                    if here is not None and here != own and here not in way:
                        yield from below(path, (*way, here))
                elif entry.name.lower().endswith(endings) and _is_taken(entry):
                    yield path
            except OSError:  # it vanished meanwhile
                continue

    start = _inode(root)
    yield from below("", (start,) if start else ())


def _is_taken(entry: os.DirEntry[str]) -> bool:
    """A file, or a link that leads nowhere, about which the user wants to know; no pipe, no device."""
    return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))


def _real(folder: str) -> str:
    """A folder's true path as `told_apart`, with / at its end."""
    if files.is_url(folder):
        return folder.rstrip("/") + "/"
    return files.told_apart(os.path.join(os.path.realpath(folder), ""))


def _is_folder(source: str) -> bool:
    return remote.is_folder(source) if files.is_url(source) else os.path.isdir(source)


def _is_file(source: str) -> bool:
    return remote.identity(source) is not None if files.is_url(source) else os.path.exists(source)


def _relative(location: str, base: str) -> str:
    """A location's path below a folder."""
    return location[len(base.rstrip("/")) + 1 :] if files.is_url(location) else os.path.relpath(location, base)


def _inode(path: str) -> tuple[int, int] | None:
    try:
        about = os.stat(path)
    except OSError:
        return None
    return about.st_dev, about.st_ino
