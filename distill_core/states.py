"""Where the weights of a variant stand on this machine, for `explain` and `doctor`. Opens no socket."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Literal

from .card import PACKAGE_NAME, Variant
from .weights.pin import WeightsPin

State = Literal["cached", "missing", "damaged", "unknown", "not installed", "none"]


@dataclass(frozen=True)
class VariantState:
    """One variant's weights.

    Args:
        name: the variant's.
        default: it is the one that `get` takes when none is named.
        state: "cached", "missing" (not downloaded), "damaged" (a record or file that cannot be read),
            "unknown" (the cache itself cannot be looked at), "not installed" (the package that carries them),
            "none" (nothing has to be fetched: that package is here, or the weights come otherwise).
        detail: the folder, or what is the matter.
    """

    name: str
    default: bool
    state: State
    detail: str

    def __str__(self) -> str:
        return f"{self.name}{' (default)' if self.default else ''}: {self.detail}"


def variant_state(variant: Variant, default: str = "") -> VariantState:
    """The state of a variant's weights; `default` is the name of the card's default variant, where that matters.

    Never raises: whatever is wrong is in `detail`.
    """
    state, detail = _packaged(variant.package) if variant.package else _weights(variant.weights)
    return VariantState(variant.name, variant.name == default, state, detail)


def _packaged(package: str) -> tuple[State, str]:
    from importlib_metadata import PackageNotFoundError, distribution

    named = PACKAGE_NAME.match(package)
    assert named is not None  # as every Variant makes sure
    name = named[0]
    try:
        distribution(name)
    except PackageNotFoundError:
        return "not installed", f"not installed: pip install {shlex.quote(package)}"
    return "none", f"in the package {name}"


def _weights(pin: WeightsPin | None) -> tuple[State, str]:
    if pin is None:
        return "none", "not on the Hub; they come with the plug-in or through weights="
    from .errors import DistillError
    from .weights import cached

    try:
        place = cached(pin)
    except DistillError as error:
        return "damaged", str(error)
    except Exception as error:  # the story must be told whatever is wrong with the cache
        return "unknown", f"the cache cannot be looked at: {type(error).__name__}: {error}"
    if place is not None:
        return "cached", f"in {place}"
    size = f", {pin.size / 1e6:.0f} MB" if pin.size else ""
    return "missing", f"not downloaded ({pin.repo} at {pin.revision[:12]}{size})"
