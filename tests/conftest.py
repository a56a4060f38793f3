"""What tests share: recordings, and registries that do not see what happens to be installed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # tests import `benchmarks`, `tools` and each other's helpers from here

# Most models here are tiny: handing them to a second thread costs more than they do, and on a busy machine
# far more. The processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402

from tests.hub_server import HubServer  # noqa: E402
from tools import recordings  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Every test begins with one thread of torch's, whatever the one before it did."""
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(1)


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
