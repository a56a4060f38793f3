"""distill-vocoder as people and programs use it: output, exit codes, errors, files."""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from distill_core import Variant, doctor, registry
from distill_core.cli import main
from distill_core.corpus.job import VocodeJob
from distill_core.discovery import Candidate, Discovery
from distill_core.evaluation import VocoderChoice
from tests import checkpoints, toy

soundfile = pytest.importorskip("soundfile")


@pytest.fixture(autouse=True, scope="module")
def _toy_vocoder():
    """A vocoder of the tests' own beside those that are installed."""
    registry.register(toy.plugin(toy.card("toy")))
    yield
    del registry._by_hand["toy"]
    registry.unload()
    registry.refresh()


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "sound.wav"
    time = np.arange(4410) / 44100
    soundfile.write(path, 0.5 * np.stack([np.sin(2000 * time), np.cos(900 * time)], axis=1), 44100)
    return path


def run(*argv: object) -> int:
    return main([str(each) for each in argv])


def test_a_sound_comes_back_at_its_own_length_with_its_own_channels(sound: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out.wav"
    assert run("vocode", sound, "-o", out, "--vocoder", "toy") == 0
    wave, rate = soundfile.read(out, always_2d=True)
    assert (rate, wave.shape) == (8000, (800, 2))
    assert "x real time" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["npy", "pt", "safetensors", "mapping.pt"])
def test_a_mel_is_vocoded_whatever_file_it_is_in(kind: str, tmp_path: Path) -> None:
    mel = toy.mel(1, 20)
    path = tmp_path / f"mel.{kind}"
    if kind == "npy":
        np.save(path, mel[0].numpy())
    elif kind == "safetensors":
        from safetensors.torch import save_file

        save_file({"mel": mel}, path)
    else:
        torch.save({"mel": mel, "other": mel} if "mapping" in kind else mel, path)
    out = tmp_path / "new folder" / "out.flac"
    assert run("vocode", path, "-o", out, "--vocoder", "toy") == 0
    wave, _ = soundfile.read(out)
    want = toy.ToyVocoder().mel_to_waveform(mel)[0, 0].numpy()
    assert np.abs(wave - want).max() < 1e-3


def test_a_batch_of_mels_becomes_a_numbered_file_each(tmp_path: Path) -> None:
    np.save(tmp_path / "mels.npy", toy.mel(3, 20).numpy())
    assert run("vocode", tmp_path / "mels.npy", "-o", tmp_path / "out.wav", "--vocoder", "toy") == 0
    assert sorted(path.name for path in tmp_path.glob("*.wav")) == ["out.0.wav", "out.1.wav", "out.2.wav"]


