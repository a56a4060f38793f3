"""WeightsPin: what a plug-in's author may write, and what is said of the rest."""

from __future__ import annotations

from typing import Any

import pytest

from distill_core import WeightsPin

FILES = {"config.json": (None, None), "model.pt": (3, "a" * 64)}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"repo": 5}, "repo must read 'owner/name', not 5"),
        ({"repo": "https://example.org/a"}, "repo must read 'owner/name'"),
        ({"revision": None}, "revision must be a commit, branch or tag, not None"),
        ({"files": {}}, "at least one file"),
        ({"files": ["model.pt"]}, r"files must read {name: \(bytes, sha256\)}, not \['model.pt'\]"),
        ({"files": {"model.pt": 5}}, r"of 'model.pt' must be said \(bytes, sha256\), not 5"),
        ({"files": {"model.pt": (5,)}}, r"of 'model.pt' must be said \(bytes, sha256\), not \(5,\)"),
        ({"files": {5: (None, None)}}, "5 is no path inside a repository"),
        ({"files": {"../model.pt": (None, None)}}, "no path inside a repository"),
        ({"files": {"model.pt": (-1, None)}}, "size of 'model.pt' must be a number of bytes, not -1"),
        ({"files": {"model.pt": ("3", None)}}, "size of 'model.pt' must be a number of bytes, not '3'"),
        ({"files": {"model.pt": (3, 5)}}, "sha256 of 'model.pt' must be 64 hex digits, letters small, not 5"),
        ({"files": {"model.pt": (3, "A" * 64)}}, "letters small, not 'AAA"),
    ],
)
def test_a_pin_names_the_field_that_is_wrong(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        WeightsPin(**{"repo": "owner/name", "revision": "main", "files": FILES, **changes})


def test_a_pin_is_what_was_written() -> None:
    pin = WeightsPin("owner/name", "main", FILES)
    assert pin.files == FILES
    assert hash(pin) == hash(WeightsPin("owner/name", "main", dict(reversed(FILES.items()))))


@pytest.mark.parametrize(
    ("revision", "size", "sha256", "confirmed"),
    [
        ("0" * 40, 3, "a" * 64, True),
        ("0" * 40, 3, None, False),
        ("0" * 40, None, "a" * 64, False),
        ("main", 3, "a" * 64, False),
    ],
)
def test_a_pin_is_confirmed_where_nothing_has_to_be_asked(
    revision: str, size: int | None, sha256: str | None, confirmed: bool
) -> None:
    pin = WeightsPin("owner/name", revision, {"config.json": (5, "b" * 64), "model.pt": (size, sha256)})
    assert pin.confirmed is confirmed
    assert pin.size == (None if size is None else 8)
