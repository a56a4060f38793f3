"""Does a GPU engine compute, here and now, what the module computes?

Every kernel that the model will launch is run on small rows with both ends in them and held against plain torch
on the CPU; then the whole engine against the eager module on the device itself. The first load on a machine
compiles the kernels on the way; Triton keeps them on disk.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..channels_last import EngineUnavailable
from .generator import RowsGenerator, Use
from .ops import A, Extent, TorchOps

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


def check(generator: RowsGenerator[A], model: nn.Module) -> float:
    """The relative error of `generator` to `model` in fp32 on the generator's device.

    Args:
        generator: what is to be trusted.
        model: the module it was made from, on any device; it is left there.

    Raises:
        EngineUnavailable: something is wrong, with what it is.
    """
    for use in generator.within():
        check_kernels(generator, use)
    for use in generator.alone():
        x = _Draw(1)(2, LENGTHS[-1] + BEHIND, use.channels).to(use.dtype)
        _check_activation(generator, use.activation, x, None, None)
    draw = _Draw(0)
    mel = draw(2, generator.n_mels, FRAMES) * 2 - 4
    mel = mel.to(generator.device)
    error = relative_error(generator(mel), eager(model, on_device(model, generator.device), mel))
    if not error <= ENGINE_LIMITS[generator.dtype]:
        raise EngineUnavailable(
            f"its self-test gave a waveform that differs from the eager engine's by {error:.1e} in {generator.dtype}"
        )
    return error


def check_kernels(generator: RowsGenerator[A], use: Use[A]) -> None:
    """Both operations, as the generator uses them within blocks. Raises `EngineUnavailable`."""
    draw = _Draw(use.channels)
    long = 16 * (512 // use.channels + 3)  # for some programs to have no end in sight, which are others then
    for length in (*LENGTHS, long):
        shape = (2, length + BEHIND, use.channels)
        x, stream = (draw(*shape).to(use.dtype) for _ in range(2))
        bias = draw(use.channels)
        for residual in (None, stream, stream.float()):
            _check_activation(generator, use.activation, x, bias, residual)
        _check_sum(generator, x, stream, bias, None, torch.float32)
        for dtype in (torch.float32, use.dtype):
            _check_sum(generator, x, stream.float(), bias, draw(*shape), dtype)


def _check_activation(
    generator: RowsGenerator[A], activation: A, x: Tensor, bias: Tensor | None, residual: Tensor | None
) -> None:
    keep, here = residual is not None, activation.to(x.device)
    want = TorchOps().activate(x, here, _extent(x), bias=bias, residual=residual, keep=keep, dtype=x.dtype)
    there = [None if each is None else each.to(generator.device) for each in (bias, residual)]
    x = x.to(generator.device)
    got = generator.ops.activate(x, activation, _extent(x), bias=there[0], residual=there[1], keep=keep, dtype=x.dtype)
    for one, other in zip(got, want, strict=True):
        if one is not None and other is not None:
            _compare(one, other, f"activation of {list(x.shape)}")


def _check_sum(
    generator: RowsGenerator[A], x: Tensor, residual: Tensor, bias: Tensor, total: Tensor | None, dtype: torch.dtype
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


def on_device(model: nn.Module, device: torch.device) -> dict[str, Tensor]:
    """The model's tensors on `device`; the model itself stays where it is, mapped file and all."""
    return {name: tensor.to(device) for name, tensor in model.state_dict().items()}


def eager(model: nn.Module, tensors: dict[str, Tensor], mel: Tensor) -> Tensor:
    """The module, computing with `tensors`: mel [B, n_mels, T] -> waveform [B, T * hop_length]."""
    wave: Tensor = torch.func.functional_call(model, tensors, (mel,))
    return wave[:, 0]
