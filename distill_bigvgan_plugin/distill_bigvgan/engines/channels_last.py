"""BigVGAN on a CPU: channels-last convolutions by oneDNN, the activation as one fused pass by numba."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from distill_core.engines import compiled, team, winograd
from distill_core.engines.channels_last import Conv, around
from distill_core.engines.residual_stack import Activation, ResidualStack, Stage, Step, accumulate
from distill_core.engines.selection import Fast
from distill_core.engines.streaming import StackFlow

from .._vendor.bigvgan.activation import REACH, Activation1d
from .matmul_snake import MatmulSnake

if TYPE_CHECKING:
    from .._vendor.bigvgan import BigVGAN


class FusedSnake:
    """An anti-aliased snake of the model as a compiled kernel; see `residual_stack.Activation`."""

    context = REACH

    def __init__(self, activation: Any) -> None:
        from distill_core.engines.kernels import LANES

        frequency, amplitude = activation.act.coefficients()
        self.channels = frequency.numel()
        reach = (0, LANES)  # of the kernel's last vector
        # The kernel counts in periods of sin², pi, and sees the signal in between divided by the root of 2.
        root = math.sqrt(2)
        frequency = frequency.detach().double().flatten() * root / math.pi
        # The kernel divides by it; sin² is even, and of so slow a sine nothing is left.
        self._frequency = F.pad(frequency.abs().clamp_min(1e-12).float(), reach, value=1.0)
        self._amplitude = F.pad((amplitude.detach().double().flatten() / root).float(), reach)
        self._taps = (activation.upsample.filter.detach().double().flatten()[:6] * root).float()

    def __call__(self, x: Tensor, out: Tensor, before: int = 0, after: int = 0) -> Tensor:
        if x.dtype == out.dtype:
            self._run("fp32" if x.dtype == torch.float32 else "bf16", x, None, None, out, before, after)
        else:  # only what a branch is added to goes from one to the other
            whole = around(x, -before, len(x) + after)
            nothing = torch.zeros(whole.shape, dtype=out.dtype, device="cpu")
            self._run("later_sum", x, nothing[before:], torch.empty_like(x), out, before, after)
        return out

    def after(self, x: Tensor, branch: Tensor, total: Tensor, out: Tensor) -> None:
        self._run("first_sum" if x.dtype == torch.bfloat16 else "later_sum", x, branch, total, out)

    def _run(
        self,
        kernel: str,
        x: Tensor,
        branch: Tensor | None,
        total: Tensor | None,
        out: Tensor,
        before: int = 0,
        after: int = 0,
    ) -> None:
        """Before the rows `x`, of which `out` is made, lie others of the same signal, and of `branch`, and after."""
        from . import snake_kernels

        rows, channels = x.shape
        skipped = before * channels
        descriptor = np.array(
            [
                0,
                0,
                x.data_ptr() - skipped * x.itemsize,
                0 if branch is None else branch.data_ptr() - skipped * branch.itemsize,
                0 if total is None else total.data_ptr(),
                out.data_ptr(),
                self._frequency.data_ptr(),
                self._amplitude.data_ptr(),
                self._taps.data_ptr(),
                before + rows + after,
                channels,
                before,
                before + rows,
            ],
            dtype=np.int64,
        )
        team.run(snake_kernels.KERNELS.address(kernel), descriptor, out.numel())


def _accumulate(total: Tensor, x: Tensor, branch: Tensor, *, first: bool, shares: int) -> None:
    """As `residual_stack.accumulate`, in one pass, where it is of an fp32 stream and a bf16 branch."""
    from . import snake_kernels

    if x.dtype != torch.float32:  # of a block that is a single step
        accumulate(total, x, branch, first=first, shares=shares)
        return
    places = (total.data_ptr(), x.data_ptr(), branch.data_ptr())
    descriptor = np.array([0, 0, *places, total.numel(), first, shares], dtype=np.int64)
    team.run(snake_kernels.KERNELS.address("mean"), descriptor, total.numel())


def build(model: BigVGAN, dtype: torch.dtype) -> Fast:
    """`model`, its weights packed for oneDNN in `dtype`, float32 or bfloat16."""
    config = model.config
    count = len(config.block_kernels)
    snake, notes = _snake(model, dtype)
    convolutions = winograd.Convolutions()

    def conv(module: Any) -> Conv:
        return convolutions(module.weight, module.bias, dtype=dtype, dilation=module.dilation[0])

    def block(module: Any) -> list[Step]:
        snakes = [snake(activation) for activation in module.activations]
        if config.resblock == "2":
            return [Step(before, conv(one)) for before, one in zip(snakes, module.convs, strict=True)]
        return [
            Step(before, conv(dilated), between, conv(plain))
            for before, dilated, between, plain in zip(
                snakes[::2], module.convs1, snakes[1::2], module.convs2, strict=True
            )
        ]

    ups: Any = model.ups
    blocks: Any = model.resblocks
    stages = [
        Stage(
            dtype,
            convolutions.transposed(up[0].weight, up[0].bias, stride=up[0].stride[0], dtype=dtype),
            [block(module) for module in blocks[i * count : (i + 1) * count]],
        )
        for i, up in enumerate(ups)
    ]
    stack = ResidualStack(
        pre=convolutions(model.conv_pre.weight, model.conv_pre.bias, dtype=torch.float32, plain=True),
        stages=stages,
        before_up=lambda x: x,
        before_post=snake(model.activation_post),
        post=convolutions(model.conv_post.weight, model.conv_post.bias, dtype=torch.float32, plain=True),
        final=torch.tanh if config.use_tanh_at_final else lambda x: x.clamp(-1.0, 1.0),
        accumulate=_accumulate if snake is FusedSnake else accumulate,
    )
    return Fast(stack, (*notes, *convolutions.notes), partial(StackFlow, stack))


def _snake(model: BigVGAN, dtype: torch.dtype) -> tuple[Callable[[Any], Activation], tuple[str, ...]]:
    """The fastest activation that works here, and why it is not a faster one."""

    def prepare() -> None:
        from . import snake_kernels

        for kernel in snake_kernels.needed(half=dtype == torch.bfloat16):
            snake_kernels.KERNELS.address(kernel)

    if not all(_has_one_filter(each) for each in model.modules() if isinstance(each, Activation1d)):
        missing: str | None = "the checkpoint's filters are not symmetric, or those for up and down are not the same."
    else:
        missing = compiled.why_not(prepare)
    if missing is None:
        return FusedSnake, ()
    return MatmulSnake, (f"The activation runs in plain torch, which is slower: {missing}",)


def _has_one_filter(activation: Activation1d) -> bool:
    up, down = (each.filter.flatten() for each in (activation.upsample, activation.downsample.lowpass))
    return torch.equal(up, down) and torch.equal(up, up.flip(0))
