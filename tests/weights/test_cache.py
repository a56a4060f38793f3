"""The cache is huggingface_hub's own: shared with its other users, verified once, held to what came first."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
from pathlib import Path

import pytest

from distill_core.errors import (
    OutputExistsError,
    WeightsError,
    WeightsIntegrityError,
    WeightsNotFoundError,
    WeightsOfflineError,
)
from distill_core.weights import WeightsPin, cached, digest, ensure, load_checkpoint, records, status, verify
from distill_core.weights.export import export
from tests import checkpoints
from tests.hub_server import HubServer, sha256

from .conftest import CONFIG, CONTENT, NAME, REPO

OTHER = CONTENT[::-1]


def fetch(pin: WeightsPin) -> Path:
    return ensure(pin, progress=False)


def test_other_tools_find_what_we_fetched(hub: HubServer, cache: Path, pin: WeightsPin) -> None:
    from huggingface_hub import hf_hub_download, scan_cache_dir

    folder = fetch(pin)
    hub.close()
    hub_cache = str(cache / "hub")
    found = hf_hub_download(REPO, NAME, revision=pin.revision, cache_dir=hub_cache, local_files_only=True)
    assert Path(found) == folder / NAME
    report = scan_cache_dir(hub_cache)
    assert not report.warnings
    (repo,) = report.repos
    assert repo.repo_id == REPO
    assert repo.size_on_disk == len(CONTENT) + len(CONFIG)


def test_we_find_what_other_tools_fetched(hub: HubServer, cache: Path, pin: WeightsPin, unpinned: WeightsPin) -> None:
    from huggingface_hub import hf_hub_download

    for name in (NAME, "config.json"):
        hf_hub_download(REPO, name, revision="main", cache_dir=str(cache / "hub"))
    hub.close()
    assert cached(pin) == fetch(pin)
    assert fetch(unpinned) == cached(pin)


def test_what_another_tool_left_unlinked_is_not_fetched_again(hub: HubServer, cache: Path, pin: WeightsPin) -> None:
    (fetch(pin) / NAME).unlink()
    hub.forget()
    assert (fetch(pin) / NAME).read_bytes() == CONTENT
    assert hub.sent() == 0


def test_without_links(hub: HubServer, cache: Path, pin: WeightsPin, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a Windows machine that allows none."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "symlink", refuse)
    monkeypatch.setattr(Path, "symlink_to", refuse)
    folder = fetch(pin)
    assert not (folder / NAME).is_symlink()
    assert (folder / NAME).read_bytes() == CONTENT
    hub.close()
    assert fetch(pin) == folder


def test_a_file_is_hashed_once_and_again_when_it_changes(
    hub: HubServer, cache: Path, pin: WeightsPin, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, digest.log.name)
    folder = fetch(pin)
    assert cached(pin) == fetch(pin) == folder
    assert caplog.messages == []  # what came in was hashed as it came, and remembered
    (folder / NAME).touch()
    assert cached(pin) == cached(pin) == folder
    assert caplog.messages == [f"hashing {folder / NAME}"]
    blob = (folder / NAME).resolve()
    before = blob.stat()
    blob.write_bytes(CONTENT[:-1] + b"!")
    os.utime(blob, ns=(before.st_atime_ns, before.st_mtime_ns))  # even if its time of change is set back
    assert cached(pin) is None


def test_notes_that_cannot_be_read_or_written_cost_a_hash_and_no_more(
    hub: HubServer, cache: Path, pin: WeightsPin, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fetch(pin)
    for note in (cache / "assets").rglob("hashes/*.json"):
        note.write_text("{half")
    assert cached(pin) == folder
    from huggingface_hub import constants

    (cache / "file").write_text("")
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(cache / "file"))
    assert cached(pin) == folder


def test_verify_hashes_whatever_is_remembered(hub: HubServer, cache: Path, pin: WeightsPin) -> None:
    assert verify(pin) == []
    folder = fetch(pin)
    assert [check.problem for check in verify(pin)] == [None, None]
    blob = (folder / NAME).resolve()
    blob.write_bytes(OTHER)
    digest.remember(folder / NAME, sha256(CONTENT))  # a disk that changes bytes leaves no other trace
    assert cached(pin) == folder
    bad = {check.name: check.problem for check in verify(pin)}
    assert bad["config.json"] is None
    assert "expected" in bad[NAME]
    assert cached(pin) is None


def test_what_came_first_is_recorded_and_held_to(
    hub: HubServer, cache: Path, pin: WeightsPin, unpinned: WeightsPin
) -> None:
    assert status(unpinned).trust == "unrecorded"
    folder = fetch(unpinned)
    first = status(unpinned)
    assert (first.trust, first.revision, first.size) == ("recorded", pin.revision, len(CONTENT) + len(CONFIG))
    assert json.loads(first.record.read_text())["commits"][pin.revision][NAME]["sha256"] == sha256(CONTENT)

    hub.add(REPO, {"config.json": CONFIG, NAME: OTHER})  # main moves on
    assert fetch(unpinned) == folder
    for path in sorted((cache / "hub").rglob("*"), reverse=True):  # as `hf cache rm` would
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    assert cached(unpinned) is None
    assert (fetch(unpinned) / NAME).read_bytes() == CONTENT

    hub.repos[REPO][pin.revision][NAME] = OTHER  # the recorded commit itself is tampered with
    (folder / NAME).resolve().unlink()
    with pytest.raises(WeightsIntegrityError, match="pinned is"):
        fetch(unpinned)
    del hub.repos[REPO][pin.revision]
    with pytest.raises(WeightsNotFoundError, match="no revision"):
        fetch(unpinned)
    first.record.unlink()  # a person says that what is there now may be taken
    assert (fetch(unpinned) / NAME).read_bytes() == OTHER


def test_what_came_for_one_variant_is_held_to_when_another_comes_from_the_same_branch(
    hub: HubServer, cache: Path
) -> None:
    small, large = (WeightsPin("me/voice", "main", {name: (None, None)}) for name in ("small.pt", "large.pt"))
    commit = hub.add("me/voice", {"small.pt": CONFIG, "large.pt": CONTENT})
    folder = fetch(small)
    assert fetch(large) == folder
    assert [status(pin).trust for pin in (small, large)] == ["recorded", "recorded"]
    hub.repos["me/voice"][commit]["small.pt"] = CONFIG[::-1]  # the commit is tampered with
    (folder / "small.pt").resolve().unlink()
    with pytest.raises(WeightsIntegrityError, match="pinned is"):
        fetch(small)


def test_a_variant_that_is_published_later_comes_from_what_the_branch_is_then(hub: HubServer, cache: Path) -> None:
    small, large = (WeightsPin("me/voice", "main", {"c.json": (None, None), name: (None, None)}) for name in "sl")
    first = hub.add("me/voice", {"c.json": CONFIG, "s": CONTENT})
    fetch(small)
    later = hub.add("me/voice", {"c.json": CONFIG, "s": OTHER, "l": CONTENT})
    assert (fetch(large).name, fetch(small).name) == (later, first)
    assert [status(pin).revision for pin in (small, large)] == [first, later]
    assert (fetch(small) / "s").read_bytes() == CONTENT


def test_both_files_come_from_one_commit(hub: HubServer, cache: Path, pin: WeightsPin, unpinned: WeightsPin) -> None:
    """`main` may move between the first request and the second."""
    real = hub.dispatch

    def move_after_first(http, path):
        real(http, path)
        hub.branches[REPO]["main"] = "f" * 40

    hub.dispatch = move_after_first  # type: ignore[method-assign]
    hub.repos[REPO]["f" * 40] = {"config.json": b"{}", NAME: OTHER}
    folder = fetch(unpinned)
    assert folder.name == pin.revision
    assert (folder / NAME).read_bytes() == CONTENT


def test_a_branch_whose_note_is_damaged_is_looked_up_again(
    hub: HubServer, cache: Path, pin: WeightsPin, unpinned: WeightsPin
) -> None:
    folder = fetch(unpinned)
    records.path_of(unpinned).unlink()
    for content in (b"", b"\0" * 40, b"\xff\xfe main"):
        (folder.parents[1] / "refs" / "main").write_bytes(content)
        assert cached(unpinned) is None
    assert fetch(unpinned) == folder


def test_a_record_that_cannot_be_read_is_said(
    hub: HubServer, cache: Path, pin: WeightsPin, unpinned: WeightsPin
) -> None:
    fetch(unpinned)
    commit = {pin.revision: {NAME: {"bytes": 1}}}
    for content in ("", "[]", "{}", '{"commits": {"main": {}}}', json.dumps({"commits": commit})):
        records.path_of(unpinned).write_text(content)
        with pytest.raises(WeightsIntegrityError, match="Delete it"):
            cached(unpinned)


def test_offline_is_one_error_that_says_how(
    hub: HubServer, cache: Path, pin: WeightsPin, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsOfflineError) as caught:
        fetch(pin)
    for part in (
        REPO,
        "HF_HUB_OFFLINE",
        f"hf download {REPO} config.json {NAME} --revision {pin.revision}",
        "weights=",
    ):
        assert part in str(caught.value)
    assert hub.requests == []


def test_interrupted_downloads_show_in_the_status(hub: HubServer, cache: Path, pin: WeightsPin) -> None:
    from tests.hub_server import Fault

    hub.faults.append(Fault(NAME, cut=0.5))
    with pytest.raises(Exception, match="broke off"):
        fetch(pin)
    now = status(pin)
    assert (now.cached, now.arrived, now.size) == (False, len(CONTENT) // 2, len(CONTENT) + len(CONFIG))


def test_a_download_that_another_process_completes_meanwhile_is_no_error_of_the_status(
    cache: Path, pin: WeightsPin
) -> None:
    blobs = cache / "hub" / f"models--{REPO.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "a.incomplete").write_bytes(b"abc")
    (blobs / "b.incomplete").symlink_to("gone")  # listed, and not there when it is looked at
    assert status(pin).arrived == 3


@pytest.mark.parametrize(
    "fields",
    [
        {"repo": "../x"},
        {"repo": "a/b/c"},
        {"revision": ""},
        {"revision": "../main"},
        {"files": {}},
        {"files": {"../x": (None, None)}},
        {"files": {"/etc/passwd": (None, None)}},
        {"files": {"x": (-1, None)}},
        {"files": {"x": (1, "abc")}},
    ],
)
def test_pins_that_cannot_be(fields: dict) -> None:
    with pytest.raises(ValueError, match="WeightsPin"):
        WeightsPin(**{"repo": "a/b", "revision": "main", "files": {"x": (None, None)}, **fields})


def test_pins_are_values() -> None:
    files = {"x": (3, "0" * 64), "y": (4, "1" * 64)}
    pin = WeightsPin("a/b", "0" * 40, files)
    files["x"] = (5, "0" * 64)
    assert pin.files["x"] == (3, "0" * 64)
    assert pin == WeightsPin("a/b", "0" * 40, dict(reversed(list(pin.files.items()))))
    assert hash(pin) == hash(pickle.loads(pickle.dumps(pin)))
    assert pin.confirmed
    assert pin.size == 7
    assert not WeightsPin("a/b", "main", pin.files).confirmed
    assert WeightsPin("a/b", "main", {"x": (None, None)}).size is None


def test_a_copy_has_its_name_once_it_is_known_to_be_one(
    hub: HubServer, cache: Path, pin: WeightsPin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, folder = fetch(pin), tmp_path / "copy"
    with monkeypatch.context() as broken:
        broken.setattr(shutil, "copyfile", lambda _, target: Path(target).write_bytes(OTHER))
        with pytest.raises(WeightsIntegrityError, match="came out different"):
            export(source, pin, folder)
    assert not [path for path in folder.rglob("*") if path.is_file()]
    assert export(source, pin, folder) == folder
    assert all((folder / name).read_bytes() == (source / name).read_bytes() for name in pin.files)
    (folder / NAME).write_bytes(OTHER)
    with pytest.raises(OutputExistsError, match="another file"):
        export(source, pin, folder)
    assert (folder / NAME).read_bytes() == OTHER
    export(source, pin, folder, overwrite=True)
    assert (folder / NAME).read_bytes() == CONTENT


def test_each_commit_is_held_to_its_own_files_and_a_pin_to_what_it_says_itself(cache: Path, tmp_path: Path) -> None:
    """As two processes record a branch that moves between their downloads."""
    (tmp_path / "x").write_bytes(b"first")
    small = WeightsPin(REPO, "main", {"x": (None, None)})
    records.record(small, "a" * 40, tmp_path)
    (tmp_path / "x").write_bytes(b"another")
    (tmp_path / "y").write_bytes(b"more")
    large = WeightsPin(REPO, "main", {"x": (None, None), "y": (None, None)})
    records.record(large, "b" * 40, tmp_path)
    assert records.held_to(small) == WeightsPin(REPO, "a" * 40, {"x": (5, sha256(b"first"))})
    held = WeightsPin(REPO, "b" * 40, {"x": (7, sha256(b"another")), "y": (4, sha256(b"more"))})
    assert records.held_to(large) == held
    said = WeightsPin(REPO, "main", {"x": (None, sha256(b"said")), "y": (9, None)})
    assert records.held_to(said).files == {"x": (7, sha256(b"said")), "y": (9, sha256(b"more"))}


@pytest.mark.skipif(os.name == "nt", reason="Windows names a user's home otherwise")
def test_a_user_without_a_home_needs_one_for_downloads_alone(
    hub: HubServer, cache: Path, pin: WeightsPin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pwd

    from huggingface_hub import constants

    def no_entry(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "~/.cache/huggingface/hub")
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", "~/.cache/huggingface/assets")
    monkeypatch.chdir(tmp_path)
    own = checkpoints.write(tmp_path / "own", checkpoints.bigvgan_files())
    assert load_checkpoint(own).path == own / "bigvgan_generator.pt"
    with pytest.raises(WeightsNotFoundError, match="There is no ~/own"):
        load_checkpoint("~/own")
    assert cached(pin) is None
    with pytest.raises(WeightsError, match="no home folder.*HF_HOME"):
        ensure(pin)
    assert not Path("~").exists() and not hub.requests
