"""distill-bigvgan through the registry: variants, weights of one's own, the Hub on loopback."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from distill_core import errors, registry
from tests import checkpoints
from tests.hub_server import HubServer

MEL_FRAMES = 12


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return checkpoints.bigvgan_files()


@pytest.fixture(autouse=True)
def _unload():
    yield
    registry.unload()


def vocode(vocoder) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    mel = torch.randn(1, vocoder.mel.n_mels, MEL_FRAMES, generator=generator) - 4
    return vocoder.mel_to_waveform(mel)


def test_the_card_lists_nine_variants_that_match_their_configurations() -> None:
    from distill_bigvgan._vendor.bigvgan import CONFIGS, expected_shapes
    from distill_core import MelSpec

    card = registry.card("bigvgan")
    assert {f"bigvgan_{variant.name}" for variant in card.variants} == set(CONFIGS)
    for variant in card.variants:
        config = CONFIGS[f"bigvgan_{variant.name}"]
        assert variant.mel == MelSpec.from_config(config)
        shapes = expected_shapes(config)
        count = sum(torch.Size(shape).numel() for name, shape in shapes.items() if not name.endswith(".filter"))
        assert variant.parameters == count
        assert variant.weights is not None
        assert set(variant.weights.files) == {"config.json", "bigvgan_generator.pt"}


def test_a_folder_a_file_and_a_state_dict_load_the_same(files, tmp_path) -> None:
    folder = checkpoints.write(tmp_path, files)
    config = checkpoints.bigvgan_config()
    waves = [
        vocode(registry.get("bigvgan", device="cpu", weights=weights))
        for weights in (
            folder,
            folder / "bigvgan_generator.pt",
            {"generator": checkpoints.bigvgan_state(config), "config": config},
        )
    ]
    assert torch.equal(waves[0], waves[1])
    torch.testing.assert_close(waves[0], waves[2], rtol=1e-5, atol=1e-6)
    vocoder = registry.get("bigvgan", device="cpu", weights=folder)
    assert vocoder.sample_rate == 22050
    assert vocoder.mel.fmax == 8000
    assert vocoder.variant.name == "own weights"  # for the default variant has other mels
    same = registry.get("bigvgan", variant="22khz_80band", device="cpu", weights=folder)
    assert same.variant.name == "22khz_80band (own weights)"


@pytest.mark.parametrize("given", ["folder", "file", "state dict"])
def test_weights_that_are_written_to_again_are_loaded_anew(files, tmp_path, given: str) -> None:
    """As by a training that saves to one place, and listens."""
    folder = checkpoints.write(tmp_path, files)
    config = checkpoints.bigvgan_config()
    state = checkpoints.bigvgan_state(config)
    weights = {
        "folder": folder,
        "file": folder / "bigvgan_generator.pt",
        "state dict": {"generator": state, "config": config},
    }[given]

    def get(**arguments):
        return registry.get("bigvgan", device="cpu", weights=weights, **arguments)

    first, adapted = get(), get(sample_rate=44100)
    before = vocode(first)
    (folder / "events.log").write_text("step 1")  # which says nothing of the weights
    assert get() is first
    assert get(sample_rate=44100) is adapted
    trained = checkpoints.bigvgan_state(config, seed=1)
    if given == "state dict":
        with torch.no_grad():
            for name, tensor in state.items():
                tensor.copy_(trained[name])
    else:
        torch.save({"generator": trained}, folder / "bigvgan_generator.pt")
    second = get()
    assert get() is second
    want = vocode(registry.get("bigvgan", device="cpu", weights={"generator": trained, "config": config}))
    assert torch.equal(vocode(second), want)
    assert not torch.equal(want, before)
    assert get(sample_rate=44100) is not adapted
    assert torch.equal(vocode(first), before)  # whoever holds the old one goes on with it


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"precision": "fp16"}, errors.PrecisionError),
        ({"engine": "warp"}, errors.EngineError),
        ({"engine": "cuda"}, errors.EngineError),
        ({"chunk_frames": 0}, errors.OptionError),
        ({"sample_rate": 0}, errors.InvalidAudioError),
        ({"tqdm": None}, errors.OptionError),
    ],
)
def test_what_cannot_be_had_is_refused_before_a_byte_is_fetched(monkeypatch, arguments, error) -> None:
    """Rather than after half a gigabyte."""
    from distill_bigvgan import bigvgan_vocoder

    monkeypatch.setattr(bigvgan_vocoder, "load_checkpoint", lambda *_, **__: pytest.fail("it went for the weights"))
    with pytest.raises(error):
        registry.get("bigvgan", device="cpu", **arguments)


def test_a_bare_state_dict_is_taken_for_the_named_variant() -> None:
    state = checkpoints.bigvgan_state(checkpoints.bigvgan_config())
    with pytest.raises(errors.CheckpointError, match="state dict.*taken for the variant"):
        registry.get("bigvgan", device="cpu", variant=checkpoints.VARIANT, weights=state)


def test_chunks_and_streams_equal_one_run_of_the_model(files, tmp_path) -> None:
    vocoder = registry.get("bigvgan", device="cpu", weights=checkpoints.write(tmp_path, files), chunk_frames=10)
    mel = torch.randn(2, 80, 61, generator=torch.Generator().manual_seed(1)) - 4
    with torch.inference_mode():
        want = vocoder.model(mel)
    for got in (
        vocoder.mel_to_waveform(mel),
        torch.cat(list(vocoder.stream(mel.split([1, 7, 20, 33], dim=-1))), dim=-1),
    ):
        assert ((got - want).norm() / want.norm()).item() <= 1e-5


def broken(tmp_path, files, what: str):
    """A folder whose content is wrong in one way."""
    files = dict(files)
    if what == "no config":
        del files["config.json"]
    elif what == "no checkpoint":
        del files["bigvgan_generator.pt"]
    elif what == "config is no JSON":
        files["config.json"] = b"<html>"
    elif what == "config of another model":
        files["config.json"] = b'{"hidden_size": 768}'
    elif what == "checkpoint of another model":
        torch.save({"generator": {"encoder.weight": torch.zeros(2, 2)}}, tmp_path / "x")
        files["bigvgan_generator.pt"] = (tmp_path / "x").read_bytes()
    elif what == "truncated":
        files["bigvgan_generator.pt"] = files["bigvgan_generator.pt"][:-2000]
    elif what == "a pickle that runs code":
        torch.save({"generator": Bomb(tmp_path / "ran")}, tmp_path / "x")
        files["bigvgan_generator.pt"] = (tmp_path / "x").read_bytes()
    return checkpoints.write(tmp_path / "weights", files)


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        ("no config", errors.WeightsNotFoundError, "no config.json"),
        ("no checkpoint", errors.WeightsNotFoundError, "bigvgan_generator.pt"),
        ("config is no JSON", errors.CheckpointError, "not JSON"),
        ("config of another model", errors.CheckpointError, "sampling_rate"),
        ("checkpoint of another model", errors.CheckpointError, "missing"),
        ("truncated", errors.CheckpointError, "damaged|cut off"),
        ("a pickle that runs code", errors.UnsafeCheckpointError, "mkdir.*[Nn]othing was run"),
    ],
)
def test_weights_that_are_wrong_get_one_clear_line(tmp_path, files, what, error, words) -> None:
    with pytest.raises(error, match=words) as caught:
        registry.get("bigvgan", device="cpu", weights=broken(tmp_path, files, what))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


GET = """
import dataclasses, sys
import distill_bigvgan.plugin as plugin
from distill_core import WeightsPin, registry

