"""The playground as a person has it: in a browser, with HiFi-GAN's trained weights and a Hub on loopback."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import checkpoints
from tests.contrast import contrast
from tests.hub_server import Fault, HubServer

pytest.importorskip("gradio")
pytest.importorskip("selenium")
soundfile = pytest.importorskip("soundfile")

from tests.playground.browser import Page, Server, chromium  # noqa: E402

pytestmark = pytest.mark.xdist_group("heavy")

ROOT = Path(__file__).resolve().parents[2]
REPO = f"nvidia/bigvgan_{checkpoints.VARIANT}"


@pytest.fixture(scope="module")
def hub_files() -> Iterator[HubServer]:
    with HubServer() as server:
        server.add(REPO, checkpoints.bigvgan_files(checkpoints.bigvgan_config(channels=64)))
        yield server


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed distributions: one that cannot be imported, and the tests' small vocoder."""
    folder = tmp_path_factory.mktemp("site")
    sources = {
        "ruin": "import a_module_that_is_<b>not</b>_there",
        "toy": "from tests import toy\ndistill_vocoders = toy.plugin(toy.card('toy')).distill_vocoders",
    }
    for name, source in sources.items():
        info = folder / f"distill_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: distill-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[distill.vocoders]\n{name} = {name}_plugin\n")
        (folder / f"{name}_plugin.py").write_text(source)
    return folder


