"""Convolutions with fewer multiplications against plain ones: error, ends, items joined to one signal, dilation."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from distill_core.engines import channels_last, selection, winograd, winograd_schemes, winograd_transforms
from distill_core.engines.channels_last import Conv, Layout
from distill_core.engines.workspace import Workspace
from distill_hifigan._vendor.hifigan import CONFIGS, HiFiGAN
from distill_hifigan.hifigan_vocoder import HiFiGANVocoder
from distill_hifigan.plugin import CARD
from tests.conformance.generator_checks import random_mel, randomise

pytestmark = pytest.mark.skipif(
    selection.why_not_channels_last("fp32") is not None, reason="oneDNN is not available in this torch"
)


WAYS = [winograd_transforms.TorchTransforms, winograd_transforms.CompiledTransforms]


@pytest.fixture(params=WAYS, ids=["torch", "numba"])
def transforms(request: pytest.FixtureRequest) -> winograd_transforms.Transforms:
    if request.param is winograd_transforms.CompiledTransforms:
        pytest.importorskip("numba")
    return request.param()


def layer(
    transforms: winograd_transforms.Transforms, channels: int, kernel: int, dilation: int, slope: float | None = None
) -> tuple[winograd.WinogradConv, Any]:
    """A convolution, and the same in fp64 on [items, length, C]."""
    torch.manual_seed(0)
    weight = torch.randn(channels, channels, kernel) / (channels * kernel) ** 0.5
    bias = torch.randn(channels)
    conv = winograd.WinogradConv(
        weight, bias, transforms=transforms, scratch=Workspace(), dilation=dilation, negative_slope=slope
    )

    def plain(x: torch.Tensor) -> torch.Tensor:
        padding = dilation * (kernel - 1) // 2
        y = F.conv1d(x.double().transpose(1, 2), weight.double(), bias.double(), padding=padding, dilation=dilation)
        return (y if slope is None else F.leaky_relu(y, slope)).transpose(1, 2)

    return conv, plain


def signal(conv: Conv, items: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, Layout]:
    """Items [items, length, C] in a room full of NaN, another of its kind, and their layout."""
    count, length, channels = items.shape
    layout = Layout(count, length, conv.ahead(length) if count > 1 else 0)
    space = channels_last.room(conv.reach)
    made = [space.take(name, torch.float32, layout.rows, channels) for name in ("x", "out")]
    for buffer in space._buffers.values():
        buffer.fill_(255)
    layout.split(made[0]).copy_(items)
    return made[0], made[1], layout


@pytest.mark.parametrize("kernel", range(1, 20, 2))
def test_every_scheme_is_exact(kernel: int) -> None:
    scheme = winograd_schemes.scheme_for(kernel)
    blocks = scheme.blocks(kernel)
    assert scheme.cost(kernel) < max(2, kernel)
    rng = np.random.default_rng(0)
    taps = np.pad(rng.standard_normal(kernel), (0, blocks * scheme.taps - kernel)).reshape(blocks, scheme.taps)
    signal = rng.standard_normal((blocks - 1) * scheme.group + scheme.points)
    products = sum(
        (scheme.filter @ taps[block]) * (scheme.signal @ signal[block * scheme.group :][: scheme.points])
        for block in range(blocks)
    )
    expected = np.correlate(signal, taps.flatten(), "valid")
    np.testing.assert_allclose(scheme.out_of @ products, expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(scheme.out_of @ scheme.constant, np.ones(scheme.group), rtol=1e-10)


# Of the signal. The plain sum's are 2.5e-7.
ERRORS = {3: 1.2e-6, 5: 2.5e-6, 7: 2.5e-6, 11: 4e-6}


@pytest.mark.parametrize("dilation", [1, 3, 5])
@pytest.mark.parametrize("kernel", ERRORS)
def test_error_at_any_length(transforms: winograd_transforms.Transforms, kernel: int, dilation: int) -> None:
    conv, plain = layer(transforms, 64, kernel, dilation)
    bound = ERRORS[kernel]
    for length in (1, 2, 3, 4, 5, 59, 60, 61, 319, 320, 321, 2500):
        items = torch.randn(1, length, 64)
        x, out, layout = signal(conv, items)
        expected = plain(items)
        conv(x, out, layout)
        assert (layout.split(out) - expected).norm() <= bound * expected.norm()
        before = torch.randn_like(items)
        layout.split(out).copy_(before)
        conv.add(x, out, layout)
        assert (layout.split(out) - before - expected).norm() <= bound * expected.norm()


@pytest.mark.parametrize("kernel", [7, 11])
def test_long_sums_are_made_in_parts(
    transforms: winograd_transforms.Transforms, kernel: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = []
    for longest in (winograd._LONGEST_SUM, sys.maxsize):
        monkeypatch.setattr(winograd, "_LONGEST_SUM", longest)
        conv, plain = layer(transforms, 896, kernel, dilation=3)
        items = torch.randn(2, 200, 896)
        x, out, layout = signal(conv, items)
        conv(x, out, layout)
        expected = plain(items)
        errors.append((layout.split(out) - expected).norm() / expected.norm())
    assert errors[0] < 0.8 * errors[1]


def test_with_a_leaky_relu_and_without_a_bias(transforms: winograd_transforms.Transforms) -> None:
    conv, plain = layer(transforms, 64, 7, 3, slope=0.1)
    items = torch.randn(1, 100, 64)
    x, out, layout = signal(conv, items)
    assert (layout.split(conv(x, out, layout)) - plain(items)).abs().max() < 1e-4
    bare = winograd.WinogradConv(torch.randn(64, 64, 3), None, transforms=transforms, scratch=Workspace())
    x, out, layout = signal(bare, torch.zeros(1, 9, 64))
    assert not bare(x, out, layout).any()


@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (7, 3), (11, 5)])
def test_joined_items_come_out_as_alone_bit_for_bit(
    transforms: winograd_transforms.Transforms, kernel: int, dilation: int
) -> None:
    conv, _ = layer(transforms, 64, kernel, dilation)
    for length in (1, 40, 61, 333):
        items = torch.randn(9, length, 64)
        x, out, layout = signal(conv, items)
        together = layout.split(conv(x, out, layout)).clone()
        for item, result in zip(items, together, strict=True):
            x, out, layout = signal(conv, item[None])
            assert torch.equal(layout.split(conv(x, out, layout))[0], result)


def test_it_is_taken_where_it_is_worth_it_and_fits(transforms: winograd_transforms.Transforms) -> None:
    def kind(channels: int, kernel: int, dtype: torch.dtype = torch.float32) -> type:
        convolutions = winograd.Convolutions()
        convolutions._transforms = transforms
        return type(convolutions(torch.zeros(channels, channels, kernel), None, dtype=dtype))

    assert kind(192, 3) is kind(128, 7) is kind(64, 7) is winograd.WinogradConv
    assert kind(16, 11) is kind(200, 11) is Conv
    if selection.why_not_channels_last("bf16") is None:
        assert kind(192, 11, torch.bfloat16) is Conv
    compiled = isinstance(transforms, winograd_transforms.CompiledTransforms)
    assert kind(128, 3) is kind(64, 3) is kind(32, 11) is (winograd.WinogradConv if compiled else Conv)


def test_more_channels_out_than_in(transforms: winograd_transforms.Transforms) -> None:
    weight, bias = torch.randn(96, 32, 7), torch.randn(96)
    conv = winograd.WinogradConv(weight, bias, transforms=transforms, scratch=Workspace(), dilation=3)
    items = torch.randn(2, 77, 32)
    x, _, layout = signal(conv, items)
    out = torch.full((layout.rows, 96), float("nan"))
    expected = F.conv1d(items.double().mT, weight.double(), bias.double(), padding=9, dilation=3).mT
    assert (layout.split(conv(x, out, layout)) - expected).norm() <= ERRORS[7] * expected.norm()
    assert out.isnan().sum() == 2 * layout.gap * 96, "nothing but the items is written"


@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (8, 4), (16, 8), (3, 3), (11, 5)])
def test_upsampling_is_a_transposed_convolution_and_joined_items_come_out_as_alone(kernel: int, stride: int) -> None:
    pytest.importorskip("numba")
    torch.manual_seed(0)
    weight, bias = torch.randn(64, 32, kernel), torch.randn(32)
    up = winograd.Convolutions().upsampling(weight, bias, stride=stride, dtype=torch.float32)
    assert isinstance(up, winograd.WinogradUpsampling)
    for length in (1, 7, 300):
        items = torch.randn(5, length, 64)
        expected = F.conv_transpose1d(
            items.double().mT, weight.double(), bias.double(), stride=stride, padding=(kernel - stride) // 2
        ).mT
        together = upsampled(up, items)
        assert together.shape == expected.shape
        assert (together - expected).norm() <= 2e-6 * expected.norm()
        for item, result in zip(items, together, strict=True):
            assert torch.equal(upsampled(up, item[None])[0], result)


def upsampled(up: channels_last.Upsampling, items: torch.Tensor) -> torch.Tensor:
    count, length, channels = items.shape
    layout = Layout(count, length, up.ahead(length) if count > 1 else 0)
    space = channels_last.room(up.reach)
    x = space.take("x", torch.float32, layout.rows, channels)
    space._buffers["x"].fill_(255)
    layout.split(x).copy_(items)
    wide = Layout(count, length * up.stride, layout.gap * up.stride)
    return wide.split(up(x, space.take("out", torch.float32, wide.rows, up.channels), layout)).clone()


def test_upsampling_by_a_wide_weight_or_of_odd_channels_stays_a_transposed_convolution() -> None:
    make = winograd.Convolutions().upsampling
    assert isinstance(
        make(torch.zeros(512, 256, 16), None, stride=8, dtype=torch.float32), channels_last.TransposedConv
    )
    assert isinstance(make(torch.zeros(24, 12, 4), None, stride=2, dtype=torch.float32), channels_last.TransposedConv)


def test_several_threads_make_what_one_makes() -> None:
    pytest.importorskip("numba")
    conv, _ = layer(winograd_transforms.CompiledTransforms(), 128, 11, 5)
    items = torch.randn(3, 2003, 128)
    results = []
    for threads in (1, 4):
        torch.set_num_threads(threads)
        x, out, layout = signal(conv, items)
        results.append(layout.split(conv(x, out, layout)).clone())
    assert torch.equal(*results)


def test_without_numba_torch_transforms_and_the_report_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    for name in ("kernels", "winograd_kernels"):
        monkeypatch.delitem(sys.modules, f"distill_core.engines.{name}", raising=False)
        monkeypatch.delattr(f"distill_core.engines.{name}", raising=False)
    convolutions = winograd.Convolutions()
    assert isinstance(convolutions._transforms, winograd_transforms.TorchTransforms)
    assert convolutions.notes == (), "as long as there is nothing to transform"
    convolutions(torch.zeros(64, 64, 7), None, dtype=torch.float32)
    assert "pip install 'distill-core[cpu]'" in convolutions.notes[0]


@pytest.mark.parametrize(("frames", "items"), [(5, 4), (13, 2)])
def test_a_whole_model_with_wide_layers(frames: int, items: int) -> None:
    config = CONFIGS["v1"]
    module = HiFiGAN(config)
    randomise(module)
    folded = HiFiGAN.from_state_dict(config, module.state_dict())
    variant = CARD.variants[0].with_config(config, own=True)
    fast, eager = (HiFiGANVocoder(folded, variant, engine=engine) for engine in ("channels-last", "eager"))
    mel = random_mel(80, frames, batch=items)
    together, expected = (vocoder.mel_to_waveform(mel, check_format=False) for vocoder in (fast, eager))
    assert (together - expected).norm() <= 1e-5 * expected.norm()
    stack: Any = fast._fast and fast._fast.run
    assert any(isinstance(conv, winograd.WinogradConv) for stage in stack.stages for conv in stage.convs)
    for row in range(items):
        assert torch.equal(fast.mel_to_waveform(mel[row : row + 1], check_format=False), together[row : row + 1])
