"""Reading checkpoint files, and saying exactly why one does not fit."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .config import AttrDict, ConfigError

NAMED_PROBLEMS = 5


class StateDictError(ValueError):
    """A checkpoint that cannot be read, or whose tensors are not those of the configuration."""


def load_file(path: str | Path) -> dict[str, Tensor]:
    """The generator's state dict in a torch file, on the CPU; zip files stay mapped, not read.

    Only tensors are unpickled. Raises `FileNotFoundError`, or `StateDictError` for a file that is
    damaged, holds no state dict, or would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    with path.open("rb") as file:
        mappable = zipfile.is_zipfile(file)  # torch cannot map the format it wrote before 1.6
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mappable)
    except pickle.UnpicklingError as error:
        raise StateDictError(
            f"{path} is damaged, or holds more than tensors and would run code when loaded; it was not run"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, LookupError, AttributeError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise StateDictError(f"{path} is damaged or no torch checkpoint: {reason}") from error
    return generator_state(content, str(path))


def generator_state(content: object, source: str = "the checkpoint") -> dict[str, Tensor]:
    """The state dict in what a checkpoint holds: itself, or the entry "generator" upstream writes.

    Raises `StateDictError` if it is not a mapping of names to dense floating-point tensors.
    """
    if isinstance(content, Mapping) and isinstance(content.get("generator"), Mapping):
        content = content["generator"]
    if not isinstance(content, Mapping) or not content:
        raise StateDictError(f"{source} holds no state dict: expected names and tensors")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise StateDictError(f"{source} holds no state dict: {name!r} is {type(value).__name__}, not a tensor")
        if not value.is_floating_point() or value.layout != torch.strided or value.is_meta:
            raise StateDictError(f"{source}: {name} is {value.dtype}, {value.layout} on {value.device}; not a weight")
    return dict(content)


def check_shapes(
    found: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
    *,
    optional: Iterable[str] = (),
    architecture: str,
) -> None:
    """Raise `StateDictError`, naming a few tensors that are misshapen, missing or unexpected, each kind in turn.

    A prefix before every name shows only where what is missing stands beside what is there instead.
    """
    missing = [f"{name} is missing" for name in expected.keys() - found.keys() - set(optional)]
    unexpected = [f"{name} is unexpected" for name in found.keys() - expected.keys()]
    misshapen = [
        f"{name} is {list(found[name])}, expected {list(expected[name])}"
        for name in expected.keys() & found.keys()
        if tuple(found[name]) != tuple(expected[name])
    ]
    in_turn = zip_longest(sorted(misshapen), sorted(missing), sorted(unexpected))
    problems = [problem for each in in_turn for problem in each if problem is not None]
    if not problems:
        return
    more = len(problems) - NAMED_PROBLEMS
    raise StateDictError(
        f"the checkpoint is not of this {architecture} configuration: "
        + "; ".join(problems[:NAMED_PROBLEMS])
        + (f"; and {more} more" if more > 0 else "")
    )


def read_config(path: Path) -> AttrDict:
    """The JSON object in `path`. Raises `FileNotFoundError` or `ConfigError`."""
    if not path.is_file():
        raise FileNotFoundError(f"no {path.name} in {path.parent}: it says what architecture the checkpoint has")
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds {type(content).__name__}, expected an object")
    return AttrDict(content)
