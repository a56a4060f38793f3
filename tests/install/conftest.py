"""Built once a session: the wheels of the three distributions, and an environment that has distill-core."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.install.environments import BUILDING, Environment, create, link_packages

FOLDERS = {
    "distill-core": ROOT,
    "distill-bigvgan": ROOT / "distill_bigvgan_plugin",
    "distill-hifigan": ROOT / "distill_hifigan_plugin",
}
_numbers = itertools.count()


def pytest_collection_modifyitems(items) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.install)


@pytest.fixture(scope="session")
def building(tmp_path_factory) -> Path:
    """A folder with the build back-ends."""
    pytest.importorskip("hatchling", reason="hatchling is not installed: pip install '.[dev]'")
    return link_packages(tmp_path_factory.mktemp("building") / "packages", *BUILDING)


@pytest.fixture(scope="session")
def needed(tmp_path_factory) -> Path:
    """A folder with torch and the other things distill-core depends on."""
    return link_packages(tmp_path_factory.mktemp("needed") / "packages", "distill-core")


@pytest.fixture(scope="session")
def sdists(tmp_path_factory, building) -> dict[str, Path]:
    """The three source distributions."""
    folder = tmp_path_factory.mktemp("sdists")
    for source in FOLDERS.values():
        command = ["-m", "build", "--sdist", "--no-isolation", "--outdir", str(folder), str(source)]
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return {name: next(folder.glob(f"{name.replace('-', '_')}-*.tar.gz")) for name in FOLDERS}


@pytest.fixture(scope="session")
def wheels(tmp_path_factory, sdists) -> dict[str, Path]:
    """The three wheels, each built from its source distribution and not from the repository."""
    folder = tmp_path_factory.mktemp("wheels")
    command = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "-w", str(folder)]
    done = subprocess.run([sys.executable, *command, *map(str, sdists.values())], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: next(folder.glob(f"{name.replace('-', '_')}-*.whl")) for name in FOLDERS}


@pytest.fixture
def empty_environment(tmp_path, building, needed) -> Callable[[], Environment]:
    """Makes environments that have what distill-core depends on, and nothing of ours."""
    return lambda: create(tmp_path / f"env{next(_numbers)}", building, needed)


@pytest.fixture(scope="session")
def _core_template(tmp_path_factory, building, needed, wheels) -> Environment:
    environment = create(tmp_path_factory.mktemp("core") / "env", building, needed)
    environment.install(wheels["distill-core"])
    return environment


@pytest.fixture
def environment(tmp_path, building, needed, _core_template) -> Environment:
    """An environment with distill-core installed from its wheel, as pip left it, to be thrown away."""
    made = create(tmp_path / f"env{next(_numbers)}", building, needed)
    shutil.copytree(_core_template.site, made.site, dirs_exist_ok=True)  # with its links
    command = made.folder / "bin" / "distill-vocoder"
    script = (_core_template.folder / "bin" / "distill-vocoder").read_text()
    command.write_text(script.replace(str(_core_template.folder), str(made.folder)))
    command.chmod(0o755)
    return made
