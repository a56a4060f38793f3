"""The fakes of benchmarks/registry.py are what every system takes for plug-ins, and ours imports none of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from benchmarks import registry as benchmark
from tests.conftest import ROOT


@pytest.mark.parametrize("name", benchmark.SYSTEMS)
def test_every_system_finds_the_same_fakes(name: str, tmp_path) -> None:
    benchmark.install_fakes(tmp_path, 12, with_torch=0)
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    source = benchmark.PROBE.format(source=benchmark.SYSTEMS[name])
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, env=environ)
    if done.returncode and "No module named" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    _, found, imported, torch = json.loads(done.stdout.splitlines()[-1])
    assert found == 12
    assert torch is False
    if name.startswith(("distill", "`importlib")):
        assert imported == 0
    else:
        assert imported == 12


def test_the_fakes_can_be_used(tmp_path) -> None:
    benchmark.install_fakes(tmp_path, 3)
    source = (
        "import json, sys\nfrom distill_core import registry\n"
        "names = [card.name for card in registry.cards() if card.name.startswith('fake')]\n"
        "print(json.dumps([names, 'torch' in sys.modules]))"
    )
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, env=environ, check=True)
    assert json.loads(done.stdout) == [["fake000", "fake001", "fake002"], True]
