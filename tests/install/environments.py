"""Throw-away environments, and distributions really built and really installed into them by pip.

An environment starts empty but for what distill-core depends on, which is linked in from the environment
that runs the tests: a folder with links to those packages and no others, so nothing that happens to be
installed beside them is seen. `fresh` leaves even that out.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OFFLINE = ("install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--no-compile")
BUILDING = ("hatchling", "editables", "setuptools", "wheel")
"""What building without isolation needs; linked into a folder of its own."""


def installed_with(*roots: str) -> dict[str, importlib.metadata.Distribution]:
    """The distributions that these, as they are installed here, depend on, themselves included."""
    found: dict[str, importlib.metadata.Distribution] = {}
    todo = list(roots)
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        needs = [each for each in found[name].requires or [] if "extra ==" not in each]
        todo += [re.match(r"[\w.-]+", each).group() for each in needs]
    return found


def link_packages(folder: Path, *roots: str, without: tuple[str, ...] = ("distill-",)) -> Path:
    """A folder that has `roots` and all they depend on, as links to what is installed here.

    Args:
        without: beginnings of names to leave out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, distribution in installed_with(*roots).items():
        if name.startswith(without):
            continue
        tops = {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
        for top in sorted(tops):
            source = Path(str(distribution.locate_file(top)))
            if source.exists() and not top.endswith(".pth") and not (folder / top).exists():
                (folder / top).symlink_to(source)
    return folder


@dataclass(frozen=True)
class Environment:
    """A virtual environment without a pip of its own; the one that runs the tests installs into it.

    Args:
        folder: where it is.
        building: the folder with build back-ends, for `install`.
    """

    folder: Path
    building: Path

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    @property
    def site(self) -> Path:
        """Its site-packages."""
        return next((self.folder / "lib").glob("python3*")) / "site-packages"

    def link(self, packages: Path) -> None:
        """Make a folder of packages importable, behind what is installed in the environment itself."""
        with (self.site / "linked.pth").open("a") as file:
            file.write(f"{packages}\n")

    def pip(self, *arguments: str | Path, check: bool = True, **environ: str) -> subprocess.CompletedProcess[str]:
        """`pip …` on this environment."""
        command = [sys.executable, "-m", "pip", "--python", self.python, "--disable-pip-version-check", *arguments]
        done = subprocess.run(
            [str(each) for each in command], capture_output=True, text=True, env={**clean(os.environ), **environ}
        )
        if check and done.returncode:
            raise AssertionError(f"pip {' '.join(map(str, arguments))}\n{done.stdout}\n{done.stderr}")
        return done

    def install(self, *what: str | Path) -> None:
        """Build (where it is a folder) and install, without dependencies and without the network."""
        # The build back-ends are found through PYTHONPATH, so that they are not in the environment afterwards.
        self.pip(
            *OFFLINE, *what, PYTHONPATH=str(self.building)
        )

    def uninstall(self, *names: str) -> None:
        self.pip("uninstall", "--quiet", "--yes", *names)

    def run(
        self, *command: str | Path, cwd: Path | None = None, check: bool = False, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of this environment: `run("distill-vocoder", "list")`, `run("python", "-c", …)`."""
        program = self.folder / "bin" / command[0]
        done = subprocess.run(
            [str(each) for each in (program, *command[1:])],
            capture_output=True,
            text=True,
            cwd=cwd or self.folder,
            env={**clean(os.environ), "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}", **environ},
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}")
        return done

    def python_says(self, source: str, *, cwd: Path | None = None, **environ: str) -> Any:
        """Run Python code here, which prints JSON in its last line; returns that."""
        done = self.run("python", "-c", textwrap.dedent(source), cwd=cwd, **environ)
        if done.returncode:
            raise AssertionError(f"{source}\n{done.stdout}\n{done.stderr}")
        return json.loads(done.stdout.strip().splitlines()[-1])


def create(folder: Path, building: Path, *packages: Path) -> Environment:
    """An environment with folders of packages linked in."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    environment = Environment(folder, building)
    for each in packages:
        environment.link(each)
    return environment


def clean(environ: Any) -> dict[str, str]:
    """The environment without what would change discovery or imports.

    One thread: the models are tiny, and several test processes on few cores only wait for each other.
    """
    kept = {key: value for key, value in environ.items() if not key.startswith(("DISTILL_", "PYTHON"))}
    return {**kept, "OMP_NUM_THREADS": "1"}


# Distributions to install

PLUGIN = '''
"""A plug-in written by the tests."""
{before}
from distill_core import MelSpec, Variant, VocoderCard, hookimpl

MEL = MelSpec.preset("hifigan-22khz-80band")


@hookimpl
def distill_vocoders():
    return [
        VocoderCard(
            name="{name}", summary="made for a test", api={api}, factory="{package}.vocoder:load",
            variants=[Variant("default", MEL, MEL.sample_rate)], license="MIT",
        )
    ]
'''

VOCODER = '''
"""Imported by get and by nothing else."""
import torch

from distill_core import ModuleVocoder


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv1d(80, 256, 3, padding=1)

    def forward(self, mel):
        return torch.tanh(self.conv(mel)).transpose(1, 2).flatten(1)[:, None]


def load(card, variant, *, device, precision, weights=None):
    return ModuleVocoder(Model(), variant, halo=1, device=device, precision=precision)
'''


def write_plugin(
    folder: Path,
    distribution: str,
    name: str = "mine",
    *,
    package: str | None = None,
    version: str = "1.0",
    api: int = 1,
    before: str = "",
    plugin: str | None = None,
    vocoder: str | None = None,
    entry_points: dict[str, str] | None = None,
    backend: str = "hatchling.build",
) -> Path:
    """The source of a distribution with a plug-in; returns its folder, for `Environment.install`."""
    package = package or re.sub(r"[-.]", "_", distribution)
    source = folder / distribution
    (source / package).mkdir(parents=True, exist_ok=True)
    points = entry_points or {name: f"{package}.plugin"}
    listed = "\n".join(f'"{key}" = "{value}"' for key, value in points.items())
    backend_table = (
        f'[tool.hatch.build.targets.wheel]\npackages = ["{package}"]\n'
        if backend.startswith("hatch")
        else f'[tool.setuptools]\npackages = ["{package}"]\n'
    )
    (source / "pyproject.toml").write_text(
        f'[build-system]\nrequires = ["{backend.partition(".")[0]}"]\nbuild-backend = "{backend}"\n\n'
        f'[project]\nname = "{distribution}"\nversion = "{version}"\ndescription = "{distribution}, for a test"\n'
        f'dependencies = ["distill-core"]\n\n[project.entry-points."distill.vocoders"]\n{listed}\n\n{backend_table}'
    )
    (source / package / "__init__.py").write_text("")
    text = PLUGIN.format(name=name, package=package, api=api, before=before) if plugin is None else plugin
    (source / package / "plugin.py").write_text(text)
    (source / package / "vocoder.py").write_text(VOCODER if vocoder is None else vocoder)
    return source
