"""A HiFi-GAN-like generator run channels-last: what BigVGAN and HiFi-GAN have in common.

First convolution; per stage a transposed convolution and the mean of residual blocks; last convolution.
What differs between the models, the activations, is passed in. Signals are rows [B, L, C] in buffers that are
kept from one run to the next.

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

from .channels_last import Conv, TransposedConv
from .workspace import Workspace


class Activation(Protocol):
    """A pointwise or short-ranged function of rows [B, L, C]."""

    def __call__(self, x: Tensor, out: Tensor) -> Tensor:
        """Of `x` into `out`, which has the same dtype, is another buffer, and is returned."""

    def after(self, x: Tensor, branch: Tensor, total: Tensor, out: Tensor) -> None:
        """`x + branch` into `total`, fp32, and the activation of that into `out`, bf16; all are different buffers."""


@dataclass(frozen=True)
class Step:
    """`x + second(between(first(before(x))))`; without `second`, `x + first(before(x))`.

    `between` is None where `first` applies it to its output itself.
    """

    before: Activation
    first: Conv
    between: Activation | None = None
    second: Conv | None = None

    def inner(self, activated: Tensor, spare: Tensor, length: int | None) -> tuple[Tensor, Tensor, Conv]:
        """Everything up to the step's last convolution: that one's input, the buffer then free, and itself."""
        if self.second is None:
            return activated, spare, self.first
        self.first(activated, spare, length)
        if self.between is None:
            return spare, activated, self.second
        self.between(spare, activated)
        return activated, spare, self.second


@dataclass(frozen=True)
class Stage:
    """Upsampling, then the mean of residual blocks, all in `dtype`: torch.float32 or torch.bfloat16."""

    dtype: torch.dtype
    up: TransposedConv
    blocks: Sequence[Sequence[Step]]

    @property
    def reach(self) -> int:
        """Rows that its widest convolution looks ahead."""
        steps = [step for block in self.blocks for step in block]
        return max(conv.reach for step in steps for conv in (step.first, step.second) if conv is not None)


class ResidualStack:
    """Mel [B, n_mels, T] -> waveform [B, T * hop_length], float32. For one thread at a time.

    Args:
        pre: first convolution, in fp32.
        stages: in order.
        before_up: applied to each stage's input, in place if it likes; the identity for BigVGAN.
        before_post: activation before `post`, fp32 to fp32.
        post: last convolution, to one channel, in fp32.
        final: what makes samples of `post`'s output.
        pointwise: whether all activations act on each value by itself, so that the items of a batch can be joined
            to one signal.
    """

    def __init__(
        self,
        *,
        pre: Conv,
        stages: Sequence[Stage],
        before_up: Callable[[Tensor], Tensor],
        before_post: Activation,
        post: Conv,
        final: Callable[[Tensor], Tensor],
        pointwise: bool = False,
    ) -> None:
        self.pre, self.stages, self.post = pre, tuple(stages), post
        self.before_up, self.before_post, self.final = before_up, before_post, final
        self.pointwise = pointwise
        self.space = Workspace()
        # Rows between joined items: before the first stage, and in each, as many as the next layers look ahead.
        after = [*(stage.up.reach for stage in self.stages), post.reach]
        self._gaps = [max(*each) for each in zip([pre.reach, *(s.reach for s in self.stages)], after, strict=True)]

    def __call__(self, mel: Tensor) -> Tensor:
        batch, _, length = mel.shape
        joined = self.pointwise and batch > 1
        gaps = self._gaps if joined else [0] * len(self._gaps)

        def true() -> int | None:
            """Rows of each item in a joined signal, at this point."""
            return length if joined else None

        rows = torch.nn.functional.pad(mel.to(torch.float32), (0, gaps[0])).transpose(1, 2).contiguous()
        x = self.pre(rows, self._take("total", torch.float32, batch, length + gaps[0], self.pre.channels), true())
        for stage, before, gap in zip(self.stages, gaps, gaps[1:], strict=False):
            x = self.before_up(x)
            if x.dtype != stage.dtype:
                x = self._take("activated", stage.dtype, *x.shape).copy_(x)
            channels, stride = stage.up.channels, stage.up.stride
            up = self._take("spare" if joined else "x", stage.dtype, batch, (length + before) * stride, channels)
            stage.up(x, up, true())
            length *= stride
            if joined:
                x = self._take("x", stage.dtype, batch, length + gap, channels)
                x[:, :length] = up[:, :length]
                x[:, length:] = 0
            else:
                x = up
            mean = self._mean_fp32 if stage.dtype == torch.float32 else self._mean_bf16
            x = mean(stage, x, true())
        x = self.before_post(x, self._take("activated", torch.float32, *x.shape))
        x = self.post(x, self._take("x", torch.float32, *x.shape[:2], 1), true())
        return self.final(x[:, :length, 0].clone())

    def _take(self, name: str, dtype: torch.dtype, *shape: int) -> Tensor:
        return self.space.take(name, dtype, *shape)

    def _mean_fp32(self, stage: Stage, x: Tensor, length: int | None) -> Tensor:
        """Here oneDNN adds the residual while it writes a convolution's output."""
        activated, spare, stream, total = (
            self._take(name, torch.float32, *x.shape) for name in ("activated", "spare", "stream", "total")
        )
        for number, block in enumerate(stage.blocks):
            y = x
            for step in block:
                inner, _, last = step.inner(step.before(y, activated), spare, length)
                y = last.plus(inner, y, stream, length)
            if number == 0:
                total.copy_(y)
            else:
                total.add_(y)
        return total.div_(len(stage.blocks))

    def _mean_bf16(self, stage: Stage, x: Tensor, length: int | None) -> Tensor:
        """oneDNN would round the sum to bf16: it is left to the next activation, which reads both anyway."""
        total, here, there = (self._take(name, torch.float32, *x.shape) for name in ("total", "stream", "next stream"))
        activated, spare = (self._take(name, x.dtype, *x.shape) for name in ("activated", "spare"))
        for number, block in enumerate(stage.blocks):
            y = x
            block[0].before(x, activated)
            for i, step in enumerate(block):
                inner, free, last = step.inner(activated, spare, length)
                branch = last(inner, free, length)
                if i + 1 < len(block):
                    block[i + 1].before.after(y, branch, there, inner)
                    y, here, there = there, there, here
                    activated, spare = inner, branch
            if number == 0:
                total.copy_(y).add_(branch)
            else:
                total.add_(y).add_(branch)
        return total.div_(len(stage.blocks))
