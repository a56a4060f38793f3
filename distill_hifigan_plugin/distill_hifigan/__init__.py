"""HiFi-GAN behind distill's vocoder contract.

>>> from distill_core import registry
>>> vocoder = registry.get("hifigan")            # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .hifigan_vocoder import HiFiGANVocoder

__version__ = "0.1.0"

__all__ = ["HiFiGANVocoder"]


def __getattr__(name: str) -> Any:
    if name == "HiFiGANVocoder":  # needs torch
        from .hifigan_vocoder import HiFiGANVocoder

        return HiFiGANVocoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
