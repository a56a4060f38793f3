"""Checkpoints converted once: the same weights, loaded in the original's place while they belong to it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from distill_core.cli import main
from distill_core.errors import CheckpointError
from distill_core.weights import ensure, load_checkpoint
from distill_core.weights import folded as conversion
from distill_core.weights.folded import SUFFIX, fold
from tests import checkpoints
from tests.hub_server import HubServer

VARIANT = checkpoints.VARIANT
NAME = "bigvgan_generator.pt"


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return checkpoints.bigvgan_files()


@pytest.fixture
def folder(cache: Path, tmp_path: Path, files: dict[str, bytes]) -> Path:
    return checkpoints.write(tmp_path / "own", files)


def convert(*arguments: object) -> Path:
    """`distill-vocoder weights convert`; returns the file it names."""
    assert main(["weights", "convert", "bigvgan", "--quiet", *map(str, arguments)]) == 0
    return Path(_last_line)


_last_line = ""


@pytest.fixture(autouse=True)
def _listen(monkeypatch: pytest.MonkeyPatch) -> None:
    def note(text: str = "") -> None:
        global _last_line
        _last_line = text

    monkeypatch.setattr("distill_core.cli.weights.print_line", note)


def wave(weights: Path) -> torch.Tensor:
    from distill_bigvgan.bigvgan_vocoder import load
    from distill_bigvgan.plugin import CARD

    vocoder = load(CARD, CARD.variant(VARIANT), device="cpu", precision="fp32", weights=weights)
    return vocoder.mel_to_waveform(torch.zeros(1, 80, 5))


def test_folding_is_the_generators_own(files: dict[str, bytes]) -> None:
    from distill_bigvgan._vendor.common.weight_norm import fold_weight_norm

    state = checkpoints.bigvgan_state(checkpoints.bigvgan_config())
    newer = {
        name.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): tensor
        for name, tensor in state.items()
    }
    expected = fold_weight_norm(state)
    for spelling in (state, newer, expected):
        folded = fold(spelling)
        assert folded.keys() == expected.keys()
        assert all(torch.equal(folded[name], expected[name]) for name in expected)
    del state["conv_pre.weight_g"]
    with pytest.raises(CheckpointError, match=r"conv_pre\.weight_v without conv_pre\.weight_g"):
        fold(state)


def test_halves_are_folded_in_single_precision_and_shared_memory_is_written_for_each(
    cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "x.pt").write_bytes(b"read already")
    torch.manual_seed(0)
    filters = torch.randn(1, 1, 12)
    state = {"a.weight_v": torch.randn(9, 7, 3), "a.weight_g": torch.rand(9, 1, 1), "a.bias": torch.rand(9)}
    state = {name: tensor.half() for name, tensor in state.items()}
    expected = fold({name: tensor.float() for name, tensor in state.items()})
    shared = {"one": filters, "two": filters, "three": filters[..., :6]}
    path = conversion.convert(tmp_path / "x.pt", {**state, **shared}, None)
    read = load_checkpoint(path).state_dict
    assert all(tensor.dtype == torch.float32 for tensor in read.values())
    assert read.keys() == {*expected, *shared}
    assert all(torch.equal(read[name], tensor) for name, tensor in {**expected, **shared}.items())


def test_a_folders_own_is_loaded_in_preference(folder: Path) -> None:
    before = wave(folder)
    target = convert("--weights", folder)
    assert target == folder / (NAME + SUFFIX)
    read = load_checkpoint(folder, names=[NAME])
    assert read.path == target
    assert not any(name.endswith(("weight_g", "weight_v")) for name in read.state_dict)
    assert torch.equal(wave(folder), before)
    assert torch.equal(wave(folder / NAME), before)
    assert load_checkpoint(folder, converted=False).path == folder / NAME


def test_another_checkpoints_is_not_loaded(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    convert("--weights", folder)
    other = {"generator": checkpoints.bigvgan_state(checkpoints.bigvgan_config(), seed=1)}
    torch.save(other, folder / NAME)
    assert load_checkpoint(folder).path == folder / NAME
    assert "was made of another file" in caplog.text
    convert("--weights", folder)
    assert load_checkpoint(folder).path == folder / (NAME + SUFFIX)


@pytest.mark.parametrize("content", [b"", b"x" * 1000, b"\x10\0\0\0\0\0\0\0{}              "])
def test_a_damaged_one_is_not_loaded(folder: Path, caplog: pytest.LogCaptureFixture, content: bytes) -> None:
    convert("--weights", folder).write_bytes(content)
    assert load_checkpoint(folder).path == folder / NAME
    assert "convert again" in caplog.text or "cannot be used" in caplog.text


def test_one_file_that_says_everything(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "shipped" / "vocoder.safetensors"
    assert convert("--weights", folder, "-o", output) == output
    assert load_checkpoint(folder).path == folder / NAME
    expected = wave(folder)
    assert torch.equal(wave(output), expected)
    assert torch.equal(wave(output.parent), expected)
    assert main(["weights", "convert", "bigvgan", "--weights", str(folder), "-o", str(output)]) == 1
    assert "--force" in capsys.readouterr().err
    assert convert("--weights", folder, "-o", output, "--force") == output


def test_the_hubs_checkpoint(hub: HubServer, cache: Path, files: dict[str, bytes], caplog) -> None:
    from distill_bigvgan.plugin import CARD

    hub.add(f"nvidia/bigvgan_{VARIANT}", files)
    pin = CARD.variant(VARIANT).weights
    target = convert("--variant", VARIANT)
    hub.close()
    assert cache in target.parents
    assert load_checkpoint(None, pin).path == target
    assert load_checkpoint(None, pin).config == json.loads(files["config.json"])
    assert load_checkpoint(None, pin, converted=False).path == ensure(pin) / NAME
    content = bytearray(target.read_bytes())
    content[-1] ^= 1
    target.write_bytes(content)
    assert load_checkpoint(None, pin).path == ensure(pin) / NAME
    assert "is not as it was written" in caplog.text


def test_memory_while_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint of 56 MB: folded, it is in memory once; converted, it is not even that."""
    from benchmarks import loading

    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not tell anonymous memory")
    monkeypatch.chdir(Path(__file__).parents[2])
    size = loading.write_checkpoint(tmp_path, "base_24khz_100band")
    loading.write_converted(tmp_path)
    ours = loading.measure("ours", tmp_path)
    assert not math.isnan(ours["anonymous"])
    assert 0.9 * size < ours["anonymous"] < 1.2 * size
    assert loading.measure("converted", tmp_path)["anonymous"] < 0.2 * size
