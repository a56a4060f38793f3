"""The playground without its page: what can be chosen, jobs, the bench, and what is written as HTML."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from distill_core import DistillError, MelSpec, Registry, Variant, hookimpl
from distill_core.discovery import Candidate, Discovery
from distill_core.errors import InvalidAudioError, InvalidMelError, MelMismatch
from distill_core.playground import bench, choices, examples, jobs, page
from distill_core.playground.bench import Bench
from distill_core.playground.choices import Choice, Offer
from distill_core.playground.jobs import Job, State, Stopped, follow
from tests import toy
from tests.hub_server import Fault, HubServer
from tests.weights.conftest import cache  # noqa: F401

soundfile = pytest.importorskip("soundfile")


@pytest.fixture
def registry() -> Registry:
    """Two toys, and a plug-in that is not there."""
    ruin = Candidate("ruin", "no_such_module_at_all", "distill-ruin", "1.0")
    found = Registry(find=lambda: Discovery((ruin,)))
    found.register(toy.plugin(toy.card("toy"), toy.card("other")))
    return found


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "sound.wav"
    time = np.arange(8000) / 8000
    soundfile.write(path, 0.3 * np.stack([np.sin(2000 * time), np.cos(900 * time)], axis=1), 8000)
    return path


# What can be chosen


def test_what_is_broken_is_offered_with_the_reason_and_what_to_do(registry: Registry) -> None:
    offers = {offer.name: offer for offer in choices.offers(registry)}
    assert list(offers) == ["other", "ruin", "toy"]
    assert offers["toy"].card is not None and not offers["toy"].problem
    assert offers["ruin"].label == "ruin (cannot be used)"
    assert "no_such_module_at_all" in offers["ruin"].problem
    assert "distill-ruin" in offers["ruin"].problem
    assert choices.default_offer(list(offers.values())) == offers["other"]
    assert choices.default_offer([offers["ruin"]]) == offers["ruin"]
    assert choices.default_offer([]) is None
    assert "pip install distill-bigvgan" in choices.nothing_installed(Registry(Discovery, {}))
    assert "AUTOLOAD" in choices.nothing_installed(Registry(Discovery, {"DISTILL_VOCODERS_AUTOLOAD": "0"}))


def test_the_first_choice_needs_no_download(hub: HubServer, cache: Path) -> None:  # noqa: F811
    hub.add("toys/far", {"weights.pt": b"x" * 20_000})
    far = Variant("far", toy.MEL, 8000, hub.pin("toys/far"))
    registry = Registry(find=Discovery)
    registry.register(toy.plugin(toy.card("a", variants=(far,)), toy.card("b")))
    found = choices.offers(registry)
    first = choices.default_offer(found)
    assert first is not None and first.name == "b"
    assert choices.variants(found[0].card) == [("far (8 kHz, 0.0 MB to download)", "far")]
    assert choices.to_download(far)[0]
    assert "toys/far" in choices.to_download(far)[1]
    assert hub.asked() == []


def test_formats_and_rates_begin_with_the_vocoders_own() -> None:
    variant = Variant("v", MelSpec.preset("bigvgan-44khz-128band-512x"), 44_100)
    formats = [value for _, value in choices.formats(variant)]
    assert formats[0] == ""
    assert "distill-vae" in formats
    assert len(set(formats)) == len(formats)
    assert choices.rates(variant)[0] == ("its own (44,100 Hz)", "")
    assert "44100" not in [value for _, value in choices.rates(variant)]
    assert choices.lost(variant, "distill-vae")
    assert choices.lost(variant, None) == ()
    assert ("cpu", "cpu") in choices.devices(None)


def test_a_form_becomes_a_choice() -> None:
    assert Choice.of("toy", None, "", "bf16", "", "48000") == Choice("toy", precision="bf16", sample_rate=48_000)
    assert Choice.of() == Choice()
    for wrong in ("fast", "-1", "0", "1e9", "48000.5"):
        with pytest.raises(InvalidAudioError, match="whole number of Hz"):
            Choice.of("toy", sample_rate=wrong)


# Jobs


def test_a_job_says_how_far_it_is_and_what_came_of_it() -> None:
    job, go = Job(), threading.Event()

    def work() -> str:
        job.stage("Vocoding")
        job.frames(3, 4)
        assert go.wait(10)
        return "made"

    seen = []
    for state in follow(job, work, interval=0.01):
        seen.append(state)
        if state.share == 0.75:
            go.set()
    assert job.result() == "made"
    assert seen[-1].stage == "Vocoding"


def test_an_error_of_the_work_comes_out_of_result() -> None:
    job = Job()
    list(follow(job, lambda: 1 / 0, interval=0.01))
    with pytest.raises(ZeroDivisionError):
        job.result()


@pytest.mark.parametrize("how", ["stop", "nobody listens", "all"])
def test_a_job_ends_when_it_next_looks(how: str) -> None:
    job, ended = Job(), threading.Event()

    def work() -> None:
        try:
            while True:
                job.frames(1, 100)
                time.sleep(0.005)
        except Exception:  # what plug-ins do: it must not swallow the stop
            pass
        finally:
            ended.set()

    states = follow(job, work, interval=0.01)
    next(states)
    if how == "stop":
        job.stop()
        list(states)
        with pytest.raises(Stopped):
            job.result()
    elif how == "all":
        jobs.stop_all(timeout=5)
    else:
        states.close()
    assert ended.wait(5)


def test_jobs_take_turns_and_waiting_can_be_stopped() -> None:
    turn, first, second = jobs.Turn(), Job(), Job()
    go = threading.Event()

    def long() -> None:
        with turn.taken(first):
            assert go.wait(10)

    def waiting() -> None:
        with turn.taken(second):
            raise AssertionError("it was not its turn")

    running = follow(first, long, interval=0.01)
    next(running)
    states = follow(second, waiting, interval=0.01)
    while next(states).stage != "Waiting for another run to finish":
        pass
    second.stop()
    list(states)
    with pytest.raises(Stopped):
        second.result()
    go.set()
    list(running)
    first.result()
    third = Job()
    with turn.taken(third):
        assert third.state.stage == ""


def test_time_left_is_of_what_this_download_brings() -> None:
    state = State("Downloading", done=60, total=100, unit="B", began=0, now=10, first=50)
    assert state.share == 0.6
    assert state.seconds_left == pytest.approx(40)
    assert State(total=None, done=5).share is None


# The bench


def test_the_last_few_stay_loaded(registry: Registry) -> None:
    desk, job = Bench(registry, keep=2), Job()
    first = desk.load(Choice("toy"), job).vocoder
    assert desk.load(Choice("toy"), job) == bench.Loaded(first, 0.0)
    other = desk.load(Choice("toy", variant="other"), job).vocoder
    assert other is not first
    desk.load(Choice("other"), job)  # of three, the first has gone
    assert desk.load(Choice("toy", variant="other"), job).vocoder is other
    assert desk.load(Choice("toy"), job).vocoder is not first
    assert len(desk._kept) == 2


def test_the_engine_is_made_while_the_vocoder_is_loaded(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not within the first sound, of which the page says how fast it was."""
    ready = []
    monkeypatch.setattr(toy.ToyVocoder, "report", lambda self: ready.append(self))
    desk, job = Bench(registry), Job()
    vocoder = desk.load(Choice("toy"), job).vocoder
    desk.load(Choice("toy"), job)
    assert ready == [vocoder]


