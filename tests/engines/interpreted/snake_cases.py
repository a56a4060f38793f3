"""The Triton kernels against the vendored activation. Run by test_triton_kernels.py, in a process of its own."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from distill_bigvgan._vendor.bigvgan import Activation1d, Snake, SnakeBeta
from distill_bigvgan.engines import triton_snake
from distill_bigvgan.engines.snake import SnakeParameters
from distill_bigvgan.engines.triton_snake import TritonSnakeOps, Walk
from distill_core.engines.gpu.engine import interpreted
from distill_core.engines.gpu.ops import Extent, TorchOps
from tests.engines.gpu_models import CPU, error, randomise

# Rounding of the result; the interpreter cuts bf16 off where GPUs round it, which is twice as coarse.
LIMITS = {torch.float32: 1e-6, torch.float16: 5e-4, torch.bfloat16: 6e-3}
ALL_IN_ONE = Walk(rows=8, lanes=1024)


def activation(channels: int, kind: type[Snake] = SnakeBeta, logscale: bool = True) -> Activation1d:
    torch.manual_seed(channels)
    module = Activation1d(kind(channels, logscale=logscale))
    randomise(module.act)
    return module.requires_grad_(False)


def rows(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return (3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


def extent(x: Tensor, behind: int = 0) -> Extent:
    return Extent(torch.tensor([x.shape[1] - behind], dtype=torch.int32))


def vendored(module: Activation1d, x: Tensor) -> Tensor:
    return module(x.transpose(1, 2)).transpose(1, 2)


def test_triton_interprets() -> None:
    assert interpreted()


@pytest.mark.parametrize("kind", [Snake, SnakeBeta])
@pytest.mark.parametrize("logscale", [True, False])
def test_snake_and_snakebeta(kind, logscale) -> None:
    module, x = activation(24, kind, logscale), rows(2, 13, 24)
    got, kept = TritonSnakeOps(ALL_IN_ONE).activate(x, SnakeParameters.of(module, CPU), extent(x), dtype=torch.float32)
    assert error(got, vendored(module, x)) <= 1e-6
    assert kept is None


@pytest.mark.parametrize("length", [*range(1, 8), 11, 12, 13, 64])
def test_every_length_has_right_ends(length) -> None:
    module, x = activation(5), rows(2, length, 5, seed=length)
    got, _ = TritonSnakeOps(Walk(16, 256)).activate(x, SnakeParameters.of(module, CPU), extent(x), dtype=torch.float32)
    want = vendored(module, x)
    # by sample: an end is a small part of a long signal
    assert float((got - want).abs().max()) <= 1e-5


@pytest.mark.parametrize("channels", [1, 3, 24, 33])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_any_number_of_channels_in_each_type_with_bias_and_residual(channels, dtype) -> None:
    module, x = activation(channels), rows(2, 11, channels, dtype=dtype)
    stream, bias = rows(2, 11, channels, dtype=dtype, seed=1), rows(channels, seed=2)
    total = x.float() + bias + stream.float()
    for residual in (stream, stream.float()):
        got, kept = TritonSnakeOps(ALL_IN_ONE).activate(
            x, SnakeParameters.of(module, CPU), extent(x), bias=bias, residual=residual, keep=True, dtype=dtype
        )
        assert got.dtype == dtype
        assert error(got, vendored(module, total)) <= LIMITS[dtype]
        assert kept is not None
        assert torch.equal(kept, total)


@pytest.mark.parametrize("walk", [Walk(8, 16), Walk(8, 64), Walk(16, 16), Walk(32, 8), Walk(8, 4)])
def test_where_the_kernel_cuts_makes_no_difference(walk) -> None:
    module, x = activation(5), rows(2, 45, 5)
    bias, stream = rows(5, seed=1), rows(2, 45, 5, seed=2)
    snake = SnakeParameters.of(module, CPU)
    added = {"bias": bias, "residual": stream, "keep": True}
    whole, kept = TritonSnakeOps(Walk(48, 16)).activate(x, snake, extent(x), dtype=x.dtype, **added)
    got, sums = TritonSnakeOps(walk).activate(x, snake, extent(x), dtype=x.dtype, **added)
    assert torch.equal(got, whole)
    assert kept is not None
    assert sums is not None
    assert torch.equal(sums, kept)


@pytest.mark.parametrize("walk", [Walk(8, 4), Walk(16, 1024)])
@pytest.mark.parametrize("behind", [1, 5, 40])
def test_behind_the_signals_are_zeros_and_nothing_of_what_was_there(walk, behind) -> None:
    module, x = activation(3), rows(2, 45, 3)
    bias, stream = rows(3, seed=1), rows(2, 45, 3, seed=2)
    x[:, 45 - behind :] = float("nan")
    own, snake = 45 - behind, SnakeParameters.of(module, CPU)
    got, kept = TritonSnakeOps(walk).activate(
        x, snake, extent(x, behind), bias=bias, residual=stream, keep=True, dtype=x.dtype
    )
    want = x[:, :own] + bias + stream[:, :own]
    assert error(got[:, :own], vendored(module, want)) <= 1e-6
    assert kept is not None
    assert torch.equal(kept[:, :own], want)
    summed = TritonSnakeOps(walk).accumulate(x, stream, bias, extent(x, behind), total=None, scale=0.5, dtype=x.dtype)
    assert error(summed[:, :own], want / 2) <= 1e-6
    for each in (got, kept, summed):
        assert torch.equal(each[:, own:], torch.zeros(2, behind, 3))


@triton.jit
def _by_cosine(u, frequency, amplitude):
    return tl.fma(-0.5 * amplitude, tl.cos(u * (6.28318531 * frequency)), u)


@pytest.mark.parametrize("walk", [Walk(8, 32), ALL_IN_ONE])
def test_with_a_cosine_it_computes_the_same(walk, monkeypatch) -> None:
    """The card's own cosine, which the interpreter has not, is taken for half-precision results alone."""
    monkeypatch.setattr(triton_snake, "_snake_by_cosine", _by_cosine)
    module, x = activation(5), rows(2, 37, 5)
    snake = SnakeParameters.of(module, CPU)
    for dtype in (torch.float16, torch.float32):
        got, _ = TritonSnakeOps(walk, cosine=True).activate(x, snake, extent(x), dtype=dtype)
        assert error(got, vendored(module, x)) <= LIMITS[dtype]
    plain, _ = TritonSnakeOps(walk).activate(x, snake, extent(x), dtype=torch.float32)
    assert torch.equal(got, plain)


