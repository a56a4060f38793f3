"""Corpora in an object store: a real S3 API on loopback, by way of s3fs."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distill_core import errors
from distill_core.cli import main
from distill_core.corpus import files, remote
from distill_core.corpus.batches import batches
from distill_core.corpus.job import VocodeJob
from distill_core.corpus.plan import Item, Plan
from distill_core.corpus.record import Journal, Record
from tests.corpus.conftest import outputs

pytestmark = pytest.mark.xdist_group("heavy")

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("s3fs", reason="s3fs is not installed")
moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")


@pytest.fixture(scope="module")
def store() -> Iterator[Any]:
    """An object store with a bucket; what this process starts reaches it too."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in [each for each in os.environ if each.lower().endswith("_proxy")]:
            patch.delenv(name)
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "loopback")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.delenv("AWS_PROFILE", raising=False)
        fsspec.filesystem("s3").clear_instance_cache()
        fs = fsspec.filesystem("s3", use_listings_cache=False)
        fs.mkdir("bucket")
        yield fs
        fs.clear_instance_cache()
    server.stop()


@pytest.fixture
def bucket(store: Any) -> Iterator[str]:
    yield "s3://bucket"
    for path in store.find("bucket"):
        store.rm_file(path)
    files.forget()


def stored(store: Any, folder: str) -> dict[str, bytes]:
    """All that a run has put below a folder, by name."""
    path = folder.removeprefix("s3://")
    found = {each[len(path) + 1 :]: each for each in store.find(path)}
    return {name: store.cat_file(each) for name, each in found.items() if not name.startswith(".distill/")}


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> dict[str, Any]:
    code = main(["vocode", *map(str, argv), "--vocoder", "toy-installed", "--workers", "1", "--json"])
    said = capsys.readouterr()
    assert code == (1 if json.loads(said.out)["failed"] else 0), said.err
    return json.loads(said.out)


