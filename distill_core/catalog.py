"""Vocoders this project knows by name, installed or not: what to install, and what "auto" means.

The one place in the core where plug-ins are named. It is data for messages and for `resolve("auto")`;
nothing here is imported.
"""

from __future__ import annotations

KNOWN_DISTRIBUTIONS = {
    "bigvgan": "distill-bigvgan",
    "hifigan": "distill-hifigan",
}
"""Vocoder name -> what to `pip install` to get it."""

PER_MODEL_VOCODER = "hifigan"
"""The vocoder an app trains beside its own model and keeps in the model's file."""

AUTO_ORDER = ("bigvgan",)
"""What "auto" tries in order before it takes the first installed name."""
