"""The material that the refinements of `distill_core.mel.MelAdapter` are trained on.

Recordings of Debian's packages (`training.recordings`), voices of espeak-ng, and synthesis; each varied in speed,
level, colour, room and background, at 48 or at 44.1 kHz. Nothing that is held out for the benchmark is among them.
"""

from __future__ import annotations

import random
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from . import recordings

RATE = 48_000
CD_RATE = 44_100
Sound = tuple[np.ndarray, int]
"""Samples, and their rate in Hz."""
SENTENCES = (
    "The birch canoe slid on the smooth planks.",
    "Front left, front right, rear centre, side left.",
    "Four hours of steady work faced us, said the measured voice.",
    "A large size in stockings is hard to sell; why not ask for cheese?",
    "Zero, one, two, three, four, five, six, seven, eight, nine.",
    "She had your dark suit in greasy wash water all year.",
    "Thick fog hushed the harbour, and nobody saw the ships go by.",
    "Judge my vow: quick foxes jump over lazy dwarves, boxing with pizza.",
)
VOICES = ("en-gb", "en-us", "de", "fr", "es", "it", "en-us+f3", "en-gb+f4", "de+f2", "en-us+m7", "fr+f5", "en-gb+m3")


def speech(rng: random.Random) -> list[np.ndarray]:
    """espeak-ng's voices reading, each at its own speed and pitch, `[samples]` at 48 kHz."""
    waves = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        for index, voice in enumerate(VOICES * 3):
            text = SENTENCES[index % len(SENTENCES)] + " " + SENTENCES[(index * 5 + 3) % len(SENTENCES)]
            speed, pitch = str(rng.randint(110, 190)), str(rng.randint(20, 80))
            command = ["espeak-ng", "-v", voice, "-s", speed, "-p", pitch, "-w", str(path), text]
            try:
                subprocess.run(command, check=True, capture_output=True)
            except FileNotFoundError:
                raise SystemExit("error: espeak-ng is needed: apt-get install espeak-ng") from None
            wave, rate = soundfile.read(path)
            waves.append(soxr.resample(wave, rate, RATE))
    return waves


def synthesis(rng: np.random.Generator, seconds: float = 4.0) -> np.ndarray:
    """Tones, harmonic glides, clicks and coloured noise in a random mixture."""
    t = np.arange(int(seconds * RATE)) / RATE
    wave = np.zeros_like(t)
    kinds = rng.random(4) < 0.5
    if kinds[0] or not kinds.any():
        for _ in range(rng.integers(1, 5)):
            frequency = 40 * 500 ** rng.random()
            wave += 10 ** rng.uniform(-2, 0) * np.sin(2 * np.pi * frequency * t + 6 * rng.random())
    if kinds[1]:
        pitch = 60 * 12 ** rng.random() * 2 ** (rng.uniform(-1, 1) * t / seconds + 0.02 * np.sin(2 * np.pi * 5 * t))
        phase = 2 * np.pi * np.cumsum(pitch) / RATE
        tilt = rng.uniform(0.5, 1.6)
        for harmonic in range(1, 40):
            if pitch.max() * harmonic < RATE / 2:
                wave += 0.5 * harmonic**-tilt * np.sin(harmonic * phase)
    if kinds[2]:
        for at in rng.integers(0, t.size - 10, rng.integers(1, 12)):
            wave[at] += rng.uniform(-1, 1) * 3
    if kinds[3]:
        wave += 10 ** rng.uniform(-3, -0.5) * coloured(rng, t.size, rng.uniform(0, 1.2))
    decay = np.exp(-((t * rng.uniform(0.5, 4)) % 1.0) * rng.uniform(0, 6))
    return wave * decay


def tones(rng: np.random.Generator, seconds: float = 2.0) -> np.ndarray:
    """One to three steady sines from 40 Hz to 21 kHz, most of them bare, some in noise."""
    t = np.arange(int(seconds * RATE)) / RATE
    wave = np.zeros_like(t)
    for _ in range(1 if rng.random() < 0.6 else rng.integers(2, 4)):
        frequency = 40 * 525 ** rng.random()
        wave += 10 ** rng.uniform(-1.5, 0) * np.sin(2 * np.pi * frequency * t + 6 * rng.random())
    if rng.random() < 0.35:
        wave += 10 ** rng.uniform(-4, -1) * coloured(rng, t.size, rng.uniform(0, 1.2))
    return wave * (10 ** rng.uniform(-1.5, -0.02) / np.abs(wave).max())


