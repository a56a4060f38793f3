"""Pinned files: from the cache without a socket, else from the Hub, whole and verified."""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from typing import Any

from ..errors import WeightsError, WeightsOfflineError
from ..progress import raised_by_a_bar
from . import cache, records
from .digest import remembered_sha256
from .locks import alone
from .pin import WeightsPin

log = logging.getLogger(__name__)


def cached(pin: WeightsPin) -> Path | None:
    """The folder that holds all of a pin's files, verified, or None. Opens no socket, changes no weights.

    A file is hashed the first time and whenever it has changed since; see `digest`.

    Raises:
        WeightsIntegrityError: the record of an unconfirmed pin cannot be read.
    """
    held = records.held_to(pin)
    folder = cache.snapshot(held)
    if folder is None:
        return None
    for name in held.files:
        problem = wrong_with(held, name, folder / name)
        if problem is not None:
            log.log(logging.WARNING if (folder / name).exists() else logging.DEBUG, "%s %s", folder / name, problem)
            return None
    return folder


def ensure(pin: WeightsPin, *, progress: bool = True, tqdm_class: Any = None) -> Path:
    """The folder that holds all of a pin's files, downloading what is missing or damaged.

    Once they are in the cache, no socket is opened. Interrupted downloads are continued; of several
    processes asking at once, one downloads and the others wait for it.

    Args:
        pin: which files.
        progress: show a bar on stderr while downloading.
        tqdm_class: a class with tqdm's interface to show the progress with instead, another process's download
            included. What it raises ends the download, or the waiting, and comes out of here; what has arrived is kept.

    Raises:
        WeightsOfflineError: not in the cache, and the network may not be used or cannot be reached.
        WeightsNotFoundError: no such repository, revision or file.
        WeightsIntegrityError: what came is not what the pin says; it was thrown away.
        WeightsDownloadError: the server or the line failed; what has arrived is kept.
        WeightsError: the files cannot be stored.
    """
    folder = cached(pin)
    if folder is None:
        from huggingface_hub import constants

        if constants.HF_HUB_OFFLINE:
            raise offline(pin, "HF_HUB_OFFLINE forbids the network")
        if str(cache.hub_cache()).startswith("~"):  # else it would be a folder of that name, wherever the program runs
            raise WeightsError(
                f"There is no home folder to store {pin.repo} in: neither HOME nor the user's own entry names one. "
                "Point HF_HOME at a folder that can be written."
            )
        from .download import download, others_bar

        try:
            with alone(
                cache.lock_file(pin.repo),
                f"Another process is downloading {pin.repo}",
                lambda: others_bar(pin, progress, tqdm_class),
            ):
                folder = cached(pin) or download(records.held_to(pin), progress, tqdm_class)
                _record(pin, folder)  # before the next one asks which commit its own files are to come from
        except (WeightsOfflineError, OSError) as error:
            if raised_by_a_bar(error):
                raise
            raise (_cannot_store(pin, error) if isinstance(error, OSError) else offline(pin, str(error))) from error
        log.info("%s is in %s", pin.repo, folder)
    _record(pin, folder)
    return folder


def _record(pin: WeightsPin, folder: Path) -> None:
    if not pin.confirmed and not records.is_recorded(pin):
        records.record(pin, folder.name, folder)


def wrong_with(pin: WeightsPin, name: str, path: Path) -> str | None:
    """What a file has against the pin, or None: missing, of another size, of another sha256 (remembered)."""
    size, sha256 = pin.files[name]
    try:
        if not path.is_file():
            return "is missing"
        found = path.stat().st_size
        if size is not None and found != size:
            return f"has {found} bytes, expected {size}"
        if sha256 is not None and (digest := remembered_sha256(path)) != sha256:
            return f"has sha256 {digest}, expected {sha256}"
    except OSError as error:
        return f"cannot be read: {error}"
    return None


def offline(pin: WeightsPin, reason: str) -> WeightsOfflineError:
    """The weights are not here and cannot be fetched: why, and how to get them here."""
    return WeightsOfflineError(
        f"The weights of {pin.repo} are not in the cache, and {reason.rstrip('.')}. To bring them here: where there "
        f"is a network, run `hf download {pin.repo} {' '.join(pin.files)} --revision {pin.revision} --local-dir DIR` "
        "(or `distill-vocoder weights fetch NAME --to DIR`), copy DIR, and pass weights=DIR "
        "(in the terminal --weights DIR, for compare NAME=DIR)."
    )


def _cannot_store(pin: WeightsPin, error: OSError) -> WeightsError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return WeightsError(f"The disk is full: {pin.repo} does not fit into {cache.hub_cache()}. Make room.")
    return WeightsError(
        f"The weights of {pin.repo} cannot be stored in {cache.hub_cache()}: {error}. "
        "Point HF_HOME at a folder that can be written."
    )
