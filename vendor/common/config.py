"""Reading a generator's configuration: upstream's flat `config.json`, checked once and then trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_LARGEST = 1 << 20
"""What no size in a configuration exceeds: the product of any three still is a tensor's."""

_MOST_CONVOLUTIONS = 2000
"""The largest published generator has not a tenth of these; modules for a list of millions would take hours to make."""


class ConfigError(ValueError):
    """A configuration that no generator of the architecture can have."""


class AttrDict(dict[str, Any]):
    """A dict whose keys are readable as attributes, the form upstream's code passes around."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the configuration has no {name!r}") from None


def as_attr_dict(h: object) -> AttrDict:
    """A shallow copy of `h`, which is a mapping or any object that keeps its settings as attributes."""
    if isinstance(h, Mapping):
        return AttrDict(h)
    try:
        return AttrDict(vars(h))
    except TypeError:
        raise ConfigError(
            f"a configuration is a mapping or an object with attributes, not {type(h).__name__}"
        ) from None


@dataclass(frozen=True)
class Upsampler:
    """The part of the configuration that all HiFi-GAN-like generators share.

    Stage `i` multiplies the frame rate by `rates[i]` with a transposed convolution of
    `kernels[i]` taps and leaves `channels[i + 1]` channels; `channels[0]` is what the first
    convolution makes of the `num_mels` bands.
    """

    num_mels: int
    resblock: str
    rates: tuple[int, ...]
    kernels: tuple[int, ...]
    channels: tuple[int, ...]
    block_kernels: tuple[int, ...]
    block_dilations: tuple[tuple[int, ...], ...]

    @property
    def hop_length(self) -> int:
        """Samples that come out for one mel frame."""
        return math.prod(self.rates)


def read_upsampler(h: Mapping[str, Any], architecture: str) -> Upsampler:
    """Check the keys common to all generators of this family; `ConfigError` names what is wrong."""
    fail = _Failure(architecture)
    keys = (
        "num_mels",
        "resblock",
        "upsample_rates",
        "upsample_kernel_sizes",
        "upsample_initial_channel",
        "resblock_kernel_sizes",
        "resblock_dilation_sizes",
    )
    require(h, keys, architecture)

    resblock = str(h["resblock"])
    if resblock not in ("1", "2"):
        raise fail(f'resblock is {h["resblock"]!r}, expected "1" or "2"')

    rates = _counts(h, "upsample_rates", fail)
    kernels = _counts(h, "upsample_kernel_sizes", fail)
    if len(rates) != len(kernels):
        raise fail(f"{len(rates)} upsample_rates but {len(kernels)} upsample_kernel_sizes")
    for rate, kernel in zip(rates, kernels, strict=True):
        if kernel < rate or (kernel - rate) % 2:
            raise fail(
                f"upsample kernel {kernel} does not fit rate {rate}: "
                "it must be the rate plus an even number, or samples are missing"
            )

    first = _count(h["upsample_initial_channel"], "upsample_initial_channel", fail)
    if first >> len(rates) < 1:
        raise fail(f"upsample_initial_channel {first} cannot be halved {len(rates)} times")

    block_kernels = _counts(h, "resblock_kernel_sizes", fail)
    if even := [k for k in block_kernels if k % 2 == 0]:
        raise fail(f"resblock_kernel_sizes must be odd, got {even}")
    dilations = h["resblock_dilation_sizes"]
    if not isinstance(dilations, Sequence) or isinstance(dilations, str):
        raise fail(f"resblock_dilation_sizes is {dilations!r}, expected a list of lists")
    if len(dilations) != len(block_kernels):
        raise fail(f"{len(block_kernels)} resblock_kernel_sizes but {len(dilations)} resblock_dilation_sizes")
    block_dilations = tuple(_counts({"resblock_dilation_sizes": d}, "resblock_dilation_sizes", fail) for d in dilations)

    convolutions = len(rates) * (1 + sum(map(len, block_dilations)) * (2 if resblock == "1" else 1))
    if convolutions > _MOST_CONVOLUTIONS:
        raise fail(f"it asks for {convolutions} convolutions, expected at most {_MOST_CONVOLUTIONS}")

    hop_length = math.prod(rates)
    if h.get("hop_size", hop_length) != hop_length:
        raise fail(f"upsample_rates {list(rates)} make {hop_length} samples a frame, but hop_size is {h['hop_size']}")

    return Upsampler(
        num_mels=_count(h["num_mels"], "num_mels", fail),
        resblock=resblock,
        rates=rates,
        kernels=kernels,
        channels=tuple(first >> stage for stage in range(len(rates) + 1)),
        block_kernels=block_kernels,
        block_dilations=block_dilations,
    )


def require(h: Mapping[str, Any], keys: Sequence[str], architecture: str) -> None:
    """Raise one `ConfigError` that names every one of `keys` that `h` lacks."""
    if missing := [key for key in keys if key not in h]:
        raise _Failure(architecture)(f"missing {', '.join(missing)}")


def read_bool(h: Mapping[str, Any], key: str, architecture: str, *, default: bool | None = None) -> bool:
    """`h[key]` if it is true or false, `default` if the key is absent."""
    value = h.get(key, default)
    if not isinstance(value, bool):
        raise _Failure(architecture)(f"{key} is {value!r}, expected true or false")
    return value


class _Failure:
    def __init__(self, architecture: str) -> None:
        self._architecture = architecture

    def __call__(self, problem: str) -> ConfigError:
        return ConfigError(f"not a {self._architecture} configuration: {problem}")


def _count(value: object, key: str, fail: _Failure) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise fail(f"{key} holds {value!r}, expected a positive integer")
    if value > _LARGEST:
        raise fail(f"{key} holds a number above {_LARGEST}")
    return value


def _counts(h: Mapping[str, Any], key: str, fail: _Failure) -> tuple[int, ...]:
    values = h[key]
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise fail(f"{key} is {values!r}, expected a list of positive integers")
    return tuple(_count(value, key, fail) for value in values)
