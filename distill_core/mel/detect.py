"""Is a mel plainly in another format than it is said to be? What its values alone can tell.

A mel's logarithm leaves marks no sound can remove: `log1p` of energies is never negative, while the natural
logarithm of magnitudes with a floor of 1e-5 is negative wherever there is no loud sound, and never below
the floor. Filters and scales leave no such marks, and are not looked for.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from ..errors import MelMismatch
from ..untraced import untraced
from .filters import filterbank
from .spec import MelSpec

# What a decoder adds to a true mel may cross a bound by so much before the bound speaks against it.
_NOISE = 0.5
# The share of values that has to be on the wrong side.
_SHARE = 0.02
# Few values say little.
_MIN_VALUES = 64
# Amplitude above full scale that is still taken for sound.
_HEADROOM = 4.0
_MAX_FRAMES = 512
# No ln or log10 of a floor in use goes down so far, and decibels soon do.
_BELOW_LOGARITHMS = -30.0
# Root mean square of the loudest noise that is still taken for sound; clipped noise has little more.
_LOUD_NOISE = 0.5


def looks_like(mel: Tensor, spec: MelSpec) -> bool:
    """Whether the values of `mel`, of any shape, could be those of the format `spec`. Doubts count for it."""
    return _objection(_sample(mel), spec) is None


@untraced
def check_format(mel: Tensor, spec: MelSpec, what: str = "This mel") -> None:
    """Refuse a mel whose values cannot be those of the format `spec`.

    Costs well under a millisecond on a CPU: at most 512 frames are looked at. Silence and very short mels
    pass.

    Args:
        mel: one mel `[n_mels, T]`, or any other shape with frames last. Of several, the others hide what is the matter
            with one.
        spec: the format it is said to be in.
        what: it is called in the message.

    Raises:
        MelMismatch: it is plainly in another format; the message names the likely one.
    """
    values = _sample(mel)
    objection = _objection(values, spec)
    if objection is None:
        return
    likely = _likely(values, spec, mel.shape[-2] if mel.ndim >= 2 else None)
    guess = f" It looks like {likely}." if likely else ""
    raise MelMismatch(
        f"{what} is not in the format {spec}: {objection}.{guess} Name the format it is in (mel= in Python, "
        "--mel in the terminal, Mel format in the playground); if it is right all the same, pass check_format=False in "
        "Python."
    )


def _sample(mel: Tensor) -> Tensor:
    """The values to look at: evenly spaced frames of a long mel, as float32."""
    frames = mel.shape[-1] if mel.ndim else 0
    if frames > _MAX_FRAMES:
        mel = mel[..., :: -(-frames // _MAX_FRAMES)]
    return mel.detach().float().flatten()


@lru_cache(maxsize=64)
def _bounds(spec: MelSpec) -> tuple[float, float]:
    """The least and the greatest value that sound below `_HEADROOM` can have in a format."""
    full_scale = (_HEADROOM * spec.win_length / 4) ** spec.power
    greatest = max(full_scale * float(filterbank(spec).sum(axis=1).max()), spec.floor)
    return _log(spec.floor, spec), _log(greatest, spec)


@lru_cache(maxsize=64)
def _loud_noise(spec: MelSpec) -> float:
    """The value that white noise of `_LOUD_NOISE` has in the quietest band."""
    magnitude = _LOUD_NOISE * math.sqrt(spec.win_length * 3 / 8)
    quietest = magnitude**spec.power * float(filterbank(spec).sum(axis=1).min())
    return _log(max(quietest, spec.floor), spec)


def _log(value: float, spec: MelSpec) -> float:
    if spec.log is None:
        return value
    return {"ln": math.log, "log10": math.log10, "log1p": math.log1p}[spec.log](value)


def _objection(values: Tensor, spec: MelSpec) -> str | None:
    """What speaks against a format, or None."""
    if values.numel() < _MIN_VALUES:
        return None
    least, greatest = _bounds(spec)
    low, high = _extremes(values)
    if low < least - _NOISE and _share(values < least - _NOISE) > _SHARE:
        return f"its values go down to {low:.3g}, where that format ends at {least:.3g}"
    if high > greatest + _NOISE and _share(values > greatest + _NOISE) > _SHARE:
        return f"its values go up to {high:.3g}, where that format ends at about {greatest:.3g}"
    # Loud noise fills every band; in a format whose filters sum rather than average, that is well above 0.
    if spec.log in ("ln", "log10") and low >= max(-_NOISE, _loud_noise(spec)) and high > _NOISE:
        return f"its values go from {low:.3g} to {high:.3g}; in {spec.log} that would be din in every band"
    return None


def _extremes(values: Tensor) -> tuple[float, float]:
    """The least and the greatest. From a card they come together: each look waits for all that it has to do."""
    low, high = torch.stack(torch.aminmax(values)).tolist()
    return low, high


def _share(mask: Tensor) -> float:
    return float(mask.float().mean())


def _likely(values: Tensor, spec: MelSpec, bands: int | None) -> str | None:
    """The preset, of as many bands, that the values could be in: the one whose kind of logarithm fits.

    Failing that, the kind of numbers that they are, where they tell.
    """
    for name in MelSpec.presets():
        candidate = MelSpec.preset(name)
        if candidate.log != spec.log and candidate.n_mels == bands and _objection(values, candidate) is None:
            return str(candidate)
    low, high = _extremes(values)
    if low < _BELOW_LOGARITHMS:
        return "decibels: divided by 10, or by 20 where they are 20 log10, they are log10's values"
    if low < -_NOISE:
        return None if spec.log == "ln" else "ln of magnitudes with a floor of 1e-5"
    if spec.log is not None and high > _bounds(replace(spec, power=2.0, log="log1p", floor=0.0))[1] + _NOISE:
        return "values of which no logarithm was taken"
    return "log1p of energies, or values of which no logarithm was taken" if spec.log in ("ln", "log10") else None
