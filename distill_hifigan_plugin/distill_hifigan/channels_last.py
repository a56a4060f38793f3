"""HiFi-GAN on a CPU: channels-last convolutions by oneDNN, which also apply the inner leaky ReLU."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from distill_core.engines import winograd
from distill_core.engines.channels_last import Conv
from distill_core.engines.residual_stack import ResidualStack, Stage, Step
from distill_core.engines.selection import Fast
from distill_core.engines.streaming import StackFlow

from ._vendor.hifigan.generator import FINAL_SLOPE, SLOPE
from .leaky import LeakyReLU
from .stages import stage_dtypes

if TYPE_CHECKING:
    from ._vendor.hifigan import HiFiGAN

def build(model: HiFiGAN, dtype: torch.dtype) -> Fast:
    """`model`, its weights packed for oneDNN in `dtype`, float32 or bfloat16."""
    config = model.config
    count = len(config.block_kernels)
    leaky = LeakyReLU(SLOPE)
    convolutions = winograd.Convolutions()

    def conv(module: Any, dtype: torch.dtype, slope: float | None = None) -> Conv:
        return convolutions(
            module.weight, module.bias, dtype=dtype, dilation=module.dilation[0], negative_slope=slope
        )

    def block(module: Any, dtype: torch.dtype) -> list[Step]:
        if config.resblock == "2":
            return [Step(leaky, conv(one, dtype)) for one in module.convs]
        return [
            Step(leaky, conv(dilated, dtype, SLOPE), None, conv(plain, dtype))
            for dilated, plain in zip(module.convs1, module.convs2, strict=True)
        ]

    dtypes = stage_dtypes(len(config.rates), dtype)
    ups: Any = model.ups
    blocks: Any = model.resblocks
    stages = [
        Stage(
            dtypes[i],
            convolutions.upsampling(up.weight, up.bias, stride=up.stride[0], dtype=dtypes[i]),
            [block(module, dtypes[i]) for module in blocks[i * count : (i + 1) * count]],
        )
        for i, up in enumerate(ups)
    ]
    stack = ResidualStack(
        pre=convolutions(model.conv_pre.weight, model.conv_pre.bias, dtype=torch.float32, plain=True),
        stages=stages,
        before_up=lambda x: F.leaky_relu_(x, SLOPE),
        before_post=LeakyReLU(FINAL_SLOPE),
        post=convolutions(model.conv_post.weight, model.conv_post.bias, dtype=torch.float32, plain=True),
        final=torch.tanh,
        pointwise=True,
    )
    return Fast(stack, convolutions.notes, partial(StackFlow, stack))
