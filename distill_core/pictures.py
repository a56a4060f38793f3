"""Spectrograms as pictures: levels in dB, a PNG of them, and an HTML figure with axes around it.

    before = spectrogram(wave, 48_000)
    after = spectrogram(result, 22_050, top=24_000, columns=before.level.shape[1])
    page = figure(before, "reference") + figure(difference(after, before), "difference", DIFFERENCE)

The axes are HTML, not pixels: they keep their size on a phone and take the page's colour in the dark.
`CSS` has to be on the page once. Needs matplotlib for its colours, and Pillow, which comes with it.
"""

from __future__ import annotations

import base64
import html
import io
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from .errors import MissingDependencyError
from .mel.spec import MelSpec

if TYPE_CHECKING:
    Floats = NDArray[np.float32]

BIN = 25
"""Hz between the bins of `spectrogram`: the same for every sample rate, so that pictures can be subtracted."""
BANDS = 160
COLUMNS = 1200
_PER_SECOND = 125
FLOOR = -120.0
"""The level of digital silence, in dB."""
_WINDOWS = 8  # looked at in each column of a long sound
_STEPS = (*(base * 10**power for power in (-3, -2, -1) for base in (1, 2, 5)), *(1, 2, 5, 10, 15, 30))
_STEPS += (60, 120, 300, 600, 1200, 1800, 3600)
_TICKS = (50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)


@dataclass(frozen=True)
class Spectrogram:
    """Levels over time and frequency.

    Args:
        level: [bands, columns], in dB of a full-scale sine; of a difference, in dB.
        seconds: how long the columns last together.
        hz: [bands], the centres of the bands, ascending.
    """

    level: Floats
    seconds: float
    hz: NDArray[np.float64]


@dataclass(frozen=True)
class Colours:
    """A map from levels to colours: `low` to `high` in dB, `name` of matplotlib's or "difference"."""

    low: float
    high: float
    name: str = "magma"


LEVELS = Colours(-90.0, -10.0)
DIFFERENCE = Colours(-30.0, 30.0, "difference")


def columns_for(seconds: float) -> int:
    """How many columns a picture of so many seconds gets."""
    return min(COLUMNS, max(100, round(seconds * _PER_SECOND)))


