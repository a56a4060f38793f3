"""Which vocoders to compare: `hifigan`, `hifigan:ljspeech`, `bigvgan@bf16`, `hifigan=runs/g_00010000`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import UnknownVocoderError
from ..registry import registry

if TYPE_CHECKING:
    from ..vocoder import VocoderBase

_GRAMMAR = re.compile(
    r"(?P<name>[^:@=,\s]+)(?::(?P<variant>[^:@=,\s]+))?(?:@(?P<precision>[^:@=,\s]+))?(?:=(?P<weights>[^,]+))?"
)


@dataclass(frozen=True)
class VocoderChoice:
    """A vocoder, its variant (None: the card's default), precision, and weights of one's own (a path, or None)."""

    name: str
    variant: str | None = None
    precision: str = "fp32"
    weights: str | None = None

    @classmethod
    def parse(cls, text: str) -> VocoderChoice:
        """From `NAME[:VARIANT][@PRECISION][=WEIGHTS]`.

        Raises:
            UnknownVocoderError: it is not of that form.
        """
        match = _GRAMMAR.fullmatch(text.strip())
        if match is None:
            raise UnknownVocoderError(
                f"{text!r} names no vocoder. Write NAME[:VARIANT][@PRECISION][=WEIGHTS], such as hifigan, "
                "hifigan:ljspeech, bigvgan@bf16 or hifigan=runs/g_00010000.",
                name=text,
            )
        return cls(match["name"], match["variant"], match["precision"] or "fp32", match["weights"])

    @property
    def label(self) -> str:
        """As it is written."""
        text = self.name + (f":{self.variant}" if self.variant else "")
        text += f"@{self.precision}" if self.precision != "fp32" else ""
        return text + (f"={self.weights}" if self.weights else "")

    def load(self, device: str = "auto") -> VocoderBase:
        """The vocoder, ready to run.

        Raises:
            DistillError: as `Registry.get`.
        """
        weights = None if self.weights is None else os.path.expanduser(self.weights)  # no shell does it after "="
        return registry.get(self.name, variant=self.variant, device=device, precision=self.precision, weights=weights)


Vocoders = str | Iterable["str | VocoderChoice"] | Mapping[str, "str | VocoderChoice | VocoderBase"]
"""What `compare` takes: names with commas between them, a list, or labels with names or loaded vocoders."""


def chosen(vocoders: Vocoders) -> dict[str, VocoderChoice | VocoderBase]:
    """The vocoders that are meant, each under its label; one that is named twice comes once.

    Raises:
        UnknownVocoderError: a name that cannot be read, or none at all.
    """
    if isinstance(vocoders, Mapping):
        named = {
            str(label): VocoderChoice.parse(each) if isinstance(each, str) else each for label, each in vocoders.items()
        }
    else:
        listed = list(vocoders) if isinstance(vocoders, Iterable) and not isinstance(vocoders, str) else [vocoders]
        for each in listed:
            if not isinstance(each, str | VocoderChoice):
                raise UnknownVocoderError(
                    f"A vocoder is named by a string, not by {type(each).__name__}. Give loaded ones as a mapping "
                    'from labels: {"mine": vocoder}.',
                    name=str(each),
                )
        texts = [part for each in listed for part in (each.split(",") if isinstance(each, str) else [each])]
        choices = [VocoderChoice.parse(each) if isinstance(each, str) else each for each in texts if each != ""]
        named = {choice.label: choice for choice in choices}
    if not named:
        raise UnknownVocoderError("No vocoder was named to compare.", name="")
    return named
