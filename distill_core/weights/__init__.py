"""Weights: pinned files from the Hub's cache, a folder, a file or a state dict, checked before they are used.

Importing this package loads neither torch nor huggingface_hub; each function imports what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .pin import WeightsPin

if TYPE_CHECKING:
    from .checkpoint import check_state_dict, read_checkpoint, read_config
    from .hub import cached, ensure
    from .inventory import WeightsStatus, status, verify
    from .source import Checkpoint, load_checkpoint

__all__ = [
    "Checkpoint",
    "WeightsPin",
    "WeightsStatus",
    "cached",
    "check_state_dict",
    "ensure",
    "load_checkpoint",
    "read_checkpoint",
    "read_config",
    "status",
    "verify",
]

_LAZY = {
    "Checkpoint": "source",
    "WeightsStatus": "inventory",
    "cached": "hub",
    "check_state_dict": "checkpoint",
    "ensure": "hub",
    "load_checkpoint": "source",
    "read_checkpoint": "checkpoint",
    "read_config": "checkpoint",
    "status": "inventory",
    "verify": "inventory",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
