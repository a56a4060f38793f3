"""What the README has a newcomer type: `make demo`."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess

import pytest

from tests.conftest import ROOT


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("sample", ["my sound.wav", "your.wav", ""])
def test_a_sound_reaches_the_demo_under_its_whole_name(sample: str) -> None:
    # `make test` hands its own settings down to a make below it.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--dry-run", "demo", f"SAMPLE={sample}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert shlex.split(done.stdout.splitlines()[-1])[1:] == ["tools/demo.py", *([sample] if sample else [])]
