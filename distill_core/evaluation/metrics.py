"""What is measured on a result and its reference, and how.

`measure` takes two waveforms. `Scorer` does the same for several results of one reference, and works out
what depends on the reference alone once.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch

from ..errors import DistillError, InvalidAudioError, MissingDependencyError
from ..mel.spec import MelSpec
from ..resample import checked_rate, resample
from . import pitch
from .packages import load

Better = Literal["higher", "lower", "zero"]
Speech = Literal["auto", "yes", "no"]

_DECIBEL = 20 / math.log(10)
# P.862 is made for 8 to 12 s. The reference implementation has room for 50 utterances and writes beyond it
# where there are more, which takes at least 20 s.
_PESQ_SECONDS = 15
_STFT_SECONDS = 60  # a spectrum every 50 samples fills the memory where the sound is long
_STFT_SAMPLES = 1025  # auraloss' longest transform is padded by reflection, which needs more than half of 2048


@dataclass(frozen=True)
class Metric:
    """A figure of merit.

    Args:
        key: its name for programs.
        label: its name for people.
        short: the same where there is little room.
        unit: "" for none.
        better: which values are: "higher", "lower", or "zero" for the nearest to it.
        digits: decimals worth showing.
        package: the package it comes from; None for this one.
        about: what it is, in a sentence or two.
    """

    key: str
    label: str
    short: str
    unit: str
    better: Better
    digits: int
    package: str | None
    about: str

    def text(self, value: float) -> str:
        """A value as people read it; with a sign where zero is the aim."""
        shown = f"{value:+.{self.digits}f}" if self.better == "zero" else f"{value:.{self.digits}f}"
        # Zero has no sign.
        return shown.lstrip("+-") if float(shown) == 0 else shown.replace("-", "−")

    def loss(self, value: float) -> float:
        """A number that is the smaller the better."""
        return {"higher": -value, "lower": value, "zero": abs(value)}[self.better]


METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric(
            "pesq",
            "PESQ-WB",
            "PESQ",
            "MOS",
            "higher",
            2,
            "pesq",
            "Perceptual quality of speech, ITU-T P.862.2, from 1.0 to 4.6, at 16 kHz. References above 15 s are cut "
            "into equal pieces of at most that length, and the mean is given, unless the result is silent in one.",
        ),
        Metric(
            "stoi",
            "STOI",
            "STOI",
            "",
            "higher",
            3,
            "pystoi",
            "Short-time objective intelligibility of speech, up to 1, at 16 kHz.",
        ),
        Metric(
            "mel",
            "Log-mel distance to 8 kHz",
            "Mel 8k",
            "dB",
            "lower",
            2,
            None,
            "Mean absolute difference of the log-mels in one format for all vocoders: 80 bands from 0 to 8 kHz, 46 ms "
            "windows, at 22.05 kHz (preset hifigan-22khz-80band). Band and floor are those of the papers on HiFi-GAN "
            "and BigVGAN; they give it in nepers, of which 1 is 8.69 dB.",
        ),
        Metric(
            "mel_full",
            "Log-mel distance to 22 kHz",
            "Mel 22k",
            "dB",
            "lower",
            2,
            None,
            "The same with 128 bands from 0 to 22.05 kHz at 44.1 kHz (preset bigvgan-44khz-128band-512x): what is "
            "missing, or made up, above 8 kHz counts as well.",
        ),
        Metric(
            "stft",
            "Multi-resolution STFT",
            "MR-STFT",
            "",
            "lower",
            3,
            "auraloss",
            "auraloss' MultiResolutionSTFTLoss as it comes (spectral convergence and log magnitude in three "
            "resolutions), at the reference's own rate. Above 60 s: the mean of equal pieces. It divides by the "
            "reference, so there is none of digital silence.",
        ),
        Metric(
            "f0",
            "F0 error",
            "F0",
            "cents",
            "lower",
            1,
            "pyworld",
            "Root mean square difference of the pitch that WORLD's Harvest finds, over the 5 ms frames voiced in both; "
            "an octave counts 1200. For pitched references: those voiced in 30 % of the frames that sound.",
        ),
        Metric(
            "voicing",
            "Voicing F1",
            "Voicing",
            "",
            "higher",
            3,
            "pyworld",
            "F1 of the decision voiced or unvoiced over all 5 ms frames, with the reference's as the truth.",
        ),
        Metric(
            "level",
            "Level difference",
            "Level",
            "dB",
            "zero",
            2,
            None,
            "Root mean square of the result over that of the reference. The best vocoder is the one whose mean "
            "distance from 0 is the smallest.",
        ),
        Metric(
            "rtf",
            "Real-time factor",
            "RTF",
            "",
            "lower",
            3,
            None,
            "Seconds of computing for a second of sound, on the machine that made this comparison; 0.1 is ten times "
            "as fast as real time. All seconds together, not the mean over the files.",
        ),
    )
}
"""All metrics by key, in the order in which they are shown."""

_SPEECH_ONLY = ("pesq", "stoi")


@dataclass(frozen=True)
class Scores:
    """What came out: `values` by metric, and for every other metric in `absent` why there is none."""

    values: Mapping[str, float]
    absent: Mapping[str, str]

    def __getitem__(self, key: str) -> float:
        """The value of one metric.

        Raises:
            KeyError: there is none; the message says why.
        """
        if key not in self.values:
            raise KeyError(f"{key}: {self.absent.get(key, 'there is no such metric')}")
        return self.values[key]


class _Unmeasurable(Exception):
    """This metric has no value on these sounds; the message says why."""


def measure(
    reference: Any,
    result: Any,
    sample_rate: int,
    *,
    result_rate: int | None = None,
    speech: Speech = "auto",
) -> Scores:
    """Every metric of one result, but for the speed.

    Args:
        reference: [samples] or [1, samples], floating point; a tensor or an array.
        result: likewise; padded with zeros or cut to the reference's duration.
        sample_rate: of the reference, in Hz.
        result_rate: of the result, in Hz; by default the same.
        speech: "yes" and "no" say whether the reference is; "auto" decides by its pitch (`Pitch.like_speech`).

    Raises:
        InvalidAudioError: not one finite waveform each, or a rate that is no positive whole number.
    """
    scorer = Scorer(reference, sample_rate, speech=speech)
    return scorer.score(result, sample_rate if result_rate is None else result_rate)


class Scorer:
    """Measures results against one reference; arguments as for `measure`."""

    def __init__(self, reference: Any, sample_rate: int, *, speech: Speech = "auto") -> None:
        self.wave = _waveform(reference, "The reference")
        self.sample_rate = checked_rate(sample_rate)
        self._speech = speech
        self._resampled: dict[int, torch.Tensor] = {}

    @cached_property
    def is_speech(self) -> bool:
        """Whether PESQ and STOI make sense.

        Raises:
            MissingDependencyError: that is to be decided by the pitch, and pyworld is not installed.
        """
        return self._pitch.like_speech if self._speech == "auto" else self._speech == "yes"

    def score(self, result: Any, sample_rate: int) -> Scores:
        """All metrics but the speed of a result [samples] at `sample_rate` Hz.

        Raises:
            InvalidAudioError: not one finite waveform.
        """
        pair = _Pair(self, _waveform(result, "The result"), checked_rate(sample_rate))
        values: dict[str, float] = {}
        absent: dict[str, str] = {}
        for key, compute in _COMPUTE.items():
            try:
                if key in _SPEECH_ONLY and not self.is_speech:
                    raise _Unmeasurable("not speech")
                value = compute(pair)
            except (_Unmeasurable, MissingDependencyError) as error:
                absent[key] = str(error)
            except Exception as error:  # whatever a package makes of odd sounds
                absent[key] = f"{type(error).__name__}: {_text(error)}"
            else:
                if math.isfinite(value):
                    values[key] = value
                else:
                    absent[key] = "not finite: one of the two is silent"
        return Scores(values, absent)

    def at(self, rate: int) -> torch.Tensor:
        """The reference [samples] at another rate."""
        if rate not in self._resampled:
            self._resampled[rate] = resample(self.wave, self.sample_rate, rate)
        return self._resampled[rate]

    @cached_property
    def _pitch(self) -> pitch.Pitch:
        return pitch.track(self.at(pitch.SAMPLE_RATE).numpy())


class _Pair:
    """A reference and a result, both at whatever rate a metric wants, equally long."""

    def __init__(self, scorer: Scorer, result: torch.Tensor, rate: int) -> None:
        self.scorer = scorer
        self.result = result
        self.rate = rate
        self._resampled: dict[int, torch.Tensor] = {}

    def at(self, rate: int) -> tuple[torch.Tensor, torch.Tensor]:
        reference = self.scorer.at(rate)
        if rate not in self._resampled:
            self._resampled[rate] = fitted(resample(self.result, self.rate, rate), len(reference))
        return reference, self._resampled[rate]

    @cached_property
    def pitches(self) -> tuple[pitch.Pitch, pitch.Pitch]:
        reference = self.scorer._pitch
        if not reference.pitched:
            raise _Unmeasurable("the reference has no steady pitch")
        return reference, pitch.track(self.at(pitch.SAMPLE_RATE)[1].numpy())


def fitted(wave: torch.Tensor, samples: int) -> torch.Tensor:
    """[..., n] cut, or padded with zeros, to [..., samples]."""
    return torch.nn.functional.pad(wave, (0, max(0, samples - wave.shape[-1])))[..., :samples]


def _pesq(pair: _Pair) -> float:
    package = load("pesq")
    reference, result = (wave.numpy() for wave in pair.at(16_000))
    pieces = max(1, math.ceil(len(reference) / (16_000 * _PESQ_SECONDS)))
    scores = []
    reason = "PESQ finds no utterance in it"
    for ours, theirs in zip(np.array_split(reference, pieces), np.array_split(result, pieces), strict=True):
        if not ours.any():
            continue
        if not theirs.any():  # which has no score, and must not be passed over: the mean of the others would be good
            raise _Unmeasurable(f"the result is silent for {len(theirs) / 16_000:.1f} s")
        try:
            scores.append(float(package.pesq(16_000, ours, theirs, "wb")))
        except package.BufferTooShortError:
            reason = "shorter than a quarter of a second"
        except package.NoUtterancesError:
            reason = "PESQ finds no utterance in it"
    if not scores:
        raise _Unmeasurable(reason)
    return sum(scores) / len(scores)


def _stoi(pair: _Pair) -> float:
    reference, result = (wave.numpy() for wave in pair.at(16_000))
    if not reference.any() or not result.any():
        raise _Unmeasurable("the reference or the result is silent")
    if len(reference) < 8000:  # 30 frames of 12.8 ms, and pystoi fails on what is much shorter
        raise _Unmeasurable("shorter than half a second")
    package = load("pystoi")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Not enough STFT frames", category=RuntimeWarning)
        try:
            return float(package.stoi(reference, result, 16_000))
        except RuntimeWarning as warning:
            raise _Unmeasurable("less than 0.4 s of it sounds") from warning


def _mel_distance(preset: str) -> Callable[[_Pair], float]:
    def compute(pair: _Pair) -> float:
        spec = MelSpec.preset(preset)
        reference, result = (fitted(wave, max(len(wave), spec.n_fft)) for wave in pair.at(spec.sample_rate))
        return _DECIBEL * float((spec.analyze(result) - spec.analyze(reference)).abs().mean())

    return compute


def _stft(pair: _Pair) -> float:
    reference, result = pair.at(pair.scorer.sample_rate)
    if len(reference) < _STFT_SAMPLES:
        raise _Unmeasurable(f"shorter than {_STFT_SAMPLES} samples")
    loss = load("auraloss.freq").MultiResolutionSTFTLoss()
    pieces = math.ceil(len(reference) / (pair.scorer.sample_rate * _STFT_SECONDS))
    with torch.no_grad():
        losses = [
            float(loss(theirs[None, None], ours[None, None]))
            for ours, theirs in zip(reference.tensor_split(pieces), result.tensor_split(pieces), strict=True)
            if ours.any()  # spectral convergence divides by the reference
        ]
    if not losses:
        raise _Unmeasurable("the reference is silent")
    return sum(losses) / len(losses)


def _f0(pair: _Pair) -> float:
    value = pitch.error_cents(*pair.pitches)
    if value is None:
        raise _Unmeasurable("no frame is voiced in both")
    return value


def _voicing(pair: _Pair) -> float:
    value = pitch.voicing_f1(*pair.pitches)
    if value is None:
        raise _Unmeasurable("no frame of the reference is voiced")
    return value


def _level(pair: _Pair) -> float:
    reference, result = pair.at(pair.scorer.sample_rate)
    ours, theirs = (float(wave.double().square().mean()) for wave in (reference, result))
    if ours == 0 or theirs == 0:
        raise _Unmeasurable("the reference or the result is silent")
    return 10 * math.log10(theirs / ours)


_COMPUTE: dict[str, Callable[[_Pair], float]] = {
    "pesq": _pesq,
    "stoi": _stoi,
    "mel": _mel_distance("hifigan-22khz-80band"),
    "mel_full": _mel_distance("bigvgan-44khz-128band-512x"),
    "stft": _stft,
    "f0": _f0,
    "voicing": _voicing,
    "level": _level,
}


def _waveform(value: Any, what: str) -> torch.Tensor:
    try:
        wave = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidAudioError(f"{what} must be a tensor or an array, not {type(value).__name__}.") from error
    shape = list(wave.shape)
    if wave.ndim > 1 and wave.numel() == shape[-1]:
        wave = wave.reshape(-1)
    if wave.ndim != 1 or not wave.is_floating_point():
        raise InvalidAudioError(
            f"{what} must be one waveform [samples], floating point; this is {shape} of {wave.dtype}. "
            "Measure channels one by one, or their mean."
        )
    wave = wave.float()
    if wave.numel() == 0 or not bool(torch.isfinite(wave).all()):
        raise InvalidAudioError(f"{what} must have samples, all of them finite in float32.")
    return wave


def _text(error: Exception) -> str:
    """An exception in a line; some packages put bytes in theirs."""
    first = error.args[0] if error.args else ""
    text = first.decode(errors="replace") if isinstance(first, bytes) else str(error)
    return " ".join(text.split())[:160]


def why_missing(key: str) -> str | None:
    """Why a metric cannot be computed here at all: a package that is not installed. None if it can."""
    package = METRICS[key].package
    if package is None:
        return None
    try:
        load("auraloss.freq" if package == "auraloss" else package)
    except DistillError as error:
        return str(error)
    return None
