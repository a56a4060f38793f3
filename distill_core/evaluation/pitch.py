"""Pitch and voicing by WORLD's Harvest, and what they say about a recording."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .packages import load

SAMPLE_RATE = 16_000
"""Pitch is tracked at this rate, in Hz."""
FRAME_SECONDS = 0.005
LOWEST, HIGHEST = 71.0, 800.0
"""The range in Hz in which Harvest looks: WORLD's own."""

_SOUNDING_DB = -35.0  # a frame sounds if it is at most so far below the loudest
_PITCHED_SHARE = 0.3


@dataclass(frozen=True)
class Pitch:
    """The pitch of a recording in frames of 5 ms.

    Args:
        hz: [frames], 0 where a frame is unvoiced.
        sounding: [frames], True where it is not silent: within 35 dB of the loudest frame.
    """

    hz: NDArray[np.float64]
    sounding: NDArray[np.bool_]

    @property
    def voiced(self) -> NDArray[np.bool_]:
        return self.hz > 0

    @property
    def pitched(self) -> bool:
        """Whether its pitch means anything: at least 30 % of the frames that sound are voiced."""
        sounding = int(self.sounding.sum())
        return sounding > 0 and bool((self.voiced & self.sounding).sum() >= _PITCHED_SHARE * sounding)

    @property
    def like_speech(self) -> bool:
        """Whether it moves as that of a voice that speaks.

        It is pitched, lasts 0.8 s, has its median between 60 and 400 Hz, glides (by 4 to 45 cents a frame in
        the median), and spreads by 100 to 600 cents (standard deviation). Instruments that glide pass as well.
        """
        if not self.pitched or len(self.hz) * FRAME_SECONDS < 0.8:
            return False
        voiced = self.voiced
        cents = 1200 * np.log2(np.where(voiced, self.hz, 1.0))
        steps = np.abs(np.diff(cents))[voiced[1:] & voiced[:-1]]
        chosen = voiced & self.sounding
        glides = len(steps) > 0 and 4 <= np.median(steps) <= 45
        return bool(glides and 100 <= np.std(cents[chosen]) <= 600 and 60 <= np.median(self.hz[chosen]) <= 400)


def track(wave: NDArray[np.float32]) -> Pitch:
    """The pitch of [samples] at 16 kHz.

    Raises:
        MissingDependencyError: pyworld is not installed.
    """
    samples = wave.astype(np.float64)
    hz, _ = load("pyworld").harvest(
        samples, float(SAMPLE_RATE), f0_floor=LOWEST, f0_ceil=HIGHEST, frame_period=1000 * FRAME_SECONDS
    )
    return Pitch(hz, _sounding(samples, len(hz)))


def _sounding(samples: NDArray[np.float64], frames: int) -> NDArray[np.bool_]:
    hop, reach = round(SAMPLE_RATE * FRAME_SECONDS), round(SAMPLE_RATE * 0.0125)
    energy = np.concatenate([[0.0], np.cumsum(samples**2)])
    centres = np.arange(frames) * hop
    low, high = np.maximum(centres - reach, 0), np.minimum(centres + reach, len(samples))
    power = (energy[high] - energy[low]) / np.maximum(high - low, 1)
    loudest = power.max(initial=0.0)
    return power > loudest * 10 ** (_SOUNDING_DB / 10) if loudest > 0 else np.zeros(frames, dtype=bool)


def error_cents(reference: Pitch, result: Pitch) -> float | None:
    """Root mean square difference in cents over the frames voiced in both; None if there is none."""
    frames = min(len(reference.hz), len(result.hz))
    both = (reference.voiced[:frames]) & (result.voiced[:frames])
    if not both.any():
        return None
    cents = 1200 * np.log2(result.hz[:frames][both] / reference.hz[:frames][both])
    return math.sqrt(float(np.mean(cents**2)))


def voicing_f1(reference: Pitch, result: Pitch) -> float | None:
    """F1 of the result's voiced frames, the reference's being the truth; None if that has none."""
    frames = min(len(reference.hz), len(result.hz))
    truth, guess = reference.voiced[:frames], result.voiced[:frames]
    if not truth.any():
        return None
    return float(2 * (truth & guess).sum() / (truth.sum() + guess.sum()))
