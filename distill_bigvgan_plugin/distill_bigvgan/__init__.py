"""NVIDIA's BigVGAN behind distill's vocoder contract.

>>> from distill_core import registry
>>> vocoder = registry.get("bigvgan")            # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .weight_manager import ensure_bigvgan_weights, is_bigvgan_cached

if TYPE_CHECKING:
    from .bigvgan_vocoder import BigVGANVocoder

__version__ = "0.1.0"

__all__ = ["BigVGANVocoder", "ensure_bigvgan_weights", "is_bigvgan_cached"]


def __getattr__(name: str) -> Any:
    if name == "BigVGANVocoder":  # needs torch
        from .bigvgan_vocoder import BigVGANVocoder

        return BigVGANVocoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
