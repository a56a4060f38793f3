"""compare, in Python and in the terminal: what is found, measured, told, and never stopped."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from distill_core import errors, registry
from distill_core.audio import read_audio
from distill_core.cli import main
from distill_core.evaluation import METRICS, VocoderChoice, compare, measure, references
from distill_core.evaluation.choices import chosen
from distill_core.evaluation.summary import _summary
from distill_core.resynthesis import resynthesize
from tests import toy

soundfile = pytest.importorskip("soundfile")
pytestmark = pytest.mark.usefixtures("toys")


def run(*argv: object) -> int:
    return main([str(each) for each in argv])


# What is measured


def test_the_figures_are_those_of_measure_on_what_the_vocoder_makes(sounds: Path) -> None:
    path = sounds / "b.wav"
    comparison = compare([path], ["toy"])
    wave, rate = read_audio(path)
    vocoder = registry.get("toy")
    expected = measure(wave[0], resynthesize(wave, rate, vocoder)[0], rate, result_rate=vocoder.sample_rate)
    got = comparison.files[0].results["toy"].scores
    assert got is not None
    assert {**got.values, "rtf": 0} == {**expected.values, "rtf": 0}
    assert got.absent == expected.absent
    assert got["rtf"] == pytest.approx(comparison.files[0].results["toy"].seconds / comparison.files[0].seconds)


def test_a_folder_is_every_sound_in_it_and_the_summary_their_mean(sounds: Path) -> None:
    comparison = compare([sounds], "toy,toy:other")
    assert [each.name for each in comparison.files] == ["b.wav", "a.flac", "noise.wav"]
    assert [each.speech for each in comparison.files] == [True, True, False]
    assert (comparison.failures(), comparison.labels) == ([], ["toy", "toy:other"])
    summary = comparison.summary()
    values = [each.results["toy"].scores["mel"] for each in comparison.files]
    assert summary["mel"].vocoders["toy"].mean == pytest.approx(np.mean(values))
    assert summary["mel"].vocoders["toy"].deviation == pytest.approx(np.std(values, ddof=1))
    assert summary["pesq"].vocoders["toy"].count == 2
    assert summary["mel"].best == ()  # both variants of the toy are one model
    timed = [each.results["toy"].seconds for each in comparison.files]
    ratio = sum(timed) / sum(each.seconds for each in comparison.files)
    assert summary["rtf"].vocoders["toy"].mean == pytest.approx(ratio)


def test_the_fastest_is_who_is_fastest_over_all_seconds() -> None:
    values = {
        "mostly": {0: ("scrap", 9.0, 0.1), 1: ("long", 0.1, 99.9)},
        "evenly": {0: ("scrap", 0.2, 0.1), 1: ("long", 0.2, 99.9)},
    }
    assert _summary(METRICS["rtf"], values).best == ("mostly",)
    assert _summary(METRICS["mel"], values).best == ("evenly",)  # each file counts alike


def test_a_scrap_of_sound_does_not_blow_up_the_spread_of_the_speed(sounds: Path, tmp_path: Path) -> None:
    pytest.importorskip("soundfile").write(tmp_path / "scrap.wav", np.full(1, 0.1), 16_000)
    speed = compare([sounds, tmp_path / "scrap.wav"], "toy").summary()["rtf"].vocoders["toy"]
    *whole, scrap = [value for _, value in speed.values]
    assert scrap > 20 * max(whole)
    assert speed.deviation is not None
    assert speed.deviation < scrap / 20


def test_loaded_vocoders_go_under_labels_of_their_own_and_the_better_one_is_seen(sounds: Path) -> None:
    class Echo(toy.ToyVocoder):
        """Gives back the sound it was told, whatever the mel; wrong by `gain`."""

        def __init__(self, gain: float) -> None:
            super().__init__()
            wave, rate = read_audio(sounds / "b.wav")
            from distill_core.resample import resample

            self.sound = gain * resample(wave, rate, self.sample_rate)

        def mel_to_waveform(self, mel: torch.Tensor, **_: object) -> torch.Tensor:
            return self.sound[None, :, : mel.shape[-1] * self.hop_length]

    comparison = compare([sounds / "b.wav"], {"softer": Echo(0.5), "true": Echo(1.0), "louder": Echo(1.9)})
    summary = comparison.summary()
    assert summary["level"].best == ("true",)
    assert summary["level"].vocoders["louder"].mean == pytest.approx(5.6, abs=0.1)
    assert summary["mel"].best == ("true",)
    assert set(summary["stoi"].best) < {"softer", "true", "louder"} or summary["stoi"].best == ()


def test_no_more_than_the_beginning_is_compared(sounds: Path) -> None:
    whole, cut = (compare([sounds / "b.wav"], "toy", max_seconds=limit).files[0] for limit in (None, 0.5))
    assert (whole.seconds, whole.whole) == (pytest.approx(1.2), True)
    assert (cut.seconds, cut.whole) == (pytest.approx(0.5), False)
    assert cut.recording is not None and len(cut.recording.wave) == 11_025
    assert cut.results["toy"].wave is not None and len(cut.results["toy"].wave) == 4000
    for limit in (0, -1, math.nan):
        with pytest.raises(ValueError, match="max_seconds"):
            compare([sounds / "b.wav"], "toy", max_seconds=limit)


def test_sounds_are_kept_for_the_first_files_only(sounds: Path) -> None:
    comparison = compare([sounds], "toy", keep=1)
    assert [each.recording is not None for each in comparison.files] == [True, False, False]
    assert [each.results["toy"].wave is not None for each in comparison.files] == [True, False, False]


def test_progress_counts_every_result(sounds: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_text("no sound")
    seen: list[tuple[int, int]] = []
    compare([tmp_path, sounds], "toy,toy:other", progress=lambda *each: seen.append(each))
    assert seen[0] == (2, 8) and seen[-1] == (8, 8)
    assert seen == sorted(seen)


# What goes wrong stops nothing


def hostile(folder: Path, name: str) -> None:
    path = folder / name
    if name == "nan.wav":
        soundfile.write(path, np.full(4000, np.nan), 44_100, subtype="FLOAT")
    elif name == "no samples.wav":
        soundfile.write(path, np.zeros((0, 1)), 44_100)
    elif name == "cancels.wav":
        soundfile.write(path, np.random.default_rng(0).standard_normal((4000, 1)) * [[0.1, -0.1]], 44_100)
    elif name == "truncated.flac":
        soundfile.write(folder / "whole.wav", np.zeros(4000), 44_100)
        path.write_bytes((folder / "whole.wav").read_bytes()[:20])
        (folder / "whole.wav").unlink()
    else:
        path.write_bytes(b"\x89PNG not a sound" if "picture" in name else b"")


HOSTILE = ("nan.wav", "no samples.wav", "cancels.wav", "truncated.flac", "picture.wav", "empty.ogg")


def test_silence_is_no_cancelling_and_what_lies_beyond_is_known(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros((8000, 2)), 8000)
    for most, samples in ((None, 8000), (1.0, 8000), (0.9999, 7999), (1e-9, 1)):
        read = references.read(tmp_path / "silence.wav", most)
        assert (len(read.wave), read.channels, read.whole) == (samples, 2, samples == 8000)


def test_bad_references_are_told_each_and_the_others_measured(sounds: Path, tmp_path: Path, capsys) -> None:
    for name in HOSTILE:
        hostile(tmp_path, name)
    for samples in (1, 50, 2000):  # whatever can be read has to go through
        soundfile.write(tmp_path / f"short{samples}.wav", np.full(samples, 0.1), 48_000)
    soundfile.write(tmp_path / "silence.wav", np.zeros(30_000), 48_000)
    soundfile.write(tmp_path / "eight.wav", np.random.default_rng(0).standard_normal((9600, 8)) * 0.01, 192_000)
    missing, nothing = tmp_path / "missing.wav", tmp_path / "*.aiff"
    assert run("compare", sounds / "b.wav", tmp_path, missing, nothing, "--vocoders", "toy", "--json") == 1
    printed, told = capsys.readouterr()
    files = {each["name"]: each for each in json.loads(printed)["files"]}
    good = {Path(name).name for name, each in files.items() if "results" in each}
    assert good == {"b.wav", "short1.wav", "short50.wav", "short2000.wav", "silence.wav", "eight.wav"}
    for each in files.values():
        assert not any("error" in result for result in each.get("results", {}).values()), each
    lines = [line for line in told.splitlines() if line.startswith("error: ")]
    assert len(lines) == len(HOSTILE) + 2 and "Traceback" not in told
    for name in (*HOSTILE, "missing.wav", "*.aiff"):
        assert sum(name in line for line in lines) == 1, name


def test_a_vocoder_that_cannot_be_loaded_or_fails_leaves_the_others_be(sounds: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    vocoders = "nonsense,toy:nonsense,toy@fp17,toy=/no/such/weights,bigvgan,failing,toy"
    if "bigvgan" not in registry.names():
        vocoders = vocoders.replace("bigvgan,", "")
    assert run("compare", sounds / "b.wav", "--vocoders", vocoders, "--json") == 1
    printed, told = capsys.readouterr()
    comparison = json.loads(printed)
    columns = {each["label"]: each for each in comparison["vocoders"]}
    broken = [label for label, each in columns.items() if "error" in each]
    assert set(broken) >= {"nonsense", "toy:nonsense", "toy@fp17"} and "toy" not in broken
    assert ("bigvgan" in broken) is ("bigvgan" in vocoders)
    assert "no variant 'nonsense'" in columns["toy:nonsense"]["error"]
    results = comparison["files"][0]["results"]
    assert results["failing"] == {"error": "RuntimeError: the model ran into a wall"}
    assert results["toy"]["scores"]["mel"] > 0
    assert set(comparison["summary"]["mel"]["vocoders"]) >= {"toy"}
    assert "b.wav, failing: RuntimeError" in told and "Traceback" not in told


def test_who_cannot_be_loaded_is_told_before_any_file_is_read(sounds: Path, caplog, monkeypatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(references, "read", lambda *_: told.extend(caplog.messages) or 1 / 0)
    compare([sounds / "b.wav"], "toy,toyy")
    assert len(told) == 1
    assert told[0].startswith("Left out: toyy: ")


def test_who_fails_on_a_file_is_not_ranked_by_the_others(sounds: Path) -> None:
    """The vocoder that fails on the worst file must not win by that."""
    short = sounds.parent / "short.wav"
    soundfile.write(short, np.random.default_rng(5).standard_normal(1600) * 0.05, 8000)  # 100 frames: it works
    comparison = compare([short, sounds / "b.wav"], "failing,toy")
    assert comparison.files[1].results["failing"].error is not None
    summary = comparison.summary()["mel"]
    assert (summary.vocoders["failing"].count, summary.vocoders["toy"].count) == (1, 2)
    assert summary.vocoders["failing"].loss == pytest.approx(summary.vocoders["toy"].loss)
    assert summary.best == ()


def test_nothing_that_can_be_compared_is_one_line_each_and_no_report(tmp_path: Path, capsys) -> None:
    (tmp_path / "bad.wav").write_text("no sound")
    report = tmp_path / "report.html"
    assert run("compare", tmp_path / "bad.wav", "--vocoders", "toy", "--report", report) == 1
    assert run("compare", tmp_path, "--vocoders", "nonsense", "--report", report) == 1
    assert not report.exists()
    assert capsys.readouterr().out == ""


def test_no_file_is_read_for_vocoders_that_are_not_there(sounds: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(references, "read", lambda *_: pytest.fail("a file was read"))
    assert run("compare", sounds, "--vocoders", "toyy", "--quiet") == 1
    assert "There is no vocoder 'toyy'" in capsys.readouterr().err


def test_no_vocoder_is_loaded_for_files_that_are_not_there(tmp_path: Path, capsys, monkeypatch) -> None:
    """Loading may download half a gigabyte first."""
    monkeypatch.setattr(VocoderChoice, "load", lambda *_: pytest.fail("a model was loaded"))
    assert run("compare", tmp_path / "gone.wav", tmp_path / "x?.wav", "--vocoders", "toy") == 1
    told = capsys.readouterr().err
    assert "gone.wav: there is no such file" in told and "x?.wav: no file is named like this" in told


# How things are named


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("hifigan", VocoderChoice("hifigan")),
        (" bigvgan@bf16 ", VocoderChoice("bigvgan", precision="bf16")),
        ("hifigan:ljspeech", VocoderChoice("hifigan", "ljspeech")),
        ("hifigan:v1@fp16=runs/g_1@2:3", VocoderChoice("hifigan", "v1", "fp16", "runs/g_1@2:3")),
    ],
)
def test_a_vocoder_is_named_in_a_word(text: str, choice: VocoderChoice) -> None:
    assert VocoderChoice.parse(text) == choice
    assert VocoderChoice.parse(choice.label) == choice
    assert choice.label == text.strip()


@pytest.mark.parametrize("text", ["", ",", ":x", "a:", "a@", "a=", "a b", "a:b:c", [], None, [toy.ToyVocoder]])
def test_what_names_no_vocoder_is_refused(text) -> None:
    with pytest.raises(errors.UnknownVocoderError, match="vocoder"):
        chosen(text)
    if isinstance(text, str) and text:
        assert run("compare", "x.wav", "--vocoders", text) == 1


def test_a_vocoder_named_twice_comes_once() -> None:
    assert list(chosen(["a,b", "b", VocoderChoice("a")])) == ["a", "b"]


def test_files_folders_and_globs_mean_files_once(sounds: Path, monkeypatch) -> None:
    monkeypatch.chdir(sounds)
    files, problems = references.find(["inner/noise.wav", "**/*.wav", ".", sounds / "b.wav", "x?.wav", "gone.wav"])
    assert [str(each) for each in files] == ["inner/noise.wav", "b.wav", "inner/a.flac", "gone.wav"]
    assert list(problems) == ["x?.wav"]
    (sounds.parent / "hollow").mkdir(exist_ok=True)
    assert "holds no audio" in references.find([sounds.parent / "hollow"])[1][str(sounds.parent / "hollow")]


def test_links_to_folders_are_followed_but_not_in_circles(sounds: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(sounds / "inner")
    (tmp_path / "back").symlink_to(tmp_path)
    assert [str(each.relative_to(tmp_path)) for each in references.find([tmp_path])[0]] == [
        "linked/a.flac",
        "linked/noise.wav",
    ]


def test_a_name_that_is_too_long_is_one_line(sounds: Path, capsys) -> None:
    assert run("compare", sounds / f"{'x' * 300}.wav", sounds / "b.wav", "--vocoders", "toy", "--json") == 1
    printed, told = capsys.readouterr()
    assert "x.wav: cannot be read (File name too long)" in told and "Traceback" not in told
    assert [each["name"] for each in json.loads(printed)["files"] if "results" in each] == ["b.wav"]


def test_a_name_with_stars_in_it_is_first_of_all_a_name(tmp_path: Path) -> None:
    (tmp_path / "a[1].wav").touch()
    (tmp_path / "a1.wav").touch()
    assert references.find([tmp_path / "a[1].wav"]) == ([tmp_path / "a[1].wav"], {})


def test_names_are_short_and_can_be_shown() -> None:
    paths = [Path("/set/a.wav"), Path("/set/b\n\x1b[31m\u202e.wav"), Path(os.fsdecode(b"/set/\xff.wav"))]
    assert references.short_names(paths) == ["a.wav", "b\ufffd\ufffd[31m\ufffd.wav", "\ufffd.wav"]
    same = [Path("/data/one/a.wav"), Path("/data/two/a.wav"), Path("/data/two/b.wav")]
    assert references.short_names(same) == ["one/a.wav", "two/a.wav", "two/b.wav"]
    assert references.short_names([]) == []


# The terminal


def test_the_table_has_a_line_for_each_metric_and_marks_the_best(sounds: Path, capsys) -> None:
    assert run("compare", sounds, "--vocoders", "toy", "--vocoders", "toy:other", "--quiet") == 0
    printed, told = capsys.readouterr()
    lines = printed.splitlines()
    assert lines[0].startswith("3 recordings, 2.9 s")
    assert lines[2].split() == ["toy", "toy:other"]
    assert [line.split("  ")[0].partition(",")[0] for line in lines[3:]] == [
        metric.label for metric in METRICS.values()
    ]
    assert "2 of 3 recordings" in lines[3]
    assert told == ""


def test_json_holds_what_the_api_does(sounds: Path, capsys) -> None:
    assert run("compare", sounds / "b.wav", "--vocoders", "toy", "--json", "--speech", "no") == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed["metrics"]) == set(METRICS)
    assert printed["files"][0]["results"]["toy"]["absent"]["pesq"] == "not speech"
    assert printed["vocoders"][0]["report"]["engine"] == "eager"
    assert printed["summary"]["mel"]["vocoders"]["toy"]["files"] == 1
    assert set(printed["packages"]) == {"distill-core", "torch", "soxr", "auraloss", "pesq", "pystoi", "pyworld"}


@pytest.mark.parametrize(
    "argv",
    [
        ["x.wav"],
        ["--vocoders", "toy"],
        ["x.wav", "--vocoders", "toy", "--details", "-1"],
        ["x.wav", "--vocoders", "toy", "--max-seconds", "nan"],
        ["x.wav", "--vocoders", "toy", "--audio", "mp4"],
        ["x.wav", "--vocoders", "toy", "--speech", "perhaps"],
    ],
)
def test_wrong_usage_is_exit_code_2(argv, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        run("compare", *argv)
    assert caught.value.code == 2


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder into which not even root may write")
def test_the_figures_are_printed_though_the_report_cannot_be_written(sounds: Path, capsys) -> None:
    assert run("compare", sounds / "b.wav", "--vocoders", "toy", "--report", "/proc/report.html", "--json") == 1
    printed, told = capsys.readouterr()
    assert json.loads(printed)["files"][0]["results"]["toy"]["scores"]["mel"] > 0
    assert "error: /proc/report.html: cannot be written" in told


def test_a_report_that_cannot_be_written_is_refused_before_any_work(sounds: Path, tmp_path: Path, capsys) -> None:
    precious = tmp_path / "report.html"
    precious.write_text("precious")
    for path, words in ((precious, "--force"), (tmp_path / "report.pdf", ".html"), (tmp_path, ".html")):
        assert run("compare", sounds, "--vocoders", "toy", "--report", path) == 1
        told = capsys.readouterr()
        assert words in told.err and told.out == ""
    assert precious.read_text() == "precious"
    assert run("compare", sounds / "b.wav", "--vocoders", "toy", "--report", precious, "--force", "--no-audio") == 0
    assert precious.read_text().startswith("<!DOCTYPE html>")
    assert "report.html: 0." in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]
