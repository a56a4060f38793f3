"""A set of hashes is a set, and small."""

from __future__ import annotations

import tracemalloc

from distill_core.corpus import hashes
from distill_core.corpus.hashes import Hashes


def test_it_holds_what_was_added_and_nothing_else(monkeypatch) -> None:
    monkeypatch.setattr(hashes, "_RECENT", 50)
    values = [f"file {i}" for i in range(1234)]
    held = Hashes()
    for i, value in enumerate(values):
        assert value not in held
        held.add(value)
        held.add(value)
        assert values[i // 2] in held
    assert all(value in held for value in values)
    assert not any((value, 1) in held for value in values)


def test_a_million_take_eight_megabytes() -> None:
    held = Hashes()
    for i in range(hashes._RECENT):  # what is needed once, such as numpy, is there
        held.add(i)
    tracemalloc.start()
    for i in range(1_000_000):
        held.add(i)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 14e6
