"""Spectrograms as pictures: what is loud where, on axes that can be compared."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch

from distill_core import MelSpec, pictures

image = pytest.importorskip("PIL.Image")
pytest.importorskip("matplotlib")


def tone(hz: float, rate: int, seconds: float = 1.0, amplitude: float = 1.0) -> torch.Tensor:
    return amplitude * torch.sin(2 * math.pi * hz * torch.arange(round(rate * seconds)) / rate)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
@pytest.mark.parametrize("hz", [400.0, 3000.0])
def test_a_tone_is_where_it_belongs_at_its_level_whatever_the_rate(rate: int, hz: float) -> None:
    picture = pictures.spectrogram(tone(hz, rate, amplitude=0.1), rate)
    column = picture.level[:, picture.level.shape[1] // 2]
    peak = int(column.argmax())
    spacing = picture.hz[peak + 1] - picture.hz[peak - 1]
    assert abs(picture.hz[peak] - hz) <= max(spacing, pictures.BIN)
    assert column[peak] == pytest.approx(-20, abs=4)
    assert np.median(column) < -80


def test_two_rates_can_be_subtracted_and_what_is_lost_above_is_seen() -> None:
    high = tone(1000, 48_000, 2.0) * 0.1 + tone(15_000, 48_000, 2.0) * 0.1
    before = pictures.spectrogram(high, 48_000)
    after = pictures.spectrogram(
        tone(1000, 22_050, 2.0) * 0.1, 22_050, top=24_000, columns=before.level.shape[1]
    )
    middle = pictures.difference(after, before).level[:, 20:-20]
    low = before.hz < 10_000
    loud = before.level[:, 20:-20] > -60
    assert loud[low].any()
    assert np.abs(middle[low][loud[low]]).max() < 1
    assert middle[~low].min() < -50
    with pytest.raises(ValueError, match="same columns"):
        pictures.difference(pictures.spectrogram(high, 48_000, top=8000), before)


def test_a_click_is_in_its_column_and_a_long_sound_costs_no_more_columns() -> None:
    wave = torch.zeros(2, 48_000)
    wave[:, 36_000] = 1
    picture = pictures.spectrogram(wave, 48_000)
    assert picture.level.sum(axis=0).argmax() / picture.level.shape[1] == pytest.approx(0.75, abs=0.02)
    long = pictures.spectrogram(torch.randn(1, 8000 * 300) * 0.1, 8000)
    assert long.level.shape[1] == pictures.COLUMNS
    assert long.level[10:].min() > -70  # noise is everywhere: no column was forgotten


@pytest.mark.parametrize("name", ["hifigan-22khz-80band", "distill-vae"])
def test_a_mel_shows_the_levels_of_its_sound(name: str) -> None:
    spec = MelSpec.preset(name)
    picture = pictures.mel_picture(spec.analyze(tone(2000, spec.sample_rate, 2.0) * 0.1)[0], spec, columns=50)
    column = picture.level[:, 25]
    assert picture.level.shape == (spec.n_mels, 50)
    assert picture.hz[int(column.argmax())] == pytest.approx(2000, rel=0.1)
    assert column.max() == pytest.approx(-20, abs=6)


def test_the_png_has_a_pixel_each_with_the_lowest_band_at_the_bottom() -> None:
    picture = pictures.spectrogram(tone(300, 16_000), 16_000, columns=120)
    made = image.open(io.BytesIO(pictures.png(picture, pictures.levels_for(picture))))
    assert made.size == (120, pictures.BANDS)
    brightness = np.asarray(made.convert("L"), dtype=float).mean(axis=1)
    assert brightness.argmax() > 0.85 * pictures.BANDS


@pytest.mark.parametrize("wave", [torch.zeros(1, 4000), torch.zeros(1, 1), torch.randn(3, 7)])
def test_silence_and_scraps_have_a_picture(wave: torch.Tensor) -> None:
    picture = pictures.spectrogram(wave, 8000)
    assert np.isfinite(picture.level).all()
    assert pictures.png(picture, pictures.levels_for(picture))[:4] == b"\x89PNG"
    assert "<img" in pictures.figure(picture, "scrap")


def test_silence_is_black() -> None:
    picture = pictures.spectrogram(torch.zeros(1, 4000), 8000)
    made = image.open(io.BytesIO(pictures.png(picture, pictures.levels_for(picture))))
    assert np.asarray(made.convert("RGB")).max() < 10


def test_a_title_is_text() -> None:
    picture = pictures.spectrogram(torch.zeros(1, 4000), 8000)
    made = pictures.figure(picture, '<script>"', note="<b>")
    assert "<script>" not in made
    assert "<b></b>" not in made
    assert "&lt;script&gt;&quot;" in made


@pytest.mark.parametrize("seconds", [0.004, 0.3, 1.5, 9.0, 61.0, 600.0, 7200.0])
def test_ticks_are_few_round_and_inside(seconds: float) -> None:
    ticks = pictures.seconds_ticks(seconds)
    assert ticks[0] == 0
    assert 2 <= len(ticks) <= 13
    assert ticks[-1] <= seconds
