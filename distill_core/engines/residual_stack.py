"""A HiFi-GAN-like generator run channels-last: what BigVGAN and HiFi-GAN have in common.

First convolution; per stage a transposed convolution and the mean of residual blocks; last convolution.
What differs between the models, the activations, is passed in.

In bf16 the convolutions' weights and inputs are rounded, the sums are not: the residual stream, six
additions deep in a block, stays in fp32, and so do the first and the last convolution, which cost next
to nothing and see the mel and make the samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .channels_last import Conv, TransposedConv, to_rows


class Activation(Protocol):
    """A pointwise or short-ranged function of a signal [B, C, 1, L]; its result has the compute dtype."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def after(self, x: Tensor, branch: Tensor) -> tuple[Tensor, Tensor]:
        """`s = x + branch` in fp32, and the activation of `s`; neither argument is changed."""


@dataclass(frozen=True)
class Step:
    """`x + second(between(first(before(x))))`; without `second`, `x + first(before(x))`.

    `between` is None where `first` applies it to its output itself.
    """

    before: Activation
    first: Conv
    between: Activation | None = None
    second: Conv | None = None

    def inner(self, activated: Tensor) -> tuple[Tensor, Conv]:
        """Everything up to the step's last convolution: that one's input, and itself."""
        if self.second is None:
            return activated, self.first
        x = self.first(activated)
        return (x if self.between is None else self.between(x)), self.second


@dataclass(frozen=True)
class Stage:
    """Upsampling, then the mean of residual blocks, all in `dtype`: torch.float32 or torch.bfloat16."""

    dtype: torch.dtype
    up: TransposedConv
    blocks: Sequence[Sequence[Step]]


class ResidualStack:
    """Mel [B, n_mels, T] -> waveform [B, T * hop_length], float32.

    Args:
        pre, post: first and last convolution, in fp32.
        stages: in order.
        before_up: applied to each stage's input, in place if it likes; the identity for BigVGAN.
        before_post: activation before `post`, fp32 to fp32.
        final: what makes samples of `post`'s output.
    """

    def __init__(
        self,
        *,
        pre: Conv,
        stages: Sequence[Stage],
        before_up: Callable[[Tensor], Tensor],
        before_post: Callable[[Tensor], Tensor],
        post: Conv,
        final: Callable[[Tensor], Tensor],
    ) -> None:
        self.pre, self.stages, self.post = pre, tuple(stages), post
        self.before_up, self.before_post, self.final = before_up, before_post, final

    def __call__(self, mel: Tensor) -> Tensor:
        x = self.pre(to_rows(mel, torch.float32))
        for stage in self.stages:
            mean = _mean_fp32 if stage.dtype == torch.float32 else _mean_bf16
            x = mean(stage.blocks, stage.up(self.before_up(x).to(stage.dtype)))
        x = self.post(self.before_post(x))
        return self.final(x[:, 0, 0])


def _mean_fp32(blocks: Sequence[Sequence[Step]], x: Tensor) -> Tensor:
    """Here oneDNN adds the residual while it writes a convolution's output."""
    total: Tensor | None = None
    for block in blocks:
        y = x
        for step in block:
            inner, last = step.inner(step.before(y))
            y = last.plus(inner, y)
        total = y if total is None else total.add_(y)
    assert total is not None
    return total.div_(len(blocks))


def _mean_bf16(blocks: Sequence[Sequence[Step]], x: Tensor) -> Tensor:
    """oneDNN would round the sum to bf16: it is left to the next activation, which reads both anyway."""
    total: Tensor | None = None
    for block in blocks:
        y, activated = x, block[0].before(x)
        for i, step in enumerate(block):
            inner, last = step.inner(activated)
            branch = last(inner)
            if i + 1 < len(block):
                y, activated = block[i + 1].before.after(y, branch)
        if total is None:
            total = torch.add(y, branch) if y.dtype == torch.float32 else y.float().add_(branch)
        else:
            total.add_(y).add_(branch)
    assert total is not None
    return total.div_(len(blocks))
