"""Files on a Hub on loopback, and a cache of the test's own."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from distill_core.weights import WeightsPin, transfer
from tests.hub_server import HubServer

REPO = "nvidia/bigvgan_test"
NAME = "bigvgan_generator.pt"
CONFIG = b'{"num_mels": 80}'
CONTENT = random.Random(0).randbytes(1_000_003)


@pytest.fixture
def pin(hub: HubServer) -> WeightsPin:
    """A confirmed pin of the two files, which the Hub holds among others that nobody should ask for."""
    files = {"config.json": CONFIG, NAME: CONTENT}
    commit = hub.add(REPO, files)
    pin = hub.pin(REPO)
    hub.repos[REPO][commit]["bigvgan_discriminator_optimizer.pt"] = CONTENT
    return pin


@pytest.fixture
def unpinned(pin: WeightsPin) -> WeightsPin:
    """The same files of whatever `main` is, with nothing known of them."""
    return WeightsPin(REPO, "main", dict.fromkeys(pin.files, (None, None)))


@pytest.fixture
def cache(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This process uses `hub`, and an empty cache below the folder returned (`HF_HOME`)."""
    home = tmp_path / "hf"
    use(hub.endpoint, home, monkeypatch)
    monkeypatch.setattr(transfer, "WAITS", (0.01,) * 4)
    yield home
    from huggingface_hub import utils

    # A client keeps the proxies it was made with; before huggingface_hub 1 it was called a session.
    (utils.close_session if hasattr(utils, "close_session") else utils.reset_sessions)()


def use(endpoint: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT and HF_HOME mean, for a process in which huggingface_hub has read them already."""
    from huggingface_hub import constants, file_download

    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    if hasattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE"):  # before huggingface_hub 1
        monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(home / "assets"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_TOKEN", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