# The default variant's pin names NVIDIA's 489 MB; here it names what the server on loopback holds.
files = {"config.json": (None, None), "bigvgan_generator.pt": (None, None)}
pin = WeightsPin("nvidia/bigvgan_v2_44khz_128band_512x", sys.argv[1], files)
default = dataclasses.replace(plugin.CARD.variant(), weights=pin)
plugin.CARD = dataclasses.replace(plugin.CARD, variants=[default])
import distill_bigvgan.weight_manager as manager
manager.CARD = plugin.CARD
print("cached", manager.is_bigvgan_cached())

sockets = []
sys.addaudithook(lambda event, args: sockets.append(event) if event.startswith("socket.") else None)
vocoder = registry.get("bigvgan")
print("sockets", len(sockets))
print("cached", manager.is_bigvgan_cached(), manager.ensure_bigvgan_weights().is_dir())
import torch
print("samples", vocoder.mel_to_waveform(torch.zeros(1, 128, 3)).shape[-1])
"""


def test_the_first_get_downloads_two_files_and_the_second_opens_no_socket(tmp_path) -> None:
    config = checkpoints.bigvgan_config(64, "v2_44khz_128band_512x")
    with HubServer() as hub:
        commit = hub.add("nvidia/bigvgan_v2_44khz_128band_512x", checkpoints.bigvgan_files(config))
        env = hub.env(tmp_path, PYTHONPATH=os.pathsep.join(sys.path))
        first = run(commit, env)
        asked = hub.asked()
    # The server is gone now.
    second = run(commit, env)
    assert {each.split()[1] for each in asked} == {"config.json", "bigvgan_generator.pt"}
    assert first.stdout.splitlines()[0] == "cached False"
    assert int(first.stdout.splitlines()[1].split()[1]) > 0
    assert "bigvgan_v2_44khz_128band_512x: 100%" in first.stderr
    assert second.stdout.splitlines() == ["cached True", "sockets 0", "cached True True", "samples 1536"]
    assert second.stderr == ""


def run(commit: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-c", GET, commit], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done
