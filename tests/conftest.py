"""What tests share: recordings, and registries that do not see what happens to be installed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # tests import `benchmarks`, `tools` and each other's helpers from here

# A shell starts what it runs in the background deaf to Ctrl-C, and children inherit it: some tests press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

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


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several processes, a file's tests stay together, and so do those that share built distributions.

    A group that a test names for itself stands: "heavy" are those that must not run beside one another.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is not None:
            continue
        group = "install" if "install" in item.path.parts else str(item.path.relative_to(ROOT))
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests measured and recorded as "measured"."""
    reports = [report for group in terminalreporter.stats.values() for report in group]
    figures = [
        value
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, value in report.user_properties
        if name == "measured"
    ]
    if figures:
        terminalreporter.section("measured")
        for figure in figures:
            terminalreporter.line(figure)


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


@pytest.fixture(scope="session")
def trained_hifigan() -> Path:
    """HiFi-GAN's trained universal weights."""
    from distill_core import errors

    pytest.importorskip("distill_hifigan", reason="distill-hifigan is not installed")
    from distill_hifigan.pretrained import pretrained_checkpoint

    try:
        return pretrained_checkpoint("universal")
    except errors.WeightsNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def strict_mypy(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], None]:
    """Check a file or a package as a downstream project does that runs mypy --strict.

    Reading torch takes mypy half a minute: tests that are in the group "mypy" do it once.
    """
    cache = tmp_path_factory.mktemp("mypy")

    def check(target: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--cache-dir", str(cache), target],
            capture_output=True,
            text=True,
            cwd=target.parent,
            env={**os.environ, "MYPYPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return check


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """A Hugging Face Hub on loopback; see tests/hub_server.py."""
    with HubServer() as server:
        yield server
