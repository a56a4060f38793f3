"""What the channels-last engine keeps in memory: nothing that grows with the mel, and the weights once."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from distill_bigvgan import bigvgan_vocoder
from distill_bigvgan.plugin import distill_vocoders
from distill_core import errors
from distill_core.engines.channels_last import why_no_onednn
from distill_core.engines.workspace import Workspace
from tests import checkpoints
from tests.conformance.generator_checks import random_mel

pytestmark = pytest.mark.skipif(why_no_onednn() is not None, reason="oneDNN is not available in this torch")
CONFIG = checkpoints.bigvgan_config(32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return checkpoints.write(tmp_path, checkpoints.bigvgan_files(CONFIG))


def load(weights: Any, **options: Any) -> Any:
    card = distill_vocoders()[0]
    return bigvgan_vocoder.load(card, card.variants[0], device="cpu", precision="fp32", weights=weights, **options)


def test_a_workspace_hands_out_the_same_memory_with_room_around_it() -> None:
    space = Workspace(before=2, after=(64, 3))
    rows = space.take("x", torch.float32, 10, 4)
    assert (rows.shape, rows.stride(), rows.storage_offset()) == ((10, 4), (4, 1), 2 * 4)
    assert space.nbytes() == rows.untyped_storage().nbytes() == (2 + 10 + 3) * 4 * 4 + 64
    for dtype, count in ((torch.float32, 10), (torch.float32, 3), (torch.bfloat16, 20)):
        assert space.take("x", dtype, count, 4).untyped_storage().data_ptr() == rows.untyped_storage().data_ptr()
    assert space.take("y", torch.float32, 1, 1).untyped_storage().data_ptr() != rows.untyped_storage().data_ptr()
    assert space.take("x", torch.float32, 11, 4).untyped_storage().nbytes() == (2 + 11 + 3) * 4 * 4 + 64
    assert space.nbytes() == (2 + 11 + 3) * 4 * 4 + 64 + (2 + 1 + 3) * 4 + 64, "the smaller one is let go"


def test_packed_weights_are_kept_once_and_read_again_on_demand(folder: Path) -> None:
    fast, eager = load(folder), load(folder, engine="eager")
    mel = random_mel(80, 9)
    before = fast.model
    assert fast.report().engine == "channels-last"
    assert fast._model is None
    wave = fast.mel_to_waveform(mel, check_format=False)
    again = fast.model
    assert again is not before
    assert again is fast.model
    expected = eager.model.state_dict()
    assert again.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.state_dict().items())
    assert not any(parameter.requires_grad for parameter in again.parameters())
    assert torch.equal(fast.mel_to_waveform(mel, check_format=False), wave)


@pytest.mark.parametrize("ended", [True, False])
def test_an_engine_that_streamed_is_let_go_with_its_vocoder(folder: Path, ended: bool) -> None:
    vocoder = load(folder)
    vocoder.report()
    gc.collect()
    gc.disable()  # it may come by late, or never in a program that is idle
    try:
        stream = vocoder.stream(random_mel(80, 60).split(30, dim=-1), check_format=False)
        assert len(list(stream) if ended else [next(stream)]) > 0
        engine = vocoder._fast.run
        parts = [weakref.ref(part) for part in (engine.space, engine.stages[0].blocks[0][0].first)]
        del stream, vocoder, engine
        assert [part() for part in parts] == [None, None]
    finally:
        gc.enable()


def test_what_has_no_file_or_no_engine_keeps_its_model(folder: Path) -> None:
    held, eager = load({"generator": checkpoints.bigvgan_state(CONFIG), "config": CONFIG}), load(folder, engine="eager")
    assert held.report().engine == "channels-last"
    eager.report()
    assert held._model is not None
    assert eager._model is not None


def test_a_model_that_is_set_is_heard(folder: Path) -> None:
    vocoder, other = load(folder), load(folder, engine="eager")
    mel = random_mel(80, 9)
    before = vocoder.mel_to_waveform(mel, check_format=False)
    with torch.no_grad():
        other.model.conv_post.weight.mul_(0.5)
    vocoder.model = other.model
    after = vocoder.mel_to_waveform(mel, check_format=False)
    assert vocoder.report().engine == "channels-last"
    assert torch.equal(vocoder.model.conv_post.weight, other.model.conv_post.weight), "it was read from the file"
    assert not torch.allclose(after, before, rtol=0.1)
    torch.testing.assert_close(after, other.mel_to_waveform(mel, check_format=False), rtol=1e-4, atol=1e-5)


def test_a_program_that_goes_to_another_folder_finds_its_weights(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one with windows does on some systems when it asks for a file."""
    monkeypatch.chdir(folder.parent)
    fast = load(folder.name)
    assert fast.report().engine == "channels-last"
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert fast.model.conv_post.weight.isfinite().all()


def test_a_file_that_changed_is_not_taken_for_the_same_weights(folder: Path) -> None:
    fast = load(folder)
    fast.report()
    file = folder / "bigvgan_generator.pt"
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(errors.CheckpointError, match=r"registry\.unload\(\) lets go"):
        _ = fast.model
    file.unlink()
    with pytest.raises(errors.WeightsNotFoundError, match=r"is gone\. registry\.unload\(\) lets go"):
        _ = fast.model
    assert fast.mel_to_waveform(random_mel(80, 3), check_format=False).shape == (1, 1, 768)


PROGRAM = """
import json, sys
from pathlib import Path
import torch
from distill_core import registry

def status(name):
    return next(int(l.split()[1]) for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(name))

torch.set_num_threads(1)
vocoder = registry.get("bigvgan", device="cpu", weights=sys.argv[1], chunk_frames=256)
mel = torch.randn(1, 80, 40_000)
peaks = []
for frames in (400, 2_000, 40_000):
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    wave = vocoder.mel_to_waveform(mel[..., :frames], check_format=False)
    peaks.append(status("VmHWM") * 1024)
print(json.dumps({"peaks": peaks, "wave": wave.numel() * 4, "engine": vocoder.report().engine}))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="this system does not tell a process's peak")
def test_peak_memory_does_not_grow_with_the_mel(tmp_path: Path, record_property) -> None:
    """Twenty times the length may take the waveform itself and 4 MB; one copy of the mel takes 12.8 MB."""
    config = {**CONFIG, "upsample_rates": [4, 4], "upsample_kernel_sizes": [8, 8], "hop_size": 16}
    config["upsample_initial_channel"] = 16
    checkpoints.write(tmp_path, checkpoints.bigvgan_files(config))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["engine"] == "channels-last"
    _, short, long = result["peaks"]
    growth = long - short - result["wave"]
    record_property("measured", f"peak memory at 20 times the length: {growth / 1e6:+.1f} MB besides the waveform")
    assert growth <= 4e6