def coloured(rng: np.random.Generator, samples: int, tilt: float) -> np.ndarray:
    """Noise whose amplitude falls as f ** -tilt above 100 Hz, of unit variance."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequencies = np.maximum(np.fft.rfftfreq(samples, 1 / RATE), 100.0)
    noise = np.fft.irfft(spectrum * frequencies**-tilt, samples)
    return noise / max(noise.std(), 1e-12)


def varied(wave: np.ndarray, rng: np.random.Generator, other: np.ndarray) -> np.ndarray:
    """A sound at another speed, in another colour and room, at another level, perhaps with another one."""
    if rng.random() < 0.7:
        wave = soxr.resample(wave, RATE, RATE / 2 ** rng.uniform(-0.5, 0.5))
    if rng.random() < 0.3:
        start = rng.integers(0, wave.size)
        part = other[: wave.size - start] * 10 ** rng.uniform(-1.5, 0)
        wave = wave.copy()
        wave[start : start + part.size] += part
    if rng.random() < 0.4:
        spectrum = np.fft.rfft(wave)
        octaves = np.log2(np.maximum(np.fft.rfftfreq(wave.size, 1 / RATE), 20.0) / 1000.0)
        decibels = rng.uniform(-3, 2) * octaves + rng.uniform(0, 6) * np.sin(octaves * 2 + 6 * rng.random())
        wave = np.fft.irfft(spectrum * 10 ** (decibels / 20), wave.size)
    if rng.random() < 0.3:
        tail = rng.standard_normal(RATE // 4) * np.exp(-np.arange(RATE // 4) / rng.uniform(300, 4000))
        size = wave.size + tail.size
        echo = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(tail, size), size)[: wave.size]
        wave = wave + echo * rng.uniform(0.05, 0.4) * wave.std() / max(echo.std(), 1e-12)
    if rng.random() < 0.4:
        # The hiss and rumble of a recording, of which espeak-ng and samples have less than life.
        background = coloured(rng, wave.size, rng.uniform(0, 1.2))
        wave = wave + 10 ** rng.uniform(-4.3, -2) * np.abs(wave).max() * background
    wave = np.pad(wave, rng.integers(0, RATE // 10, 2))
    level = 0.95 if rng.random() < 0.6 else 10 ** rng.uniform(-1.3, 0)
    return wave * (level / max(np.abs(wave).max(), 1e-9))


def cut(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A sound between digital silence, which it meets without a fade, as samples do."""
    if rng.random() < 0.5:
        start = rng.integers(0, max(1, wave.size // 4))
        wave = wave[start : start + rng.integers(wave.size // 4, wave.size + 1)]
    before = rng.integers(0, RATE // 4) if rng.random() < 0.3 else 0
    return np.pad(wave, (before, rng.integers(RATE // 8, RATE // 2)))


def sentence(files: tuple[Path, ...], rng: np.random.Generator) -> Sound:
    """Words of one speaker on end, up to about four seconds, in their own background."""
    pieces: list[np.ndarray] = []
    rate, seconds = CD_RATE, 0.0
    for path in rng.permutation(np.array(files, dtype=object))[:6]:
        wave, own = soundfile.read(path, dtype="float64", always_2d=True)
        mono = wave.mean(axis=1)
        if (pieces and own != rate) or mono.size < own // 10 or not np.isfinite(mono).all():
            continue
        rate = own
        fade = min(rate // 100, mono.size // 4)
        if pieces:
            # No click where two backgrounds meet.
            ramp = np.linspace(0.0, 1.0, fade)
            pieces[-1][-fade:] = pieces[-1][-fade:] * (1 - ramp) + mono[:fade] * ramp
            mono = mono[fade:]
        pieces.append(mono)
        seconds += mono.size / rate
        if seconds > rng.uniform(1.0, 4.0):
            break
    wave = np.concatenate(pieces) if pieces else np.zeros(rate)
    return wave * (recordings.PEAK / max(np.abs(wave).max(), 1e-9)), rate


def retold(sound: Sound, rng: np.random.Generator) -> Sound:
    """A recording of speech, some in another pitch, colour or level: its room and background are what matters."""
    wave, rate = sound
    if rng.random() < 0.6:
        # Played faster, up to what a 48 kHz recording is.
        rate = RATE
    if rng.random() < 0.3:
        wave = soxr.resample(wave, rate, rate / 2 ** rng.uniform(-0.1, 0.2))
    if rng.random() < 0.3:
        spectrum = np.fft.rfft(wave)
        octaves = np.log2(np.maximum(np.fft.rfftfreq(wave.size, 1 / rate), 20.0) / 1000.0)
        decibels = rng.uniform(-2, 2) * octaves + rng.uniform(0, 4) * np.sin(octaves * 2 + 6 * rng.random())
        wave = np.fft.irfft(spectrum * 10 ** (decibels / 20), wave.size)
    if rng.random() < 0.25:
        # Below a threshold, as a gate or a denoiser leaves it.
        envelope = np.convolve(np.abs(wave), np.ones(rate // 50) / (rate // 50), mode="same")
        gain = np.minimum(1.0, envelope / (np.abs(wave).max() * 10 ** rng.uniform(-2.5, -1.5))) ** rng.uniform(0.3, 1)
        wave = wave * gain
    if rng.random() < 0.15:
        wave = wave + 10 ** rng.uniform(-4.3, -2.5) * np.abs(wave).max() * coloured(rng, wave.size, rng.uniform(0, 1))
    if rng.random() < 0.2:
        wave = np.pad(wave, rng.integers(0, RATE // 5, 2))
    level = recordings.PEAK if rng.random() < 0.75 else 10 ** rng.uniform(-1.3, 0)
    return wave * (level / max(np.abs(wave).max(), 1e-9)), rate


def sounds(count: int, seed: int) -> Iterator[Sound]:
    """The training material: `count` sounds of some three seconds each."""
    rng = np.random.default_rng(seed)
    found = recordings.find()
    speakers = recordings.spoken()
    # A speaker with more words is heard more often, but none nearly always.
    often = np.array([len(files) ** 0.5 for files in speakers])
    read_aloud = speech(random.Random(seed))
    native = [recordings.read(path) for path in found.training]
    native = [(wave[: 20 * rate], rate) for wave, rate in native]

    def any_of(waves: list[np.ndarray]) -> np.ndarray:
        return waves[rng.integers(len(waves))]

    def recorded() -> Sound:
        wave, rate = native[rng.integers(len(native))]
        if rng.random() < 0.45:
            wave = varied(wave, rng, any_of(read_aloud))
        elif rng.random() < 0.6:
            # At another speed, and else as it is: how sounds fade away into their own noise is to be learned.
            wave = soxr.resample(wave, rate, rate / 2 ** rng.uniform(-0.4, 0.4))
        if rng.random() < 0.4 or wave.size < rate // 2:
            wave = cut(wave, rng)
        return wave[: 8 * rate], rate

    def spoken() -> Sound:
        return retold(sentence(speakers[rng.choice(len(speakers), p=often / often.sum())], rng), rng)

    def synthetic_speech() -> Sound:
        wave = varied(any_of(read_aloud), rng, native[rng.integers(len(native))][0])
        return wave[: 5 * RATE], RATE if rng.random() < 0.7 else CD_RATE

    def synthetic() -> Sound:
        return varied(synthesis(rng), rng, native[rng.integers(len(native))][0]), either()

    def steady() -> Sound:
        return tones(rng), either()

    def either() -> int:
        return RATE if rng.random() < 0.5 else CD_RATE

    makers: dict[Callable[[], Sound], float] = {
        spoken: 0.38, recorded: 0.42, synthetic_speech: 0.04, synthetic: 0.06, steady: 0.10,
    }  # fmt: skip
    for kind in rng.choice(len(makers), size=count, p=list(makers.values())):
        yield list(makers)[kind]()