def test_nothing_is_read_or_written_outside(monkeypatch) -> None:
    """NaN around the input stays out, and what stands around the output stays."""
    module, snake = activation(7), SnakeParameters.of(activation(7), CPU)
    around = torch.full((3, 13, 7), float("nan"))
    around[1] = rows(13, 7)
    outputs = torch.full((3, 13, 7), -7.0)
    all_of_it = extent(around)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: outputs[1:2])
    got, _ = TritonSnakeOps(Walk(16, 64)).activate(around[1:2], snake, all_of_it, dtype=torch.float32)
    monkeypatch.undo()
    assert error(got, vendored(module, around[1:2])) <= 1e-6
    assert bool((outputs[[0, 2]] == -7.0).all())


def test_large_and_tiny_arguments_stay_finite_and_right() -> None:
    """A phase of a million turns has few digits left, on any road; it must not make the sine more than 1."""
    module = activation(4)
    for scale in (1e-6, 1e3, 1e6, 1e9, 1e30):
        x = scale * rows(1, 21, 4)
        got, _ = TritonSnakeOps(ALL_IN_ONE).activate(x, SnakeParameters.of(module, CPU), extent(x), dtype=torch.float32)
        assert bool(got.isfinite().all())
        assert error(got, vendored(module, x)) <= 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 37, 3), (3, 50, 24)])
def test_sums_of_blocks(shape, dtype) -> None:
    x, stream = rows(*shape, dtype=dtype), rows(*shape, seed=1)
    bias, total = rows(shape[-1], seed=2), rows(*shape, seed=3)
    for before, out in ((None, torch.float32), (total, torch.float32), (total, dtype)):
        want = TorchOps().accumulate(x, stream, bias, extent(x), total=before, scale=1 / 3, dtype=out)
        running = None if before is None else before.clone()
        got = TritonSnakeOps(Walk(8, 64)).accumulate(x, stream, bias, extent(x), total=running, scale=1 / 3, dtype=out)
        assert got.dtype == out
        assert error(got, want) <= LIMITS[out]


@pytest.mark.parametrize(
    "wrong",
    [
        {"residual": torch.zeros(1, 4, 3)},
        {"residual": torch.zeros(1, 3, 8).transpose(1, 2)},
        {"bias": torch.zeros(4)},
        {"bias": torch.zeros(3, dtype=torch.float64)},
        {"bias": torch.zeros(6)[::2]},
        {"extent": Extent(torch.tensor([8]))},
    ],
)
def test_memory_that_does_not_lie_as_told_is_refused(wrong) -> None:
    snake, x = SnakeParameters.of(activation(3), CPU), rows(1, 8, 3)
    with pytest.raises(ValueError, match="expected"):
        TritonSnakeOps(ALL_IN_ONE).activate(x, snake, **{"extent": extent(x), "dtype": torch.float32, **wrong})


def test_more_than_can_be_indexed_is_refused() -> None:
    meta = torch.device("meta")  # sizes without memory
    snake, huge = SnakeParameters.of(activation(1), CPU), torch.empty(1, 2**31, 1, device=meta)
    snake = SnakeParameters(snake.frequency.to(meta), snake.amplitude.to(meta), snake.taps)
    with pytest.raises(ValueError, match="chunk_frames"):
        TritonSnakeOps(ALL_IN_ONE).activate(
            huge, snake, Extent(torch.empty(1, dtype=torch.int32, device=meta)), dtype=torch.float32
        )
