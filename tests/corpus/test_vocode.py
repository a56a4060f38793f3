"""`distill-vocoder vocode` over a corpus, with real processes, and what befalls them."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from distill_core.cli import main
from distill_core.corpus import local, resources
from distill_core.corpus.batches import Batch
from distill_core.corpus.job import Outcome, VocodeJob
from distill_core.corpus.local import LocalEngine
from distill_core.corpus.plan import Item, Plan
from distill_core.corpus.record import Record
from tests.corpus import hostile
from tests.corpus.conftest import outputs, tone

soundfile = pytest.importorskip("soundfile")

pytestmark = pytest.mark.xdist_group("heavy")

Command = Callable[..., "subprocess.Popen[str]"]


def run(*argv: object) -> int:
    return main(["vocode", *map(str, argv)])


def result(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    return json.loads(capsys.readouterr().out)


def test_a_corpus_is_the_same_with_one_worker_and_with_two_and_a_rerun_does_only_what_changed(
    installed: None, corpus: Path, tmp_path: Path, capsys
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    toy = ("--vocoder", "toy-installed", "--json", "--keep-endings")
    assert run(corpus, "-o", one, "--workers", 1, *toy) == 0
    first = result(capsys)
    assert (first["files"], first["done"], first["failed"], first["left"]) == (14, 14, 0, 0)
    assert first["report"]["engine"] == "eager"
    assert run(corpus, "-o", two, "--workers", 2, *toy) == 0
    capsys.readouterr()
    assert outputs(one) == outputs(two)
    assert len(outputs(one)) == 16
    assert {str(path.relative_to(one).parent) for path in one.rglob("*.wav")} == {".", "deep/er"}

    began = {path: path.stat().st_mtime_ns for path in one.rglob("*.wav")}
    tone(corpus / "00.wav", samples=900)
    next((one / "deep" / "er").iterdir()).unlink()
    (one / "three mels.npy.1.wav").unlink()
    assert run(corpus, "-o", one, "--workers", 1, *toy) == 0
    again = result(capsys)
    assert (again["done"], again["current"]) == (3, 11)
    changed = {path.name for path in one.rglob("*.wav") if began[path] != path.stat().st_mtime_ns}
    assert "00.wav.wav" in changed and len(changed) == 5
    assert soundfile.info(one / "00.wav.wav").frames == 900

    assert run(corpus, "-o", one, "--workers", 1, *toy) == 0
    idle = result(capsys)
    assert (idle["done"], idle["current"], idle["vocoder"]) == (0, 14, None)


def test_what_a_person_put_there_is_not_overwritten(installed: None, corpus: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "00.wav").write_bytes(b"precious")
    (out / "three mels.0.wav").write_bytes(b"precious too")
    assert run(corpus, "-o", out, "--vocoder", "toy-installed", "--workers", 1) == 1
    captured = capsys.readouterr()
    assert (out / "00.wav").read_bytes() == b"precious"
    assert (out / "three mels.0.wav").read_bytes() == b"precious too"
    assert captured.err.count("--force") == 2
    assert "14 files: 12 done, 2 failed" in captured.out
    assert run(corpus, "-o", out, "--vocoder", "toy-installed", "--workers", 1, "--force", "--json") == 0
    assert result(capsys)["done"] == 14
    assert (out / "00.wav").read_bytes()[:4] == b"RIFF"


def test_an_edited_one_of_several_mels_results_is_not_overwritten(installed, corpus, tmp_path: Path, capsys) -> None:
    out, mels = tmp_path / "out", corpus / "three mels.npy"
    argv = (mels, "-o", out, "--vocoder", "toy-installed", "--workers", 1)
    assert run(*argv) == 0
    (out / "three mels.1.wav").write_bytes(b"edited")
    assert run(*argv) == 1
    assert "three mels.1.wav: exists already, and is not as this command left it" in capsys.readouterr().err
    assert (out / "three mels.1.wav").read_bytes() == b"edited"
    (out / "three mels.1.wav").unlink()
    assert run(*argv) == 0 and soundfile.info(out / "three mels.1.wav").frames


def test_files_of_others_make_the_record_be_read_again_once_and_not_for_each(
    installed: None, corpus: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    argv = (corpus, "-o", out, "--vocoder", "toy-installed", "--workers", 1, "--keep-endings", "--json")
    assert run(*argv) == 0
    shutil.rmtree(out / ".distill")
    capsys.readouterr()
    reads = []
    refresh = Record.refresh
    monkeypatch.setattr(Record, "refresh", lambda record: reads.append(record) or refresh(record))
    assert run(*argv) == 1
    assert result(capsys)["failed"] == 14
    assert len(reads) == 2  # at the beginning, and to see whether another run wrote them
    assert run(*argv, "--fail-fast") == 1
    printed = result(capsys)
    assert (printed["failed"], printed["left"]) == (1, 13)


def test_hostile_files_are_listed_and_the_others_unaffected(installed, corpus: Path, tmp_path: Path, capsys) -> None:
    assert run(corpus, "-o", tmp_path / "clean", "--vocoder", "toy-installed", "--keep-endings", "--quiet") == 0
    odd = os.fsdecode(b"odd \xff\n.wav")
    said = {**hostile.write_all(corpus), odd: "", "n" * 247 + ".wav": ""}
    shutil.copy(corpus / "00.wav", corpus / odd)
    shutil.copy(corpus / "00.wav", corpus / ("n" * 247 + ".wav"))
    out = tmp_path / "out"
    assert run(corpus, "-o", out, "--vocoder", "toy-installed", "--keep-endings", "--json", "--workers", 2) == 1
    printed = result(capsys)
    bad = {name for name, words in said.items() if words}
    assert {Path(each["input"]).name for each in printed["errors"]} == bad
    for each in printed["errors"]:
        assert said[Path(each["input"]).name] in each["error"]
    assert printed["failed"] == len(bad) and printed["done"] == 14 + len(said) - len(bad)
    made = outputs(out)
    assert soundfile.info(out / "eight channels.wav.wav").channels == 8
    assert soundfile.info(out / "192 kHz.wav.wav").frames == 8000 // 24
    assert {name: made[name] for name in outputs(tmp_path / "clean")} == outputs(tmp_path / "clean")


def test_fail_fast_begins_nothing_more_and_says_what_is_left(installed: None, tmp_path: Path, capsys) -> None:
    for i in range(40):
        tone(tmp_path / "in" / f"{i:02}.wav", samples=8000)
    soundfile.write(tmp_path / "in" / "long and bad.wav", np.full(9000, np.nan), 8000, subtype="FLOAT")
    argv = (tmp_path / "in", "-o", tmp_path / "out", "--vocoder", "toy-slow", "--workers", 1)
    assert run(*argv, "--fail-fast") == 1
    captured = capsys.readouterr()
    assert "stopped (--fail-fast)" in captured.err and "the same command goes on" in captured.err
    done = len(outputs(tmp_path / "out"))
    assert done < 40 and f"{done} done, 1 failed, {40 - done} left" in captured.out
    assert run(*argv) == 1
    assert len(outputs(tmp_path / "out")) == 40


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["{in}", "-o", "{tmp}/out", "--vocoder", "no-such"], "no vocoder 'no-such'"),
        (["{in}", "-o", "{tmp}/out", "--device", "cuda:77"], "cuda:77"),
        (["{in}", "-o", "{tmp}/out", "--subtype", "GSM_9000"], "GSM_9000"),
        (["{in}", "-o", "{tmp}/out.wav"], "need a folder"),
        (["{in}", "-o", "-"], "-: what is vocoded is not written to stdout; name a folder"),
        (["{in}", "-o", "{in}"], "is an input as well"),
        (["{tmp}/nothing/*.wav", "-o", "{tmp}/out"], "no file matches"),
        (["{tmp}/list.jsonl", "-o", "{tmp}/out"], "line 2"),
        (["{in}", "-o", "{in}/00.wav/x"], "cannot be written to"),
    ],
)
def test_what_cannot_begin_is_one_line(argv, words, installed: None, corpus: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "list.jsonl").write_text('{"input": "in/00.wav"}\n{"input": 5}\n')
    filled = [each.replace("{in}", str(corpus)).replace("{tmp}", str(tmp_path)) for each in argv]
    assert run("--vocoder", "toy-installed", "--workers", 1, *filled) == 1
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error
    assert len([line for line in error.splitlines() if line.startswith("error: ")]) == 1
    assert "no-such" not in words or not (tmp_path / "out").exists()


def test_explicit_files_and_folders_mix(installed: None, corpus: Path, tmp_path: Path, capsys) -> None:
    single = tone(tmp_path / "single.aiff")
    argv = (single, corpus / "deep", f"{corpus}/*.npy", "-o", tmp_path / "out", "--vocoder", "toy-installed")
    assert run(*argv, "--format", "flac", "--json") == 0
    assert result(capsys)["done"] == 1 + 8 + 2
    assert {"single.flac", "one mel.flac", "three mels.2.flac"} <= set(outputs(tmp_path / "out"))
    assert any(name.startswith("er/") for name in outputs(tmp_path / "out"))


def test_nothing_waits_behind_a_long_file(corpus: Path, tmp_path: Path) -> None:
    long = Batch((Item("long.wav", "out/long.wav"),), (7200.0,))
    short = [Batch((Item(f"{i}.wav", f"out/{i}.wav"),), (5.0,)) for i in range(5)]
    engine = LocalEngine(VocodeJob(), 2)
    given: dict[str, list[Batch]] = {"one": [], "two": []}

    class Worker(local._Worker):
        def __init__(self, name: str) -> None:
            self.name, self.tasks, self.ready = name, deque(), True

        def give(self, task: local._Task) -> None:
            self.tasks.append(task)
            given[self.name].append(task.batch)

    engine._workers = [Worker("one"), Worker("two")]
    source = iter([long, *short])
    engine._hand_out(source)
    assert given == {"one": [long], "two": short[:2]}
    engine._workers[1].tasks.clear()
    engine._hand_out(source)
    assert given == {"one": [long], "two": short[:4]}


class Told:
    """A worker that is told what to do, and does nothing."""

    def __init__(self) -> None:
        self.told, self.card = False, 0

    def load(self, job: VocodeJob) -> None:
        self.told, self.device = True, job.device


@pytest.mark.parametrize(("asked", "cards"), [("cuda", ["cuda", "cuda:1", "cuda:2"]), ("cuda:1", ["cuda:1"])])
def test_there_is_a_worker_for_each_card_that_the_job_may_use(asked: str, cards: list[str]) -> None:
    engine = LocalEngine(VocodeJob("toy", device=asked))

    def join() -> Told:
        worker = Told()
        engine._workers.append(worker)
        worker.load(engine._placed(worker))
        return worker

    first = join()
    engine.about = {"device": "cuda", "devices": 3, "parameters": 1}
    joined = [first, *(join() for _ in range(engine._wanted() - 1))]
    assert [worker.device for worker in joined] == cards
    engine._workers.remove(joined[-1])  # it died, and one takes its place
    assert join().device == cards[-1]


@pytest.mark.parametrize(
    ("there", "seen"), [({"/dev/nvidiactl", "/dev/nvidia5"}, True), ({"/dev/kfd"}, True), ({"/dev/null"}, False)]
)
def test_a_card_is_seen_whatever_its_number(there: set[str], seen: bool, monkeypatch) -> None:
    """In a container that was given the sixth, a worker for each core would come up, and wait."""
    monkeypatch.setattr(resources.os.path, "exists", there.__contains__)
    monkeypatch.setattr(resources.sys, "platform", "linux")
    assert resources.accelerator_seen() == seen


def test_no_more_workers_are_begun_than_there_are_batches(installed: None, corpus: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    job = VocodeJob("toy-installed", folder=out)
    items = list(Plan((str(corpus),), out, keep_endings=True))
    for count in (1, 2):
        batches = [Batch((item,), (0.5,)) for item in items[:count]]
        done: list[Outcome] = []
        engine = LocalEngine(job, 9)
        engine.run(batches, done.append, lambda seconds: None)
        assert sorted(each.item.output for each in done) == sorted(item.output for item in items[:count])
        assert engine._started == count


def test_workers_are_heard_through_whatever_kind_of_pipe_the_system_has(
    installed: None, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On Windows it is a sibling of Connection, and not one of its kind.
    sibling = type("PipeConnection", Connection.__bases__, dict(vars(Connection)))

    def pipe(self: object, duplex: bool = True) -> tuple[object, Connection]:
        ours, theirs = multiprocessing.connection.Pipe(duplex)
        with ours:
            return sibling(os.dup(ours.fileno())), theirs

    monkeypatch.setattr(multiprocessing.context.BaseContext, "Pipe", pipe)
    out = str(tmp_path / "out")
    item = next(iter(Plan((str(corpus),), out, keep_endings=True)))
    done: list[Outcome] = []
    LocalEngine(VocodeJob("toy-installed", folder=out), 1).run([Batch((item,), (0.5,))], done.append, lambda _: None)
    assert [each.status for each in done] == ["done"]


def test_workers_take_no_notice_of_an_interrupt_where_they_inherited_nothing(
    installed: None, corpus: Path, tmp_path: Path
) -> None:
    out = str(tmp_path / "out")
    items = list(Plan((str(corpus),), out, keep_endings=True))[:6]
    engine = LocalEngine(VocodeJob("toy-slow", folder=out), 1)
    done: list[Outcome] = []

    def emit(outcome: Outcome) -> None:
        done.append(outcome)
        for worker in engine._workers:
            os.kill(worker.process.pid, signal.SIGINT)

    # In a thread, where the process that starts them cannot ignore it for them either, as on Windows.
    batches = [Batch((item,), (0.5,)) for item in items]
    thread = threading.Thread(target=engine.run, args=(batches, emit, lambda _: None))
    thread.start()
    thread.join()
    assert [each.status for each in done] == ["done"] * 6
    assert engine._started == 1


# Processes that end before their time


def slow_corpus(folder: Path, count: int = 60) -> Path:
    for i in range(count):
        tone(folder / f"{i % 3}" / f"{i:03}.wav", samples=2000 + 20 * i)
    return folder


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Until it holds; a wait that does not end is a failure."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def wait_for_more(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Until so many outputs are there, of a process that still runs."""
    wait_for(lambda: len(states(out)) >= count or process.poll() is not None)
    assert process.poll() is None, process.communicate()


