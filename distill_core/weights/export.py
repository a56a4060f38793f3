"""A pin's files in a folder of the person's choice: for machines without a network, mirrors, containers."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from ..errors import OutputExistsError, WeightsError, WeightsIntegrityError
from . import records
from .digest import sha256_of
from .pin import WeightsPin


def export(source: Path, pin: WeightsPin, folder: Path, *, overwrite: bool = False) -> Path:
    """Copy a pin's files from `source`, as `ensure` returned it, into `folder`; returns the folder.

    Files that are there already with the same content are left alone, and half a file never has its name.

    Raises:
        OutputExistsError: another file of this name is there, and `overwrite` is False.
        WeightsIntegrityError: a copy turned out different.
        WeightsError: the folder cannot be written.
    """
    held = records.held_to(pin)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, (_, sha256) in held.files.items():
            expected = sha256 or sha256_of(source / name)
            target = folder / name
            if target.exists():
                if sha256_of(target) == expected:
                    continue
                if not overwrite:
                    raise OutputExistsError(f"{target} exists and is another file. Use --force to overwrite it.")
            _copy(source / name, target, expected)
    except OSError as error:
        raise WeightsError(f"{folder} cannot be written: {error.strerror or error}.") from error
    return folder


def _copy(source: Path, target: Path, sha256: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        shutil.copyfile(source, temporary)
        if sha256_of(temporary) != sha256:
            raise WeightsIntegrityError(f"{target} came out different from {source}: is the disk in order?")
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