def test_a_run_that_another_has_replaced_says_nothing_more(registry: Registry) -> None:
    gr = pytest.importorskip("gradio")
    from distill_core.playground.picker import VocoderPicker

    with gr.Blocks(analytics_enabled=False):
        picker = VocoderPicker(registry)
    going = threading.Event()

    def slow(vocoder, progress) -> None:
        while True:
            going.set()
            progress(0, 1)

    form = ("toy", "plain", "cpu", "fp32", "", "")
    first = picker._run("tab", form, slow, None, (), 1)
    next(first)
    next(first)
    assert going.wait(30)
    second = picker._run("tab", form, lambda vocoder, progress: "made", None, (), 1)
    next(second)
    assert list(first) == []  # neither that it was stopped, nor a Stop button to be taken away
    *_, (text, stop, _, made) = second
    assert (text, stop.visible, made) == ("", False, "made")


def test_what_a_stopped_run_leaves_is_said() -> None:
    assert "kept" in page.stopped(State("Downloading", 3, 10, "B"))
    assert "kept" not in page.stopped(State("Vocoding", 3, 10, "frames"))


def test_a_choice_is_adapted_and_what_does_not_fit_is_said(registry: Registry) -> None:
    desk, job = Bench(registry), Job()
    assert desk.load(Choice("toy", sample_rate=16_000), job).vocoder.sample_rate == 16_000
    assert len(desk._kept) == 1
    with pytest.raises(DistillError, match="no variant 'x'"):
        desk.load(Choice("toy", variant="x"), job)
    with pytest.raises(DistillError, match="distill-ruin"):
        desk.load(Choice("ruin"), job)
    with pytest.raises(DistillError, match="cuda:77"):
        desk.load(Choice("toy", device="cuda:77"), job)


