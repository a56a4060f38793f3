"""How commands print: tables for people, JSON for programs."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO


class _Patient:
    """A stream that never stops the work: what it cannot say is escaped, and where it takes nothing, nothing more goes.

    Args:
        stream: the real one.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.problem: OSError | None = None

    def write(self, text: str) -> int:
        encoding = self._stream.encoding or "utf-8"
        with self._patiently():
            return self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        with self._patiently():
            self._stream.flush()

    @contextmanager
    def _patiently(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.problem = error
            # What is still in the buffer goes there when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def patient_streams() -> Iterator[_Patient]:
    """stdout and stderr as ones that never stop the work, even where the process was started without; yields stdout."""
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        stdout, stderr = (_Patient(nowhere if stream is None else stream) for stream in before)
        sys.stdout, sys.stderr = stdout, stderr  # type: ignore[assignment]
        try:
            yield stdout
        finally:
            stdout.flush()
            stderr.flush()
            sys.stdout, sys.stderr = before


_stdout: TextIO | None = None
"""The real stdout, while `sys.stdout` is stderr to everybody else."""


@contextmanager
def stdout_for_answers() -> Iterator[None]:
    """What is printed by the functions here goes to stdout; what a plug-in or a library prints, to stderr."""
    global _stdout
    before, _stdout = _stdout, sys.stdout
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _stdout = before


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    _answer(json.dumps(value, indent=2, ensure_ascii=False))


def print_line(text: str = "") -> None:
    """A line on stdout, or several. What a plug-in calls itself, or a file is called, does nothing to the terminal."""
    _answer(printable_lines(text))


def _answer(text: str) -> None:
    (_stdout or sys.stdout).write(text + "\n")


def flush() -> None:
    """Have what was printed so far arrive on stdout now."""
    (_stdout or sys.stdout).flush()


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Left-aligned columns on stdout, two blanks apart; the last column is not padded."""
    head, *rows = ([printable(cell) for cell in row] for row in (head, *rows))
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        _answer(line.rstrip())


def printable(name: str) -> str:
    """A file's name, or words with one in it, as any stream takes it: what is no text there is escaped."""
    escaped = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in name)
    return escaped.encode("utf-8", "backslashreplace").decode("utf-8")


def printable_lines(text: str) -> str:
    """The same for a text of several lines, whose ends stay."""
    return "\n".join(map(printable, text.split("\n")))
