"""What an error or an address says, as a part of a message or a note of ours."""

from __future__ import annotations


def on_one_line(error: BaseException, most: int | None = None) -> str:
    """`ValueError: what was wrong`, on one line; of what was wrong at most so many characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:most]}"


def without_login(url: str) -> str:
    """An address with what stands before its host, a name and perhaps a password, left out."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}://…@{rest.rpartition('@')[2]}" if separator and "@" in rest else url
