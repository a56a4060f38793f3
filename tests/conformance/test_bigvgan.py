"""Our BigVGAN against NVIDIA's own package: same state dict, same mel, same waveform."""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import warnings
from typing import Any

import pytest
import torch
from generator_checks import TOLERANCE, chunk_error, dependence, random_mel, randomise, relative_error
from torch import nn

from distill_bigvgan._vendor.bigvgan import (
    CONFIGS,
    BigVGAN,
    context,
    expected_shapes,
    get_mel_spectrogram,
    halo,
    kaiser_sinc_taps,
)

DEFAULT = "bigvgan_v2_44khz_128band_512x"

# the table of the published checkpoints, weight norm folded
PARAMETERS = {
    "bigvgan_v2_44khz_128band_512x": 122_152_752,
    "bigvgan_v2_44khz_128band_256x": 112_715_568,
    "bigvgan_v2_24khz_100band_256x": 112_414_512,
    "bigvgan_v2_22khz_80band_256x": 112_199_472,
    "bigvgan_v2_22khz_80band_fmax8k_256x": 112_199_472,
    "bigvgan_24khz_100band": 112_414_513,
    "bigvgan_22khz_80band": 112_199_473,
    "bigvgan_base_24khz_100band": 14_015_041,
    "bigvgan_base_22khz_80band": 13_943_361,
}


def narrow(name: str = DEFAULT, channels: int = 96, **changes: Any) -> dict[str, Any]:
    """A published configuration with fewer channels; 96 leaves odd counts in the last stages."""
    return {**CONFIGS[name], "upsample_initial_channel": channels, **changes}


CASES = {
    **{f"{name}-narrow": narrow(name) for name in CONFIGS if name != DEFAULT},
    "resblock2": narrow(resblock="2"),
    "resblock2-two-dilations": narrow(resblock="2", resblock_dilation_sizes=[[1, 2], [2, 6], [3, 12]]),
    "snake": narrow(activation="snake"),
    "snake-linear": narrow(activation="snake", snake_logscale=False),
    "snakebeta-linear": narrow(snake_logscale=False),
    "tanh-without-bias": narrow(use_tanh_at_final=True),
    "odd-channels": narrow(channels=75),
    "odd-rates": narrow(upsample_rates=[3, 5], upsample_kernel_sizes=[9, 5], hop_size=15),
}


@pytest.fixture(scope="module")
def nvidia() -> Any:
    pytest.importorskip("bigvgan", reason="NVIDIA's bigvgan 2.4.1 is not installed")
    return importlib.import_module("bigvgan")


def theirs(nvidia: Any, h: Any) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch has deprecated the weight norm it uses
        model = nvidia.BigVGAN(nvidia.AttrDict(h))
    randomise(model)
    return model.eval()


def folded(model: nn.Module) -> nn.Module:
    with contextlib.redirect_stdout(io.StringIO()):
        model.remove_weight_norm()
    return model


def assert_same(h: Any, ours: nn.Module, reference: nn.Module, frames: int, batch: int = 1) -> None:
    mel = random_mel(h["num_mels"], frames, batch=batch)
    with torch.inference_mode():
        measured = relative_error(ours(mel), reference(mel))
    print(f"relative error {measured:.1e}")
    assert measured <= TOLERANCE


def test_default_at_full_size(nvidia: Any) -> None:
    h = CONFIGS[DEFAULT]
    reference = theirs(nvidia, h)
    state = reference.state_dict()
    assert len(state) == 783
    assert_same(h, BigVGAN.from_state_dict(h, state), reference, frames=6)


@pytest.mark.parametrize("name", CASES)
def test_same_waveform(nvidia: Any, name: str) -> None:
    h = CASES[name]
    reference = theirs(nvidia, h)
    ours = BigVGAN(h).eval()
    ours.load_state_dict(reference.state_dict(), strict=True)
    assert_same(h, ours, reference, frames=17, batch=2)
    assert_same(h, ours, reference, frames=1)
    inference = BigVGAN.from_state_dict(h, reference.state_dict())
    assert_same(h, inference, reference, frames=17, batch=2)


@pytest.mark.parametrize("name", CASES)
def test_each_loads_the_others_state_dict(nvidia: Any, name: str) -> None:
    h = CASES[name]
    reference, ours = theirs(nvidia, h), BigVGAN(h).eval()
    randomise(ours, seed=1)

    reference.load_state_dict(ours.state_dict(), strict=True)
    assert_same(h, ours, reference, frames=3)

    folded_reference, folded_ours = folded(theirs(nvidia, h)), folded(BigVGAN(h).eval())
    folded_ours.load_state_dict(folded_reference.state_dict(), strict=True)
    assert_same(h, folded_ours, folded_reference, frames=3)

    other = folded(ours)
    folded_reference.load_state_dict(other.state_dict(), strict=True)
    assert_same(h, other, folded_reference, frames=3)


