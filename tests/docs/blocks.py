"""The fenced blocks of the documentation, and what becomes of each: run, read, or an error."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

TUTORIAL = "docs/plugins.md"
TUTORIAL_SECTIONS = ("Ten minutes to a plug-in", "When something goes wrong")
"""What tests/install/test_authors.py runs, in an environment into which the tutorial's plug-in is installed."""

_FENCE = re.compile(r"( *)(`{3,}|~{3,})(.*)")
_COMMAND_LIKE = re.compile(r"\s*(\$ |>>> |pip |python |distill-vocoder |import |from \w+ import )")


class BadBlock(Exception):
    """A block that nobody can test, or that a test finds wrong."""


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Args:
        page: its file, from the repository's root.
        line: of the opening fence, counted from 1.
        section: the heading of the second level above it.
        language: the first word after the fence.
        text: what stands between the fences, less the fence's own indentation.
    """

    page: str
    line: int
    section: str
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}, line {self.line}: ```{self.language}"


@dataclass(frozen=True)
class Step:
    """One thing that a page has its reader do: kind is "python", "session" or "command"."""

    kind: str
    line: int
    text: str
    expected: tuple[str, ...] = ()


def pages() -> list[str]:
    """README.md, distill-core's own, and every page below docs/, less those that are links to files elsewhere."""
    found = [path for path in sorted((ROOT / "docs").rglob("*.md")) if not path.is_symlink()]
    links = [path.resolve() for path in sorted((ROOT / "docs").rglob("*.md")) if path.is_symlink()]
    readmes = [ROOT / "README.md", ROOT / "distill_core" / "README.md"]
    return [str(path.relative_to(ROOT)) for path in [*readmes, *found, *links]]


def blocks(page: str | Path) -> list[Block]:
    """The fenced blocks of one page, in order.

    Raises:
        BadBlock: a fence is not closed.
    """
    path = ROOT / page
    name = str(page)
    found = []
    section = ""
    opening: tuple[int, str, str, str] | None = None
    inside: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.fullmatch(line)
        if opening is None:
            if line.startswith("## "):
                section = line[3:].strip()
            if fence:
                opening = (number, fence[1], fence[2], fence[3].strip())
                inside = []
        elif fence and fence[2].startswith(opening[2]) and not fence[3].strip():
            language = opening[3].split()[0] if opening[3] else ""
            found.append(Block(name, opening[0], section, language, "".join(f"{each}\n" for each in inside)))
            opening = None
        else:
            inside.append(line.removeprefix(opening[1]))
    if opening is not None:
        raise BadBlock(f"{name}, line {opening[0]}: the fence is not closed")
    return found


def steps(block: Block) -> list[Step]:
    """What the block has its reader do; none for data, which is parsed instead.

    Raises:
        BadBlock: data that does not parse, or a language that no test knows.
    """
    if block.language == "python":
        return [Step("python", block.line, block.text)]
    if block.language == "pycon":
        return [Step("session", block.line, block.text)]
    if block.language == "console":
        return _console(block)
    if block.language in ("sh", "bash"):
        return [Step("command", line, text) for line, text in _joined(block)]
    try:
        _parse(block)
    except ValueError as error:
        raise BadBlock(f"{block}: {error}") from error
    return []


def _joined(block: Block) -> list[tuple[int, str]]:
    """The lines of a block with their numbers; one that ends with a backslash goes on in the next."""
    lines: list[tuple[int, str]] = []
    going_on = False
    for number, line in enumerate(block.text.splitlines(), block.line + 1):
        if going_on:
            first, text = lines[-1]
            lines[-1] = (first, f"{text}\n{line.removeprefix('> ')}")
        elif line.strip() and not line.startswith("#"):
            lines.append((number, line))
        going_on = line.endswith("\\")
    return [(number - 1, text) for number, text in lines]


def _console(block: Block) -> list[Step]:
    commands: list[tuple[int, str, list[str]]] = []
    for line, text in _joined(block):
        if text.startswith("$ "):
            commands.append((line, text[2:], []))
        elif not commands:
            raise BadBlock(f"{block}: begins with output; commands begin with '$ '")
        else:
            commands[-1][2].append(text)
    return [Step("command", line, text, tuple(expected)) for line, text, expected in commands]


def _parse(block: Block) -> None:
    """Raises ValueError if the data is none."""
    if not block.text.strip():
        raise ValueError("is empty")
    if block.language == "json":
        json.loads(block.text)
    elif block.language == "jsonl":
        for line in block.text.splitlines():
            json.loads(line)
    elif block.language == "toml":
        try:
            import tomllib
        except ImportError:
            import tomli as tomllib  # pytest brings it before Python 3.11
        tomllib.loads(block.text)
    elif block.language == "yaml":
        import yaml

        try:
            yaml.safe_load(block.text)
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from error
    elif block.language == "dockerfile":
        wrong = [line for line in block.text.splitlines() if not re.match(r"(FROM|ENV|RUN|COPY|CMD) |#", line)]
        if wrong:
            raise ValueError(f"no instruction: {wrong[0]}")
    elif block.language == "text":
        hidden = [line for line in block.text.splitlines() if _COMMAND_LIKE.match(line)]
        if hidden:
            raise ValueError(f"looks like something to run: {hidden[0]}")
    else:
        raise ValueError(f"no test knows what to do with {block.language or 'a block without a language'}")
