"""What tests share: recordings, and registries that do not see what happens to be installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # tests import `benchmarks`, `tools` and each other's helpers from here

from tests.hub_server import HubServer  # noqa: E402
from tools import recordings  # noqa: E402


def _recordings(package: str) -> Path:
    folder = recordings.folder(package)
    if folder is None:
        pytest.skip(f"Debian's {package} is not here: python tools/recordings.py fetches it")
    return folder


@pytest.fixture(scope="session")
def speech_files() -> list[Path]:
    """The spoken channel names of Debian's sound-theme-freedesktop, 48 kHz."""
    return sorted(_recordings("sound-theme-freedesktop").glob("audio-channel-*.oga"))


@pytest.fixture(scope="session")
def music_files() -> list[Path]:
    """Debian's sonic-pi-samples, 44.1 kHz."""
    return sorted(_recordings("sonic-pi-samples").glob("*.flac"))


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """A Hugging Face Hub on loopback; see tests/hub_server.py."""
    with HubServer() as server:
        yield server
