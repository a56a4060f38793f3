"""The kit as a pytest class: one test for each promise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from ..registry import Registry
from .checks import Check, NotApplicable
from .runner import CHECKS
from .subject import Subject


class VocoderConformance:
    """Subclass it under a name that begins with `Test`, and set `name`; or let `conformance` do both.

    Attributes:
        name: the vocoder's name.
        registry: where to look for it; None: the process-wide registry, so the plug-in must be installed.
        arguments: for `registry.get`, such as `{"variant": "small"}`; `weights` may be a function that makes
            them, called when the first test needs the vocoder.
    """

    name: ClassVar[str]
    registry: ClassVar[Registry | None] = None
    arguments: ClassVar[dict[str, Any]] = {}
    _subject: ClassVar[Subject | None] = None

    @classmethod
    def subject(cls) -> Subject:
        """The vocoder under test, loaded once for all tests of the class."""
        if cls._subject is None:
            cls._subject = Subject(cls.name, cls.registry, **cls.arguments)
        return cls._subject

    @classmethod
    def teardown_class(cls) -> None:
        cls._subject = None


def _test(check: Check) -> Callable[[VocoderConformance], None]:
    def test(self: VocoderConformance) -> None:
        try:
            check.run(self.subject())
        except NotApplicable as reason:
            import pytest

            pytest.skip(str(reason))

    test.__name__ = f"test_{check.name}"
    test.__doc__ = check.promise
    return test


for _check in CHECKS:
    setattr(VocoderConformance, f"test_{_check.name}", _test(_check))


def conformance(name: str, *, registry: Registry | None = None, **arguments: Any) -> type[VocoderConformance]:
    """The kit for one vocoder, as a class for pytest to find: `TestMine = conformance("mine")`.

    Args:
        name: the vocoder's name.
        registry: where to look for it; by default the process-wide registry, so the plug-in must be installed.
        **arguments: as for `registry.get`; `weights` may be a function that makes them.
    """
    attributes = {"name": name, "registry": registry, "arguments": arguments, "__doc__": f"The contract, for {name}."}
    return type(f"Conformance_{name}", (VocoderConformance,), attributes)