def test_several_inputs_go_to_a_folder_and_json_tells_where(sound: Path, tmp_path: Path, capsys) -> None:
    np.save(tmp_path / "mel.npy", toy.mel(1, 20).numpy())
    out = tmp_path / "results"
    assert run("vocode", sound, tmp_path / "mel.npy", "-o", out, "--vocoder", "toy", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert [Path(each["output"]).name for each in printed["files"]] == ["sound.wav", "mel.wav"]
    assert all(Path(each["output"]).is_file() for each in printed["files"])
    assert printed["report"]["engine"] == "eager"


def test_nothing_is_overwritten_without_force(sound: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out.wav"
    out.write_bytes(b"precious")
    assert run("vocode", sound, "-o", out, "--vocoder", "toy") == 1
    assert out.read_bytes() == b"precious"
    assert "--force" in capsys.readouterr().err
    assert run("vocode", sound, "-o", out, "--vocoder", "toy", "--force") == 0
    assert out.read_bytes()[:4] == b"RIFF"
    assert run("vocode", sound, "-o", sound, "--vocoder", "toy", "--force") == 1
    assert "is an input" in capsys.readouterr().err


def test_two_inputs_for_one_output_are_refused_before_anything_runs(sound: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "other").mkdir()
    again = tmp_path / "other" / "sound.flac"
    again.write_bytes(b"")
    assert run("vocode", sound, again, "-o", f"{tmp_path}/out/", "--vocoder", "toy") == 1
    assert "would both be written there. --keep-endings tells" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    soundfile.write(again, np.zeros(2000), 8000)
    assert run("vocode", sound, again, "-o", f"{tmp_path}/out/", "--vocoder", "toy", "--keep-endings") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["sound.flac.wav", "sound.wav.wav"]


def hostile(tmp_path: Path, what: str) -> Path:
    path = tmp_path / what
    if what == "mel of 8 bands.npy":
        np.save(path, np.zeros((8, 10), dtype=np.float32))
    elif what == "rank 1.npy":
        np.save(path, np.zeros(10, dtype=np.float32))
    elif what == "integers.npy":
        np.save(path, np.zeros((5, 10), dtype=np.int64))
    elif what == "nan.npy":
        np.save(path, np.full((5, 10), np.nan, dtype=np.float32))
    elif what == "no frames.npy":
        np.save(path, np.zeros((5, 0), dtype=np.float32))
    elif what == "objects.npy":
        np.save(path, np.array([{}], dtype=object))
    elif what == "code.pt":
        torch.save(Bomb(tmp_path), path)
    elif what == "text.wav":
        path.write_text("not audio")
    elif what == "empty.wav":
        path.write_bytes(b"")
    elif what == "no samples.wav":
        soundfile.write(path, np.zeros((0, 1)), 44100)
    elif what == "nan.wav":
        soundfile.write(path, np.full(4000, np.nan), 44100, subtype="FLOAT")
    return path


class Bomb:
    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "ran")

    def __reduce__(self):
        import os

        return os.mkdir, (self.path,)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("mel of 8 bands.npy", "5 bands"),
        ("rank 1.npy", "[10]"),
        ("integers.npy", "floating-point"),
        ("nan.npy", "finite"),
        ("no frames.npy", "at least one"),
        ("objects.npy", "cannot be read"),
        ("code.pt", "cannot be read"),
        ("text.wav", "cannot be read as audio"),
        ("empty.wav", "cannot be read as audio"),
        ("no samples.wav", "no samples"),
        ("nan.wav", "NaN"),
        ("missing.wav", "no such file"),
        ("missing.npy", "no such file"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_and_exit_code_1(what, words, tmp_path: Path, capsys) -> None:
    path = hostile(tmp_path, what)
    assert run("vocode", path, "-o", tmp_path / "out.wav", "--vocoder", "toy") == 1
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("error")]
    assert len(lines) == 1
    assert words in lines[0]
    assert what in lines[0]
    assert "Traceback" not in captured.err
    assert not (tmp_path / "out.wav").exists()
    assert not (tmp_path / "ran").exists()


def test_one_bad_file_stops_no_other(sound: Path, tmp_path: Path, capsys) -> None:
    bad = hostile(tmp_path, "text.wav")
    assert run("vocode", bad, sound, "-o", tmp_path / "out", "--vocoder", "toy", "--json") == 1
    printed = json.loads(capsys.readouterr().out)["files"]
    assert "error" in printed[0]
    assert Path(printed[1]["output"]).is_file()


def test_fail_fast_holds_for_files_too(sound: Path, tmp_path: Path, capsys) -> None:
    bad, out = hostile(tmp_path, "text.wav"), tmp_path / "out"
    assert run("vocode", bad, sound, "-o", out, "--vocoder", "toy", "--fail-fast", "--json") == 1
    captured = capsys.readouterr()
    assert [each["input"] for each in json.loads(captured.out)["files"]] == [str(bad)]
    assert "stopped (--fail-fast): 1 left" in captured.err
    assert not out.exists()


def test_nothing_is_loaded_for_files_that_are_not_there(tmp_path: Path, capsys, monkeypatch) -> None:
    """Loading may download half a gigabyte first."""
    monkeypatch.setattr(VocodeJob, "load", lambda job: pytest.fail("a model was loaded"))
    argv = ["vocode", tmp_path / "a.wav", tmp_path / "b.npy", "-o", tmp_path / "out", "--vocoder", "toy", "--json"]
    assert run(*argv) == 1
    captured = capsys.readouterr()
    printed = json.loads(captured.out)
    assert (printed["vocoder"], printed["report"]) == (None, None)
    assert ["no such file" in each["error"] for each in printed["files"]] == [True, True]
    assert captured.err.count("no such file") == 2


def test_offline_it_is_told_which_vocoder_needs_no_download(sound: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    from huggingface_hub import constants

    for name, value in (("HF_HUB_CACHE", str(tmp_path / "hub")), ("HF_HUB_OFFLINE", True)):
        monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv(name, str(value))  # for the processes that do a corpus
    hint = "No download is needed for --vocoder hifigan"
    for argv, told in (
        ([sound, "-o", tmp_path / "out.wav"], True),
        ([sound, "-o", tmp_path / "out/", "--workers", 1], True),
        ([sound, "-o", tmp_path / "out.wav", "--vocoder", "bigvgan"], False),
    ):
        assert run("vocode", *argv) == 1
        error = capsys.readouterr().err
        assert "HF_HUB_OFFLINE forbids the network" in error and (hint in error) is told


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--vocoder", "no-such"], "There is no vocoder 'no-such'"),
        (["--vocoder", "toy", "--variant", "x"], "no variant 'x'"),
        (["--vocoder", "toy", "--device", "cuda:77"], "cuda:77"),
        (["--vocoder", "toy", "--mel", "x"], "no mel preset 'x'"),
        (["--vocoder", "toy", "--subtype", "GSM_9000"], "GSM_9000"),
        (["--vocoder", "toy", "--sample-rate", "2147483648"], "2147483647 Hz at most"),
        (["--vocoder", "bigvgan", "--weights", "/no/such/folder"], "/no/such/folder"),
    ],
)
def test_a_choice_that_does_not_exist_is_one_line(argv, words, sound: Path, tmp_path: Path, capsys) -> None:
    assert run("vocode", sound, "-o", tmp_path / "out.wav", *argv) == 1
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["nonsense"],
        ["vocode"],
        ["vocode", "x.wav"],
        ["info"],
        ["vocode", "x.wav", "-o", ""],
        ["vocode", "", "-o", "x.wav"],
        ["vocode", "x.wav", "-o", "y.wav", "--weights", ""],
        ["check", "toy", "--weights", ""],
        ["compare", "", "--vocoders", "toy"],
        ["compare", "x.wav", "--vocoders", "toy", "--report", ""],
        ["new-plugin", "mine", "-o", ""],
        ["playground", "--port", "65536"],
        ["playground", "--port", "-1"],
        ["playground", "--port", "http"],
        ["weights", "fetch", "bigvgan", "--to", ""],
        ["weights", "convert", "bigvgan", "-o", ""],
    ],
)
def test_wrong_usage_is_exit_code_2(argv, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # which an empty path must not be taken for
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("output", "more", "words"),
    [
        ("out.docx", [], ".wav, .flac"),
        ("out.ogg", ["--sample-rate", "200001"], "OGG holds 200000 Hz at most"),
        ("out.ogg", ["--sample-rate", "22050", "--subtype", "OPUS"], "OPUS holds 8000"),
        ("many", ["--workers", "1", "--format", "flac", "--sample-rate", "700000"], "FLAC holds 655350 Hz"),
        ("file.pt/out.wav", [], "file.pt is a file and no folder"),
        (f"{'x' * 300}.wav", [], "cannot be written"),
        (f"new/{'x' * 300}.wav", [], "xx.wav: cannot be written (File name too long)"),
        ("out.wav", ["--subtype", "VORBIS"], "no encoding 'VORBIS'"),
        ("out.wav", ["--format", "flac"], "out.wav: is named as .wav, but --format says flac"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_first(
    output: str, more: list[str], words: str, sound: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    (tmp_path / "file.pt").write_bytes(b"")
    monkeypatch.setattr(VocodeJob, "load", lambda job: pytest.fail("a model was loaded"))
    assert run("vocode", sound, "-o", tmp_path / output, "--vocoder", "toy", *more) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_misspelt_folder_is_told_before_where_it_would_go(tmp_path: Path, capsys) -> None:
    assert run("vocode", tmp_path / "recodrings", "-o", tmp_path / "vocoded", "--vocoder", "toy") == 1
    assert capsys.readouterr().err == f"error: {tmp_path}/recodrings: there is no such file.\n"


@pytest.fixture
def closed_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder into which nothing may be put; for root, who may do anything, a file system that is not written to."""
    folder = tmp_path / "closed"
    folder.mkdir(0o555)
    mount, mounted = shutil.which("mount"), False
    if os.access(folder, os.W_OK) and mount is not None:
        command = [mount, "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)]
        mounted = not subprocess.run(command, capture_output=True, check=False).returncode
    if os.access(folder, os.W_OK):
        pytest.skip("no folder can be closed to root here")
    yield folder
    if mounted:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize(
    ("argv", "where"),
    [
        (["vocode", "--vocoder", "toy", "-o"], "out.wav"),
        (["vocode", "--vocoder", "toy", "-o"], "new/folder/out.wav"),
        (["compare", "--vocoders", "toy", "--report"], "report.html"),
    ],
)
def test_a_folder_that_may_not_be_written_to_is_told_first(
    argv: list[str], where: str, sound: Path, closed_folder: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(VocodeJob, "load", lambda job: pytest.fail("a model was loaded"))
    monkeypatch.setattr(VocoderChoice, "load", lambda *_: pytest.fail("a model was loaded"))
    assert run(*argv, closed_folder / where, sound) == 1
    assert f"{where}: cannot be written, for nothing may be put into {closed_folder}." in capsys.readouterr().err


@pytest.mark.parametrize(("rate", "words"), [(20_000, "not one sample is left"), (2**31 - 1, "cannot be resampled")])
def test_what_leaves_no_sample_is_an_error_and_no_empty_file(rate: int, words: str, tmp_path: Path, capsys) -> None:
    soundfile.write(tmp_path / "brief.wav", np.zeros(1, np.float32), rate)
    assert run("vocode", tmp_path / "brief.wav", "-o", tmp_path / "out.wav", "--vocoder", "toy") == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out.wav").exists()


def test_a_rate_far_beyond_the_vocoders_own_is_refused(sound: Path, tmp_path: Path, capsys) -> None:
    """soxr ends the process with it."""
    argv = ["vocode", sound, "-o", tmp_path / "out.wav", "--vocoder", "toy", "--sample-rate", 2**31 - 1]
    assert run(*argv) == 1
    assert "8000 Hz cannot be resampled to 2147483647 Hz" in capsys.readouterr().err


def test_more_channels_than_a_format_holds_are_refused_before_anything_is_computed(
    tmp_path: Path, capsys, monkeypatch
) -> None:
    soundfile.write(tmp_path / "nine.wav", np.zeros((4000, 9), np.float32), 8000)
    monkeypatch.setattr(toy.ToyVocoder, "_vocode", lambda *_: pytest.fail("a model ran"))
    assert run("vocode", tmp_path / "nine.wav", "-o", tmp_path / "out.flac", "--vocoder", "toy") == 1
    assert "FLAC holds 8 channels at most, not 9" in capsys.readouterr().err


def test_an_archive_of_arrays_is_told_what_a_mel_is_read_from(tmp_path: Path, capsys) -> None:
    np.savez(tmp_path / "m.npz", mel=np.zeros((5, 20), np.float32))
    assert run("vocode", tmp_path / "m.npz", "-o", tmp_path / "out.wav", "--vocoder", "toy") == 1
    assert "A mel is read from .npy (np.save writes one)" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["npy", "pt", "safetensors"])
def test_a_mel_where_a_recording_is_wanted_is_called_a_mel(kind: str, tmp_path: Path, capsys) -> None:
    (tmp_path / f"m.{kind}").write_bytes(b"a mel")
    assert run("compare", tmp_path / f"m.{kind}", "--vocoders", "toy", "--quiet") == 1
    error = capsys.readouterr().err
    assert "is a mel by its name; a recording is wanted here" in error and "read as audio" not in error


def test_a_name_in_an_error_does_nothing_to_the_terminal(tmp_path: Path, capsys) -> None:
    for name in ("\x1b]0;title\7é\u202e.wav", "\x1b[2J.wav"):  # of one file, and of what may be a glob
        assert run("vocode", tmp_path / name, "-o", f"{tmp_path}/out/", "--vocoder", "toy") == 1
    error = capsys.readouterr().err
    assert "\\x1b]0;title\\x07é\\u202e.wav: there is no such file" in error and "\\x1b[2J.wav: no file" in error
    assert not set("\x1b\7\u202e") & set(error)


def test_the_doctor_shows_no_password_of_a_proxy_or_mirror() -> None:
    given = {
        "HTTPS_PROXY": "bob:s3cret@proxy:3128",  # as HTTP clients take it, too
        "http_proxy": "http://bob:s3cret@proxy:3128",
        "ALL_PROXY": "proxy:3128",
        "HF_ENDPOINT": "https://bob:s3cret@mirror.example",
        "HF_TOKEN": "hf_s3cret",
        "PYTHONPATH": "/opt/python@3/lib",
    }
    assert doctor._environment(given) == {
        "HTTPS_PROXY": "…@proxy:3128",
        "http_proxy": "http://…@proxy:3128",
        "ALL_PROXY": "proxy:3128",
        "HF_ENDPOINT": "https://…@mirror.example",
        "HF_TOKEN": "(set)",
        "PYTHONPATH": "/opt/python@3/lib",
    }


def test_what_a_plugin_says_of_itself_does_nothing_to_the_terminal(capsys) -> None:
    said = "\x1b]0;title\7\u202e"
    variants = (Variant(said, toy.MEL, 8000),)
    card = toy.card("toy-loud", summary=said, license=said, homepage=said, variants=variants)
    registry.register(toy.plugin(card))
    try:
        for argv in (["list"], ["info", "toy-loud"], ["explain", "toy-loud"]):
            assert run(*argv) == 0
            shown = capsys.readouterr().out
            assert "toy-loud" in shown and not set("\x1b\7\u202e") & set(shown)
        assert run("info", "toy-loud") == 0
        assert "toy-loud: \\x1b]0;title\\x07\\u202e\n" in capsys.readouterr().out
        assert run("list", "--json") == 0
        assert said in [row["summary"] for row in json.loads(capsys.readouterr().out)]
    finally:
        del registry._by_hand["toy-loud"]
        registry.unload()
        registry.refresh()


def test_a_name_in_what_is_logged_does_nothing_to_the_terminal(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(logging.root, "level", logging.root.level)
    assert run("list") == 0
    logging.getLogger("distill_core.weights").warning("%s is not used.\nConvert it.", Path("\x1b]0;title\7\u202e.pt"))
    assert capsys.readouterr().err == "\\x1b]0;title\\x07\\u202e.pt is not used.\nConvert it.\n"


def test_an_input_with_too_long_a_name(tmp_path: Path, capsys) -> None:
    assert run("vocode", f"{'x' * 300}.wav", "-o", tmp_path / "out.wav", "--vocoder", "toy") == 1
    assert "cannot be read (File name too long)" in capsys.readouterr().err


def test_list_and_info_print_tables_and_json(capsys) -> None:
    assert run("list", "--json") == 0
    names = {row["name"] for row in json.loads(capsys.readouterr().out)}
    assert {"toy", "bigvgan", "hifigan"} <= names
    assert run("list") == 0
    assert capsys.readouterr().out.startswith("NAME")
    assert run("info", "bigvgan", "--json") == 0
    info = json.loads(capsys.readouterr().out)
    assert len(info["variants"]) == 9
    assert info["variants"][0]["weights"]["confirmed"] is True
    assert run("info", "bigvgan") == 0
    text = capsys.readouterr().out
    assert "v2_44khz_128band_512x (default): 44100 Hz, 122.2 M parameters" in text
    assert run("info", "bigvgam") == 1
    assert "Did you mean 'bigvgan'" in capsys.readouterr().err


def test_an_empty_name_is_no_name_left_out(capsys) -> None:
    for argv in (["info", "toy", "--variant", ""], ["weights", "status", "toy", "--variant", ""]):
        assert run(*argv) == 1
        assert "no variant ''" in capsys.readouterr().err
    assert run("weights", "status", "") == 1
    assert "not by ''" in capsys.readouterr().err


def test_auto_has_information_and_weights_like_the_one_it_means(capsys) -> None:
    for argv in (["info"], ["weights", "status"]):
        printed = []
        for name in ("auto", registry.resolve("auto").name):
            assert run(*argv, name) == 0
            printed.append(capsys.readouterr().out)
        assert printed[0] == printed[1]


def test_list_imports_neither_torch_nor_a_plugin() -> None:
    script = (
        "import sys; from distill_core.cli import main; main(['list'])\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "heavy = {'torch', 'numpy', 'soundfile', 'huggingface_hub', 'distill_bigvgan', 'distill_hifigan'}\n"
        "print(sorted(loaded & heavy))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "command",
    ["info chatty", "explain chatty", "doctor", "weights status", "vocode {sound} -o {out} --vocoder chatty"],
)
def test_what_a_plugin_prints_goes_to_stderr(
    command: str, sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """Upstream code often does, when it is imported and when it loads; a program that reads JSON must not meet it."""
    (tmp_path / "chatty_plugin.py").write_text(
        "from tests import toy\n"
        "print('importing')\n"
        "distill_vocoders = toy.plugin(toy.card('chatty', factory='chatty_plugin:load')).distill_vocoders\n"
        "def load(*args, **arguments):\n"
        "    print('Removing weight norm...')\n"
        "    return toy.load(*args, **arguments)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "chatty_plugin", raising=False)
    monkeypatch.setattr(registry, "_find", lambda: Discovery((Candidate("chatty", "chatty_plugin", "chatty-dist"),)))
    registry.refresh()
    try:
        run(*command.format(sound=sound, out=tmp_path / "out.wav").split(), "--json")
    finally:
        monkeypatch.undo()
        registry.refresh()
    captured = capsys.readouterr()
    assert json.loads(captured.out)
    assert "importing" in captured.err
    assert ("Removing weight norm..." in captured.err) == command.startswith("vocode")


def test_weights_of_ones_own_from_the_terminal(sound: Path, tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path / "weights", checkpoints.bigvgan_files())
    out = tmp_path / "out.wav"
    assert run("vocode", sound, "-o", out, "--vocoder", "bigvgan", "--weights", folder, "--quiet") == 0
    assert soundfile.info(out).samplerate == 22050


def test_a_way_through_a_folder_that_is_not_there_yet_leads_to_no_file(sound: Path, tmp_path: Path, capsys) -> None:
    before = sound.read_bytes()
    assert run("vocode", sound, "-o", tmp_path / "no" / ".." / "sound.wav", "--vocoder", "toy") == 1
    assert "is an input" in capsys.readouterr().err
    (tmp_path / "there.wav").write_bytes(b"mine")
    assert run("vocode", sound, "-o", tmp_path / "no" / ".." / "there.wav", "--vocoder", "toy") == 1
    assert "exists already" in capsys.readouterr().err
    assert sound.read_bytes() == before
    assert (tmp_path / "there.wav").read_bytes() == b"mine"
    assert not (tmp_path / "no").exists()


def test_the_mels_of_one_file_and_another_are_not_written_to_one_place(sound: Path, tmp_path: Path, capsys) -> None:
    np.save(tmp_path / "x.npy", toy.mel(3, 20).numpy())
    sound.rename(tmp_path / "x.0.wav")
    assert run("vocode", tmp_path / "x.0.wav", tmp_path / "x.npy", "-o", f"{tmp_path}/out/", "--vocoder", "toy") == 1
    assert "x.0.wav and so on" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["file", "folder", "pipe"])
def test_what_is_no_sound_is_called_what_it_is(kind: str, tmp_path: Path, capsys) -> None:
    path = tmp_path / "in.wav"
    if kind == "pipe":
        os.mkfifo(path)  # reading it would wait for ever
    elif kind == "folder":
        path.mkdir()
    message = {"file": "no such file", "folder": "is a folder", "pipe": "is a pipe"}[kind]
    (tmp_path / "list.jsonl").write_text('{"input": "in.wav"}\n')
    assert run("vocode", tmp_path / "list.jsonl", "-o", tmp_path / "out", "--vocoder", "hifigan") == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--chunk-frames", "0", "whole number of 1 or more, not '0'"),
        ("--sample-rate", "x", "whole number of 1 or more, not 'x'"),
        ("--workers", "0", "whole number of 1 or more, not '0'"),
        ("--gpus-per-worker", "-1", "a part of one GPU, or a whole number of them, not '-1'"),
        ("--gpus-per-worker", "1.5", "a part of one GPU, or a whole number of them, not '1.5'"),
        ("--gpus-per-worker", "x", "a part of one GPU, or a whole number of them, not 'x'"),
    ],
)
def test_numbers_that_can_never_work_are_wrong_usage(option: str, value: str, words: str, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        run("vocode", "a.wav", "-o", "b.wav", option, value)
    assert words in capsys.readouterr().err


TOY = "import sys; from distill_core import registry; from tests import toy; from distill_core.cli import main;"
TOY += "registry.register(toy.plugin(toy.card('toy'))); sys.exit(main(sys.argv[1:]))"


def shell(rest: str, *argv: object) -> subprocess.CompletedProcess[str]:
    """The toy's command line with what a shell adds to it."""
    words = shlex.join([sys.executable, "-c", TOY, *map(str, argv)])
    return subprocess.run(["bash", "-c", f"{words} {rest}"], capture_output=True, text=True, timeout=120)


def test_a_reader_that_goes_away_ends_the_printing_and_not_the_work(sound: Path, tmp_path: Path) -> None:
    more = [tmp_path / f"more{i}.wav" for i in range(4)]
    for path in more:
        path.write_bytes(sound.read_bytes())
    out = tmp_path / "out"
    done = shell(
        "| true; exit ${PIPESTATUS[0]}", "vocode", "missing.wav", sound, *more, "-o", f"{out}/", "--vocoder", "toy"
    )
    assert done.returncode == 1
    assert "missing.wav" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(list(out.iterdir())) == 5


@pytest.mark.parametrize(
    ("rest", "code"), [("2>&-", 0), ("2>/dev/full", 0), (">&-", 0), (">/dev/full", 1), ("</dev/null >/dev/null", 0)]
)
def test_streams_that_are_closed_or_full(rest: str, code: int, sound: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    done = shell(rest, "vocode", sound, "-o", out, "--vocoder", "toy")
    assert done.returncode == code
    assert soundfile.info(out).frames == 800
    assert done.stderr.strip() == ("error: stdout cannot be written to (No space left on device)." if code else "")


def test_what_the_encoding_lacks_is_printed_escaped(sound: Path, tmp_path: Path) -> None:
    out = tmp_path / "ünïcode \N{MINUS SIGN}.wav"
    command = [sys.executable, "-c", TOY, "vocode", str(sound), "-o", str(out), "--vocoder", "toy"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "latin-1"}, check=True)
    assert "ünïcode \\u2212.wav" in done.stdout.decode("latin-1")


def test_an_error_may_have_a_name_in_it_that_is_no_text() -> None:
    command = [sys.executable, "-m", "distill_core.cli", "explain", b"x\xff"]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, capture_output=True, env=environment, check=False, text=True)
    assert done.returncode == 1
    assert done.stdout.startswith(r"x\udcff: There is no vocoder")
    command[-2] = "info"
    done = subprocess.run(command, capture_output=True, env=environment, check=False, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(r"error: There is no vocoder 'x\udcff'")


def test_interrupted_before_anything_is_loaded() -> None:
    script = (
        "import os, signal, sys\n"
        "class Hook:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'distill_core.cli.playground': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Hook())\n"
        "from distill_core.cli import main\n"
        "sys.exit(main(['list']))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_a_reader_that_goes_away_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m distill_core.cli info bigvgan | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
