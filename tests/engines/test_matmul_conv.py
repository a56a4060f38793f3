"""Convolutions as products of matrices against torch's: at any length, items joined, dilated, added, upsampling."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from distill_core.engines import winograd
from distill_core.engines.channels_last import Conv, Layout, room
from distill_core.engines.matmul_conv import MatmulConv


@pytest.fixture(autouse=True)
def no_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)


def signals(conv: Conv, items: Tensor) -> tuple[Tensor, Tensor, Layout]:
    """Items [items, length, C] in a room full of NaN, another signal in it, and their layout."""
    count, length, channels = items.shape
    layout = Layout(count, length, conv.ahead(length) if count > 1 else 0)
    space = room(conv.reach)
    x = space.take("x", torch.float32, layout.rows, channels)
    out = space.take("out", torch.float32, layout.rows, conv.channels)
    for buffer in space._buffers.values():
        buffer.fill_(255)
    layout.split(x).copy_(items)
    return x, out, layout


def convolved(conv: Conv, items: Tensor) -> Tensor:
    x, out, layout = signals(conv, items)
    return layout.split(conv(x, out, layout)).clone()


@pytest.mark.parametrize("items", [1, 3])
@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (7, 3), (11, 5)])
def test_it_convolves_and_adds(kernel: int, dilation: int, items: int) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(6, 5, kernel) / (5 * kernel) ** 0.5, torch.randn(6)
    plain, leaky = (MatmulConv(weight, bias, dilation=dilation, negative_slope=slope) for slope in (None, 0.1))
    for length in (1, 2, 5, 61):
        rows, before = torch.randn(items, length, 5), torch.randn(items, length, 6)
        expected = F.conv1d(rows.mT, weight, bias, padding=plain.context, dilation=dilation).mT
        assert (convolved(plain, rows) - expected).abs().max() < 1e-5
        assert (convolved(leaky, rows) - F.leaky_relu(expected, 0.1)).abs().max() < 1e-5
        for conv in (plain, leaky):  # what is added goes through no leaky ReLU
            x, out, layout = signals(conv, rows)
            layout.split(out).copy_(before)
            base = out.clone()
            assert (layout.split(conv.add(x, out, layout)) - before - expected).abs().max() < 1e-5
            assert (layout.split(conv.add(x, out, layout, base)) - before - expected).abs().max() < 1e-5


def test_the_weight_may_change_afterwards_and_a_bias_may_be_missing() -> None:
    weight = torch.randn(4, 4, 3)
    conv, rows = MatmulConv(weight, None), torch.randn(1, 9, 4)
    expected = F.conv1d(rows.mT, weight, padding=1).mT
    weight.zero_()
    assert (convolved(conv, rows) - expected).abs().max() < 1e-5


@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (16, 8), (7, 3), (5, 5)])
@pytest.mark.parametrize("make", ["upsampling", "transposed"])
def test_an_upsampling_multiplies_what_it_has_to(make: str, kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(6, 5, kernel), torch.randn(5)
    up = getattr(winograd.Convolutions(), make)(weight, bias, stride=stride, dtype=torch.float32)
    rows = torch.randn(1, 20, 6)
    expected = F.conv_transpose1d(rows.mT, weight, bias, stride=stride, padding=(kernel - stride) // 2).mT
    x, _, layout = signals(up, rows)
    out = room(0).take("out", torch.float32, 20 * stride, 5)
    assert (up(x, out, layout) - expected[0]).abs().max() < 1e-5
    assert sum(taps.numel() for _, _, taps in up._conv._taps) == weight.numel()