def test_from_bucket_to_bucket_is_what_it_is_on_disks_and_a_rerun_does_what_changed(
    store: Any, bucket: str, installed: None, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(corpus / "deep" / "er" / "nothing", ignore_errors=True)
    for path in corpus.rglob("*.*"):
        if path.is_file():
            store.put_file(str(path), f"bucket/in/{path.relative_to(corpus)}")
    store.pipe_file("bucket/in/broken.wav", b"RIFF")
    store.pipe_file("bucket/in/.hidden.wav", b"RIFF")
    (corpus / "broken.wav").write_bytes(b"RIFF")
    run(capsys, corpus, "-o", tmp_path / "out", "--keep-endings")

    first = run(capsys, f"{bucket}/in", "-o", f"{bucket}/out", "--keep-endings")
    assert (first["files"], first["done"], first["failed"]) == (15, 14, 1)
    assert first["errors"][0]["error"].startswith(f"{bucket}/in/broken.wav")
    assert stored(store, "s3://bucket/out") == outputs(tmp_path / "out")

    store.put_file(str(corpus / "00.wav"), "bucket/in/03.flac")  # changed, if not by its ending
    store.rm_file("bucket/out/three mels.npy.1.wav")
    store.rm_file("bucket/in/broken.wav")
    again = run(capsys, f"{bucket}/in", "-o", f"{bucket}/out", "--keep-endings")
    assert (again["done"], again["current"]) == (2, 12)
    now = stored(store, "s3://bucket/out")
    assert now["03.flac.wav"] == outputs(tmp_path / "out")["00.wav.wav"]
    assert now["three mels.npy.1.wav"] == outputs(tmp_path / "out")["three mels.npy.1.wav"]


def test_plans_name_objects_as_they_name_files(store: Any, bucket: str, tmp_path: Path) -> None:
    for name in ("a.wav", "deep/b.flac", "deep/er/c.mp3", "notes.txt", ".x/d.wav", "out/e.wav"):
        store.pipe_file(f"bucket/in/{name}", b"x")
    manifest = '{"input": "in/a.wav", "output": "x/y.wav"}\n{"input": "s3://bucket/in/deep/b.flac"}\n'
    store.pipe_file("bucket/list.jsonl", manifest.encode())

    def planned(source: str, folder: str = "out") -> list[tuple[str, str]]:
        return [(item.input.removeprefix("s3://bucket/in/"), item.output) for item in Plan((source,), folder)]

    tree = [("a.wav", "out/a.wav"), ("deep/b.flac", "out/deep/b.wav"), ("deep/er/c.mp3", "out/deep/er/c.wav")]
    assert planned(f"{bucket}/in") == [*tree, ("out/e.wav", "out/out/e.wav")]
    assert planned(f"{bucket}/in/") == planned(f"{bucket}/in")
    below = planned(f"{bucket}/in", f"{bucket}/in/out")  # what is written there is no input
    assert below == [(source, f"s3://bucket/in/{output}") for source, output in tree]
    assert planned(f"{bucket}/in/**/*.flac") == [tree[1]]
    assert planned(f"{bucket}/in/deep/b.flac") == [("deep/b.flac", "out/b.wav")]
    listed = [Item("s3://bucket/in/a.wav", "out/x/y.wav"), Item("s3://bucket/in/deep/b.flac", "out/b.wav")]
    assert list(Plan((f"{bucket}/list.jsonl",), "out")) == listed
    local = tmp_path / "list.jsonl"
    local.write_text('{"input": "s3://bucket/in/a.wav"}\n')
    assert list(Plan((str(local),), f"{bucket}/to")) == [Item("s3://bucket/in/a.wav", f"{bucket}/to/a.wav")]
    with pytest.raises(errors.CorpusError, match="is an input as well"):
        planned(f"{bucket}/in", f"{bucket}/in")
    with pytest.raises(errors.CorpusError, match="no such file or folder"):
        planned(f"{bucket}/absent")
    with pytest.raises(errors.CorpusError, match="no file matches"):
        planned(f"{bucket}/in/*.aiff")


def test_whatever_interrupts_a_commit_an_old_object_is_not_taken_for_the_new_one(
    store: Any, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.pipe_file("bucket/in/a.wav", b"sound")
    store.pipe_file("bucket/out/a.wav", b"old!")
    item = Item(f"{bucket}/in/a.wav", f"{bucket}/out/a.wav")
    source = files.identity(item.input)
    assert source is not None
    made = tmp_path / "made"
    made.write_bytes(b"new!")
    journal = Journal(f"{bucket}/out", "settings")

    def record(output: files.Identity) -> None:
        journal.add(item, 0, 1, source, output)

    with monkeypatch.context() as patch:
        patch.setattr(remote, "upload", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            files.commit(made, item.output, lambda output: None)
    assert files.identity(item.output) is None
    files.commit(made, item.output, record)
    assert store.cat_file("bucket/out/a.wav") == b"new!"
    assert Record(f"{bucket}/out", "settings").is_current(item)
    assert not Record(f"{bucket}/out", "other settings").is_current(item)
    store.pipe_file("bucket/in/a.wav", b"other")
    assert not Record(f"{bucket}/out", "settings").is_current(item)


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_long_record_is_in_several_objects_and_a_big_folder_is_listed_once(
    store: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(f"{bucket}/out", "settings")
    items = [Item(f"{bucket}/in/{number}.wav", f"{bucket}/out/{number}.wav") for number in range(40)]
    monkeypatch.setattr("distill_core.corpus.record._SEGMENT", 1000)
    for number, item in enumerate(items):
        for url in (item.input, item.output):
            store.pipe_file(url.removeprefix("s3://"), bytes(100 + number))
        source = files.identity(item.input)
        assert source is not None
        journal.add(item, 0, 1, source, (100 + number, 0))
    assert 4 < len(store.ls("bucket/out/.distill/done")) < 20
    record = Record(f"{bucket}/out", "settings")
    asked: list[str] = []
    real = remote.identity
    monkeypatch.setattr(remote, "identity", lambda url: asked.append(url) or real(url))
    assert all(record.is_current(item) for item in items)
    assert len(asked) < 20  # and not two for each file
    [batch, *_] = batches(items, 0.01)
    assert len(batch.items) == 40 and all(seconds > 0 for seconds in batch.seconds)


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("nothing-knows-this://x/in", errors.CorpusError, "Protocol not known"),
        ("memory://in", errors.CorpusError, "workers"),
        ("zip://a.wav::s3://bucket/in.zip", errors.CorpusError, "chains"),
        ("s3://no-such-bucket/out", errors.CorpusError, "s3://no-such-bucket/out"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_sentence(
    store: Any, url: str, error: type[Exception], words: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        files.write_bytes(f"{url}/x", b"")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(errors.MissingDependencyError, match="gcsfs"):
        list(Plan(("gs://bucket/in",), "out"))


def test_file_urls_are_paths(tmp_path: Path) -> None:
    assert files.plain(f"file://{tmp_path}/a%20b") == f"{tmp_path}/a b"
    assert files.plain("s3://bucket/a%20b") == "s3://bucket/a%20b"
    assert not files.is_url("C:/sounds") and not files.is_url("a:b/c.wav")


def test_a_job_that_is_sent_to_another_machine_says_the_same_of_itself() -> None:
    import pickle

    job = VocodeJob(vocoder="hifigan", folder="s3://bucket/out")
    assert pickle.loads(pickle.dumps(job)) == job