@pytest.mark.parametrize("name", ["bigvgan_24khz_100band-narrow", "resblock2"])
def test_every_spelling_loads_into_every_form(nvidia: Any, name: str) -> None:
    h = CASES[name]
    reference = theirs(nvidia, h)
    old = reference.state_dict()
    plain = BigVGAN.from_state_dict(h, old).state_dict()
    parametrized = _parametrized(BigVGAN.from_state_dict(h, old)).state_dict()
    assert "conv_pre.parametrizations.weight.original0" in parametrized
    for state in (old, plain, parametrized):
        normed, unnormed = BigVGAN(h).eval(), BigVGAN(h).eval()
        unnormed.remove_weight_norm()
        for ours in (normed, unnormed):
            ours.load_state_dict(state, strict=True)
            assert_same(h, ours, reference, frames=3)
        assert_same(h, BigVGAN.from_state_dict(h, state), reference, frames=3)


def _parametrized(model: nn.Module) -> nn.Module:
    for module in list(model.modules()):
        if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
            nn.utils.parametrizations.weight_norm(module)
    return model


def test_same_gradients(nvidia: Any) -> None:
    h = narrow("bigvgan_base_22khz_80band")
    reference = theirs(nvidia, h)
    ours = BigVGAN(h)
    ours.load_state_dict(reference.state_dict())
    mel = random_mel(80, 5)
    target = torch.randn(1, 1, 5 * 256)
    gradients = []
    for model in (ours, reference):
        (model(mel) * target).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[1].items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradients[0][name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))


def test_the_filter_is_theirs(nvidia: Any) -> None:
    reference = theirs(nvidia, narrow())
    taps = reference.activation_post.downsample.lowpass.filter.flatten()
    torch.testing.assert_close(torch.tensor(kaiser_sinc_taps()), taps, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", CONFIGS)
def test_same_mel(nvidia: Any, name: str) -> None:
    h = CONFIGS[name]
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(h["sampling_rate"]) / h["sampling_rate"]
    wave = torch.stack([0.5 * torch.sin(2 * math.pi * (300 + 4000 * time) * time), 0 * time])
    wave[0] += 0.05 * torch.randn(time.shape, generator=generator)
    expected = nvidia.get_mel_spectrogram(wave, nvidia.AttrDict(h))
    ours = get_mel_spectrogram(wave, h)
    assert ours.shape == expected.shape
    measured = float((ours - expected).abs().max() / expected.abs().max())
    print(f"relative error {measured:.1e}")
    assert measured <= TOLERANCE


@pytest.mark.parametrize("name", CONFIGS)
def test_parameter_counts(name: str) -> None:
    shapes = expected_shapes(CONFIGS[name])
    assert sum(math.prod(s) for key, s in shapes.items() if not key.endswith(".filter")) == PARAMETERS[name]


@pytest.mark.parametrize("name", CONFIGS)
def test_halo_of_the_published(name: str) -> None:
    expected = 21 if name.endswith("512x") else 18 if "base" in name else 38
    assert halo(CONFIGS[name]) == expected


HALO_CASES = [DEFAULT, "bigvgan_v2_22khz_80band_256x", "bigvgan_base_22khz_80band"]
HALO_CHANGES: list[dict[str, Any]] = [
    {},
    {"resblock": "2"},
    {"upsample_rates": [3, 5], "upsample_kernel_sizes": [9, 5], "hop_size": 15},
    {"upsample_rates": [5, 2], "upsample_kernel_sizes": [5, 2], "hop_size": 10, "resblock": "2"},
]


@pytest.mark.parametrize(
    "h",
    [narrow(n, 64, num_mels=1) for n in HALO_CASES]
    + [narrow(channels=16, num_mels=1, **c) for c in HALO_CHANGES[1:] if "upsample_rates" in c]
    + [narrow(HALO_CASES[2], 16, num_mels=1, resblock="2")],
    ids=lambda h: f"{h['upsample_rates']}-{h['upsample_kernel_sizes']}-resblock{h['resblock']}",
)
def test_context_is_what_a_frame_depends_on(h: dict[str, Any]) -> None:
    model = BigVGAN(h)
    model.remove_weight_norm()
    hop_length = math.prod(h["upsample_rates"])
    assert dependence(model, 1, hop_length, halo(h)) == context(h)

    randomise(model)
    mel = random_mel(1, 2 * halo(h) + 20)
    assert chunk_error(model, mel, hop_length, halo(h)) < 1e-12
