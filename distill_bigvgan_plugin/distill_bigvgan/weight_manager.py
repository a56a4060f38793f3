"""BigVGAN's weights: downloaded once, then never a word to the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distill_core.weights import WeightsPin, cached, ensure

from .plugin import CARD


def ensure_bigvgan_weights(variant: str | None = None, *, progress: bool = True, tqdm_class: Any = None) -> Path:
    """The folder that holds a variant's `config.json` and `bigvgan_generator.pt`, downloading what is missing.

    Args:
        variant: a name from the card, such as "v2_24khz_100band_256x"; by default the 44.1 kHz one.
        progress: show a bar on stderr while downloading.
        tqdm_class: a class with tqdm's interface to show the progress with instead. What it raises ends the download
            and comes out of here; what has arrived is kept.

    Raises:
        UnknownVariantError: no such variant.
        WeightsError: offline, refused, damaged: each its own subclass and message.
    """
    return ensure(_pin(variant), progress=progress, tqdm_class=tqdm_class)


def is_bigvgan_cached(variant: str | None = None) -> bool:
    """True if a variant's files are all here, whole and as pinned. Opens no socket.

    Raises:
        UnknownVariantError: no such variant.
    """
    return cached(_pin(variant)) is not None


def _pin(variant: str | None) -> WeightsPin:
    pin = CARD.variant(variant).weights
    assert pin is not None  # every published variant has one
    return pin
