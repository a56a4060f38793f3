"""What a rerun takes for done."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from distill_core.corpus import files
from distill_core.corpus.plan import Item, numbered
from distill_core.corpus.record import Journal, Record, prepare
from distill_core.errors import CorpusError

SETTINGS = "hifigan universal fp32"


@pytest.fixture
def item(tmp_path: Path) -> Item:
    (tmp_path / "a.wav").write_bytes(b"sound")
    return Item(str(tmp_path / "a.wav"), str(tmp_path / "out" / "sub" / "a.wav"))


def write(item: Item, content: bytes = b"result", parts: int = 1, settings: str = SETTINGS) -> None:
    """What a runner does with a finished item."""
    folder = str(Path(item.output).parent.parent)
    journal = Journal(folder, settings)
    source = files.identity(item.input)
    assert source is not None
    for part in range(parts):
        target = numbered(item.output, part, parts)
        with files.scratch(folder, target) as path:
            path.write_bytes(content)
            files.commit(path, target, lambda output, part=part: journal.add(item, part, parts, source, output))
    journal.close()


def record(item: Item, settings: str = SETTINGS) -> Record:
    return Record(str(Path(item.output).parent.parent), settings)


def test_what_was_written_is_current_and_nothing_else(item: Item) -> None:
    assert not record(item).is_current(item)
    write(item)
    assert record(item).is_current(item)
    assert not record(item, "other settings").is_current(item)
    assert record(item, "other settings").is_ours(item.output)
    assert not record(item).is_current(Item(item.input, item.output, mel="distill-vae"))
    assert not any(Path(item.output).parent.parent.glob(".distill/part/*"))


@pytest.mark.parametrize(
    ("change", "current", "ours"),
    [
        (lambda item: Path(item.input).write_bytes(b"other sound"), False, True),
        (lambda item: os.utime(item.input, ns=(1, 1)), False, True),
        (lambda item: Path(item.input).unlink(), False, True),
        (lambda item: Path(item.output).unlink(), False, True),
        (lambda item: Path(item.output).write_bytes(b"edited"), False, False),
        (lambda item: os.utime(item.output, ns=(1, 1)), False, False),
    ],
    ids=["input other", "input touched", "input gone", "output gone", "output edited", "output touched"],
)
def test_a_change_is_seen(item: Item, change: Callable[[Item], object], current: bool, ours: bool) -> None:
    write(item)
    change(item)
    assert record(item).is_current(item) is current
    assert record(item).is_ours(item.output) is ours


def test_killed_between_the_record_and_the_rename_it_is_not_done(item: Item, monkeypatch) -> None:
    write(item, settings="before")
    size = Path(item.output).stat().st_size

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write(item, content=b"x" * size)
    assert not record(item).is_current(item)
    assert record(item).is_ours(item.output)
    assert Path(item.output).read_bytes() == b"result"


def test_a_folder_below_may_be_on_another_file_system(item: Item, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace

    def across(source: Path, target: str | Path) -> None:
        if os.path.dirname(source) != os.path.dirname(target):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        replace(source, target)

    monkeypatch.setattr(os, "replace", across)
    write(item)
    assert Path(item.output).read_bytes() == b"result"
    assert record(item).is_current(item) and record(item).is_ours(item.output)
    left = [path for path in Path(item.output).parent.parent.rglob("*") if path.name.endswith(".part")]
    assert not left


def test_an_item_of_several_mels_is_done_when_all_are(item: Item) -> None:
    write(item, parts=3)
    assert record(item).is_current(item)
    Path(numbered(item.output, 1, 3)).unlink()
    assert not record(item).is_current(item)


@pytest.mark.parametrize("before", [(3,), (1, 3), (3, 2)])
@pytest.mark.parametrize("now", [1, 2, 4])
def test_a_file_that_holds_fewer_mels_than_it_did_is_done_once(item: Item, before: tuple[int, ...], now: int) -> None:
    for parts in before:
        write(item, parts=parts)
    Path(item.input).write_bytes(b"fewer mels")
    assert not record(item).is_current(item)
    write(item, parts=now)
    assert record(item).is_current(item)
    Path(numbered(item.output, now - 1, now)).unlink()
    assert not record(item).is_current(item)


def test_a_torn_journal_costs_its_last_line_only(item: Item, tmp_path: Path) -> None:
    other = Item(item.input, item.output.replace("a.wav", "b.wav"))
    write(item)
    write(other)
    known = record(item)
    journals = sorted((tmp_path / "out/.distill/done").iterdir())
    assert len(journals) == 2
    for journal in journals:
        if b"b.wav" in journal.read_bytes():
            journal.write_bytes(journal.read_bytes()[:-9])
        else:
            journal.write_bytes(b"\xff\x00 no json\n[]\n{}\n" + journal.read_bytes())
    assert known.is_current(item) and known.is_current(other)
    assert record(item).is_current(item)
    assert not record(item).is_current(other)


def test_after_a_line_for_whose_end_there_was_no_room_the_next_is_read(item: Item, monkeypatch) -> None:
    folder, source = str(Path(item.output).parent.parent), files.identity(item.input)
    journal = Journal(folder, SETTINGS)
    whole = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda file, line: whole(file, line[:-9]))
        with pytest.raises(OSError, match="No space left"):
            journal.add(item, 0, 1, source, source)
    with files.scratch(folder, item.output) as path:
        path.write_bytes(b"result")
        files.commit(path, item.output, lambda output: journal.add(item, 0, 1, source, output))
    journal.close()
    assert record(item).is_current(item)


def test_a_record_learns_what_others_add(item: Item) -> None:
    known = record(item)
    write(item)
    assert not known.is_current(item)
    known.refresh()
    assert known.is_current(item)


def test_journals_that_cannot_be_listed_are_an_error_that_names_their_folder(item: Item, tmp_path: Path) -> None:
    write(item)
    done = tmp_path / "out/.distill/done"
    done.rename(tmp_path / "elsewhere")
    done.symlink_to(done)
    with pytest.raises(CorpusError, match=r"done: cannot be read \(Too many levels of symbolic links\)"):
        record(item)


def test_leftovers_of_the_dead_are_swept_and_those_of_the_living_stay(tmp_path: Path) -> None:
    folder = str(tmp_path / "out")
    with files.scratch(folder, folder) as mine:
        mine.write_bytes(b"x")
        process = os.fork()
        if process == 0:
            os._exit(0)
        os.waitpid(process, 0)
        dead = mine.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{process}-"))
        dead.write_bytes(b"x")
        prepare(folder)
        assert mine.exists() and not dead.exists()
    assert not mine.exists()


@pytest.mark.parametrize("process", ["\xb2", "9" * 30])
def test_a_leftover_of_what_can_be_no_process_ends_no_run(tmp_path: Path, process: str) -> None:
    folder = str(tmp_path / "out")
    with files.scratch(folder, folder) as mine:
        mine.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{process}-")).write_bytes(b"x")
        prepare(folder)


def test_what_is_no_journal_is_not_waited_for(item: Item) -> None:
    write(item)
    done = Path(item.output).parent.parent / files.FOLDER / "done"
    (done / "a-folder.jsonl").mkdir()
    (done / "nowhere.jsonl").symlink_to("gone")
    if hasattr(os, "mkfifo"):
        os.mkfifo(done / "pipe.jsonl")
    assert record(item).is_current(item)


def test_a_journal_that_may_not_be_read_is_an_error_that_names_it(item: Item, monkeypatch) -> None:
    """Of another user, with another umask."""
    write(item)

    def closed(path: Path, mode: str) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "open", closed)
    with pytest.raises(CorpusError, match=r"\.jsonl: cannot be read \(Permission denied\)"):
        record(item)


@pytest.mark.skipif(not os.path.exists("/proc/self/ns/pid"), reason="no namespaces of process ids")
def test_what_another_container_is_writing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its host name may be the same (--network host), and no process here has the ids of those there."""
    folder, readlink = str(tmp_path / "out"), os.readlink
    process = os.fork()
    if process == 0:
        os._exit(0)
    os.waitpid(process, 0)
    with monkeypatch.context() as there:
        there.setattr(os, "readlink", lambda path: "pid:[7]" if str(path).startswith("/proc/self") else readlink(path))
        there.setattr(os, "getpid", lambda: process)
        with files.scratch(folder, folder) as theirs:
            theirs.write_bytes(b"x")
            there.undo()
            prepare(folder)
            assert theirs.exists()


def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CorpusError, match="cannot be written to"):
        prepare(str(tmp_path / "file"))
    if Path("/proc/self").exists():
        with pytest.raises(CorpusError, match="cannot be written to"):
            prepare("/proc/self/no folder can be made here")
