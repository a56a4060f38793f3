"""BigVGAN on a CUDA device: what `distill_core.engines.gpu` is told of the model."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from distill_core.engines.gpu.convolutions import Convolution, Upsampling
from distill_core.engines.gpu.engine import CudaEngine
from distill_core.engines.gpu.generator import RowsGenerator, Stage, Step
from distill_core.engines.gpu.ops import Ops

from .._vendor.bigvgan import Activation1d, BigVGAN
from .snake import SnakeParameters


def engine(
    model: BigVGAN, device: torch.device, precision: str, *, ops: Ops[SnakeParameters] | None = None
) -> CudaEngine:
    """A folded BigVGAN on that device, by Triton's kernels or by other `ops`; see `CudaEngine`."""
    return CudaEngine(model, rows, device, precision, triton=_triton, ops=ops)


def _triton() -> Ops[SnakeParameters]:
    from .triton_snake import TritonSnakeOps

    return TritonSnakeOps()


def rows(
    model: BigVGAN, *, dtype: torch.dtype, device: torch.device, ops: Ops[SnakeParameters]
) -> RowsGenerator[SnakeParameters]:
    """A folded BigVGAN prepared there, with convolutions in `dtype`; the model is not kept.

    Raises:
        ValueError: the checkpoint's resampling filters are not what the closed form assumes.
    """
    config = model.config

    def snake(activation: Activation1d) -> SnakeParameters:
        return SnakeParameters.of(activation, device)

    def conv(module: nn.Conv1d) -> Convolution:
        return Convolution.of(module, dtype, device, ops)

    def block(module: Any) -> tuple[Step[SnakeParameters], ...]:
        acts = list(module.activations)
        if config.resblock == "2":
            return tuple(Step(snake(act), conv(one)) for act, one in zip(acts, module.convs, strict=True))
        return tuple(
            Step(snake(before), conv(first), snake(between), conv(second))
            for before, first, between, second in zip(acts[::2], module.convs1, acts[1::2], module.convs2, strict=True)
        )

    blocks = [block(module) for module in model.resblocks]
    count = len(config.block_kernels)
    return RowsGenerator(
        pre=Convolution.of(model.conv_pre, torch.float32, device),
        stages=[
            Stage(dtype, Upsampling(up, dtype, device), tuple(blocks[index * count : (index + 1) * count]))
            for index, (up,) in enumerate(cast(Any, model.ups))
        ],
        before_post=snake(model.activation_post),
        post=Convolution.of(model.conv_post, torch.float32, device),
        final=torch.tanh if config.use_tanh_at_final else _clipped,
        ops=ops,
    )


def _clipped(wave: Tensor) -> Tensor:
    return wave.clamp(-1.0, 1.0)
