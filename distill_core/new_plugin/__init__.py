"""`distill-vocoder new-plugin`: an installable plug-in that keeps the contract from its first minute.

The files are in `templates/`, with `$name` and the like for what `plan` fills in.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from ..errors import DistillError, OutputExistsError
from ..mel.spec import MelSpec

DEFAULT_MEL = "hifigan-22khz-80band"
_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*\Z")
_ENDING = ".tmpl"


@dataclass(frozen=True)
class NewPlugin:
    """What a new plug-in is called.

    Args:
        name: the vocoder's name, such as "my-voice".
        mel: the preset of the mels it takes.
    """

    name: str
    mel: str = DEFAULT_MEL

    def __post_init__(self) -> None:
        if len(self.name) > 50 or not _NAME.match(self.name):
            raise DistillError(
                f"{self.name!r} cannot be a vocoder's name here: use small letters, digits and single - or _ between "
                "them, a letter first, at most 50, such as my-voice."
            )
        if self.name == "auto":
            raise DistillError("'auto' cannot be a vocoder's name: it is how the registry is told to choose one.")
        if keyword.iskeyword(self.package):
            raise DistillError(f"{self.name!r} would make a package called {self.package}, a word of Python.")
        if self.package == "distill_core":
            raise DistillError(f"{self.name!r} would make a package {self.package}, which is distill itself.")
        MelSpec.preset(self.mel)  # raises with the closest names

    @property
    def distribution(self) -> str:
        """What `pip install` calls it: `distill-my-voice`."""
        return f"distill-{self.name.replace('_', '-')}"

    @property
    def package(self) -> str:
        """What `import` calls it: `distill_my_voice`."""
        return f"distill_{self.name.replace('-', '_')}"

    @property
    def title(self) -> str:
        return "".join(part.capitalize() for part in re.split("[-_]", self.name))

    def files(self) -> Iterator[tuple[str, str]]:
        """(path inside the new folder, text) of every file."""
        from .. import __version__

        spec = MelSpec.preset(self.mel)
        major, minor, *_ = __version__.split(".")
        values = {
            "name": self.name,
            "distribution": self.distribution,
            "package": self.package,
            "title": self.title,
            "mel": self.mel,
            "n_mels": spec.n_mels,
            "hop_length": spec.hop_length,
            "sample_rate": spec.sample_rate,
            "core": f">={major}.{minor},<{major}.{int(minor) + 1}",
        }
        for path, template in _templates(files(__name__) / "templates"):
            target = path.removesuffix(_ENDING).replace("package/", f"{self.package}/").replace("dot-", ".")
            yield target, Template(template).substitute(values)


def write(plugin: NewPlugin, folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Write the plug-in's files into `folder`, which is created.

    Returns:
        The files.

    Raises:
        OutputExistsError: a file of that name is there already, and `overwrite` is not set; nothing was written.
        DistillError: the folder cannot be written.
    """
    planned = [(folder / path, text) for path, text in plugin.files()]
    there = [path for path, _ in planned if path.exists()]
    if there and not overwrite:
        raise OutputExistsError(f"{there[0]} is there already. Choose another folder with -o, or overwrite by --force.")
    try:
        for path, text in planned:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DistillError(f"{folder} cannot be written: {error.strerror or error}.") from error
    return [path for path, _ in planned]


def _templates(folder: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    for entry in sorted(folder.iterdir(), key=lambda each: each.name):
        if entry.is_dir():
            yield from _templates(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(_ENDING):
            yield f"{prefix}{entry.name}", entry.read_text(encoding="utf-8")