def test_weights_come_first_can_be_stopped_and_go_on(
    registry: Registry,
    hub: HubServer,
    cache: Path,  # noqa: F811
) -> None:
    hub.add("toys/far", {"weights.pt": b"x" * 400_000})
    pin = hub.pin("toys/far")
    registry.register(toy.plugin(toy.card("far", variants=(Variant("v", toy.MEL, 8000, pin),))))
    hub.faults.append(Fault("weights.pt", pace=0.02))
    desk, job = Bench(registry), Job()
    shares = []
    for state in follow(job, lambda: desk.load(Choice("far"), job), interval=0.02):
        if state.unit == "B":
            shares.append(state.share)
            if state.share is not None and state.share > 0.3:
                job.stop()
    with pytest.raises(Stopped):
        job.result()
    assert len(set(shares)) > 2 and shares == sorted(shares)
    before = hub.sent("weights.pt")
    again = Job()
    list(follow(again, lambda: desk.load(Choice("far"), again), interval=0.02))
    assert again.result().vocoder.sample_rate == 8000
    assert hub.sent("weights.pt") - before < 300_000


def test_a_sound_and_a_mel_become_something_to_hear_and_see(registry: Registry, sound: Path, tmp_path: Path) -> None:
    vocoder = Bench(registry).load(Choice("toy"), Job()).vocoder
    made = bench.vocode_sound(sound, vocoder, Job())
    assert made.reference is not None
    assert made.result[0].shape == made.reference[0].shape == (2, 8000)
    assert made.seconds == 1
    assert made.times_real_time > 0
    assert made.apart > 0
    assert len({each.spectrogram.level.shape for each in made.pictures}) == 1

    np.save(tmp_path / "mels.npy", toy.mel(3, 40).numpy())
    made = bench.vocode_mel(tmp_path / "mels.npy", vocoder, Job())
    assert made.result[0].shape == (1, 640)
    assert torch.equal(made.result[0], vocoder.mel_to_waveform(toy.mel(3, 40)[:1])[0])
    assert "3 mels" in made.remarks[0]
    np.save(tmp_path / "short.npy", toy.mel(1, 1)[0].numpy())
    assert bench.vocode_mel(tmp_path / "short.npy", vocoder, Job()).result[0].shape == (1, 16)


def test_a_progress_call_stops_a_run(registry: Registry, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.zeros(8000 * 20), 8000)
    vocoder = Bench(registry).load(Choice("toy"), Job()).vocoder
    job = Job()
    stages = []
    original = job.frames

    def stop_after_the_first(done: int, total: int) -> None:
        stages.append((done, total))
        job.stop()
        original(done, total)

    job.frames = stop_after_the_first  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        bench.vocode_sound(tmp_path / "long.wav", vocoder, job)
    assert len(stages) == 1 and stages[0][0] < stages[0][1]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [("a.wav", b"no sound", "cannot be read as audio"), ("b.wav", b"", "cannot be read"), (None, b"", "no sound yet")],
)
def test_what_is_no_sound_is_said_before_anything_is_loaded(
    name: str | None, content: bytes, words: str, tmp_path: Path
) -> None:
    if name:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidAudioError, match=words) as caught:
        bench.check_sound(name and str(tmp_path / name))
    assert str(tmp_path) not in str(caught.value)


