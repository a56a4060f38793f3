"""Mel formats: what a mel spectrogram's numbers mean, how to compute them, how to convert them.

Importing this package loads neither torch nor numpy; `MelAdapter` and `check_format` load torch on use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .compare import MelComparison, compare
from .spec import MelSpec

if TYPE_CHECKING:
    from .adapter import MelAdapter
    from .detect import check_format, looks_like

__all__ = ["MelAdapter", "MelComparison", "MelSpec", "check_format", "compare", "looks_like"]

_LAZY = {"MelAdapter": "adapter", "check_format": "detect", "looks_like": "detect"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
