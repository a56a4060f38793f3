"""Does the GPU engine compute, here and now, what the vendored module computes?

Every kernel that the model will launch is run on small rows with both ends in them and held against plain torch
on the CPU; then the whole engine against the eager module on the device itself. The first load on a machine
compiles the kernels on the way; Triton keeps them on disk.
"""

from __future__ import annotations

import torch
from torch import Tensor

from distill_core.engines.channels_last import EngineUnavailable

from .._vendor.bigvgan import BigVGAN
from .gpu_generator import RowsGenerator
from .gpu_ops import Extent, SnakeParameters, TorchOps

LENGTHS = (1, 2, 37)
BEHIND = 3
"""Rows behind the signals, of which nothing may come."""

FRAMES = 13

KERNEL_LIMITS = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""Relative error of one operation: rounding its result with a margin of four, or the phase of a fast sine."""

ENGINE_LIMITS = {torch.float32: 1e-2, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Of the whole: some ten times what rounding does, in fp32 that of TF32. A wrong kernel is caught above."""


class _Draw:
    """Normal numbers in float32 on the CPU, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator("cpu").manual_seed(seed)

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator, dtype=torch.float32, device="cpu")


def check(generator: RowsGenerator, model: BigVGAN) -> float:
    """The relative error of `generator` to `model` in fp32 on the generator's device.

    Args:
        generator: what is to be trusted.
        model: the module it was made from, on any device; it is left there.

    Raises:
        EngineUnavailable: something is wrong, with what it is.
    """
    for snake in generator.snakes():
        check_kernels(generator, snake)
    check_last_activation(generator)
    draw = _Draw(0)
    mel = draw(2, model.config.num_mels, FRAMES) * 2 - 4
    mel = mel.to(generator.device)
    error = relative_error(generator(mel), eager(model, on_device(model, generator.device), mel))
    if not error <= ENGINE_LIMITS[generator.dtype]:
        raise EngineUnavailable(
            f"its self-test gave a waveform that differs from the eager engine's by {error:.1e} in {generator.dtype}"
        )
    return error


def check_kernels(generator: RowsGenerator, snake: SnakeParameters) -> None:
    """Both operations, as the generator uses them, on rows as wide as `snake`. Raises `EngineUnavailable`."""
    draw = _Draw(snake.channels)
    long = 16 * (512 // snake.channels + 3)  # for some programs to have no end in sight, which are others then
    for length in (*LENGTHS, long):
        shape = (2, length + BEHIND, snake.channels)
        x, stream = (draw(*shape).to(generator.dtype) for _ in range(2))
        bias = draw(snake.channels)
        for residual in (None, stream, stream.float()):
            _check_activation(generator, snake, x, bias, residual)
        _check_sum(generator, x, stream, bias, None, torch.float32)
        for dtype in (torch.float32, generator.dtype):
            _check_sum(generator, x, stream.float(), bias, draw(*shape), dtype)


def check_last_activation(generator: RowsGenerator) -> None:
    """It makes fp32 of fp32, and has no bias to add. Raises `EngineUnavailable`."""
    snake = generator.last_snake
    _check_activation(generator, snake, _Draw(1)(2, LENGTHS[-1] + BEHIND, snake.channels), None, None)


def _check_activation(
    generator: RowsGenerator, snake: SnakeParameters, x: Tensor, bias: Tensor | None, residual: Tensor | None
) -> None:
    cpu = SnakeParameters(snake.frequency.cpu(), snake.amplitude.cpu(), snake.taps)
    keep = residual is not None
    want = TorchOps().activate(x, cpu, _extent(x), bias=bias, residual=residual, keep=keep, dtype=x.dtype)
    there = [None if each is None else each.to(generator.device) for each in (bias, residual)]
    x = x.to(generator.device)
    got = generator.ops.activate(x, snake, _extent(x), bias=there[0], residual=there[1], keep=keep, dtype=x.dtype)
    for one, other in zip(got, want, strict=True):
        if one is not None and other is not None:
            _compare(one, other, f"activation of {list(x.shape)}")


def _check_sum(
    generator: RowsGenerator, x: Tensor, residual: Tensor, bias: Tensor, total: Tensor | None, dtype: torch.dtype
) -> None:
    want = TorchOps().accumulate(x, residual, bias, _extent(x), total=total, scale=0.5, dtype=dtype)
    rows, stream, vector = (each.to(generator.device) for each in (x, residual, bias))
    running = None if total is None else total.to(generator.device, copy=True)
    got = generator.ops.accumulate(rows, stream, vector, _extent(rows), total=running, scale=0.5, dtype=dtype)
    _compare(got, want, f"sum of {list(x.shape)}")


def _extent(rows: Tensor) -> Extent:
    return Extent(torch.tensor([rows.shape[1] - BEHIND], dtype=torch.int32, device=rows.device))


def _compare(got: Tensor, want: Tensor, what: str) -> None:
    error = relative_error(got, want)
    if not error <= KERNEL_LIMITS[want.dtype]:
        raise EngineUnavailable(f"a kernel failed its self-test: the {what} in {want.dtype} is off by {error:.1e}")


def relative_error(got: Tensor, want: Tensor) -> float:
    """`|got - want| / |want|`; NaN stays NaN, which is within no limit."""
    got, want = got.detach().double().cpu(), want.detach().double().cpu()
    return float((got - want).norm() / want.norm().clamp(min=1e-12))


def on_device(model: BigVGAN, device: torch.device) -> dict[str, Tensor]:
    """The model's tensors on `device`; the model itself stays where it is, mapped file and all."""
    return {name: tensor.to(device) for name, tensor in model.state_dict().items()}


def eager(model: BigVGAN, tensors: dict[str, Tensor], mel: Tensor) -> Tensor:
    """The vendored module, computing with `tensors`: mel [B, n_mels, T] -> waveform [B, T * hop_length]."""
    wave: Tensor = torch.func.functional_call(model, tensors, (mel,))
    return wave[:, 0]
