"""The closest of a few names, for error messages."""

from __future__ import annotations

from collections.abc import Iterable


def closest(name: object, names: Iterable[str], *, most: int = 3) -> list[str]:
    """Up to `most` of `names` that resemble `name`, the closest first; case is ignored."""
    import difflib

    folded = {candidate.lower(): candidate for candidate in names}
    return [folded[key] for key in difflib.get_close_matches(str(name).lower(), folded, n=most, cutoff=0.6)]


def did_you_mean(name: object, names: Iterable[str]) -> str:
    """` Did you mean 'x' or 'y'?`, with the leading blank, or nothing if no name comes close."""
    found = closest(name, names)
    return f" Did you mean {' or '.join(repr(each) for each in found)}?" if found else ""
