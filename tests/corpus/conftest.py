"""Corpora to be vocoded, and toy vocoders that processes of their own find."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from distill_core import registry
from tests.conftest import ROOT

soundfile = pytest.importorskip("soundfile")

NAMES = ("toy-installed", "toy-deadly", "toy-slow")


@pytest.fixture(scope="session")
def toy_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the import path in which a distribution offers tests/corpus/toy_plugin.py."""
    site = tmp_path_factory.mktemp("site")
    about = site / "toy_vocoders-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-vocoders\nVersion: 1.0\n")
    offers = "".join(f"{name} = tests.corpus.toy_plugin\n" for name in NAMES)
    (about / "entry_points.txt").write_text(f"[distill.vocoders]\n{offers}")
    return site


@pytest.fixture
def installed(toy_site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The toys, for this process and those it starts."""
    monkeypatch.syspath_prepend(str(toy_site))
    registry.refresh()
    yield
    monkeypatch.undo()
    registry.unload()
    registry.refresh()


@pytest.fixture
def command(toy_site: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts the real command in a process group of its own: `command("vocode", …)`."""

    def start(*argv: object) -> subprocess.Popen[str]:
        path = os.pathsep.join([str(toy_site), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        return subprocess.Popen(
            [sys.executable, "-m", "distill_core.cli", *map(str, argv)],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return start


def tone(path: Path, samples: int = 4000, rate: int = 8000, channels: int = 1, frequency: float = 440.0) -> Path:
    """A sound file with a tone in each channel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(samples) / rate
    wave = np.stack([0.3 * np.sin(2 * np.pi * frequency * (c + 1) * time) for c in range(channels)], axis=1)
    soundfile.write(path, wave, rate)
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A tree of twelve sounds of different lengths, rates and channels, and two mels."""
    folder = tmp_path / "in"
    for i in range(12):
        tone(
            folder / ("deep/er" if i % 3 else "") / f"{i:02}.{'flac' if i % 2 else 'wav'}",
            samples=1500 + 400 * (i % 5),
            rate=(8000, 16000, 44100)[i % 3],
            channels=1 + i % 2,
            frequency=200 + 30 * i,
        )
    rng = np.random.default_rng(0)
    np.save(folder / "one mel.npy", rng.normal(size=(5, 40)).astype(np.float32) - 4)
    np.save(folder / "three mels.npy", rng.normal(size=(3, 5, 40)).astype(np.float32) - 4)
    return folder


def outputs(folder: Path) -> dict[str, bytes]:
    """All that a run has written, by name; not what it keeps for itself."""
    found = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and relative.parts[0] != ".distill":
            found[str(relative)] = path.read_bytes()
    return found
