"""What is looked at in commands that the tests do not run. Each raises ValueError if something is wrong."""

from __future__ import annotations

import contextlib
import io
import re
import shlex

from tests.conftest import ROOT

PROJECTS = {
    "distill-core": ROOT,
    "distill-bigvgan": ROOT / "distill_bigvgan_plugin",
    "distill-hifigan": ROOT / "distill_hifigan_plugin",
}
_OTHERS = {"auraloss", "matplotlib", "pystoi", "s3fs", "torch", "vocos"}
_REQUIREMENT = re.compile(r"([^\[]+)(?:\[([\w,-]+)\])?\Z")


def nothing(command: str) -> None:
    """For commands of other people's tools."""


def requirements(command: str) -> None:
    """`pip install`: distributions and extras that this repository has, folders that are there."""
    for word in shlex.split(command, comments=True)[2:]:
        if word in ("-e", "--editable"):
            continue
        found = _REQUIREMENT.match(word)
        if found is None:
            raise ValueError(f"{word} is no requirement")
        name, extras = found[1], (found[2] or "").split(",")
        if name.startswith("."):
            folder = ROOT / name
            if not (folder / "pyproject.toml").is_file():
                raise ValueError(f"{name} is no project's folder")
        elif name in PROJECTS:
            folder = PROJECTS[name]
        elif name in _OTHERS:
            continue
        else:
            raise ValueError(f"{name} is none of {', '.join([*PROJECTS, *_OTHERS])}")
        there = (folder / "pyproject.toml").read_text(encoding="utf-8")
        there = there.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
        for extra in filter(None, extras):
            if not re.search(rf"^{re.escape(extra)} = \[", there, re.MULTILINE):
                raise ValueError(f"{name} has no extra {extra!r}")


def make_target(command: str) -> None:
    """`make`: a target of the Makefile, and variables that it reads."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in shlex.split(command, comments=True)[1:]:
        name, is_variable, _ = word.partition("=")
        pattern = rf"^{re.escape(name)}\s*\?=" if is_variable else rf"^{re.escape(name)}:"
        if not re.search(pattern, makefile, re.MULTILINE):
            raise ValueError(f"the Makefile has no {name}")


def module_and_options(command: str) -> None:
    """`python -m benchmarks.x --option`: the module is there and has the option."""
    module, *words = shlex.split(command, comments=True)[2:]
    path = ROOT / f"{module.replace('.', '/')}.py"
    if not path.is_file():
        raise ValueError(f"there is no {module}")
    text = path.read_text(encoding="utf-8")
    for option in (word for word in words if word.startswith("--")):
        if f'"{option}"' not in text:
            raise ValueError(f"{module} has no {option}")


def command_line(command: str) -> None:
    """`distill-vocoder …`, wherever in a command it begins: its arguments are such as it takes."""
    from distill_core.cli import build_parser

    words = shlex.split(command, comments=True)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            build_parser().parse_args(words[words.index("distill-vocoder") + 1 :])
    except SystemExit as error:
        raise ValueError(said.getvalue()) from error


def script(command: str) -> None:
    """`python some/script.py`: it is there."""
    if not (ROOT / shlex.split(command, comments=True)[1]).is_file():
        raise ValueError("there is no such script")


def paths(command: str) -> None:
    """`pytest tests/x.py`: the files are there."""
    for word in shlex.split(command, comments=True)[1:]:
        if "/" in word and not (ROOT / word).exists():
            raise ValueError(f"there is no {word}")
