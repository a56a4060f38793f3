"""Neural vocoders behind one contract.

>>> from distill_core import registry
>>> vocoder = registry.get("bigvgan")            # doctest: +SKIP
>>> wave = vocoder.mel_to_waveform(mel)          # doctest: +SKIP

Importing this package loads neither torch nor a plug-in; `VocoderBase` and `ModuleVocoder`, which need
torch, are imported when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import errors
from .card import API_VERSION, Variant, VocoderCard
from .device import select_device
from .errors import DistillError
from .hookspecs import hookimpl
from .mel import MelSpec, compare
from .registry import Registry, Resolution, get_vocoder, registry
from .weights.pin import WeightsPin

if TYPE_CHECKING:
    from .module_vocoder import ModuleVocoder
    from .vocoder import VocoderBase

__version__ = "0.1.0"

__all__ = [
    "API_VERSION",
    "DistillError",
    "MelSpec",
    "ModuleVocoder",
    "Registry",
    "Resolution",
    "Variant",
    "VocoderBase",
    "VocoderCard",
    "WeightsPin",
    "compare",
    "errors",
    "get_vocoder",
    "hookimpl",
    "registry",
    "select_device",
]


def __getattr__(name: str) -> Any:
    if name == "VocoderBase":
        from .vocoder import VocoderBase

        return VocoderBase
    if name == "ModuleVocoder":
        from .module_vocoder import ModuleVocoder

        return ModuleVocoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
