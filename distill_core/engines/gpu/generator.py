"""A HiFi-GAN-like generator as rows [B, P, C]: what a GPU engine computes, whichever device it is on.

Convolutions leave their bias out and give their stage's dtype; the next operation reads it, adds the bias and the
residual in fp32, and activates. The residual stream stays in fp32, as do the first convolution, which sees the
mel, and the last, which makes the samples: together they are less than a hundredth of the work.

Of the P rows the first are a signal's own, and zeros come behind them (see `Extent`): runs that are recorded for a few
lengths so do for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic

import torch
import torch.nn.functional as F
from torch import Tensor

from .convolutions import Convolution, Upsampling
from .ops import A, Extent, Ops

_LARGEST_MULTIPLE = 64
"""Of frames. A signal is that much longer at most."""


Padded = Callable[[Tensor, Tensor], Tensor]
"""Of a mel [B, n_mels, P] that goes on with zeros behind its `frames`, [1] in int32 -> waveform [B, P * hop_length]."""


def run_padded(function: Padded, mel: Tensor, multiple: int) -> Tensor:
    """The waveform of a mel, which is lengthened for `function` to so many frames, or some times as many."""
    frames = mel.shape[-1]
    count = torch.full((1,), frames, dtype=torch.int32, device=mel.device)
    padded = F.pad(mel, (0, -frames % multiple))
    wave = function(padded, count)
    return wave[:, : wave.shape[1] // padded.shape[-1] * frames]


@dataclass(frozen=True)
class Step(Generic[A]):
    """`x + second(between(first(before(x))))`; without `second`, `x + first(before(x))`."""

    before: A
    first: Convolution
    between: A | None = None
    second: Convolution | None = None


@dataclass(frozen=True)
class Stage(Generic[A]):
    """Upsampling, and the mean of residual blocks, of a step or more each; convolutions are all in `dtype`."""

    dtype: torch.dtype
    up: Upsampling
    blocks: tuple[tuple[Step[A], ...], ...]


@dataclass(frozen=True)
class Use(Generic[A]):
    """How an activation is used: on rows of so many channels in `dtype`."""

    activation: A
    channels: int
    dtype: torch.dtype


class RowsGenerator(Generic[A]):
    """A generator prepared once: mel [B, n_mels, T] in fp32 -> waveform [B, T * hop_length] in fp32.

    Args:
        pre: first convolution, in fp32.
        stages: in order.
        before_up: activation of each stage's input, or None.
        before_post: activation before `post`, fp32 to fp32.
        post: last convolution, to one channel, in fp32.
        final: what makes samples of `post`'s output.
        ops: the other operations.

    Attributes:
        multiple: so many frames, or some times as many, suit the convolutions' dilations.
        dtype: of the first stage.
    """

    def __init__(
        self,
        *,
        pre: Convolution,
        stages: Sequence[Stage[A]],
        before_up: A | None = None,
        before_post: A,
        post: Convolution,
        final: Callable[[Tensor], Tensor],
        ops: Ops[A],
    ) -> None:
        self._pre, self._stages, self._post = pre, tuple(stages), post
        self._before_up, self._before_post, self._final = before_up, before_post, final
        self.ops = ops
        self.dtype, self.device, self.n_mels = self._stages[0].dtype, pre.bias.device, pre.inputs
        common = math.lcm(*(step.first.dilation for stage in stages for block in stage.blocks for step in block))
        self.multiple = common if common <= _LARGEST_MULTIPLE else 1

    def __call__(self, mel: Tensor) -> Tensor:
        return run_padded(self.padded, mel, self.multiple)

    def padded(self, mel: Tensor, frames: Tensor) -> Tensor:
        """See `Padded`. Launches the same kernels whatever `frames` is, and does not look at it on the host."""
        extent = Extent(frames)
        rows = self._pre(mel.transpose(1, 2).contiguous())
        rows = torch.where(extent.inside(rows), rows + self._pre.bias, 0.0).to(self.dtype)
        # What a stage makes is what the next one computes with; the last activation's input is in fp32.
        following = [*(stage.dtype for stage in self._stages[1:]), torch.float32]
        for stage, dtype in zip(self._stages, following, strict=True):
            if self._before_up is not None:
                rows, _ = self.ops.activate(rows, self._before_up, extent, dtype=stage.dtype)
            extent = extent.times(stage.up.rate)
            rows = self._run(stage, stage.up(rows), extent, dtype)
        rows, _ = self.ops.activate(rows, self._before_post, extent, dtype=torch.float32)
        return self._final((self._post(rows) + self._post.bias)[..., 0])

    def within(self) -> list[Use[A]]:
        """What the steps of blocks use: one activation of each width that occurs, for the self-test."""
        steps = ((stage, stage.blocks[0][0]) for stage in self._stages)
        uses = [Use(step.before, stage.up.channels, stage.dtype) for stage, step in steps]
        return list({use.channels: use for use in uses}.values())

    def alone(self) -> list[Use[A]]:
        """And those to whose input no bias and no residual is added."""
        before_post = Use(self._before_post, self._stages[-1].up.channels, torch.float32)
        if self._before_up is None:
            return [before_post]
        return [Use(self._before_up, stage.up.inputs, stage.dtype) for stage in self._stages] + [before_post]

    def bytes_per_frame(self) -> int:
        """Memory that one mel frame needs while it is computed, at the widest stage; an upper estimate.

        Alive at once: the stage's input, two states of the residual stream, the blocks' sum, and the input and the
        output of a convolution. The convolution library takes more for itself: on an H100 the peak was 2.6 times that
        in fp16, and 3.9 times in fp32.
        """
        rows, widest = 1, 0
        for stage in self._stages:
            rows *= stage.up.rate
            share = 4 if stage.dtype == torch.float32 else 3
            each = 3 * stage.dtype.itemsize + 3 * torch.float32.itemsize
            widest = max(widest, share * rows * stage.up.channels * each)
        return widest

    def _run(self, stage: Stage[A], rows: Tensor, extent: Extent, dtype: torch.dtype) -> Tensor:
        """The mean of the blocks of a stage in `dtype`, for `rows` that lack the upsampling's bias."""
        total: Tensor | None = None
        for number, block in enumerate(stage.blocks, start=1):
            is_last = number == len(stage.blocks)
            x, bias, stream = rows, stage.up.bias, None
            for step in block:
                # What comes in is x + bias + stream. The stage's input is there already, less its bias, so the
                # stream begins with the first sum that is not.
                a, kept = self.ops.activate(
                    x, step.before, extent, bias=bias, residual=stream, keep=stream is not None, dtype=stage.dtype
                )
                y, y_bias = step.first(a), step.first.bias
                if step.second is not None and step.between is not None:
                    a, _ = self.ops.activate(y, step.between, extent, bias=y_bias, dtype=stage.dtype)
                    y, y_bias = step.second(a), step.second.bias
                if kept is None:
                    x, bias, stream = y, bias + y_bias, x
                else:
                    x, bias, stream = y, y_bias, kept
            assert stream is not None  # a block has at least one step
            total = self.ops.accumulate(
                x,
                stream,
                bias,
                extent,
                total=total,
                scale=1 / len(stage.blocks) if is_last else 1.0,
                dtype=dtype if is_last else torch.float32,
            )
        assert total is not None
        return total
