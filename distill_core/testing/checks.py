"""What a check is: a promise of the contract, and a function that fails if a vocoder breaks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .subject import Subject


class ConformanceError(AssertionError):
    """The vocoder breaks a promise; the message says which, what was seen, and what to change."""


class NotApplicable(Exception):
    """A check cannot be made here; the message says why. Counts as skipped."""


@dataclass(frozen=True)
class Check:
    """One promise.

    Args:
        name: short, unique; the pytest test is `test_<name>`.
        group: "card", "loading", "output" or "behaviour".
        promise: what holds for every conforming vocoder, in one line.
        run: raises `ConformanceError` if it does not, `NotApplicable` if that cannot be found out here.
    """

    name: str
    group: str
    promise: str
    run: Callable[[Subject], None]


class Group:
    """Collects the checks of one group, in the order of their definition."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.checks: list[Check] = []

    def promise(self, text: str) -> Callable[[Callable[[Subject], None]], Callable[[Subject], None]]:
        """Make a function a check; its name is the check's."""

        def add(function: Callable[[Subject], None]) -> Callable[[Subject], None]:
            self.checks.append(Check(function.__name__, self.name, text, function))
            return function

        return add


def require(condition: object, message: str) -> None:
    """Fail the check unless the condition holds."""
    if not condition:
        raise ConformanceError(message)
