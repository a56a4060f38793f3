"""Mel filterbanks in float64, and the scalar maps of a format (band value <-> mel value).

Slaney's scale is that of his Auditory Toolbox (1998): linear below 1 kHz, 6.4-fold per 27 bands above.
HTK's is 2595 log10(1 + f / 700), from the HTK Book.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..untraced import untraced
from .spec import MelScale, MelSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_HZ_PER_MEL = 200.0 / 3
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _HZ_PER_MEL
_LOG_STEP = math.log(6.4) / 27


def hz_to_mel(hz: Any, scale: MelScale) -> Floats:
    """Frequencies in Hz to mels of the scale, elementwise."""
    import numpy as np

    hz = np.asarray(hz, dtype=np.float64)
    if scale == "htk":
        return np.asarray(2595.0 * np.log10(1.0 + hz / 700.0))
    above = _BREAK_MEL + np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    return np.asarray(np.where(hz >= _BREAK_HZ, above, hz / _HZ_PER_MEL))


def mel_to_hz(mel: Any, scale: MelScale) -> Floats:
    """The inverse of `hz_to_mel`."""
    import numpy as np

    mel = np.asarray(mel, dtype=np.float64)
    if scale == "htk":
        return np.asarray(700.0 * (10.0 ** (mel / 2595.0) - 1.0))
    above = _BREAK_HZ * np.exp(_LOG_STEP * (np.maximum(mel, _BREAK_MEL) - _BREAK_MEL))
    return np.asarray(np.where(mel >= _BREAK_MEL, above, mel * _HZ_PER_MEL))


def band_edges(spec: MelSpec) -> Floats:
    """The `n_mels + 2` corners of the triangles in Hz: band m rises from m, peaks at m + 1, ends at m + 2."""
    import numpy as np

    low, high = hz_to_mel([spec.fmin, spec.fmax], spec.scale)
    return mel_to_hz(np.linspace(low, high, spec.n_mels + 2), spec.scale)


@untraced
@lru_cache(maxsize=32)
def filterbank(spec: MelSpec) -> Floats:
    """The filters of a format, `[n_mels, n_fft // 2 + 1]` in float64; the array is read-only."""
    import numpy as np

    edges = band_edges(spec)
    bins = np.arange(spec.n_fft // 2 + 1) * (spec.sample_rate / spec.n_fft)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    filters = np.maximum(0.0, np.minimum(rising, falling))
    if spec.norm == "slaney":
        filters *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    filters.setflags(write=False)
    return filters


def line_powers(spec: MelSpec, frequencies: Floats) -> Floats:
    """The power that a Hann window spreads from sines of amplitude 1 over the bins, `[bins, frequencies]`."""
    import numpy as np

    bins = np.arange(spec.n_fft // 2 + 1) * (spec.sample_rate / spec.n_fft)
    distance = (bins[:, None] - frequencies) * (spec.win_length / spec.sample_rate)
    # Beside the main lobe, sinc(x) / (1 - x²) is 0 / 0, and 1/2.
    beside = np.abs(np.abs(distance) - 1.0) < 1e-6
    lobe = np.where(beside, 0.5, np.sinc(distance) / np.where(beside, 1.0, 1.0 - distance**2))
    return np.asarray((lobe * spec.win_length / 4) ** 2)


def gains(source: MelSpec, target: MelSpec) -> Floats | None:
    """What band values of the source are multiplied by to be the target's, `[n_mels]`; None if that is not all.

    It is where formats differ in normalisation, logarithm, floor or eps, and in nothing else.
    """
    if not set(source.differences(target)) <= {"norm", "log", "floor", "eps"}:
        return None
    import numpy as np

    edges = band_edges(source)
    heights = {"slaney": 2.0 / (edges[2:] - edges[:-2]), None: np.ones(source.n_mels)}
    return heights[target.norm] / heights[source.norm]


@lru_cache(maxsize=64)
def silence(spec: MelSpec) -> float:
    """The mel value that digital silence has, the largest over the bands."""
    bin_value = math.sqrt(spec.eps) if spec.power == 1.0 else spec.eps
    value = max(float(filterbank(spec).sum(axis=1).max()) * bin_value, spec.floor)
    if spec.log is None:
        return value
    return {"ln": math.log, "log10": math.log10, "log1p": math.log1p}[spec.log](value)
