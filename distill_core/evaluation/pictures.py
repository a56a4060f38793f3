"""Spectrograms, and their differences, as small pictures for a page.

The vertical axis is the mel scale. Axes and labels are the page's: a picture holds the plot alone, so that it
can be stretched to any width without its text.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..mel.filters import band_edges
from ..mel.spec import MelSpec
from ..resample import resample
from .metrics import fitted
from .packages import load

ROWS, COLUMNS = 160, 600
RANGE_DB = 80
"""From the reference's loudest spot down to black."""
DIFFERENCE_DB = 15
"""Where the difference's colours end."""
COLOUR_MAP = "magma"
TOO_MUCH, TOO_LITTLE = (230, 97, 1), (33, 113, 214)
"""Seen on white and on near-black: a picture of a difference is transparent where there is none."""

_N_FFT = 2048
_WINDOW_SECONDS = 0.03
_MOST_POOLED = 8  # windows to a column; beyond, a long recording is sampled
_TICKS_HZ = (500, 1000, 2000, 4000, 8000, 16000)


@dataclass(frozen=True)
class Plot:
    """The axes of one recording's pictures.

    Args:
        seconds: the horizontal axis.
        sample_rate: half of it, in Hz, is the vertical axis' end.
    """

    seconds: float
    sample_rate: int

    @property
    def spec(self) -> MelSpec:
        window = min(_N_FFT, max(64, round(_WINDOW_SECONDS * self.sample_rate)))
        samples = max(1, round(self.seconds * self.sample_rate))
        hop = max(16, -(-samples // COLUMNS))
        hop = -(-hop // self.pooled(hop, window))
        return MelSpec(
            sample_rate=self.sample_rate,
            n_fft=_N_FFT,
            hop_length=min(hop, _N_FFT),
            win_length=window,
            n_mels=ROWS,
            fmin=0.0,
            fmax=None,
            scale="slaney",
            norm=None,
            power=2.0,
            log=None,
            floor=0.0,
            center=True,
        )

    @staticmethod
    def pooled(hop: int, window: int) -> int:
        return min(_MOST_POOLED, max(1, -(-2 * hop // window)))

    def powers(self, wave: torch.Tensor, rate: int) -> NDArray[np.float64]:
        """[ROWS, columns] of power, the highest band first; at most a few more columns than COLUMNS."""
        spec = self.spec
        samples = max(1, round(self.seconds * self.sample_rate))
        wave = fitted(resample(wave, rate, self.sample_rate), max(samples, _N_FFT))
        power = spec.analyze(wave)[0].double().numpy()[:, : max(1, -(-samples // spec.hop_length))]
        return _pooled(power, 1, max(1, -(-power.shape[1] // COLUMNS)))[::-1]

    def frequency_ticks(self) -> list[tuple[float, str]]:
        """(place from the top, 0 to 1; label in kHz) of the vertical axis."""
        centres = band_edges(self.spec)[1:-1]
        shown = [hz for hz in _TICKS_HZ if hz < 0.93 * self.sample_rate / 2]
        places = np.interp(shown, centres, (np.arange(ROWS) + 0.5) / ROWS)
        return [(1 - float(place), f"{hz / 1000:g}") for place, hz in zip(places, shown, strict=True)]

    def time_ticks(self) -> list[tuple[float, str]]:
        """(place from the left, 0 to 1; label in seconds) of the horizontal axis."""
        step = next(step for step in _steps() if self.seconds / step <= 6)
        count = int(self.seconds / step + 1e-9)
        return [(index * step / self.seconds, f"{index * step:g}") for index in range(count + 1)]


def _steps() -> Any:
    scale = 0.001
    while True:
        yield from (scale, 2 * scale, 5 * scale)
        scale = round(scale * 10, 3)


def _pooled(power: NDArray[np.float64], rows: int, columns: int) -> NDArray[np.float64]:
    """Means over blocks of rows x columns; the last blocks may be smaller."""
    for axis, size in ((0, rows), (1, columns)):
        if size > 1:
            starts = np.arange(0, power.shape[axis], size)
            counts = np.diff(np.append(starts, power.shape[axis]))
            shape = (-1, 1) if axis == 0 else (1, -1)
            power = np.add.reduceat(power, starts, axis=axis) / counts.reshape(shape)
    return power


def _decibel(power: NDArray[np.float64], top: float) -> NDArray[np.float64]:
    """0 to RANGE_DB above what is RANGE_DB below `top`."""
    floor = top * 10 ** (-RANGE_DB / 10)
    return 10 * np.log10(np.clip(power, floor, top) / floor)


def loudest(power: NDArray[np.float64]) -> float:
    """What all pictures of a recording are related to; never 0."""
    return float(max(power.max(initial=0.0), 1e-12))


def spectrogram(power: NDArray[np.float64], top: float) -> bytes:
    """A WebP of `Plot.powers`; `top` is the reference's loudest power.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    levels = np.rint(_decibel(power, top) / RANGE_DB * 255).astype(np.uint8)
    return _webp(_palette()[levels], "RGB")


def difference(result: NDArray[np.float64], reference: NDArray[np.float64], top: float) -> bytes:
    """A WebP of where a result has more or less than its reference; see-through where they agree.

    Both are averaged over 2 x 4 cells first: what is left is what is systematic, and not the speckle of phases.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    columns = min(result.shape[1], reference.shape[1])
    ours, theirs = (_decibel(_pooled(each[:, :columns], 2, 4), top) for each in (reference, result))
    delta = np.clip((theirs - ours) / DIFFERENCE_DB, -1, 1)
    picture = np.empty((*delta.shape, 4), dtype=np.uint8)
    picture[..., :3] = np.where(delta[..., None] > 0, np.array(TOO_MUCH), np.array(TOO_LITTLE))
    picture[..., 3] = np.rint(np.abs(delta) * 16) * 255 / 16  # few steps, which compress well
    return _webp(picture, "RGBA")


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
