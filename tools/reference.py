"""The exceptions that docstrings name become links in the reference: an extension of griffe, for mkdocs.yml.

A name in a docstring is looked up in its module, and few modules import every exception that comes out of them.
"""

from __future__ import annotations

from typing import Any

import griffe

from distill_core import errors

EXCEPTIONS = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}


class Exceptions(griffe.Extension):
    """Every module knows the exceptions of `distill_core.errors`."""

    def on_module(self, *, mod: griffe.Module, **_: Any) -> None:
        for name in EXCEPTIONS.difference(mod.members):
            mod.set_member(name, griffe.Alias(name, f"{errors.__name__}.{name}", runtime=False, parent=mod))
