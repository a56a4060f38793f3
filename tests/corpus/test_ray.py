"""The engine on Ray, with a real Ray of two workers, and what befalls them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_core import errors, registry
from distill_core.corpus import ray_engine, ray_session
from distill_core.corpus.conduct import Conductor, Summary
from distill_core.corpus.job import Outcome, VocodeJob
from distill_core.corpus.local import LocalEngine
from distill_core.corpus.plan import Item, Plan
from distill_core.corpus.ray_engine import RayEngine, parcels
from distill_core.corpus.ray_worker import Ledger, Worker
from tests.conftest import ROOT
from tests.corpus.conftest import outputs

pytestmark = pytest.mark.xdist_group("heavy")

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("ray.data", reason="Ray is not installed: pip install 'distill-core[ray]'")


@pytest.fixture(scope="module")
def ray(toy_site: Path) -> Iterator[Any]:
    """A Ray of this machine's own, which engines in this process use; its workers find the toy vocoders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(toy_site))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(toy_site), str(ROOT), os.environ.get("PYTHONPATH", "")]))
        registry.refresh()
        with ray_session.session("local", cpus=2) as ray:
            folder = _session_folders(os.getpid())
            assert len(folder) == 1
            yield ray
        assert not ray.is_initialized()
    registry.unload()
    registry.refresh()
    assert not folder[0].exists()
    _until(lambda: not _descendants("ray"), "Ray's processes end")


def _session_folders(pid: int) -> list[Path]:
    return list(Path("/tmp").glob(f"distill-ray-{pid}-*"))


def conduct(source: Path, out: Path, engine: Any, **job: Any) -> Summary:
    conductor = Conductor(Plan((str(source),), str(out)), engine.job, engine, quiet=True)
    if isinstance(engine, LocalEngine):
        engine.unfinished = conductor.unfinished
    return conductor.run()


def job(vocoder: str, out: Path) -> VocodeJob:
    return VocodeJob(vocoder=vocoder, folder=str(out), device="cpu")


def test_parcels_keep_the_order_and_leave_several_for_each_worker() -> None:
    for count in (1, 7, 40, 1000):
        batches: Any = list(range(count))
        made = parcels(batches, 2)
        assert [batch for parcel in made for batch in parcel] == batches
        assert len(made) >= min(count, 16) and max(map(len, made)) <= 16


def test_the_ledger_tells_the_next_worker_what_came_of_a_parcel() -> None:
    ledger = Ledger()
    outcome = Outcome(Item("a.wav", "out/a.wav"), "done")
    assert ledger.begin(7) == (1, {}, set())
    ledger.note(7, 3, outcome)
    ledger.begin_alone(7, 4)
    assert ledger.begin(7) == (2, {3: outcome}, {4})
    ledger.end(7)
    assert ledger.begin(7) == (2, {}, set())  # and so the record is looked at
    assert ledger.begin(8) == (1, {}, set())
    ledger.stop()
    assert ledger.begin(9)[0] == 0
    assert [ledger.loading("w"), ledger.loading("w")] == [1, 2]
    ledger.loaded("w")
    assert ledger.loading("w") == 1


def test_what_only_the_record_tells_of_counts_for_as_long_as_it_is(
    installed: None, corpus: Path, tmp_path: Path
) -> None:
    """As where a worker was killed between writing a file and saying so."""
    out = tmp_path / "out"
    made = conduct(corpus, out, LocalEngine(job("toy-installed", out), 1))
    worker = object.__new__(Worker)
    worker.job = job("toy-installed", out)
    told: dict[int, Outcome] = {}
    worker._recorded(list(Plan((str(corpus),), str(out))), told)
    assert len(told) == made.done == 14
    assert sum(outcome.seconds * outcome.channels for outcome in told.values()) == pytest.approx(made.seconds)


@pytest.mark.parametrize("gpus", [-1.0, 1.5, float("nan"), float("inf")])
def test_gpus_that_no_worker_can_have_are_refused(installed: None, tmp_path: Path, gpus: float) -> None:
    with pytest.raises(errors.CorpusError, match="GPUs"):
        RayEngine(job("toy-installed", tmp_path), gpus_per_worker=gpus)


def test_without_ray_and_without_a_cluster_a_sentence_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(errors.CorpusError, match="no Ray answers"), ray_session.session("127.0.0.1:9"):
        pass
    with pytest.raises(errors.CorpusError, match="HOST:6379"), ray_session.session("ray://nowhere"):
        pass
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(errors.MissingDependencyError, match=r"distill-core\[ray\]"), ray_session.session("local"):
        pass