@pytest.fixture(scope="module")
def server(
    trained_hifigan: Path, hub_files: HubServer, plugins: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    scratch = tmp_path_factory.mktemp("tmp")
    env = hub_files.env(
        tmp_path_factory.mktemp("hf"),
        PYTHONPATH=os.pathsep.join([str(plugins), str(ROOT), os.environ.get("PYTHONPATH", "")]),
        TMPDIR=str(scratch),
        OMP_NUM_THREADS="1",
        HTTP_PROXY="http://127.0.0.1:9",  # a proxy that is not there keeps nobody from a server on loopback
        NO_PROXY="127.0.0.1,localhost",
    )
    server = Server(env=env)
    yield server
    code, said = server.end()
    assert code == 0, said
    assert "Traceback" not in said, said
    assert said.endswith("The playground has ended.\n")
    assert list(scratch.iterdir()) == []


@pytest.fixture(scope="module")
def page(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        page.open(server.url)
        yield page
        assert page.hosts() == {server.host}


@pytest.fixture(scope="module")
def speech(speech_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a second of a recorded word, in stereo."""
    samples, rate = soundfile.read(speech_files[0])
    path = tmp_path_factory.mktemp("sounds") / "left & right.wav"
    mono = samples.reshape(len(samples), -1)[: rate // 2, 0]
    soundfile.write(path, np.stack([mono, mono[::-1]], axis=1), rate)
    return path


def test_a_sound_is_heard_and_seen_before_and_after(page: Page, speech: Path) -> None:
    assert "Nothing to hear yet" in page.text("#dv-results")
    page.put("#dv-sound", speech)
    page.run()
    assert page.durations() == pytest.approx([0.5, 0.5], abs=0.001)
    assert [height > 0 and width > 0 for width, height in page.pictures()] == [True] * 3
    said = page.text("#dv-results")
    for words in ("real time", "engine on cpu in fp32", "stereo, 22,050 Hz", "Difference"):
        assert words in said
    assert "left & right.wav, 48,000 Hz" in said
    assert float(said.split("×")[0]) > 0


def test_one_player_sounds_at_a_time_and_a_picture_is_its_timeline(page: Page, speech: Path) -> None:
    if not page.find(".dv-ab"):
        page.put("#dv-sound", speech)
        page.run()
    page.wait(".dv-ab").click()
    playing = "return [...document.querySelectorAll('#dv-results audio')].map(a => !a.paused)"
    page.until(lambda: page.js(playing) == [True, False], "the reference to play")
    page.wait(".dv-ab").click()
    page.until(lambda: page.js(playing)[0] is False, "the reference to pause")
    page.js(
        "const plot = document.querySelectorAll('#dv-results .dv-plot')[1], box = plot.getBoundingClientRect();"
        "document.querySelectorAll('#dv-results audio').forEach(a => a.pause());"
        "plot.dispatchEvent(new MouseEvent('click', {bubbles: true, clientX: box.left + box.width * 0.5}));"
    )
    at = "return document.querySelectorAll('#dv-results audio')[1].currentTime"
    page.until(lambda: abs(page.js(at) - 0.25) < 0.02, "the result to be half-way")


def take_the_vowel(page: Page) -> None:
    page.find("#dv-examples button")[1].click()
    page.until(lambda: "0:03" in page.text("#dv-sound"), "the example of two and a half seconds")


def test_an_example_runs_without_any_file(page: Page) -> None:
    take_the_vowel(page)
    page.run()
    assert page.durations() == pytest.approx([2.5, 2.5], abs=0.001)


def open_tab(page: Page, name: str) -> None:
    tab = next(each for each in page.find("button[role=tab]") if each.text == name)
    page.js("arguments[0].click()", tab)


def test_a_mel_is_heard_and_seen(page: Page, tmp_path: Path) -> None:
    from distill_core import MelSpec

    spec = MelSpec.preset("hifigan-22khz-80band")
    path = tmp_path / "mel.npy"
    np.save(path, spec.analyze(torch.randn(1, 256 * 40) * 0.05)[0].numpy())
    open_tab(page, "Mel file")
    page.put("#dv-mel", path)
    page.run()
    assert page.durations() == pytest.approx([40 * 256 / 22050], abs=0.001)
    assert len(page.pictures()) == 3
    assert "80 bands, 40 frames" in page.text("#dv-results")


class Bomb:
    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "ran")

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_files_that_will_not_do_get_a_sentence_each_and_the_next_run_works(
    page: Page, tmp_path: Path, speech: Path
) -> None:
    from distill_core import pictures

    torch.save(Bomb(tmp_path), tmp_path / "code.pt")
    np.save(tmp_path / "bands.npy", np.zeros((7, 30), dtype=np.float32))
    (tmp_path / "text.npy").write_text("no numbers <script>alert(1)</script>")
    open_tab(page, "Mel file")
    for name, words in (("code.pt", "cannot be read"), ("bands.npy", "80 bands"), ("text.npy", "cannot be read")):
        page.put("#dv-mel", tmp_path / name)
        page.run()
        said = page.text("#dv-status")
        assert words in said
        assert "Traceback" not in said, said
        assert str(tmp_path) not in said and "/tmp" not in said
        assert not page.find(".dv-results")
    assert not (tmp_path / "ran").exists()

    open_tab(page, "Sound")
    picture = pictures.png(pictures.spectrogram(torch.zeros(1, 4000), 8000))
    (tmp_path / "picture.wav").write_bytes(picture)
    (tmp_path / "empty.wav").write_bytes(b"")
    soundfile.write(tmp_path / "nan.wav", np.full(4000, np.nan), 44100, subtype="FLOAT")
    for name, words in (("picture.wav", "cannot be read"), ("nan.wav", "NaN"), ("empty.wav", "cannot be read")):
        page.put("#dv-sound", tmp_path / name)
        page.run()
        assert words in page.text("#dv-status")
    page.put("#dv-sound", speech)
    page.run()
    assert len(page.durations()) == 2


def test_nothing_chosen_and_a_broken_vocoder_are_said_too(page: Page, server: Server, speech: Path) -> None:
    page.open(server.url)
    page.run()
    assert "There is no sound yet" in page.text("#dv-status")
    page.put("#dv-sound", speech)
    page.choose("Vocoder", "ruin (cannot be used)")
    page.until(lambda: "ruin cannot be used" in page.text("#dv-info"), "the reason")
    assert "distill-ruin" in page.text("#dv-info")
    page.run()
    assert "distill-ruin" in page.text("#dv-status")
    page.choose("Vocoder", "hifigan")
    page.until(lambda: "HiFi-GAN" in page.text("#dv-info"), "the other")
    page.run()
    assert len(page.durations()) == 2


def test_weights_come_with_a_bar_can_be_stopped_and_go_on(
    page: Page, server: Server, hub_files: HubServer, speech: Path
) -> None:
    fault = Fault("bigvgan_generator.pt", pace=0.05)
    hub_files.faults.append(fault)
    page.open(server.url)
    page.put("#dv-sound", speech)
    page.choose("Vocoder", "bigvgan")
    page.until(lambda: "489 MB" in page.text("#dv-info"), "what there is to download")
    page.choose("Variant", checkpoints.VARIANT)
    page.until(lambda: "80 Slaney" in page.text("#dv-info") and "to 8000" not in page.text("#dv-info"), "the variant")

    page.wait("#dv-run").click()
    seen = watch(page, until=0.4)
    assert "Downloading bigvgan" in page.text("#dv-status")
    assert " MB" in page.text("#dv-status")
    page.wait("#dv-stop").click()
    page.until(lambda: "Stopped" in page.text("#dv-status"), "the download to stop")
    assert len(set(seen)) >= 3
    assert seen == sorted(seen)

    page.wait("#dv-run").click()
    again = watch(page, until=1.0)
    assert again[0] >= seen[-1]  # what had come was kept
    page.until(lambda: page.find(".dv-results"), "the result")
    assert page.durations() == pytest.approx([0.5, 0.5], abs=0.001)
    page.until(lambda: "on this machine" in page.text("#dv-info"), "the weights to be there")


def watch(page: Page, until: float) -> list[int]:
    """Per cent that the bar showed, one after the other."""
    seen: list[int] = []
    script = "return document.querySelector('#dv-status .dv-bar')?.getAttribute('aria-valuenow') ?? null"

    def far_enough() -> bool:
        now = page.js(script)
        downloading = "Downloading" in page.text("#dv-status")
        if now is not None and downloading:
            seen.append(int(now))
        return bool(seen) and (seen[-1] >= 100 * until or not downloading)

    page.until(far_enough, "the bar")
    return [value for value, _ in itertools.groupby(seen)]


def test_two_tabs_take_turns(page: Page, server: Server, tmp_path: Path) -> None:
    path = tmp_path / "noise.wav"
    soundfile.write(path, np.random.default_rng(0).normal(size=22050 * 8) * 0.05, 22050)
    first = page.driver.current_window_handle
    page.open(server.url)
    page.put("#dv-sound", path)
    page.driver.switch_to.new_window("tab")
    second = page.driver.current_window_handle
    page.open(server.url)
    page.put("#dv-sound", path)
    for tab in (first, second):
        page.driver.switch_to.window(tab)
        page.wait("#dv-run").click()
    page.until(lambda: "Waiting for another run" in page.text("#dv-status"), "the second to wait")
    for tab in (second, first):
        page.driver.switch_to.window(tab)
        page.until(lambda: page.find(".dv-results"), "both to finish")
        assert page.durations() == pytest.approx([8, 8], abs=0.001)
    page.driver.switch_to.window(second)
    page.hosts()
    page.driver.close()
    page.driver.switch_to.window(first)


def begin_a_long_run(page: Page, server: Server, folder: Path) -> None:
    path = folder / "long.wav"
    soundfile.write(path, np.random.default_rng(0).normal(size=22050 * 60) * 0.05, 22050, subtype="PCM_16")
    page.open(server.url)
    page.put("#dv-sound", path)
    page.wait("#dv-run").click()
    page.until(lambda: "left" in page.text("#dv-status"), "the bar to say how long")


def test_a_run_can_be_stopped_and_a_closed_tab_stops_its_own(page: Page, server: Server, tmp_path: Path) -> None:
    begin_a_long_run(page, server, tmp_path)
    page.open(server.url)  # the session that ran is gone, and so is its turn
    take_the_vowel(page)
    page.run(seconds=30)
    assert page.durations() == pytest.approx([2.5, 2.5], abs=0.001)


def test_another_press_ends_the_run_and_begins_another(page: Page, server: Server, tmp_path: Path) -> None:
    begin_a_long_run(page, server, tmp_path)
    take_the_vowel(page)
    page.run(seconds=30)
    assert page.durations() == pytest.approx([2.5, 2.5], abs=0.001)
    assert page.text("#dv-status") == "" and not page.find("#dv-stop")


def test_ten_minutes_in_stereo(page: Page, server: Server, tmp_path: Path) -> None:
    path = tmp_path / "ten minutes.wav"
    samples = np.random.default_rng(0).normal(size=(8000 * 600, 2)) * 0.05
    soundfile.write(path, samples, 8000, subtype="PCM_16")
    page.open(server.url)
    page.choose("Vocoder", "toy")
    page.until(lambda: "a toy" in page.text("#dv-info"), "the vocoder")
    page.put("#dv-sound", path)
    page.run(seconds=120)
    assert page.durations() == pytest.approx([600, 600], abs=0.01)
    assert [width for width, _ in page.pictures()] == [1200] * 3


def test_another_rate_and_another_mel_format(page: Page, server: Server, speech: Path) -> None:
    page.open(server.url)
    page.put("#dv-sound", speech)
    page.js("[...document.querySelectorAll('button.label-wrap')].forEach(each => each.click())")
    page.choose("Mel format", "bigvgan-24khz-100band-256x")
    page.choose("Output rate", "48,000")
    page.until(lambda: "48,000 Hz" in page.text("#dv-info") and "loses" in page.text("#dv-info"), "what is lost")
    page.run()
    said = page.text("#dv-results")
    assert "stereo, 48,000 Hz" in said
    page.js("document.querySelector('.dv-why').open = true")
    assert "bigvgan-24khz-100band" in page.text(".dv-why")
    assert page.durations() == pytest.approx([0.5, 0.5], abs=0.001)


def test_at_the_width_of_a_phone_nothing_sticks_out(page: Page, server: Server) -> None:
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    )
    try:
        assert page.js("return document.documentElement.scrollWidth") <= 360
        assert len(page.pictures()) == 3
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_labels_can_be_read(page: Page, server: Server) -> None:
    page.open(server.url)
    colours = page.js("""
        const label = document.querySelector("#dv-vocoder [data-testid=block-info]"), style = getComputedStyle(label)
        return [style.color, style.backgroundColor]""")
    assert contrast(*colours) >= 4.5, colours  # WCAG 2, level AA


def test_the_component_in_somebody_elses_app(page: Page, trained_hifigan: Path, tmp_path: Path) -> None:
    """What docs/playground.md shows, launched by Gradio itself."""
    import gradio as gr

    from distill_core.playground import VocoderPicker

    def sing(vocoder, progress, seconds):
        mel = vocoder.mel.analyze(torch.randn(1, int(seconds * vocoder.mel.sample_rate)) * 0.05)
        return vocoder.sample_rate, vocoder.mel_to_waveform(mel, progress=progress)[0, 0].numpy()

    def fail(vocoder, progress, seconds):
        raise RuntimeError("<b>no</b>")

    with gr.Blocks(analytics_enabled=False) as app:
        seconds = gr.Number(1)
        button, bad, sound = gr.Button("Sing", elem_id="dv-run"), gr.Button("Fail", elem_id="bad"), gr.Audio()
        picker = VocoderPicker(vocoder="hifigan", formats=False)
        picker.run(button.click, sing, seconds, sound)
        picker.run(bad.click, fail, seconds, sound)
    page.hosts()  # keeps what was asked for so far
    _, url, _ = app.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False, share=False)
    try:
        page.driver.switch_to.new_window("tab")
        page.driver.get(url)
        page.wait("#dv-run").click()
        page.until(lambda: "0:01" in page.text("body") or "0:00" in page.text("body"), "the player")
        page.until(lambda: not page.find("#dv-status .dv-bar"), "the end of the run")
        page.wait("#bad").click()
        page.until(lambda: "RuntimeError: <b>no</b>" in page.text("#dv-status"), "the sentence")
    finally:
        page.driver.get_log("performance")  # Gradio's own page is not ours to vouch for
        page.driver.close()
        page.driver.switch_to.window(page.driver.window_handles[0])
        app.close()


def test_pickles_are_never_executed_by_the_reader_of_mels(tmp_path: Path) -> None:
    from distill_core.errors import InvalidMelError
    from distill_core.playground.bench import check_mel

    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb(tmp_path)], dtype=object), allow_pickle=True)
    (tmp_path / "objects.npy").write_bytes(buffer.getvalue())
    with pytest.raises(InvalidMelError, match=r"^objects\.npy: cannot be read"):
        check_mel(str(tmp_path / "objects.npy"))
    assert not (tmp_path / "ran").exists()
