"""What came for a pin that is not confirmed: written down once, and held to from then on.

A record is a JSON file in the notes' folder. Deleting it is how a person says that whatever the Hub
holds now may be taken.
"""

from __future__ import annotations

import logging
from pathlib import Path

from ..errors import WeightsIntegrityError
from .digest import remembered_sha256, state_folder, write_json
from .pin import WeightsPin

log = logging.getLogger(__name__)


def path_of(pin: WeightsPin) -> Path:
    """Where the record of a pin is, or would be."""
    return state_folder() / "records" / pin.repo.replace("/", "--") / f"{pin.revision.replace('/', '--')}.json"


def held_to(pin: WeightsPin) -> WeightsPin:
    """The pin as it is held to: itself if confirmed, else with what was recorded filled in.

    A branch is held to the commit that all of the pin's files came from. While one of them has not come yet, as
    that of a variant which was published later, it stays the branch, and those that came have to be what they were.

    Raises:
        WeightsIntegrityError: there is a record and it cannot be read.
    """
    if pin.confirmed:
        return pin
    commits = _read(pin)
    commit = next((commit for commit, files in commits.items() if files.keys() >= pin.files.keys()), None)
    recorded = {name: known for files in commits.values() for name, known in files.items()}
    if commit is not None:
        recorded.update(commits[commit])
    files = {name: _fill(known, recorded.get(name)) for name, known in pin.files.items()}
    return WeightsPin(pin.repo, commit or pin.revision, files)


def is_recorded(pin: WeightsPin) -> bool:
    """True if every file of an unconfirmed pin has a size and sha256 on record."""
    return not pin.confirmed and held_to(pin).confirmed


def record(pin: WeightsPin, commit: str, folder: Path) -> None:
    """Write down what an unconfirmed pin came to: `commit`, and the files in `folder`.

    What came for other files of the same branch, such as those of other variants, stays on record.
    """
    commits = _read(pin)
    for name in pin.files:
        commits.setdefault(commit, {})[name] = ((folder / name).stat().st_size, remembered_sha256(folder / name))
    content = {
        "repo": pin.repo,
        "asked_for": pin.revision,
        "commits": {
            commit: {name: {"bytes": size, "sha256": sha256} for name, (size, sha256) in files.items()}
            for commit, files in commits.items()
        },
    }
    try:
        write_json(path_of(pin), content)
    except OSError as error:
        log.warning("Cannot record what came for %s, so that it will not be held to: %s", pin.repo, error)
        return
    log.info("recorded %s at %s: later downloads are held to it (%s)", pin.repo, commit, path_of(pin))


def _read(pin: WeightsPin) -> dict[str, dict[str, tuple[int, str]]]:
    """What is on record: commit -> name -> (bytes, sha256)."""
    import json

    path = path_of(pin)
    try:
        content = json.loads(path.read_bytes())
        commits = {
            commit: {name: (about["bytes"], about["sha256"]) for name, about in files.items()}
            for commit, files in content["commits"].items()
        }
        if not all(WeightsPin(pin.repo, commit, files).confirmed for commit, files in commits.items()):
            raise ValueError("a commit, size or sha256 is missing")
        return commits
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsIntegrityError(
            f"{path} should say which weights of {pin.repo} are held to, and cannot be read ({error}). "
            "Delete it to have the next download recorded anew."
        ) from error


def _fill(
    known: tuple[int | None, str | None], recorded: tuple[int | None, str | None] | None
) -> tuple[int | None, str | None]:
    size, sha256 = recorded or (None, None)
    return known[0] if known[0] is not None else size, known[1] if known[1] is not None else sha256
