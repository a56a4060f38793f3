"""Which files, of which repository, at which revision: no torch, no network, plain data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

_REPO = re.compile(r"[\w.-]+(/[\w.-]+)?\Z")
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class PinnedFiles(Mapping[str, tuple[int | None, str | None]]):
    """`{name: (bytes, sha256)}`, immutable and hashable; None stands for what is not known."""

    __slots__ = ("_files",)

    def __init__(self, files: Mapping[str, tuple[int | None, str | None]]) -> None:
        self._files = {name: (size, sha256) for name, (size, sha256) in files.items()}

    def __getitem__(self, name: str) -> tuple[int | None, str | None]:
        return self._files[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __hash__(self) -> int:
        return hash(frozenset(self._files.items()))

    def __repr__(self) -> str:
        return repr(self._files)


@dataclass(frozen=True)
class WeightsPin:
    """Files on the Hugging Face Hub that belong together.

    Args:
        repo: `"owner/name"`.
        revision: a commit (40 hexadecimal digits), or a branch or tag, which is resolved once.
        files: `{name: (bytes, sha256)}`; either may be None where it is not known.

    Raises:
        ValueError: a field cannot be what it says; the message shows the value.
    """

    repo: str
    revision: str
    files: Mapping[str, tuple[int | None, str | None]]

    def __post_init__(self) -> None:
        if not isinstance(self.repo, str) or not _REPO.match(self.repo) or ".." in self.repo or "--" in self.repo:
            raise ValueError(f"WeightsPin.repo must read 'owner/name', not {self.repo!r}.")
        revision = self.revision if isinstance(self.revision, str) else ""
        if not revision or ".." in revision or revision.startswith("/"):
            raise ValueError(f"WeightsPin.revision must be a commit, branch or tag, not {self.revision!r}.")
        if not isinstance(self.files, Mapping):
            raise ValueError(f"WeightsPin.files must read {{name: (bytes, sha256)}}, not {self.files!r}.")
        if not self.files:
            raise ValueError("WeightsPin.files must name at least one file.")
        for name, known in self.files.items():
            path = PurePosixPath(name if isinstance(name, str) else "")
            if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name:
                raise ValueError(f"WeightsPin.files: {name!r} is no path inside a repository.")
            if not isinstance(known, tuple | list) or len(known) != 2:
                raise ValueError(f"WeightsPin.files: of {name!r} must be said (bytes, sha256), not {known!r}.")
            size, sha256 = known
            if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 0):
                raise ValueError(f"WeightsPin.files: the size of {name!r} must be a number of bytes, not {size!r}.")
            if sha256 is not None and not (isinstance(sha256, str) and _SHA256.match(sha256)):
                raise ValueError(
                    f"WeightsPin.files: the sha256 of {name!r} must be 64 hex digits, letters small, not {sha256!r}."
                )
        object.__setattr__(self, "files", PinnedFiles(self.files))

    @property
    def confirmed(self) -> bool:
        """True if the revision is a commit and every file's size and sha256 are known beforehand."""
        return is_commit(self.revision) and all(
            size is not None and sha256 is not None for size, sha256 in self.files.values()
        )

    @property
    def size(self) -> int | None:
        """Bytes of all files together, or None if not all are known."""
        sizes = [size for size, _ in self.files.values()]
        return None if None in sizes else sum(size for size in sizes if size is not None)


def is_commit(revision: str) -> bool:
    """True for the 40 hexadecimal digits that name one commit for good."""
    return _COMMIT.match(revision) is not None