def test_the_driver_killed_and_run_again_goes_on(command: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """The command starts a Ray of its own, which does not outlive it."""
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for number in range(40):
        mel = np.random.default_rng(number).normal(size=(5, 20 + number)).astype(np.float32) - 4
        np.save(source / f"{number:02}.npy", mel)
    argv = ("vocode", source, "-o", out, "--vocoder", "toy-slow", "--engine", "ray", "--workers", 2, "--json")
    driver = command(*argv)
    _until(lambda: len(outputs(out)) >= 5 or driver.poll() is not None, "five files are there")
    assert driver.poll() is None, driver.communicate()
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.wav")}
    assert 5 <= len(before) < 40
    again = command(*argv)
    stdout, stderr = again.communicate(timeout=400)
    assert again.returncode == 0, stderr
    said = json.loads(stdout)  # nothing of Ray's is among it
    assert (said["files"], said["failed"], said["left"]) == (40, 0, 0)
    assert said["done"] + said["current"] == 40 and said["current"] >= len(before)
    assert len(outputs(out)) == 40
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(_recorded(out)) == 40
    assert not _session_folders(again.pid)
    # What ran below the one that was killed ends within seconds, and writes until then.
    _until(lambda: ray_session._sweep() or not _session_folders(driver.pid), "the killed driver's folder is swept")
    assert "Traceback" not in stderr and "raylet" not in stderr


def test_a_worker_killed_in_mid_run_changes_no_bit(
    ray: Any, trained_hifigan: Path, speech_files: list[Path], tmp_path: Path
) -> None:
    source = tmp_path / "in"
    for number, path in enumerate(speech_files[:4]):
        wave, rate = soundfile.read(path, dtype="float32")
        (source / str(number)).mkdir(parents=True)
        for part in range(3):
            start, length = int(rate * 0.25 * part), int(rate * (0.25 + 0.05 * ((number + part) % 3)))
            soundfile.write(source / str(number) / f"{part}.wav", wave[start : start + length], rate)
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    local = conduct(source, alone, LocalEngine(job("hifigan", alone), 2))

    dead: list[int] = []

    def kill() -> None:
        _until(lambda: len(outputs(killed)) >= 2, "two files are there")
        workers = _descendants("ray::MapWorker")
        os.kill(workers[0], signal.SIGKILL)
        dead.append(workers[0])

    killer = threading.Thread(target=kill)
    killer.start()
    summary = conduct(source, killed, RayEngine(job("hifigan", killed), 2))
    killer.join()

    assert dead
    assert (summary.files, summary.done, summary.failed) == (12, 12, 0)
    assert outputs(killed) == outputs(alone)
    assert summary.seconds == pytest.approx(local.seconds)
    assert _recorded(killed) == sorted(outputs(alone))


def test_a_file_that_kills_whoever_takes_it_is_reported_and_the_others_are_done(ray: Any, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for number in range(6):
        mel = np.full((5, 30), -4.0, dtype=np.float32)
        if number == 3:
            mel[0, 0] = 50.0
        np.save(source / f"{number}.npy", mel)
    engine = RayEngine(job("toy-deadly", out), 2)
    summary = conduct(source, out, engine)
    assert (summary.done, summary.failed) == (5, 1)
    [failure] = summary.failures
    assert failure.item.input.endswith("3.npy") and "was killed" in failure.reason
    assert sorted(outputs(out)) == [f"{number}.wav" for number in (0, 1, 2, 4, 5)]
    assert engine.about["report"]["device"] == "cpu"


def test_run_from_inside_the_cluster_as_by_a_client(
    ray: Any, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The datasets are then run by an actor, which the driver asks for news."""
    monkeypatch.setattr(ray_engine, "is_client", lambda ray: True)
    monkeypatch.setattr(ray_engine, "_FIRST", 1)  # two windows, one dataset after the other
    out, alone = tmp_path / "out", tmp_path / "alone"
    (corpus / "broken.wav").write_bytes(b"RIFF")
    summary = conduct(corpus, out, RayEngine(job("toy-slow", out), 1))
    conduct(corpus, alone, LocalEngine(job("toy-slow", alone), 1))
    assert (summary.done, summary.failed) == (14, 1)
    assert outputs(out) == outputs(alone)
    assert conduct(corpus, out, RayEngine(job("toy-slow", out), 1)).current == 14


def test_a_node_that_cannot_take_part_is_named_before_anything_is_begun(ray: Any, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = Path(sys.executable).with_name("ray")
    if not script.exists():
        pytest.skip("the command `ray` is not beside this Python")
    address = ray.get_runtime_context().gcs_address
    node = subprocess.Popen(
        [script, "start", f"--address={address}", "--num-cpus=1", "--block", "--disable-usage-stats"],
        env={**os.environ, "DISTILL_VOCODERS_DISABLE": "toy-slow"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _until(lambda: sum(each["Alive"] for each in ray.nodes()) == 2, "a second node joins")
        with pytest.raises(errors.CorpusError, match=r"1 of the cluster's 2 nodes(?s:.*)node .*toy-slow"):
            conduct(corpus, out, RayEngine(job("toy-slow", out), 2))
        assert outputs(out) == {}
        assert not list((out / ".distill").glob("probe-*"))
    finally:
        node.terminate()
        node.wait(timeout=30)


def _recorded(out: Path) -> list[str]:
    """The outputs that the record tells of, one for each time they were written."""
    lines = [line for path in (out / ".distill" / "done").iterdir() for line in path.read_text().splitlines()]
    return sorted(json.loads(line)["output"] for line in lines)


def _until(what: Callable[[], bool], words: str) -> None:
    until = time.monotonic() + 400
    while not what():
        assert time.monotonic() < until, f"waited too long until {words}"
        time.sleep(0.05)


def _descendants(title: str) -> list[int]:
    """Processes below this one whose command line begins with a title."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = []
    for pid in parents:
        up = pid
        while up in parents and up != os.getpid():
            up = parents[up]
        try:
            begins = Path(f"/proc/{pid}/cmdline").read_bytes().startswith(title.encode())
        except OSError:
            continue
        if up == os.getpid() and begins:
            found.append(pid)
    return found
