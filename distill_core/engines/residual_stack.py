"""A HiFi-GAN-like generator run channels-last: what BigVGAN and HiFi-GAN have in common.

First convolution; per stage a transposed convolution and the mean of residual blocks; last convolution.
What differs between the models, the activations, is passed in. Signals are rows [n, C] in buffers that are
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

from .channels_last import Conv, Layout, TransposedConv, room


class Activation(Protocol):
    """A pointwise or short-ranged function of rows [n, C]."""

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

    def inner(self, activated: Tensor, spare: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Conv]:
        """Everything up to the step's last convolution: that one's input, the buffer then free, and itself."""
        if self.second is None:
            return activated, spare, self.first
        self.first(activated, spare, layout)
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
    def convs(self) -> list[Conv]:
        """All of its blocks."""
        steps = [step for block in self.blocks for step in block]
        return [conv for step in steps for conv in (step.first, step.second) if conv is not None]


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
        # What convolves signals of one length: before the first stage, and in and behind each.
        after: list[Conv | TransposedConv] = [*(stage.up for stage in self.stages), post]
        self._together = list(zip([[pre], *(stage.convs for stage in self.stages)], after, strict=True))
        self.space = room(max(conv.reach for convs, last in self._together for conv in (*convs, last)))

    def __call__(self, mel: Tensor) -> Tensor:
        if self.pointwise:
            return self._run(mel)
        return torch.cat([self._run(item[None]) for item in mel])

    def _run(self, mel: Tensor) -> Tensor:
        """A batch, its items joined to one signal if they are several."""
        items, bands, length = mel.shape
        layout = self._layout(items, length, 0)
        rows = self._take("x", torch.float32, layout, bands)
        layout.split(rows).copy_(mel.transpose(1, 2))
        x = self.pre(rows, self._take("total", torch.float32, layout, self.pre.channels), layout)
        for number, stage in enumerate(self.stages, 1):
            x = self.before_up(x)
            if x.dtype != stage.dtype:
                x = self._take("activated", stage.dtype, layout, x.shape[1]).copy_(x)
            x, layout = self._up(stage, x, layout, number)
            mean = self._mean_fp32 if stage.dtype == torch.float32 else self._mean_bf16
            x = mean(stage, x, layout)
        x = self.before_post(x, self._take("activated", torch.float32, layout, x.shape[1]))
        x = self.post(x, self._take("x", torch.float32, layout, 1), layout)
        return self.final(layout.split(x)[..., 0].clone())

    def _take(self, name: str, dtype: torch.dtype, layout: Layout, channels: int) -> Tensor:
        return self.space.take(name, dtype, layout.rows, channels)

    def _layout(self, items: int, length: int, number: int) -> Layout:
        """Items of so many rows in a stage, those of a batch as far apart as its layers look."""
        if items == 1:
            return Layout(items, length)
        convs, last = self._together[number]
        return Layout(items, length, max(last.reach, *(conv.ahead(length) for conv in convs)))

    def _up(self, stage: Stage, x: Tensor, layout: Layout, number: int) -> tuple[Tensor, Layout]:
        """`x` upsampled, laid out for the stage."""
        stride, channels = stage.up.stride, stage.up.channels
        wide = Layout(layout.items, layout.length * stride, layout.gap * stride)
        up = stage.up(x, self._take("spare" if layout.gap else "x", stage.dtype, wide, channels), layout)
        if not layout.gap:
            return up, wide
        close = self._layout(wide.items, wide.length, number)
        x = self._take("x", stage.dtype, close, channels)
        close.split(x).copy_(wide.split(up))
        close.isolate(x, 0)  # for what lies between to stay finite
        return x, close

    def _mean_fp32(self, stage: Stage, x: Tensor, layout: Layout) -> Tensor:
        """Here oneDNN adds to the residual stream what a convolution makes."""
        activated, spare, stream, total = (
            self._take(name, torch.float32, layout, x.shape[1]) for name in ("activated", "spare", "stream", "total")
        )
        for number, block in enumerate(stage.blocks):
            y, sum_ = x, total if number == 0 else stream
            for step in block:
                inner, _, last = step.inner(step.before(y, activated), spare, layout)
                if y is x:
                    sum_.copy_(x)
                y = last.add(inner, sum_, layout)
            if number > 0:
                total.add_(y)
        return total.div_(len(stage.blocks))

    def _mean_bf16(self, stage: Stage, x: Tensor, layout: Layout) -> Tensor:
        """oneDNN would round the sum to bf16: it is left to the next activation, which reads both anyway."""
        channels = x.shape[1]
        total, here, there = (
            self._take(name, torch.float32, layout, channels) for name in ("total", "stream", "next stream")
        )
        activated, spare = (self._take(name, x.dtype, layout, channels) for name in ("activated", "spare"))
        for number, block in enumerate(stage.blocks):
            y = x
            block[0].before(x, activated)
            for i, step in enumerate(block):
                inner, free, last = step.inner(activated, spare, layout)
                branch = last(inner, free, layout)
                if i + 1 < len(block):
                    block[i + 1].before.after(y, branch, there, inner)
                    y, here, there = there, there, here
                    activated, spare = inner, branch
            if number == 0:
                total.copy_(y).add_(branch)
            else:
                total.add_(y).add_(branch)
        return total.div_(len(stage.blocks))
