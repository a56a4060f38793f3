"""What is done to every file of a corpus, by whichever engine: read, analyse, vocode, write.

A `VocodeJob` is a handful of words that can be sent anywhere; `load()` makes a `Runner` of it, which holds the
model and takes one batch after another. A bad file is an `Outcome`, never an exception.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import CorpusError, WeightsDownloadError, WeightsOfflineError
from ..registry import registry
from ..states import variant_state
from ..weights.source import CONFIG
from .plan import Item

if TYPE_CHECKING:
    from ..card import Variant
    from .runner import Runner

Status = Literal["done", "failed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one item.

    Args:
        item: the item.
        status: "done" or "failed".
        reason: why it failed; begins with the file's name.
        outputs: the files that were written.
        seconds: of sound in each of them.
        channels: of all of them together.
        sample_rate: of them, in Hz.
        took: seconds from reading to the finished waveform; of a batch, an item's share by its length.
        fatal: nothing else can be written either: the disk is full, or no longer there.
    """

    item: Item
    status: Status
    reason: str = ""
    outputs: tuple[str, ...] = ()
    seconds: float = 0.0
    channels: int = 1
    sample_rate: int = 0
    took: float = 0.0
    fatal: bool = False


@dataclass(frozen=True)
class VocodeJob:
    """How a corpus is vocoded. Can be pickled; loading it needs the same packages, not the same machine.

    Args:
        vocoder: as `name` of `Registry.get`.
        variant: as there, and so are the next five; all of them are words or numbers.
        device: where each worker runs.
        precision: what it computes in.
        mel: the format of the mels, where a file says nothing else.
        sample_rate: of the outputs, in Hz.
        weights: a folder or a file.
        options: more of them, such as `(("chunk_frames", 64),)`.
        subtype: encoding of the outputs, such as "PCM_24"; None for the format's usual.
        folder: the output folder, in which a record is kept; None for files here and there, and no record.
        overwrite: replace files that are there and that no record tells of.
        threads: torch threads to compute with; None for torch's own choice.

    Raises:
        CorpusError: `weights` or `folder` is no text.
    """

    vocoder: str = "auto"
    variant: str | None = None
    device: str = "auto"
    precision: str = "fp32"
    mel: str | None = None
    sample_rate: int | None = None
    weights: str | None = None
    options: tuple[tuple[str, Any], ...] = ()
    subtype: str | None = None
    folder: str | None = None
    overwrite: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("weights", "folder"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise CorpusError(f"VocodeJob.{name} must be a path as text, str(path), not {value!r}.")

    def load(self) -> Runner:
        """A runner with the model loaded.

        Raises:
            DistillError: as `Registry.get`; or there is no such `subtype`.
        """
        from .runner import Runner

        try:
            return Runner(self)
        except (WeightsOfflineError, WeightsDownloadError) as error:
            raise type(error)(f"{error}{self._without_download()}") from error

    def _without_download(self) -> str:
        """What could be asked for instead, where nobody asked for the vocoder that cannot be had."""
        if self.vocoder != "auto" or self.variant is not None:
            return ""
        here = [card.name for card in registry.cards() if variant_state(card.variant()).state in ("cached", "none")]
        return f" No download is needed for --vocoder {' or --vocoder '.join(here)}." if here else ""

    @property
    def settings(self) -> str:
        """A word that is the same for two jobs if they make the same of the same file. Imports no torch.

        Where it runs and in how many threads is left out: that changes the last bits only.

        Raises:
            PluginError, UnknownVocoderError, UnknownVariantError: as `Registry.card`.
        """
        name = registry.resolve(self.vocoder).name
        variant = registry.card(name).variant(self.variant).name
        weights = None if self.weights is None else _contents(self.weights)
        parts = [name, variant, self.precision, self.mel, self.sample_rate, weights, self.subtype, *self.options]
        parts = [part for part in parts if not (isinstance(part, tuple) and part[0] == "chunk_frames")]
        return hashlib.sha256(json.dumps(parts, default=repr).encode()).hexdigest()[:16]

    @property
    def frame_seconds(self) -> float:
        """What a frame of the vocoder's mels lasts, by its card: for estimates. Imports no torch."""
        spec = self._variant.mel
        return spec.hop_length / spec.sample_rate

    @property
    def parameters(self) -> int | None:
        """Of the model, by its card. Imports no torch."""
        return self._variant.parameters

    @property
    def _variant(self) -> Variant:
        return registry.card(registry.resolve(self.vocoder).name).variant(self.variant)


def _contents(weights: str) -> list[tuple[str, int, int]]:
    """What tells one state of a checkpoint and the configuration beside it, or a folder with them, from another."""
    path = Path(os.path.expanduser(weights))
    found = sorted(path.iterdir()) if path.is_dir() else [path, path.with_name(CONFIG)]
    return [(each.name, each.stat().st_size, each.stat().st_mtime_ns) for each in found if each.is_file()]
