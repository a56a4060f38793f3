"""Real recordings that anyone can install, their split by file, and the same sound at several rates.

`python tools/recordings.py` fetches them: Debian's sonic-pi-samples and sound-theme-freedesktop.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from tools import recordings

HELD_OUT = 40
PEAK = 0.95


@dataclass(frozen=True)
class Recordings:
    """Files by use. Nothing in `held_out` or `speech` is ever trained on."""

    training: tuple[Path, ...]
    held_out: tuple[Path, ...]
    speech: tuple[Path, ...]


def find() -> Recordings:
    """The two packages' files, split by the hash of the file's name.

    Raises:
        FileNotFoundError: they are not installed.
    """
    folders = [recordings.folder(package) for package in ("sonic-pi-samples", "sound-theme-freedesktop")]
    if None in folders:
        raise FileNotFoundError("The recordings are not here: python tools/recordings.py fetches them.")
    music = sorted(folders[0].glob("*.flac"))  # type: ignore[union-attr]
    sounds = sorted(folders[1].glob("*.oga"))  # type: ignore[union-attr]
    by_hash = sorted(music, key=lambda path: hashlib.sha256(path.stem.encode()).digest())
    speech = tuple(path for path in sounds if path.stem.startswith("audio-channel-"))
    others = tuple(path for path in sounds if path not in speech)
    return Recordings((*by_hash[HELD_OUT:], *others), tuple(by_hash[:HELD_OUT]), speech)


def spoken() -> list[tuple[Path, ...]]:
    """Words that many people recorded at home, at 32 kHz or more, by speaker; all for training.

    Raises:
        FileNotFoundError: the packages are not installed.
    """
    folders = [recordings.folder(package) for package in recordings.TRAINING]
    if None in folders:
        raise FileNotFoundError("Recorded speech is not here: python tools/recordings.py --training fetches it.")
    by_speaker: dict[Path, list[Path]] = {}
    for folder in folders:
        for path in sorted([*folder.rglob("*.ogg"), *folder.rglob("*.wav")]):  # type: ignore[union-attr]
            if soundfile.info(path).samplerate in (44_100, 48_000):
                by_speaker.setdefault(path.parent, []).append(path)
    return [tuple(files) for files in by_speaker.values() if len(files) >= 8]


def read(path: Path) -> tuple[np.ndarray, int]:
    """A file as mono float64, peak-normalised, and its sample rate in Hz."""
    wave, rate = soundfile.read(path, dtype="float64", always_2d=True)
    mono = wave.mean(axis=1)
    peak = np.abs(mono).max(initial=0.0)
    return mono * (PEAK / peak if peak > 0 else 1.0), rate


def at_rate(wave: np.ndarray, rate: int, wanted: int) -> Tensor:
    """The same sound at another rate, `[samples]` in float32."""
    if rate != wanted:
        wave = soxr.resample(wave, rate, wanted, quality="VHQ")
    return torch.from_numpy(np.asarray(wave, dtype=np.float32))


@lru_cache(maxsize=4096)
def load(path: Path, rate: int, seconds: float = 20.0) -> Tensor:
    """The first `seconds` of a file at `rate`, `[samples]`; at least half a second, padded with zeros."""
    wave, own = read(path)
    wave = wave[: int(seconds * own)]
    short = own // 2 - wave.size
    if short > 0:
        wave = np.pad(wave, (0, short))
    return at_rate(wave, own, rate)
