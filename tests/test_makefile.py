"""What the README has a newcomer type: `make demo` and `make test`."""

from __future__ import annotations

import importlib.metadata
import os
import shlex
import shutil
import subprocess

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.conftest import ROOT


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("sample", ["my sound.wav", "your.wav", ""])
def test_a_sound_reaches_the_demo_under_its_whole_name(sample: str) -> None:
    # `make test` hands its own settings down to a make below it.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--dry-run", "demo", f"SAMPLE={sample}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert shlex.split(done.stdout.splitlines()[-1])[1:] == ["tools/demo.py", *([sample] if sample else [])]


def test_what_is_pinned_can_be_installed_with_every_python_that_we_take() -> None:
    oldest = importlib.metadata.metadata("distill-core")["Requires-Python"].removeprefix(">=")
    files = [ROOT / "constraints.txt", ROOT / "tests" / "requirements-peers.txt"]
    lines = [line.partition("#")[0].strip() for file in files for line in file.read_text().splitlines()]
    pins = [Requirement(line) for line in lines if line]
    admitted = [pin for pin in pins if pin.marker is None or pin.marker.evaluate({"python_version": oldest})]
    assert {pin.name for pin in admitted} == {pin.name for pin in pins}
    refused = []
    for pin in admitted:
        try:
            installed = importlib.metadata.distribution(pin.name)
        except importlib.metadata.PackageNotFoundError:
            continue  # a peer is not needed for this
        wanted = SpecifierSet(installed.metadata["Requires-Python"] or "")
        if installed.version in pin.specifier and not wanted.contains(oldest):
            refused.append(f"{pin} is for Python {wanted}, and ours are for {oldest} as well")
    assert not refused
