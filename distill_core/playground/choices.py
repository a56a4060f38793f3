"""What a person can choose: vocoders with what is the matter with them, variants, formats, devices.

Plain data for any user interface: imports neither Gradio nor, before a device is asked for, torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .. import catalog
from ..card import Variant, VocoderCard
from ..device import KINDS
from ..errors import DistillError, InvalidAudioError
from ..explain import USABLE
from ..mel import MelSpec, compare
from ..registry import Registry
from ..states import variant_state

Labelled = list[tuple[str, str]]
"""(what people read, what is meant); an empty value stands for the vocoder's own."""

RATES = (8000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000)
PRECISION_LABELS = {
    "fp32": "fp32: exact",
    "bf16": "bf16: faster where the hardware has it",
    "fp16": "fp16: for GPUs",
    "auto": "auto: the fastest that is measured to be good",
}


@dataclass(frozen=True)
class Offer:
    """A vocoder that is installed.

    Args:
        name: what `registry.get` calls it.
        card: what it says about itself; None if it cannot be used.
        problem: why it cannot be used, and what to do; empty if it can.
        origin: the distribution and version it came in.
    """

    name: str
    card: VocoderCard | None
    problem: str = ""
    origin: str = ""

    @property
    def label(self) -> str:
        return self.name if self.card else f"{self.name} (cannot be used)"


@dataclass(frozen=True)
class Choice:
    """Everything that decides which vocoder runs, and how: `registry.get`'s arguments.

    Args:
        vocoder: a name, or "auto".
        variant, mel: names; None for the vocoder's own.
        sample_rate: of the output, in Hz; None for the vocoder's own.
        device, precision: as for `registry.get`.
    """

    vocoder: str = "auto"
    variant: str | None = None
    device: str = "auto"
    precision: str = "fp32"
    mel: str | None = None
    sample_rate: int | None = None

    @classmethod
    def of(
        cls,
        vocoder: str | None = None,
        variant: str | None = None,
        device: str | None = None,
        precision: str | None = None,
        mel: str | None = None,
        sample_rate: str | int | None = None,
    ) -> Choice:
        """A choice from the values of a form, where empty means "its own".

        Raises:
            InvalidAudioError: the sample rate is no whole number of Hz.
        """
        rate: int | None = None
        if sample_rate not in (None, ""):
            try:
                rate = int(str(sample_rate).strip())
            except ValueError:
                rate = 0
            if not 1000 <= rate <= 768_000:
                raise InvalidAudioError(f"A sample rate is a whole number of Hz, such as 48000, not {sample_rate!r}.")
        return cls(vocoder or "auto", variant or None, device or "auto", precision or "fp32", mel or None, rate)


def offers(registry: Registry) -> list[Offer]:
    """All that is installed and not hidden, the broken included. Imports plug-ins, not torch."""
    found = []
    for name in registry.names():
        try:
            card = registry.card(name)
            story = registry.explain(name)
        except DistillError as error:
            found.append(Offer(name, None, _problem(registry, name, error)))
            continue
        first = story.candidates[0] if story.candidates else None
        if first is not None and first.verdict not in USABLE:
            found.append(Offer(name, None, f"{first.reason} {first.advice}".strip(), first.origin))
        else:
            found.append(Offer(name, card, origin=first.origin if first else ""))
    return found


def nothing_installed(registry: Registry) -> str:
    """What to say where there is no vocoder at all."""
    return f"{registry.why_none()} Then start this again."


def default_offer(found: Sequence[Offer]) -> Offer | None:
    """The one to begin with: in the order of "auto", the first whose default variant runs without a download."""
    names = [*catalog.AUTO_ORDER, *(offer.name for offer in found)]
    ordered = sorted(found, key=lambda offer: names.index(offer.name))
    usable = [offer for offer in ordered if offer.card]
    for state in ("cached", "none"):
        for offer in usable:
            assert offer.card is not None
            if variant_state(offer.card.variant()).state == state:
                return offer
    return usable[0] if usable else ordered[0] if ordered else None


def variants(card: VocoderCard) -> Labelled:
    """The variants, the default first."""
    ordered = sorted(card.variants, key=lambda variant: variant.name != card.default_variant)
    return [(_variant_label(variant), variant.name) for variant in ordered]


def to_download(variant: Variant) -> tuple[bool, str]:
    """Whether the weights have to be fetched first, and one sentence on where they stand. Opens no socket."""
    state = variant_state(variant)
    if state.state == "missing":
        assert variant.weights is not None
        size = f" {megabytes(variant.weights.size)}" if variant.weights.size else ""
        return True, f"The first run downloads{size} from the Hugging Face Hub ({variant.weights.repo})."
    if state.state == "none":
        return False, "Weights come with a package: nothing to download."
    if state.state == "cached":
        return False, "Weights are on this machine."
    return True, f"Weights: {state.detail}"


def formats(variant: Variant) -> Labelled:
    """The mel formats it can be fed: its own, and the presets that can be converted to it."""
    found = [(f"its own ({variant.mel.name or 'no preset'})", "")]
    seen = {variant.mel}
    for name in MelSpec.presets():
        spec = MelSpec.preset(name)
        if spec not in seen and compare(spec, variant.mel).kind != "incompatible":
            found.append((f"{name}, converted", name))
            seen.add(spec)
    return found


def lost(variant: Variant, mel: str | None) -> tuple[str, ...]:
    """What is lost where mels of the format `mel` are converted for a variant."""
    return compare(MelSpec.preset(mel), variant.mel).lost if mel else ()


def rates(variant: Variant) -> Labelled:
    """Sample rates of the output."""
    return [
        (f"its own ({variant.sample_rate:,} Hz)", ""),
        *((f"{rate:,} Hz", str(rate)) for rate in RATES if rate != variant.sample_rate),
    ]


def devices(card: VocoderCard | None) -> Labelled:
    """Where it can run here. Imports torch."""
    from ..device import select_device

    kinds = tuple(card.devices) if card else KINDS
    try:
        best = str(select_device("auto", among=kinds))
    except DistillError:
        best = "none is usable"
    return [(f"auto ({best})", "auto"), *((name, name) for name in _present(kinds))]


def precisions() -> Labelled:
    return [(label, name) for name, label in PRECISION_LABELS.items()]


def megabytes(size: float) -> str:
    return f"{size / 1e6:.0f} MB" if size >= 2e6 else f"{size / 1e6:.1f} MB"


def _present(kinds: Sequence[str]) -> list[str]:
    import torch

    found = []
    if "cuda" in kinds and torch.cuda.is_available():
        found += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if "mps" in kinds and torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"] if "cpu" in kinds else found


def _variant_label(variant: Variant) -> str:
    size = variant.weights.size if variant.weights else None
    missing = f", {megabytes(size)} to download" if size and to_download(variant)[0] else ""
    return f"{variant.name} ({variant.sample_rate / 1000:g} kHz{missing})"


def _problem(registry: Registry, name: str, error: DistillError) -> str:
    try:
        told = registry.explain(name)
    except DistillError:
        return str(error)
    advice = next((each.advice for each in told.candidates if each.advice), " ".join(told.advice))
    return f"{error} {advice}".strip() if advice not in str(error) else str(error)
