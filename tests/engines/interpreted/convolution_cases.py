"""The Triton convolution against torch's. Run by test_triton_kernels.py, in a process of its own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from distill_core.engines.gpu.triton_convolution import GroupedConvolution, suited_group
from tests.engines.gpu_models import error

LIMIT = 5e-4
"""For fp16. Of bf16 the interpreter multiplies the bits."""


def random(*shape: int, dtype: torch.dtype = torch.float16, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def plain(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    padding = dilation * (weight.shape[2] // 2)
    return F.conv1d(x.float().mT, weight.float(), padding=padding, dilation=dilation).mT


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize(("taps", "dilation"), [(3, 1), (7, 1), (7, 3), (11, 5), (1, 1)])
def test_groups_of_rows_and_dilations(group, taps, dilation) -> None:
    x, weight = random(2, 60, 20), random(24, 20, taps, seed=1)
    got = GroupedConvolution(weight, dilation, group)(x)
    assert got.dtype == torch.float16
    assert error(got, plain(x, weight, dilation)) <= LIMIT


@pytest.mark.parametrize("channels", [16, 33, 64, 96, 128, 272])
def test_as_many_channels_as_are_taken(channels) -> None:
    """In several tiles of rows, and of columns."""
    rows = 4 * 3 * (45 if channels <= 128 else 13)
    x, weight = random(1, rows, channels), random(channels, channels, 7, seed=1)
    own = GroupedConvolution.suited(weight, 3)
    assert own is not None
    assert error(own(x), plain(x, weight, 3)) <= LIMIT
    assert own.tried(weight) is own


def test_a_wrong_one_is_noticed() -> None:
    weight = random(20, 20, 3)
    with pytest.raises(ArithmeticError, match="is off by"):
        GroupedConvolution(weight.flip(2), 1, 1).tried(weight)


def test_weights_of_zero_are_right() -> None:
    weight = torch.zeros(20, 20, 3, dtype=torch.float16)
    own = GroupedConvolution(weight, 1, 4)
    assert own.tried(weight) is own


def test_which_are_taken() -> None:
    half = torch.float16
    assert suited_group(24, 24, 3, 1, half) == suited_group(32, 32, 11, 5, half) == 4
    assert (suited_group(48, 48, 3, 1, half), suited_group(48, 48, 7, 1, half)) == (1, 2)
    assert suited_group(128, 96, 11, 1, torch.bfloat16) == 1
    assert (suited_group(768, 768, 7, 1, half), suited_group(768, 768, 7, 3, half)) == (None, 1)
    assert suited_group(192, 192, 7, 3, half) is suited_group(8, 8, 3, 1, half) is None
    assert suited_group(48, 48, 3, 1, torch.float32) is None


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (random(1, 8, 3), "contiguous rows of 20"),
        (random(1, 8, 20, dtype=torch.float32), "contiguous rows of 20"),
        (random(1, 20, 8).mT, "contiguous rows of 20"),
        (random(1, 9, 20), "some 4 rows"),
        (torch.empty(1, 2**27, 20, dtype=torch.float16, device="meta"), "contiguous rows of 20"),
    ],
)
def test_other_rows_are_refused(x, words) -> None:
    with pytest.raises(ValueError, match=words):
        GroupedConvolution(random(20, 20, 3), 1, 4)(x)


def test_more_than_can_be_indexed_is_refused() -> None:
    own = GroupedConvolution(torch.empty(20, 20, 3, dtype=torch.float16, device="meta"), 1, 4)
    with pytest.raises(ValueError, match="chunk_frames"):
        own(torch.empty(1, 2**27, 20, dtype=torch.float16, device="meta"))
