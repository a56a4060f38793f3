"""What an error says, as a part of a message or a note of ours."""

from __future__ import annotations


def on_one_line(error: BaseException, most: int | None = None) -> str:
    """`ValueError: what was wrong`, on one line; of what was wrong at most so many characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:most]}"
