"""From what was named on the command line to recordings: files, folders, globs."""

from __future__ import annotations

import glob
import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..audio import READ as ENDINGS
from ..audio import read_audio
from ..corpus.plan import matching, walk
from ..errors import CorpusError, DistillError, InvalidAudioError

_GLIMPSE_SECONDS = 0.1
_CANCELLED = 1e-6  # of the channels' energy is left in their mean: -60 dB


@dataclass(frozen=True)
class Recording:
    """The part of a file that is compared.

    Args:
        wave: [samples], the mean of the channels.
        sample_rate: in Hz.
        channels: of the file.
        whole: False if the file is longer.
    """

    wave: torch.Tensor
    sample_rate: int
    channels: int
    whole: bool

    @property
    def seconds(self) -> float:
        return len(self.wave) / self.sample_rate


def find(named: Iterable[str | os.PathLike[str]]) -> tuple[list[Path], dict[str, str]]:
    """The files that are meant, and what is wrong with names that mean none.

    A folder means all audio in it, at any depth and behind links, but what is hidden. What is no file is tried as a
    glob, `**` included. Order as named, sorted within folders and globs; a file named twice comes once.
    """
    files: dict[str, Path] = {}
    problems: dict[str, str] = {}
    for name in named:
        path = Path(name)
        try:
            if os.path.isdir(path):
                found = [path / each for each in walk(os.fspath(path), ENDINGS)]
                if not found:
                    problems[str(name)] = f"{name}: holds no audio ({', '.join(ENDINGS)})."
            elif os.path.exists(path) or not glob.has_magic(os.fspath(name)):
                found = [path]
            else:
                found = sorted(map(Path, matching(os.fspath(name))))
                if not found:
                    problems[str(name)] = f"{name}: no file is named like this."
        except CorpusError as error:
            problems[str(name)] = str(error)
            continue
        for each in found:
            files.setdefault(os.path.abspath(each), each)
    return list(files.values()), problems


def read(path: Path, max_seconds: float | None) -> Recording:
    """The first `max_seconds` of a file, its channels mixed.

    Raises:
        InvalidAudioError, MissingDependencyError: as `read_audio`; also if the channels cancel each other out.
    """
    # A little more than is wanted tells whether there is more.
    wave, rate = read_audio(path, max_seconds=None if max_seconds is None else max_seconds + _GLIMPSE_SECONDS)
    channels, samples = wave.shape
    if max_seconds is not None:
        wave = wave[:, : max(1, round(max_seconds * rate))]
    mixed = wave.mean(0)
    if mixed.square().mean() < _CANCELLED * wave.square().mean():
        raise InvalidAudioError(f"{path}: its channels cancel each other out; compare one of them.")
    return Recording(mixed.contiguous(), rate, channels, mixed.shape[0] == samples)


def short_names(paths: list[Path]) -> list[str]:
    """What to call files in a report, fit to be shown: their names, or where two have one, their paths below the
    folder that holds them all."""
    if len({path.name for path in paths}) == len(paths):
        return [shown(path.name) for path in paths]
    absolute = [os.path.abspath(path) for path in paths]
    try:
        common = os.path.commonpath({os.path.dirname(each) for each in absolute})
    except ValueError:  # on two drives
        return [shown(each) for each in absolute]
    return [shown(os.path.relpath(each, common)) for each in absolute]


def shown(text: str) -> str:
    """Text for eyes: what cannot be printed, or would turn the direction of writing round, becomes `�`."""
    return "".join("�" if unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp") else each for each in text)


def reason(error: Exception) -> str:
    """What went wrong, in a line: our own errors speak for themselves."""
    text = " ".join(str(error).split())
    return shown(text if isinstance(error, DistillError) else f"{type(error).__name__}: {text}"[:300])