def spectrogram(
    wave: torch.Tensor, sample_rate: int, *, top: float | None = None, columns: int | None = None
) -> Spectrogram:
    """The levels of a waveform on a mel axis; channels are averaged in power.

    Of a sound too long for its columns, up to eight windows a column are looked at, so that hours cost
    what minutes do.

    Args:
        wave: [channels, samples] or [samples], full scale at 1.
        sample_rate: in Hz.
        top: upper end of the axis in Hz, by default half the sample rate; may be above it.
        columns: of the picture; by default `columns_for` its duration.
    """
    wave = torch.atleast_2d(wave).detach().cpu().float()
    samples = wave.shape[-1]
    seconds = samples / sample_rate
    columns = columns or columns_for(seconds)
    n_fft = 2 * max(8, round(sample_rate / BIN / 2))
    basis = torch.from_numpy(_axis(round(2 * (top or sample_rate / 2)))[0])
    basis = basis[:, : n_fft // 2 + 1]
    window = torch.hann_window(n_fft, dtype=torch.float32, device="cpu")
    step = samples / columns
    per_column = max(1, min(_WINDOWS, math.ceil(step / (n_fft // 2))))
    centres = (torch.arange(columns * per_column, dtype=torch.float32, device="cpu") + 0.5) * (step / per_column)
    starts = (centres - n_fft / 2).round().long()
    offsets = torch.arange(n_fft, device="cpu")
    rows = []
    block = per_column * max(1, 512 // per_column)
    for first in range(0, len(starts), block):
        at = starts[first : first + block, None] + offsets
        inside = ((at >= 0) & (at < samples)).float()
        frames = wave[:, at.clamp(0, max(0, samples - 1))] * (window * inside)
        power = torch.fft.rfft(frames).abs().square().mean(dim=0)[:, : basis.shape[1]]
        with torch.autocast("cpu", enabled=False):
            bands = power @ basis.T
        rows.append(bands.reshape(-1, per_column, len(basis)).mean(dim=1))
    levels = torch.cat(rows).T / (n_fft / 4) ** 2
    return Spectrogram(_decibel(levels), seconds, _axis(round(2 * (top or sample_rate / 2)))[1])


def mel_picture(mel: torch.Tensor, spec: MelSpec, *, columns: int | None = None) -> Spectrogram:
    """The levels that a mel [n_mels, T] of a format stands for, on that format's own bands."""
    from .mel.analysis import expand
    from .mel.filters import band_edges, filterbank

    seconds = mel.shape[-1] * spec.hop_length / spec.sample_rate
    bands = expand(mel.detach().cpu().float(), spec)
    gain = torch.from_numpy(filterbank(spec).max(axis=1)).float().clamp(min=1e-12)[:, None]
    power = (bands / gain).pow(2 / spec.power) / (spec.win_length / 4) ** 2
    wanted = columns or columns_for(seconds)
    if power.shape[-1] != wanted:
        kind = "area" if power.shape[-1] > wanted else "nearest"
        power = torch.nn.functional.interpolate(power[None], size=wanted, mode=kind)[0]
    return Spectrogram(_decibel(power), seconds, band_edges(spec)[1:-1])


def difference(result: Spectrogram, reference: Spectrogram, *, floor: float = LEVELS.low) -> Spectrogram:
    """`result` minus `reference` in dB, on the same axes; what lies below `floor` in both counts as equal.

    Raises:
        ValueError: the axes are not the same.
    """
    if result.level.shape != reference.level.shape or not np.array_equal(result.hz, reference.hz):
        raise ValueError("Only spectrograms with the same columns and bands can be subtracted.")
    level = np.maximum(result.level, floor) - np.maximum(reference.level, floor)
    return replace(reference, level=level)


def levels_for(*pictures: Spectrogram, span: float = 80.0) -> Colours:
    """Colours in which all of these can be compared: up to the loudest of the first, `span` dB down.

    They end at digital silence, so that this is black.
    """
    loudest = float(np.quantile(pictures[0].level, 0.999)) if pictures and pictures[0].level.size else 0.0
    high = max(FLOOR + span, 5 * math.ceil(loudest / 5))
    return Colours(high - span, high)


def png(picture: Spectrogram, colours: Colours = LEVELS) -> bytes:
    """A PNG with one pixel a column and band, the lowest band at the bottom.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    palette, image = _palette(colours.name), _pillow()
    share = (picture.level - colours.low) / (colours.high - colours.low)
    index = np.rint(np.clip(np.nan_to_num(share), 0, 1) * 255).astype(np.uint8)
    made = image.fromarray(np.ascontiguousarray(index[::-1]), mode="L")
    made = made.convert("P")
    made.putpalette(palette)
    out = io.BytesIO()
    made.save(out, "PNG", optimize=True)
    return out.getvalue()


def figure(picture: Spectrogram, title: str, colours: Colours = LEVELS, *, note: str = "") -> str:
    """An HTML figure: title, picture, axes in seconds and Hz, and what the colours mean. See `CSS`.

    Args:
        title, note: plain text; what looks like HTML in it is shown, not obeyed.
    """
    source = base64.b64encode(png(picture, colours)).decode()
    name, note = html.escape(title), html.escape(note)
    lowest = float(picture.hz[0])
    marks = [hz for hz in _TICKS if lowest < hz < picture.hz[-1]]
    places = np.interp(marks, picture.hz, np.linspace(0, 100, len(picture.hz)))
    last = -100.0
    y = ""
    for hz, place in zip(marks, places, strict=True):
        if place - last >= 9:  # labels need room
            y += f'<span style="bottom:{place:.1f}%">{_hz(hz)}</span>'
            last = place
    x = "".join(
        f'<span style="left:{100 * at / picture.seconds:.2f}%">{_clock(at, picture.seconds)}</span>'
        for at in seconds_ticks(picture.seconds)
    )
    stops = ",".join(_css_colours(colours.name))
    sign = "+" if colours.low < 0 < colours.high else ""
    return (
        f'<figure class="dv-figure"><figcaption><b>{name}</b><span>{note}</span></figcaption>'
        f'<div class="dv-plot"><div class="dv-y" aria-hidden="true">{y}</div>'
        f'<img alt="{name}: spectrogram, {picture.seconds:.2f} s, up to {_hz(float(picture.hz[-1]))}Hz" '
        f'src="data:image/png;base64,{source}"><div class="dv-x" aria-hidden="true">{x}</div></div>'
        f'<div class="dv-scale" aria-hidden="true">{colours.low:g}'
        f'<i style="background:linear-gradient(to right,{stops})"></i>{sign if colours.high > 0 else ""}'
        f"{colours.high:g} dB</div></figure>"
    )


CSS = """
.dv-figure { margin: 0 0 .75rem; min-width: 0; }
.dv-figure figcaption { display: flex; gap: .6em; align-items: baseline; flex-wrap: wrap; margin-bottom: .3rem; }
.dv-figure figcaption span { opacity: .75; font-size: .85em; }
.dv-plot { position: relative; margin: 0 .6rem 1.4rem 2.4rem; }
.dv-plot img { display: block; width: 100%; height: 13rem; margin: 0; border-radius: 4px; object-fit: fill; }
.dv-y, .dv-x { position: absolute; font-size: .72rem; line-height: 1; opacity: .8; font-variant-numeric: tabular-nums; }
.dv-y { left: -2.4rem; width: 2.1rem; top: 0; bottom: 0; text-align: right; }
.dv-y span { position: absolute; right: 0; transform: translateY(50%); white-space: nowrap; }
.dv-x { left: 0; right: 0; top: calc(100% + .35rem); height: 1em; }
.dv-x span { position: absolute; transform: translateX(-50%); white-space: nowrap; }
.dv-x span:first-child { transform: none; }
.dv-scale { display: flex; align-items: center; gap: .5em; justify-content: flex-end; margin-right: .6rem;
  font-size: .72rem; opacity: .8; font-variant-numeric: tabular-nums; }
.dv-scale i { display: inline-block; width: 6rem; height: .55rem; border-radius: 3px; }
"""


def seconds_ticks(seconds: float, *, at_most: int = 8) -> list[float]:
    """Round times from 0 on, at most so many, the last well before the end."""
    step = next((each for each in _STEPS if each * at_most >= seconds), seconds)
    return [round(index * step, 6) for index in range(int(seconds * 0.98 / step) + 1)]


def _clock(at: float, seconds: float) -> str:
    if seconds < 90:
        return f"{at:g}{'' if at else ' s'}"
    minutes, rest = divmod(round(at), 60)
    return f"{minutes}:{rest:02d}"


def _hz(hz: float) -> str:
    return f"{hz / 1000:.3g}k" if hz >= 1000 else f"{hz:.0f}"


def _decibel(power: torch.Tensor) -> Floats:
    level: Floats = (10 * torch.log10(power.clamp(min=10 ** (FLOOR / 10)))).numpy()
    return level


@lru_cache(maxsize=16)
def _axis(sample_rate: int) -> tuple[Floats, NDArray[np.float64]]:
    """Filters on bins of `BIN` Hz up to half of `sample_rate`, [BANDS, bins], and the centres in Hz, [BANDS]."""
    from .mel.filters import band_edges, filterbank

    n_fft = 2 * max(8, round(sample_rate / BIN / 2))
    bands = min(BANDS, n_fft // 4)
    spec = MelSpec(n_fft * BIN, n_fft, n_fft, n_fft, bands, 0.0, None, "slaney", None, 2.0, None, 0.0, True)
    return filterbank(spec).astype(np.float32), band_edges(spec)[1:-1]


@lru_cache(maxsize=8)
def _palette(name: str) -> bytes:
    """256 colours as RGB."""
    try:
        import matplotlib
        from matplotlib.colors import LinearSegmentedColormap
    except ImportError as error:
        raise MissingDependencyError("Pictures of spectrograms need matplotlib: pip install matplotlib") from error
    table: Any
    if name == "difference":  # dark where nothing differs: calm on white pages and on black ones
        steps = ("#9bd5ff", "#2f86d6", "#17171c", "#d4601c", "#ffc98a")
        table = LinearSegmentedColormap.from_list(name, steps)
    else:
        table = matplotlib.colormaps[name]
    return bytes(np.rint(table(np.arange(256) / 255)[:, :3] * 255).astype(np.uint8).tobytes())


def _css_colours(name: str) -> list[str]:
    palette = _palette(name)
    return [f"#{palette[3 * index : 3 * index + 3].hex()}" for index in range(0, 256, 51)]


def _pillow() -> Any:
    from PIL import Image

    return Image
