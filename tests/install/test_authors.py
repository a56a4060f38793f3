"""The way of a plug-in's author: new-plugin, the tutorial's own commands, and the Vocos example."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from distill_core.testing import CHECKS
from tests.conftest import ROOT
from tests.docs.blocks import TUTORIAL, TUTORIAL_SECTIONS, blocks, steps
from tests.install.environments import clean, create, link_packages

EXAMPLE = ROOT / "docs" / "examples" / "distill-vocos"


@pytest.fixture(scope="session")
def pytest_packages(tmp_path_factory) -> Path:
    """pytest itself, and what it depends on."""
    return link_packages(tmp_path_factory.mktemp("pytest") / "packages", "pytest")


def test_a_new_plugin_passes_the_kit_at_once(environment, pytest_packages, tmp_path) -> None:
    environment.link(pytest_packages)
    environment.run("distill-vocoder", "new-plugin", "my_voice", cwd=tmp_path, check=True)
    environment.install(tmp_path / "distill-my-voice")
    checked = environment.run("distill-vocoder", "check", "my_voice", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout
    skipped = [line for line in checked.stdout.splitlines() if line.lstrip().startswith("skip ")]
    assert all("runs_on_cuda" in line or "runs_on_mps" in line for line in skipped), checked.stdout
    folder = tmp_path / "distill-my-voice"
    tested = environment.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=folder)
    assert tested.returncode == 0, tested.stdout
    assert f"{len(CHECKS) - len(skipped)} passed" in tested.stdout


# The tutorial


@pytest.fixture
def author(tmp_path, building, needed, pytest_packages, wheels) -> dict[str, str]:
    """The shell of a newcomer: an environment with pip, which finds distill-core among the wheels built here."""
    environment = create(tmp_path / "env", building, needed, pytest_packages, building)
    environment.link(link_packages(tmp_path / "pip", "pip"))
    for name in ("pip", "pytest"):
        script = environment.folder / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{environment.python}" -m {name} "$@"\n')
        script.chmod(0o755)
    return {
        **clean(os.environ),
        "PATH": f"{environment.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this as --no-build-isolation
        "PIP_FIND_LINKS": str(wheels["distill-core"].parent),
        "PIP_QUIET": "1",
        "CUDA_VISIBLE_DEVICES": "",  # what the page shows is what a machine without a GPU prints
    }


def test_the_tutorials_commands_run(author, tmp_path) -> None:
    """In order, as a newcomer would: what they print is what the page shows."""
    home = tmp_path / "home"
    home.mkdir()
    todo = [step for block in blocks(TUTORIAL) if block.section in TUTORIAL_SECTIONS for step in steps(block)]
    assert len(todo) > 10
    page = {"name": TUTORIAL, "isolated": True, "steps": [vars(step) for step in todo]}
    done = subprocess.run(
        ["python", str(ROOT / "tests" / "docs" / "page_process.py")],
        cwd=home, env=author, input=json.dumps(page), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_reference_lists_every_check() -> None:
    text = (ROOT / TUTORIAL).read_text(encoding="utf-8")
    for check in CHECKS:
        assert f"| {check.group} | `{check.name}` | {check.promise} |" in text


# Vocos


@pytest.fixture(scope="session")
def vocos_packages(tmp_path_factory) -> Path:
    """vocos and einops from wherever pip is set up to look, and scipy from here."""
    folder = tmp_path_factory.mktemp("vocos")
    packages = link_packages(folder / "packages", "scipy")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target"]
    done = subprocess.run([*command, str(packages), "vocos==0.1.0", "einops"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"vocos cannot be downloaded here: {done.stderr.strip().splitlines()[-1]}")
    if not (packages / "scipy").exists():
        pytest.skip("scipy, which vocos imports, is not installed here")
    return packages


def test_the_vocos_example_keeps_the_contract(environment, pytest_packages, vocos_packages) -> None:
    environment.link(pytest_packages)
    environment.link(vocos_packages)
    environment.install(EXAMPLE)
    listed = environment.run("distill-vocoder", "list", check=True).stdout
    assert "vocos  distill-vocos" in listed
    tested = environment.run(
        "python", "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-c", os.devnull, EXAMPLE / "tests",
        PYTHONDONTWRITEBYTECODE="1",
    )  # fmt: skip
    assert tested.returncode == 0, tested.stdout
    assert re.search(r"\d+ passed", tested.stdout)


def test_the_vocos_example_without_vocos_says_what_to_install(environment) -> None:
    environment.install(EXAMPLE)
    done = environment.run("python", "-c", "from distill_core import registry; registry.get('vocos', untrained=True)")
    assert done.returncode == 1
    assert "MissingDependencyError: Vocos needs the package vocos" in done.stderr
    assert "pip install vocos" in done.stderr
    explained = environment.run("distill-vocoder", "explain", "vocos", check=True).stdout
    assert "vocos: weights missing" in explained
