"""MelSpec: everything that gives the numbers of a mel spectrogram their meaning.

The shape of a mel says little: two published BigVGAN checkpoints differ only in `fmax`, and feeding one
the mel of the other is audible. So the format is a value of its own, compared field by field. Importing
this module loads no torch.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from ..errors import CheckpointError, InvalidAudioError, MelFormatError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

MelScale = Literal["slaney", "htk"]
MelNorm = Literal["slaney"] | None
MelLog = Literal["ln", "log10", "log1p"] | None

_CHOICES: dict[str, tuple[Any, ...]] = {
    "scale": ("slaney", "htk"),
    "norm": ("slaney", None),
    "power": (1.0, 2.0),
    "log": ("ln", "log10", "log1p", None),
    "center": (True, False),
}
# Far above any format in use; a config.json that asks for more is damaged, and would fill the memory.
_MAX_N_FFT = 1 << 17
_MIN_FLOOR = 2.0**-126  # float32's smallest number of full precision; devices may take what is below for 0
_MAX_FLOAT32 = (2 - 2.0**-23) * 2.0**127


@dataclass(frozen=True)
class MelSpec:
    """A mel format.

    Equal formats are equal objects: `fmax=None` is stored as `sample_rate / 2`.

    Args:
        sample_rate: of the audio, in Hz.
        n_fft: length of the Fourier transform, in samples.
        hop_length: samples between frames.
        win_length: samples under the (periodic Hann) window, at most `n_fft`.
        n_mels: number of bands.
        fmin: lower edge of the lowest band, in Hz.
        fmax: upper edge of the highest band, in Hz; None means `sample_rate / 2`.
        scale: "slaney" (linear to 1 kHz, then logarithmic) or "htk" (2595 log10(1 + f / 700)).
        norm: "slaney" (every filter has unit area over Hz) or None (every filter peaks at 1).
        power: 1.0 for magnitudes, 2.0 for powers.
        log: "ln", "log10", "log1p" (ln(1 + x)) or None.
        floor: band values are raised to it before the logarithm; above 0 for "ln" and "log10".
        center: True: frame k is centred at sample `k * hop_length` (reflect padding by `n_fft // 2`).
            False: reflect padding by `(n_fft - hop_length) // 2`, so that frame k is centred at sample
            `(k + 0.5) * hop_length`, as HiFi-GAN and BigVGAN do it.
        eps: added to re² + im² of every Fourier bin.

    Raises:
        MelFormatError: a value that no mel format can have; the message names the field.
    """

    sample_rate: int
    n_fft: int
    hop_length: int
    win_length: int
    n_mels: int
    fmin: float
    fmax: float | None
    scale: MelScale
    norm: MelNorm
    power: float
    log: MelLog
    floor: float
    center: bool
    eps: float = 0.0

    def __post_init__(self) -> None:
        for name in ("sample_rate", "n_fft", "hop_length", "win_length", "n_mels"):
            self._store(name, _whole(name, getattr(self, name)))
        for name in ("fmin", "floor", "eps", "power"):
            self._store(name, _real(name, getattr(self, name)))
        nyquist = self.sample_rate / 2
        fmax = nyquist if self.fmax is None else _real("fmax", self.fmax)
        self._store("fmax", fmax)
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if not any(type(value) is type(choice) and value == choice for choice in choices):
                listed = ", ".join(repr(choice) for choice in choices)
                raise MelFormatError(f"MelSpec.{name} must be one of {listed}, not {value!r}.")
        if not 2 <= self.n_fft <= _MAX_N_FFT:
            raise MelFormatError(f"MelSpec.n_fft must be 2 to {_MAX_N_FFT} samples, not {self.n_fft}.")
        for name in ("win_length", "hop_length", "n_mels"):
            if (value := getattr(self, name)) > self.n_fft:
                raise MelFormatError(f"MelSpec.{name}={value} must not exceed n_fft={self.n_fft}.")
        if not fmax <= nyquist:
            raise MelFormatError(
                f"MelSpec.fmax={fmax:g} Hz lies above half the sample rate, {nyquist:g} Hz. "
                "Use fmax=None for all there is."
            )
        if not self.fmin < fmax:
            raise MelFormatError(f"MelSpec.fmin={self.fmin:g} Hz must lie below fmax={fmax:g} Hz.")
        if self.log in ("ln", "log10") and self.floor < _MIN_FLOOR:
            raise MelFormatError(
                f"MelSpec.floor must be above 0 for log={self.log!r}, {_MIN_FLOOR:.3g} or more, not {self.floor:g}: "
                "0, which less is in float32, has no logarithm."
            )

        for name in ("floor", "eps"):
            if (value := getattr(self, name)) > _MAX_FLOAT32:
                raise MelFormatError(f"MelSpec.{name}={value:g} is more than float32 holds.")

    def _store(self, name: str, value: float) -> None:
        object.__setattr__(self, name, value)

    # Where formats come from

    @classmethod
    def preset(cls, name: str) -> MelSpec:
        """The format of this name, as `MelSpec.presets()` lists them.

        The names of BigVGAN's checkpoints work as well, as `bigvgan_v2_24khz_100band_256x` or with
        `nvidia/` in front.

        Raises:
            MelFormatError: there is none; the message has the closest names.
        """
        from ..suggest import did_you_mean

        if not isinstance(name, str):
            raise MelFormatError(f"A mel preset is named by a string, not by {type(name).__name__}.")
        key = name.strip().lower().removeprefix("nvidia/").replace("_", "-")
        found = _PRESETS.get(_ALIASES.get(key, key))
        if found is None:
            raise MelFormatError(
                f"There is no mel preset {name!r}.{did_you_mean(key, [*_PRESETS, *_ALIASES])} "
                f"Presets: {', '.join(_PRESETS)}."
            )
        return found

    @classmethod
    def of(cls, mel: MelSpec | str) -> MelSpec:
        """`mel` itself, or the preset of this name.

        Raises:
            MelFormatError: it is neither.
        """
        if isinstance(mel, cls):
            return mel
        if isinstance(mel, str):
            return cls.preset(mel)
        hint = " MelSpec.from_config makes one of a checkpoint's configuration." if isinstance(mel, Mapping) else ""
        raise MelFormatError(f"A mel format is a MelSpec or the name of a preset, not {type(mel).__name__}.{hint}")

    @staticmethod
    def presets() -> tuple[str, ...]:
        """The names of all presets; two of them, HiFi-GAN's and BigVGAN's with `fmax8k`, are one format."""
        return tuple(_PRESETS)

    @classmethod
    def from_config(cls, h: Mapping[str, Any] | object) -> MelSpec:
        """The format of a HiFi-GAN or BigVGAN checkpoint, from its `config.json`.

        Args:
            h: a mapping, or an object with attributes, holding `sampling_rate` (Hz), `num_mels`, `n_fft`,
                `hop_size`, `win_size` (samples), `fmin`, `fmax` (Hz; null is half the sample rate).

        Raises:
            CheckpointError: it is no configuration, a key is missing, or a value is none that a mel format can have.
        """
        if h is None or isinstance(h, (str, bytes, os.PathLike, int, float)):
            raise CheckpointError(
                "MelSpec.from_config takes a configuration that is read already, a mapping as in config.json, "
                f"not {h!r}. json.loads reads one."
            )
        values: dict[str, Any] = {}
        missing = []
        for key, field in _CONFIG_KEYS.items():
            if isinstance(h, Mapping) and key in h:
                values[field] = h[key]
            elif not isinstance(h, Mapping) and hasattr(h, key):
                values[field] = getattr(h, key)
            else:
                missing.append(key)
        if missing:
            raise CheckpointError(
                f"The checkpoint's configuration lacks {', '.join(missing)}, without which its mel format is "
                "unknown. Is this the config.json that came with the weights?"
            )
        try:
            return _nvidia(**values)
        except MelFormatError as error:
            raise CheckpointError(f"The configuration describes no mel format: {error}") from error

    @property
    def name(self) -> str | None:
        """The preset that this format is, or None."""
        return next((name for name, spec in _PRESETS.items() if spec == self), None)

    # What follows from the fields

    @property
    def nyquist(self) -> float:
        """Half the sample rate, in Hz."""
        return self.sample_rate / 2

    @property
    def padding(self) -> int:
        """Samples of reflect padding on each side before the frames are cut."""
        return self.n_fft // 2 if self.center else (self.n_fft - self.hop_length) // 2

    @property
    def first_center(self) -> float:
        """The sample at which frame 0 is centred; frame k is `k * hop_length` later."""
        return self.n_fft / 2 - self.padding

    @property
    def silence(self) -> float:
        """The value of a band when the audio is digital silence, the largest over the bands."""
        from .filters import silence

        return silence(self)

    def frames(self, samples: int) -> int:
        """How many frames `analyze` makes of so many samples; 0 if they are too few to be analysed.

        Raises:
            InvalidAudioError: `samples` is no whole number.
        """
        samples = counted(samples, "samples", InvalidAudioError)
        if samples <= self.padding:
            return 0
        return max(0, (samples + 2 * self.padding - self.n_fft) // self.hop_length + 1)

    def analyze(self, waveform: Tensor | NDArray[Any]) -> Tensor:
        """The mel of `waveform` in this format: see `distill_core.mel.analysis.analyze`.

        Shapes: `[samples]`, `[B, samples]` or `[B, 1, samples]` -> `[B, n_mels, T]`, T = `frames(samples)`.
        """
        from .analysis import analyze

        return analyze(waveform, self)

    def describe(self) -> str:
        """One line for people, with every field that makes a difference."""
        assert self.fmax is not None
        kind = "magnitude" if self.power == 1.0 else "power"
        if self.eps > 0:
            kind += f" (eps {self.eps:g})"
        log: str = self.log or "no logarithm"
        if self.floor > 0:
            log += f" above {self.floor:g}"
        window = "" if self.win_length == self.n_fft else f", window {self.win_length}"
        norm = "Slaney-normalised " if self.norm else ""
        scale = "Slaney" if self.scale == "slaney" else "HTK"
        frames = "centred" if self.center else "between samples (padding (n_fft - hop) / 2)"
        return (
            f"{self.sample_rate} Hz, {self.n_mels} {norm}{scale} bands {self.fmin:g}-{self.fmax:g} Hz, "
            f"{kind}, {log}, n_fft {self.n_fft}{window}, hop {self.hop_length}, frames {frames}"
        )

    def __str__(self) -> str:
        names = " = ".join(name for name, spec in _PRESETS.items() if spec == self)
        return f"{names} ({self.describe()})" if names else self.describe()

    def differences(self, other: MelSpec | str) -> dict[str, tuple[Any, Any]]:
        """The fields in which two formats differ, as name -> (mine, the other's).

        Raises:
            MelFormatError: the other is neither a `MelSpec` nor the name of a preset.
        """
        other = MelSpec.of(other)
        names = [field.name for field in fields(self)]
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def counted(value: Any, what: str, error: type[ValueError]) -> int:
    """`value` as an int; numpy's integers and 22050.0 pass, booleans, text and fractions do not.

    Raises:
        ValueError: the `error` given, naming the value.
    """
    try:
        number = int(value) if isinstance(value, float) else operator.index(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or number != value or isinstance(value, bool):
        raise error(f"The number of {what} must be a whole number, not {value!r}.")
    return number


def _whole(name: str, value: Any) -> int:
    """`value` as a positive int; numpy's integers and 22050.0 pass, booleans and text do not."""
    number = _real(name, value)
    if number != int(number) or number < 1:
        raise MelFormatError(f"MelSpec.{name} must be a positive whole number, not {value!r}.")
    return int(number)


def _real(name: str, value: Any) -> float:
    """`value` as a finite float of 0 or more."""
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
        raise MelFormatError(f"MelSpec.{name} must be a number, not {value!r}.")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise MelFormatError(f"MelSpec.{name} must be a number, not {value!r}.") from None
    if not math.isfinite(number) or number < 0:
        raise MelFormatError(f"MelSpec.{name} must be finite and not negative, not {value!r}.")
    return number


_CONFIG_KEYS = {
    "sampling_rate": "sample_rate",
    "num_mels": "n_mels",
    "n_fft": "n_fft",
    "hop_size": "hop_length",
    "win_size": "win_length",
    "fmin": "fmin",
    "fmax": "fmax",
}


def _nvidia(
    sample_rate: int,
    n_mels: int,
    n_fft: int,
    hop_length: int,
    win_length: int,
    fmin: float,
    fmax: float | None,
) -> MelSpec:
    """HiFi-GAN's convention, which BigVGAN took over."""
    return MelSpec(
        sample_rate=sample_rate,
        n_fft=n_fft,
        hop_length=hop_length,
        win_length=win_length,
        n_mels=n_mels,
        fmin=fmin,
        fmax=fmax,
        scale="slaney",
        norm="slaney",
        power=1.0,
        log="ln",
        floor=1e-5,
        center=False,
        eps=1e-9,
    )


def _torchaudio(sample_rate: int, n_mels: int, n_fft: int, hop_length: int, **rest: Any) -> MelSpec:
    """What torchaudio's MelSpectrogram gives by default, with a choice of power and logarithm."""
    return MelSpec(
        sample_rate=sample_rate,
        n_fft=n_fft,
        hop_length=hop_length,
        win_length=n_fft,
        n_mels=n_mels,
        fmin=0.0,
        fmax=None,
        scale="htk",
        norm=None,
        center=True,
        **rest,
    )


_PRESETS: dict[str, MelSpec] = {
    "distill-vae": _torchaudio(48000, 128, 2048, 512, power=2.0, log="log1p", floor=0.0),
    "bigvgan-44khz-128band-512x": _nvidia(44100, 128, 2048, 512, 2048, 0, None),
    "bigvgan-44khz-128band-256x": _nvidia(44100, 128, 1024, 256, 1024, 0, None),
    "bigvgan-24khz-100band-256x": _nvidia(24000, 100, 1024, 256, 1024, 0, None),
    "bigvgan-22khz-80band-256x": _nvidia(22050, 80, 1024, 256, 1024, 0, None),
    "hifigan-22khz-80band": _nvidia(22050, 80, 1024, 256, 1024, 0, 8000),
    "bigvgan-22khz-80band-fmax8k-256x": _nvidia(22050, 80, 1024, 256, 1024, 0, 8000),
    "vocos-24khz-100band": _torchaudio(24000, 100, 1024, 256, power=1.0, log="ln", floor=1e-7),
}

# The nine checkpoints share five formats; each may be asked for by its own name.
_ALIASES: dict[str, str] = {
    "bigvgan-v2-44khz-128band-512x": "bigvgan-44khz-128band-512x",
    "bigvgan-v2-44khz-128band-256x": "bigvgan-44khz-128band-256x",
    "bigvgan-v2-24khz-100band-256x": "bigvgan-24khz-100band-256x",
    "bigvgan-v2-22khz-80band-256x": "bigvgan-22khz-80band-256x",
    "bigvgan-v2-22khz-80band-fmax8k-256x": "bigvgan-22khz-80band-fmax8k-256x",
    "bigvgan-24khz-100band": "bigvgan-24khz-100band-256x",
    "bigvgan-22khz-80band": "bigvgan-22khz-80band-fmax8k-256x",
    "bigvgan-base-24khz-100band": "bigvgan-24khz-100band-256x",
    "bigvgan-base-22khz-80band": "bigvgan-22khz-80band-fmax8k-256x",
}