def test_hours_are_refused_by_the_header_alone(tmp_path: Path) -> None:
    path = tmp_path / "hours.wav"
    with soundfile.SoundFile(path, "w", 100, 1, subtype="PCM_U8") as file:
        for _ in range(40):
            file.write(np.zeros(10_000))
    with pytest.raises(InvalidAudioError, match=r"^hours\.wav: lasts 67 minutes.*distill-vocoder vocode"):
        bench.check_sound(str(path))


def test_what_is_no_mel_for_this_vocoder_is_said(registry: Registry, tmp_path: Path) -> None:
    vocoder = Bench(registry).load(Choice("toy"), Job()).vocoder
    for shape, words in (((7, 20), "5 bands"), ((20,), "shape"), ((), "shape"), ((5, 0), "at least one")):
        np.save(tmp_path / "mel.npy", np.zeros(shape, dtype=np.float32))
        with pytest.raises(InvalidMelError, match=words):
            bench.vocode_mel(tmp_path / "mel.npy", vocoder, Job())
    np.save(tmp_path / "mel.npy", np.full((5, 100), -400, dtype=np.float32))
    with pytest.raises(MelMismatch):
        bench.vocode_mel(tmp_path / "mel.npy", vocoder, Job())
    with pytest.raises(InvalidMelError, match="no mel yet"):
        bench.check_mel(None)


def test_examples_are_there_wherever_it_is_installed(tmp_path: Path) -> None:
    found = examples.write_examples(tmp_path / "examples")
    assert {"Sung vowel", "Stereo bells", "Spoken sentence"} == set(found)
    for path in found.values():
        wave, rate = soundfile.read(path, always_2d=True)
        assert 2 < len(wave) / rate < 10
        assert 0.3 < np.abs(wave).max() <= 1


# HTML


HOSTILE = "<img src=x onerror=alert(1)>`code`"


def test_nothing_from_outside_is_obeyed(registry: Registry, sound: Path) -> None:
    card = toy.card("toy", summary=HOSTILE, license=HOSTILE, homepage="javascript:alert(1)")
    told = [
        page.failure(HOSTILE),
        page.remark(HOSTILE),
        page.progress(State(HOSTILE)),
        page.info(Offer(HOSTILE, None, HOSTILE), Choice()),
        page.info(Offer("toy", card, origin=HOSTILE), Choice("toy")),
    ]
    hostile = sound.rename(sound.with_name("<b>'\"&.wav"))
    vocoder = Bench(registry).load(Choice("toy"), Job()).vocoder
    made = bench.vocode_sound(hostile, vocoder, Job())
    told.append(page.results(made, hostile, hostile))
    for html in told:
        assert "<img src=x" not in html
        assert "javascript:" not in html
        assert "<b>'" not in html
    assert "<code>code</code>" in told[0]


def test_progress_is_a_bar_for_machines_too() -> None:
    html = page.progress(State("Downloading", 25e6, 100e6, "B", began=0, now=5, first=0))
    for words in ('role="progressbar"', 'aria-valuenow="25"', "25.0 of 100.0 MB", "5.0 MB/s", "15 s left"):
        assert words in html
    assert "aria-valuenow" not in page.progress(State("Loading"))
    assert "Stopping" in page.progress(State("Vocoding", 1, 2, stopping=True))


def test_the_core_imports_no_gradio() -> None:
    script = (
        "import sys, distill_core.playground as p\n"
        "from distill_core.playground import bench, choices, examples, jobs, page\n"
        "import distill_core.cli\n"
        "print('gradio' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "False"


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from distill_core import playground
    from distill_core.cli import main

    for name in ("app", "picker"):
        monkeypatch.delitem(sys.modules, f"distill_core.playground.{name}", raising=False)
        monkeypatch.delattr(playground, name, raising=False)
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["playground", "--port", "0"]) == 1
    assert "pip install 'distill-core[playground]'" in capsys.readouterr().err


def test_a_hook_that_ends_the_process_ends_nothing(registry: Registry) -> None:
    @hookimpl
    def distill_vocoders():
        raise SystemExit(3)

    bad = SimpleNamespace(distill_vocoders=distill_vocoders, __name__="bad")
    with pytest.raises(DistillError):
        registry.register(bad)
    assert [offer.name for offer in choices.offers(registry)] == ["other", "ruin", "toy"]