def wait_for_end(processes: list[int]) -> None:
    wait_for(lambda: not any(_command_line(each) for each in processes))


def states(out: Path) -> dict[str, tuple[int, int]]:
    """What tells each output from the same one written once more."""
    abouts = ((str(path), path.stat()) for path in out.rglob("*.wav"))
    return {name: (about.st_ino, about.st_mtime_ns) for name, about in abouts}


def children(pid: int) -> list[int]:
    """Processes of whom this one is the parent, as /proc tells."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


def workers(pid: int) -> list[int]:
    """Those children that compute; multiprocessing has one more, which keeps its books."""
    return [each for each in children(pid) if b"spawn_main" in _command_line(each)]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


@needs_proc
def test_killed_at_any_moment_and_run_again_it_is_complete_and_nothing_is_done_twice(
    command: Command, installed: None, tmp_path: Path
) -> None:
    folder, out = slow_corpus(tmp_path / "in", 90), tmp_path / "out"
    argv = ("vocode", folder, "-o", out, "--vocoder", "toy-slow", "--workers", 2, "--quiet")
    chance = random.Random(0)
    for alone in (False, True):
        there = states(out)
        process = command(*argv)
        wait_for_more(out, len(there) + 3, process)
        time.sleep(chance.uniform(0, 0.2))
        others = children(process.pid)
        if alone:
            process.kill()  # those that it has started must notice
        else:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        wait_for_end(others)
        assert there.items() <= states(out).items()  # none was done twice
        for content in outputs(out).values():  # each that is there is whole
            assert content[:4] == b"RIFF" and int.from_bytes(content[4:8], "little") == len(content) - 8
    there = states(out)
    assert 6 <= len(there) < 90
    last = command(*argv)
    assert last.wait() == 0, last.communicate()
    assert there.items() <= states(out).items()
    assert not list((out / ".distill" / "part").iterdir())
    assert run(folder, "-o", tmp_path / "whole", "--vocoder", "toy-installed", "--quiet", "--workers", 1) == 0
    assert outputs(out) == outputs(tmp_path / "whole")
    assert len(outputs(out)) == 90


@needs_proc
def test_a_worker_that_is_killed_is_replaced_and_its_files_are_done(command: Command, tmp_path: Path) -> None:
    folder, out = slow_corpus(tmp_path / "in"), tmp_path / "out"
    process = command("vocode", folder, "-o", out, "--vocoder", "toy-slow", "--workers", 2, "--json")
    for count in (5, 25):
        wait_for_more(out, count, process)
        os.kill(workers(process.pid)[0], signal.SIGKILL)
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    counts = json.loads(printed)
    assert (counts["done"], counts["failed"], counts["left"]) == (60, 0, 0)
    assert len(outputs(out)) == 60


def test_two_runs_at_once_on_one_folder_do_each_other_no_harm(command: Command, tmp_path: Path) -> None:
    folder, out = slow_corpus(tmp_path / "in"), tmp_path / "out"
    argv = ("vocode", folder, "-o", out, "--vocoder", "toy-slow", "--workers", 1, "--json")
    first = command(*argv)
    wait_for_more(out, 3, first)
    second = command(*argv)  # finds what it knows nothing of when it reads the record
    counts = [json.loads(each.communicate(timeout=120)[0]) for each in (first, second)]
    assert [each["failed"] for each in counts] == [0, 0]
    assert counts[0]["done"] == 60 and counts[1]["current"] >= 3
    assert len(outputs(out)) == 60
    last = command(*argv)
    assert json.loads(last.communicate()[0])["current"] == 60


def test_a_file_that_kills_every_worker_is_found_and_the_others_are_done(installed, tmp_path: Path, capsys) -> None:
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        mel = rng.normal(size=(5, 50)).astype(np.float32) - 4
        mel[2, 7] = 50.0 if i == 2 else mel[2, 7]
        np.save(tmp_path / "in" / f"{i}.npy", mel)
    out = tmp_path / "out"
    assert run(tmp_path / "in", "-o", out, "--vocoder", "toy-deadly", "--workers", 1, "--json") == 1
    printed = result(capsys)
    assert (printed["done"], printed["failed"]) == (3, 1)
    [error] = printed["errors"]
    assert error["input"].endswith("2.npy") and "SIGKILL" in error["error"]
    assert sorted(outputs(out)) == ["0.wav", "1.wav", "3.wav"]


@needs_proc
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_does_not_disturb_the_tidying(second: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)
    tidied = False
    with local.terminated_as_interrupted():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            os.kill(os.getpid(), second)
            tidied = True
    assert tidied
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)) == before


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_tidies_up_and_says_how_to_go_on(how: signal.Signals, command: Command, tmp_path: Path) -> None:
    folder, out = slow_corpus(tmp_path / "in", 200), tmp_path / "out"
    process = command("vocode", folder, "-o", out, "--vocoder", "toy-slow", "--workers", 2)
    wait_for_more(out, 5, process)
    others = children(process.pid)
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does it
    else:
        process.send_signal(how)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from there" in errors and "Traceback" not in errors
    assert " left; " in printed
    assert not list((out / ".distill" / "part").iterdir())
    wait_for_end(others)


@contextmanager
def not_ignored(how: signal.Signals) -> Iterator[None]:
    """For programs started within, which would inherit that (nohup ignores SIGHUP), and rightly keep to it."""
    before = signal.getsignal(how)
    if before is signal.SIG_IGN:
        signal.signal(how, signal.SIG_DFL)
    yield
    signal.signal(how, before)


@needs_proc
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_file_that_is_interrupted_leaves_nothing(how: signal.Signals, command: Command, tmp_path: Path) -> None:
    long, out = tone(tmp_path / "long.wav", samples=8000 * 1200), tmp_path / "out"
    with not_ignored(how):
        process = command("vocode", long, "-o", out / "long.wav", "--vocoder", "toy-slow")
    wait_for(lambda: (out.is_dir() and list(out.iterdir())) or process.poll() is not None)
    process.send_signal(how)
    printed, errors = process.communicate(timeout=60)
    assert (process.returncode, printed) == (130, "")
    assert errors.endswith("interrupted\n") and "Traceback" not in errors
    assert not list(out.iterdir())


# Disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder], capture_output=True, check=False
    ).returncode:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_stops_the_run_and_room_lets_it_go_on(installed, small_disk: Path, tmp_path: Path, capsys) -> None:
    for i in range(80):
        tone(tmp_path / "in" / f"{i:02}.wav", samples=8000)
    argv = (tmp_path / "in", "-o", small_disk, "--vocoder", "toy-installed", "--workers", 1)
    assert run(*argv) == 1
    captured = capsys.readouterr()
    assert "No space left on device" in captured.err and "nothing more can be written there" in captured.err
    assert " left; " in captured.out
    made = outputs(small_disk)
    assert 0 < len(made) < 80 and {len(content) for content in made.values()} == {16044}
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    assert run(*argv, "--json") == 0
    again = result(capsys)
    assert again["current"] == len(made) and again["done"] == 80 - len(made)


def test_a_file_that_vanishes_while_it_runs_is_one_failure(installed, tmp_path: Path, capsys, monkeypatch) -> None:
    for i in range(6):
        tone(tmp_path / "in" / f"{i}.wav", samples=8000)
    enumerated, times = Plan.__iter__, []

    def vanishing(self: Plan) -> Iterator[Item]:
        items = list(enumerated(self))
        if times:  # it was counted, and is handed out now
            (tmp_path / "in" / "2.wav").unlink()
        times.append(1)
        yield from items

    monkeypatch.setattr(Plan, "__iter__", vanishing)
    assert run(tmp_path / "in", "-o", tmp_path / "out", "--vocoder", "toy-installed", "--workers", 1, "--json") == 1
    printed = result(capsys)
    assert [(each["input"], "no such file" in each["error"]) for each in printed["errors"]] == [
        (str(tmp_path / "in" / "2.wav"), True)
    ]
    assert len(outputs(tmp_path / "out")) == 5
