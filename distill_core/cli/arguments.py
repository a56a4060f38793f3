"""Types of arguments, with words for what they are not."""

from __future__ import annotations

import argparse
import math
from pathlib import Path


def one_or_more(text: str) -> int:
    """A whole number of 1 or more."""
    return _whole(text, 1)


def none_or_more(text: str) -> int:
    """A whole number of 0 or more."""
    return _whole(text, 0)


def seconds(text: str) -> float:
    """A length of 0 or more."""
    value = _number(text)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"must be 0 or more seconds, not {text!r}")
    return value


def port(text: str) -> int:
    """The number of a TCP port; 0 for any that is free."""
    return _whole(text, 0, 65535)


def gpus(text: str) -> float:
    """What a worker takes of GPUs."""
    from ..corpus.ray_engine import can_be_taken

    value = _number(text)
    if not can_be_taken(value):
        raise argparse.ArgumentTypeError(f"must be 0, a part of one GPU, or a whole number of them, not {text!r}")
    return value


def path(text: str) -> str:
    """The name of a file or folder."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty: is a variable of the shell not set?")
    return text


def file(text: str) -> Path:
    """`path` as a `Path`, which would take an empty name for the folder one is in."""
    return Path(path(text))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _whole(text: str, least: int, most: int | None = None) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least or (most is not None and value > most):
        allowed = f"of {least} or more" if most is None else f"from {least} to {most}"
        raise argparse.ArgumentTypeError(f"must be a whole number {allowed}, not {text!r}")
    return value
