"""HiFi-GAN on a CUDA device: what `distill_core.engines.gpu` is told of the model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from distill_core.engines.gpu.convolutions import Convolution, Upsampling
from distill_core.engines.gpu.engine import CudaEngine
from distill_core.engines.gpu.generator import RowsGenerator, Stage, Step
from distill_core.engines.gpu.ops import Ops

from ._vendor.hifigan import HiFiGAN
from ._vendor.hifigan.generator import FINAL_SLOPE, SLOPE
from .leaky import LeakyReLU
from .stages import stage_dtypes


def engine(model: HiFiGAN, device: torch.device, precision: str, *, ops: Ops[LeakyReLU] | None = None) -> CudaEngine:
    """A folded HiFi-GAN on that device, by Triton's kernels or by other `ops`; see `CudaEngine`."""
    return CudaEngine(model, rows, device, precision, triton=_triton, ops=ops)


def _triton() -> Ops[LeakyReLU]:
    from .triton_leaky import TritonLeakyOps

    return TritonLeakyOps()


def rows(
    model: HiFiGAN, *, dtype: torch.dtype, device: torch.device, ops: Ops[LeakyReLU]
) -> RowsGenerator[LeakyReLU]:
    """A folded HiFi-GAN prepared there, with convolutions in `dtype`; the model is not kept."""
    config = model.config
    count = len(config.block_kernels)
    leaky = LeakyReLU(SLOPE)
    blocks: Any = model.resblocks
    ups: Any = model.ups

    def block(module: Any, dtype: torch.dtype) -> tuple[Step[LeakyReLU], ...]:
        def conv(module: nn.Conv1d) -> Convolution:
            return Convolution.of(module, dtype, device, ops)

        if config.resblock == "2":
            return tuple(Step(leaky, conv(one)) for one in module.convs)
        return tuple(
            Step(leaky, conv(dilated), leaky, conv(plain))
            for dilated, plain in zip(module.convs1, module.convs2, strict=True)
        )

    return RowsGenerator(
        pre=Convolution.of(model.conv_pre, torch.float32, device),
        stages=[
            Stage(
                dtype,
                Upsampling(up, dtype, device),
                tuple(block(module, dtype) for module in blocks[number * count : (number + 1) * count]),
            )
            for number, (up, dtype) in enumerate(zip(ups, stage_dtypes(len(ups), dtype), strict=True))
        ],
        before_up=leaky,
        before_post=LeakyReLU(FINAL_SLOPE),
        post=Convolution.of(model.conv_post, torch.float32, device),
        final=torch.tanh,
        ops=ops,
    )
