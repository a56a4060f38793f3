"""distill-vocoder new-plugin: names, files, refusals. tests/install builds and installs what it writes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from distill_core import MelSpec, Registry, errors
from distill_core.cli import main
from distill_core.discovery import Candidate, Discovery
from distill_core.new_plugin import NewPlugin, write


@pytest.mark.parametrize(
    ("name", "distribution", "package"),
    [("my-voice", "distill-my-voice", "distill_my_voice"), ("x2", "distill-x2", "distill_x2")],
)
def test_a_name_becomes_a_distribution_and_a_package(name: str, distribution: str, package: str) -> None:
    plugin = NewPlugin(name)
    assert (plugin.distribution, plugin.package) == (distribution, package)


@pytest.mark.parametrize("name", ["", "My", "2x", "a b", "../x", "a--b", "a_", "é", "x" * 51, "a.b", "a/b", "-x"])
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    with pytest.raises(errors.DistillError, match="cannot be a vocoder's name"):
        NewPlugin(name)


def test_auto_is_no_name() -> None:
    with pytest.raises(errors.DistillError, match="'auto' cannot be"):
        NewPlugin("auto")


def test_the_configuration_beside_weights_of_ones_own_is_heeded(tmp_path, monkeypatch) -> None:
    write(NewPlugin("mine", mel="bigvgan-24khz-100band-256x"), tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry(lambda: Discovery((Candidate("mine", "distill_mine.plugin", "distill-mine"),)), {})
    own = tmp_path / "own"
    own.mkdir()
    torch.save(registry.get("mine", device="cpu").model.state_dict(), own / "generator.pt")
    config = {"sampling_rate": 22050, "num_mels": 100, "n_fft": 1024, "hop_size": 256, "win_size": 1024}
    (own / "config.json").write_text(json.dumps({**config, "fmin": 0, "fmax": 8000}))
    vocoder = registry.get("mine", device="cpu", weights=own)
    assert (vocoder.sample_rate, vocoder.mel.fmax) == (22050, 8000.0)
    assert registry.get("mine", device="cpu").sample_rate == 24000


def test_a_mel_that_does_not_exist_is_refused() -> None:
    with pytest.raises(errors.MelFormatError, match="Did you mean"):
        NewPlugin("x", mel="vocos-24khz")


def test_nothing_is_overwritten_without_force(tmp_path) -> None:
    plugin = NewPlugin("mine")
    (tmp_path / "pyproject.toml").write_text("precious")
    with pytest.raises(errors.OutputExistsError, match="--force"):
        write(plugin, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["pyproject.toml"]
    write(plugin, tmp_path, overwrite=True)
    assert "precious" not in (tmp_path / "pyproject.toml").read_text()


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.DistillError, match="cannot be written"):
        write(NewPlugin("mine"), tmp_path / "file" / "below")


@pytest.mark.xdist_group("mypy")
def test_the_files_are_clean_and_complete(tmp_path, strict_mypy) -> None:
    files = write(NewPlugin("my-voice", mel="bigvgan-44khz-128band-512x"), tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in files} == {
        ".gitignore",
        "README.md",
        "pyproject.toml",
        "distill_my_voice/__init__.py",
        "distill_my_voice/model.py",
        "distill_my_voice/plugin.py",
        "distill_my_voice/py.typed",
        "distill_my_voice/vocoder.py",
        "tests/test_contract.py",
    }
    for path in files:
        assert "$" not in path.read_text()
    for tool in (["check"], ["format", "--check", "--line-length", "120"]):
        command = [sys.executable, "-m", "ruff", *tool, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    strict_mypy(tmp_path / "distill_my_voice")


def test_the_card_has_the_mel_that_was_asked_for(tmp_path, monkeypatch) -> None:
    write(NewPlugin("asked", mel="vocos-24khz-100band"), tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    from distill_asked.plugin import CARD

    assert CARD.variant().mel == MelSpec.preset("vocos-24khz-100band")


def test_the_command_says_what_it_wrote_and_what_next(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new-plugin", "my-voice"]) == 0
    assert "pip install -e ./distill-my-voice\n  distill-vocoder check my-voice" in capsys.readouterr().out
    assert main(["new-plugin", "my-voice"]) == 1
    assert "pyproject.toml" in str(list((tmp_path / "distill-my-voice").iterdir()))
    assert main(["new-plugin", "my-voice", "-o", "elsewhere", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["folder"] == "elsewhere"
    assert captured.err.startswith("error: distill-my-voice/")
    for name in ("hifigan", "core"):
        assert main(["new-plugin", name, "-o", "third"]) == 1
        assert f"distill_{name}" in capsys.readouterr().err
        assert not (tmp_path / "third").exists()
