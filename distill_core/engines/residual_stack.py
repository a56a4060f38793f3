"""A HiFi-GAN-like generator run channels-last: what BigVGAN and HiFi-GAN have in common.

First convolution; per stage a transposed convolution and the mean of residual blocks; last convolution.
What differs between the models, the activations, is passed in. Signals are rows [n, C] in buffers that are
kept from one run to the next.

A window of a longer mel has context on each side, of which every layer needs less than the one before: what no
later layer looks at is left out, stage by stage and step by step.

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

from .channels_last import Conv, Layout, Upsampling, room


class Activation(Protocol):
    """A pointwise or short-ranged function of rows [n, C]."""

    context: int
    """Rows on each side of a row that its result depends on."""

    def __call__(self, x: Tensor, out: Tensor, before: int = 0, after: int = 0) -> Tensor:
        """Of `x` into `out`, another buffer, which is returned; it has the same dtype, or is bf16 where `x` is fp32.

        So many rows lie `before` and `after` those of `x` in memory, and are looked at.
        """

    def after(self, x: Tensor, branch: Tensor, total: Tensor, out: Tensor) -> None:
        """`x + branch` into `total`, fp32, and the activation of that into `out`, bf16; all are different buffers."""


class Accumulate(Protocol):
    """`x + branch` into `total`, or onto what is there but for the `first`; all of that is divided by `shares`."""

    def __call__(self, total: Tensor, x: Tensor, branch: Tensor, *, first: bool, shares: int) -> None:
        """Rows of the same shape, x and branch in fp32 or bf16, total in fp32."""


def accumulate(total: Tensor, x: Tensor, branch: Tensor, *, first: bool, shares: int) -> None:
    """See `Accumulate`."""
    (total.copy_(x) if first else total.add_(x)).add_(branch)
    if shares > 1:
        total.div_(shares)


@dataclass(frozen=True)
class Step:
    """`x + second(between(first(before(x))))`; without `second`, `x + first(before(x))`.

    `between` is None where `first` applies it to its output itself.
    """

    before: Activation
    first: Conv
    between: Activation | None = None
    second: Conv | None = None

    @property
    def context(self) -> int:
        """Rows on each side of a row that its result depends on."""
        parts = (self.before, self.first, self.between, self.second)
        return sum(part.context for part in parts if part is not None)

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
    up: Upsampling
    blocks: Sequence[Sequence[Step]]

    @property
    def convs(self) -> list[Conv]:
        """All of its blocks."""
        steps = [step for block in self.blocks for step in block]
        return [conv for step in steps for conv in (step.first, step.second) if conv is not None]


@dataclass(frozen=True)
class Margin:
    """Rows on each side of a signal that are there for the others to depend on; none at a true end."""

    left: int = 0
    right: int = 0

    def times(self, stride: int) -> Margin:
        """The same after upsampling."""
        return Margin(self.left * stride, self.right * stride)

    def most(self, wanted: int) -> Margin:
        """The same, so many rows a side at most."""
        return Margin(min(self.left, wanted), min(self.right, wanted))

    def cut(self, wanted: int, *signals: Tensor) -> list[Tensor]:
        """Signals that have this margin, without what is more than so many rows a side."""
        left, right = max(0, self.left - wanted), max(0, self.right - wanted)
        return [each[left : len(each) - right] for each in signals]


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
        accumulate: what adds up the blocks of a stage in bf16.

    Attributes:
        context: frames on each side of a frame that its samples depend on.
        space: the buffers.
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
        accumulate: Accumulate = accumulate,
    ) -> None:
        self.pre, self.stages, self.post = pre, tuple(stages), post
        self.before_up, self.before_post, self.final = before_up, before_post, final
        self.pointwise, self._accumulate = pointwise, accumulate
        # What convolves signals of one length: before the first stage, and in and behind each.
        after: list[Conv | Upsampling] = [*(stage.up for stage in self.stages), post]
        self._together = list(zip([[pre], *(stage.convs for stage in self.stages)], after, strict=True))
        # Rows of context that are wanted, of each stage and block: before each of its steps, and behind the last.
        self._wanted: list[list[list[int]]] = []
        after_it = before_post.context + post.context
        for stage in reversed(self.stages):
            wanted = [_wanted(block, after_it) for block in stage.blocks]
            self._wanted.insert(0, wanted)
            after_it = -(-(max(block[0] for block in wanted) + stage.up.padding) // stage.up.stride)
        self.context = after_it + pre.context
        self.space = room(max(conv.reach for convs, last in self._together for conv in (*convs, last)))

    def __call__(self, mel: Tensor, left: int = 0, right: int = 0) -> Tensor:
        if self.pointwise and len(mel) > 1:
            wave = self._run(mel, Margin())
            hop = wave.shape[1] // mel.shape[2]
            return wave[:, left * hop : wave.shape[1] - right * hop]
        return torch.cat([self._run(item[None], Margin(left, right)) for item in mel])

    def _run(self, mel: Tensor, margin: Margin) -> Tensor:
        """A batch, its items joined to one signal if they are several, which then have no margin."""
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
            margin, wanted = margin.times(stage.up.stride), self._wanted[number - 1]
            mean = self._mean_fp32 if stage.dtype == torch.float32 else self._mean_bf16
            x = mean(stage, x, layout, margin, wanted)
            margin, layout = margin.most(wanted[0][-1]), _resized(layout, x)
        x = self.before_post(x, self._take("activated", torch.float32, layout, x.shape[1]))
        x = self.post(x, self._take("x", torch.float32, layout, 1), layout)
        (x,) = margin.cut(0, x)
        return self.final(_resized(layout, x).split(x)[..., 0].clone())

    def _take(self, name: str, dtype: torch.dtype, layout: Layout, channels: int) -> Tensor:
        return self.space.take(name, dtype, layout.rows, channels)

    def _layout(self, items: int, length: int, number: int) -> Layout:
        """Items of so many rows in a stage, those of a batch as far apart as its layers look."""
        if items == 1:
            return Layout(items, length)
        convs, last = self._together[number]
        return Layout(items, length, max(conv.ahead(length) for conv in (*convs, last)))

    def _up(self, stage: Stage, x: Tensor, layout: Layout, number: int) -> tuple[Tensor, Layout]:
        """`x` upsampled, laid out for the stage."""
        stride, channels = stage.up.stride, stage.up.channels
        wide = Layout(layout.items, layout.length * stride, layout.gap * stride)
        alone = layout.items == 1
        up = stage.up(x, self._take("x" if alone else "spare", stage.dtype, wide, channels), layout)
        if alone:
            return up, wide
        close = self._layout(wide.items, wide.length, number)
        x = self._take("x", stage.dtype, close, channels)
        close.split(x).copy_(wide.split(up))
        close.isolate(x, 0)  # for what lies between to stay finite
        return x, close

    def _mean_fp32(
        self, stage: Stage, x: Tensor, layout: Layout, margin: Margin, wanted: list[list[int]]
    ) -> Tensor:
        """Here a convolution adds what it makes to the residual stream."""
        names = ("activated", "spare", "stream", "total")
        activated, spare, stream, total = (self._take(name, torch.float32, layout, x.shape[1]) for name in names)
        (mean,) = margin.cut(wanted[0][-1], total)
        for number, block in enumerate(stage.blocks):
            left, y, sum_, here, there = margin, x, total if number == 0 else stream, activated, spare
            for i, step in enumerate(block):
                y, sum_, here, there = left.cut(wanted[number][i], y, sum_, here, there)
                left, rows = left.most(wanted[number][i]), _resized(layout, y)
                inner, _, last = step.inner(step.before(y, here), there, rows)
                y = last.add(inner, sum_, rows, y if i == 0 else None)
            if number > 0:
                mean.add_(*left.cut(wanted[number][-1], y))
        return mean.div_(len(stage.blocks))

    def _mean_bf16(
        self, stage: Stage, x: Tensor, layout: Layout, margin: Margin, wanted: list[list[int]]
    ) -> Tensor:
        """oneDNN would round the sum to bf16: it is left to the next activation, which reads both anyway."""
        names = ("total", "stream", "next stream")
        total, *streams = (self._take(name, torch.float32, layout, x.shape[1]) for name in names)
        buffers = [self._take(name, x.dtype, layout, x.shape[1]) for name in ("activated", "spare")]
        (mean,) = margin.cut(wanted[0][-1], total)
        for number, block in enumerate(stage.blocks):
            want, *wants = wanted[number]
            y, here, there, activated, spare = margin.cut(want, x, *streams, *buffers)
            left = margin.most(want)
            block[0].before(y, activated)
            for i, step in enumerate(block):
                rows = _resized(layout, y)
                inner, free, last = step.inner(activated, spare, rows)
                branch = last(inner, free, rows)
                y, here, there, inner, branch = left.cut(wants[i], y, here, there, inner, branch)
                left = left.most(wants[i])
                if i + 1 < len(block):
                    block[i + 1].before.after(y, branch, there, inner)
                    y, here, there = there, there, here
                    activated, spare = inner, branch
            shares = len(stage.blocks) if number + 1 == len(stage.blocks) else 1
            self._accumulate(mean, y, branch, first=number == 0, shares=shares)
        return mean


def _wanted(block: Sequence[Step], after: int) -> list[int]:
    """Rows of context wanted before each step of a block, and behind the last, where it is so many."""
    return [after + sum(step.context for step in block[i:]) for i in range(len(block) + 1)]


def _resized(layout: Layout, x: Tensor) -> Layout:
    """The layout of a signal that has lost rows of its margin, which only a single item has."""
    return layout if layout.items > 1 else Layout(1, len(x))
