"""The contract with plug-ins: one hook.

A plug-in is a module named by an entry point of the group `distill.vocoders`; the entry point's
name is the vocoder's name. The module implements `distill_vocoders` and imports no model code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from .card import VocoderCard

PROJECT = "distill"
ENTRY_POINT_GROUP = "distill.vocoders"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def distill_vocoders() -> Sequence[VocoderCard]:  # type: ignore[empty-body]
    """The cards of the vocoders this plug-in offers.

    Called once, when the registry first needs a card of this plug-in: by `cards`, `card`, `get`,
    `resolve` and `explain`, never by `names`. It must not import torch or load a model: that is what
    each card's `factory` is for, which only `get` imports.
    """
