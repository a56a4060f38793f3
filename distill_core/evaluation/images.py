"""Spectrograms and their differences as small WebP files, and the ticks of their axes.

The levels are those of `distill_core.pictures`. A difference is transparent where there is none, so that it can be
read on a white page and on a black one.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from ..pictures import FLOOR, Spectrogram, columns_for, seconds_ticks, spectrogram
from .packages import load

COLUMNS = 600
RANGE_DB = 80
"""From the reference's loudest spot down to black."""
DIFFERENCE_DB = 15
"""Where the difference's colours end."""
COLOUR_MAP = "magma"
TOO_MUCH, TOO_LITTLE = (230, 97, 1), (33, 113, 214)

_TICKS_HZ = (500, 1000, 2000, 4000, 8000, 16000)
_CELL = (2, 4)  # bands x columns
_SILENT = FLOOR + 0.01


@dataclass(frozen=True)
class View:
    """The axes that a reference and its results share.

    Args:
        seconds: the horizontal axis.
        top: the vertical axis' end, in Hz.
    """

    seconds: float
    top: float

    def levels(self, wave: torch.Tensor, sample_rate: int) -> Spectrogram:
        """Of a waveform [samples]."""
        columns = min(COLUMNS, columns_for(self.seconds))
        return spectrogram(wave, sample_rate, top=self.top, columns=columns)

    def frequency_ticks(self, picture: Spectrogram) -> list[tuple[float, str]]:
        """(place from the top, 0 to 1; label in kHz) of the vertical axis."""
        shown = [hz for hz in _TICKS_HZ if hz < 0.93 * self.top]
        places = np.interp(shown, picture.hz, (np.arange(len(picture.hz)) + 0.5) / len(picture.hz))
        return [(1 - float(place), f"{hz / 1000:g}") for place, hz in zip(places, shown, strict=True)]

    def time_ticks(self) -> list[tuple[float, str]]:
        """(place from the left, 0 to 1; label in seconds) of the horizontal axis."""
        return [(at / self.seconds, f"{at:g}") for at in seconds_ticks(self.seconds, at_most=6)]


def loudest(picture: Spectrogram) -> float:
    """The level in dB to which all pictures of a recording are related; silence has one that leaves it black."""
    level = float(picture.level.max(initial=FLOOR))
    return level if level > _SILENT else FLOOR + RANGE_DB


def of_levels(picture: Spectrogram, top: float) -> bytes:
    """A WebP of a spectrogram, `top` dB in the brightest colour, digital silence in black.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    share = np.clip((picture.level - top + RANGE_DB) / RANGE_DB, 0, 1)
    share[picture.level <= _SILENT] = 0
    return _webp(_palette()[np.rint(share[::-1] * 255).astype(np.uint8)], "RGB")


def of_difference(result: Spectrogram, reference: Spectrogram, top: float) -> bytes:
    """A WebP of where a result has more or less than its reference; what is black in both counts as equal.

    Both are averaged over cells of 2 bands x 4 columns first: what is left is what is systematic, and not the
    speckle of phases.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    theirs, ours = (np.maximum(_coarse(each), top - RANGE_DB) for each in (result, reference))
    delta = np.clip((theirs - ours)[::-1] / DIFFERENCE_DB, -1, 1)
    picture = np.empty((*delta.shape, 4), dtype=np.uint8)
    picture[..., :3] = np.where(delta[..., None] > 0, np.array(TOO_MUCH), np.array(TOO_LITTLE))
    picture[..., 3] = np.rint(np.abs(delta) * 16) * 255 / 16  # few steps, which compress well
    return _webp(picture, "RGBA")


def _coarse(picture: Spectrogram) -> NDArray[np.float64]:
    """Levels of the mean power of each cell; the last cells may be smaller."""
    power = 10 ** (picture.level.astype(np.float64) / 10)
    for axis, size in enumerate(_CELL):
        starts = np.arange(0, power.shape[axis], size)
        counts = np.diff(np.append(starts, power.shape[axis]))
        power = np.add.reduceat(power, starts, axis=axis) / np.expand_dims(counts, 1 - axis)
    return np.asarray(10 * np.log10(power))


def palette_stops(count: int = 9) -> list[str]:
    """The spectrogram's colours from low to high, as #rrggbb, for a colour bar."""
    chosen = _palette()[np.linspace(0, 255, count).round().astype(int)]
    return ["#" + bytes(colour).hex() for colour in chosen]


@cache
def _palette() -> NDArray[np.uint8]:
    colours = load("matplotlib").colormaps[COLOUR_MAP](np.arange(256), bytes=True)
    return np.ascontiguousarray(np.asarray(colours, dtype=np.uint8)[:, :3])


def _webp(pixels: NDArray[np.uint8], mode: str) -> bytes:
    image = load("PIL.Image").frombytes(mode, (pixels.shape[1], pixels.shape[0]), np.ascontiguousarray(pixels))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=80, method=4, alpha_quality=80)
    return file.getvalue()
