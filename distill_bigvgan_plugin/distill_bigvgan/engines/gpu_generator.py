"""BigVGAN's generator as rows [B, P, C]: what the GPU engine computes, whichever device it is on.

Convolutions leave their bias out and give the compute dtype; the next operation reads it, adds the bias and the
residual in fp32, and activates. The residual stream stays in fp32, as do the first convolution, which sees the
mel, and the last, which makes the samples: together they are less than a hundredth of the work.

Of the P rows the first are a signal's own, and zeros come behind them (see `Extent`): runs that are recorded for a few
lengths so do for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._vendor.bigvgan import Activation1d, BigVGAN
from .gpu_ops import Extent, Ops, SnakeParameters

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


class Convolution:
    """A convolution over time with "same" zero padding, [B, L, in] -> [B, L, out], its bias kept apart in fp32.

    Args:
        weight: [out, in, k], k odd.
        bias: [out], or None for zeros.
        dilation: positions between taps.
        dtype: of the weights and so of the convolution.
        ops: may have a faster one than the library's.
        in_columns: how the library convolves, see `faster_in_columns`; by default the faster way.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        dilation: int,
        dtype: torch.dtype,
        device: torch.device,
        ops: Ops | None = None,
        in_columns: bool | None = None,
    ) -> None:
        weight = weight.detach().to(device, dtype)
        self._own = None if ops is None else ops.convolution(weight, dilation)
        faster = faster_in_columns(max(weight.shape[:2]), dilation, dtype)
        self._in_columns = faster if in_columns is None else in_columns
        self._weight = weight.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        self.bias = _bias(bias, weight.shape[0], device)
        self.dilation = dilation
        self.padding = dilation * (weight.shape[-1] - 1) // 2

    @classmethod
    def of(cls, conv: nn.Conv1d, dtype: torch.dtype, device: torch.device, ops: Ops | None = None) -> Convolution:
        return cls(conv.weight, conv.bias, conv.dilation[0], dtype, device, ops)

    def __call__(self, rows: Tensor) -> Tensor:
        # Rows [B, L, C] are the pixels of an image [B, C, height, width], in channels-last layout: nothing is moved.
        batch, length, channels = rows.shape
        if self._own is not None and length % self._own.multiple == 0:
            return self._own(rows)
        if self._in_columns and length % self.dilation == 0:
            # With as many pixels across as the taps lie apart, those of a column are neighbours.
            image = rows.view(batch, length // self.dilation, self.dilation, channels).permute(0, 3, 1, 2)
            made = F.conv2d(image, self._weight.transpose(2, 3), padding=(self.padding // self.dilation, 0))
        else:
            image = rows.view(batch, 1, length, channels).permute(0, 3, 1, 2)
            made = F.conv2d(image, self._weight, padding=(0, self.padding), dilation=(1, self.dilation))
        return made.permute(0, 2, 3, 1).reshape(batch, length, -1).contiguous()


def faster_in_columns(channels: int, dilation: int, dtype: torch.dtype) -> bool:
    """Whether cuDNN convolves faster along columns, as it does on an H100 by up to three times, or along lines."""
    if dtype == torch.float32:
        return channels <= 64 and (dilation > 1 or channels > 32)
    return 32 < channels < 256 and (dilation > 1 or channels <= 128)


class Upsampling:
    """A transposed convolution as a plain one that makes the `rate` outputs of a position as channels.

    Output n = q * rate + r sums the inputs q - j times tap r + padding + j * rate, over all j for which that tap
    exists. With padding (kernel - rate) / 2 these j lie evenly around 0, so the convolution is a "same" one, and
    its channels (r, c) of a row are, in memory, the rows of the result. [B, L, in] -> [B, L * rate, out].
    """

    def __init__(self, conv: nn.ConvTranspose1d, dtype: torch.dtype, device: torch.device) -> None:
        weight = conv.weight.detach()  # [in, out, kernel]
        inputs, outputs, kernel = weight.shape
        self.rate = rate = conv.stride[0]
        padding = (kernel - rate) // 2
        reach = (rate - 1 + padding) // rate
        phases = weight.new_zeros(rate, outputs, inputs, 2 * reach + 1)
        for r in range(rate):
            for j in range(-reach, reach + 1):
                tap = r + padding + j * rate
                if 0 <= tap < kernel:
                    phases[r, :, :, reach - j] = weight[:, :, tap].T
        self._conv = Convolution(phases.flatten(0, 1), None, 1, dtype, device)
        self.bias = _bias(conv.bias, outputs, device)

    def __call__(self, rows: Tensor) -> Tensor:
        batch, length, _ = rows.shape
        return self._conv(rows).view(batch, length * self.rate, -1)


def _bias(bias: Tensor | None, channels: int, device: torch.device) -> Tensor:
    """In float32 on `device`; zeros where there is none."""
    if bias is None:
        return torch.zeros(channels, dtype=torch.float32, device=device)
    return bias.detach().to(device, torch.float32)


@dataclass(frozen=True)
class Pair:
    """One step of a residual block: `x + second(activation(first(activation(x))))`, or without the second half."""

    before: SnakeParameters
    first: Convolution
    between: SnakeParameters | None
    second: Convolution | None


@dataclass(frozen=True)
class Stage:
    """Upsampling, and the mean of residual blocks."""

    up: Upsampling
    blocks: tuple[tuple[Pair, ...], ...]


class RowsGenerator:
    """A folded BigVGAN prepared once: mel [B, n_mels, T] in fp32 -> waveform [B, T * hop_length] in fp32.

    Args:
        model: with weight norm folded; not kept.
        dtype: of the convolutions: torch.float32, float16 or bfloat16.
        device: where it runs.
        ops: how activations are computed.

    Attributes:
        multiple: so many frames, or some times as many, suit the convolutions' dilations.

    Raises:
        ValueError: the checkpoint's resampling filters are not what the closed form assumes.
    """

    def __init__(self, model: BigVGAN, *, dtype: torch.dtype, device: torch.device, ops: Ops) -> None:
        config = model.config
        self.dtype = dtype
        self.device = device
        self.ops = ops
        self._tanh = config.use_tanh_at_final
        self._pre = Convolution.of(model.conv_pre, torch.float32, device)
        paired = config.resblock == "1"
        blocks = [_pairs(block, paired=paired, dtype=dtype, device=device, ops=ops) for block in model.resblocks]
        count = len(config.block_kernels)
        self._stages = tuple(
            Stage(Upsampling(up, dtype, device), tuple(blocks[index * count : (index + 1) * count]))
            for index, (up,) in enumerate(cast(Any, model.ups))
        )
        self.last_snake = SnakeParameters.of(model.activation_post, device)
        self._post = Convolution.of(model.conv_post, torch.float32, device)
        common = math.lcm(*(pair.first.dilation for stage in self._stages for block in stage.blocks for pair in block))
        self.multiple = common if common <= _LARGEST_MULTIPLE else 1

    def __call__(self, mel: Tensor) -> Tensor:
        return run_padded(self.padded, mel, self.multiple)

    def padded(self, mel: Tensor, frames: Tensor) -> Tensor:
        """See `Padded`. Launches the same kernels whatever `frames` is, and does not look at it on the host."""
        extent = Extent(frames)
        rows = self._pre(mel.transpose(1, 2).contiguous())
        rows = torch.where(extent.inside(rows), rows + self._pre.bias, 0.0).to(self.dtype)
        for stage in self._stages:
            is_last = stage is self._stages[-1]
            extent = extent.times(stage.up.rate)
            rows = self._run(stage, stage.up(rows), extent, dtype=torch.float32 if is_last else self.dtype)
        rows, _ = self.ops.activate(rows, self.last_snake, extent, dtype=torch.float32)
        wave = (self._post(rows) + self._post.bias)[..., 0]
        return torch.tanh(wave) if self._tanh else wave.clamp(-1.0, 1.0)

    def snakes(self) -> list[SnakeParameters]:
        """One activation of each width that occurs; `last_snake` is as wide as the last stage's."""
        return list({each.channels: each for each in (stage.blocks[0][0].before for stage in self._stages)}.values())

    def _run(self, stage: Stage, rows: Tensor, extent: Extent, dtype: torch.dtype) -> Tensor:
        """The mean of the blocks of a stage, for `rows` that lack the upsampling's bias."""
        total: Tensor | None = None
        for number, block in enumerate(stage.blocks, start=1):
            is_last = number == len(stage.blocks)
            x, bias, stream = rows, stage.up.bias, None
            for pair in block:
                # What comes in is x + bias + stream. The stage's input is there already, less its bias, so the
                # stream begins with the first sum that is not.
                a, kept = self.ops.activate(
                    x, pair.before, extent, bias=bias, residual=stream, keep=stream is not None, dtype=self.dtype
                )
                y, y_bias = pair.first(a), pair.first.bias
                if pair.second is not None and pair.between is not None:
                    a, _ = self.ops.activate(y, pair.between, extent, bias=y_bias, dtype=self.dtype)
                    y, y_bias = pair.second(a), pair.second.bias
                if kept is None:
                    x, bias, stream = y, bias + y_bias, x
                else:
                    x, bias, stream = y, y_bias, kept
            assert stream is not None  # a block has at least one pair
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


def _pairs(block: Any, *, paired: bool, dtype: torch.dtype, device: torch.device, ops: Ops) -> tuple[Pair, ...]:
    def snake(activation: Activation1d) -> SnakeParameters:
        return SnakeParameters.of(activation, device)

    def conv(module: nn.Conv1d) -> Convolution:
        return Convolution.of(module, dtype, device, ops)

    acts = list(block.activations)
    if not paired:
        return tuple(Pair(snake(act), conv(c), None, None) for act, c in zip(acts, block.convs, strict=True))
    return tuple(
        Pair(snake(before), conv(first), snake(between), conv(second))
        for before, first, between, second in zip(acts[::2], block.convs1, acts[1::2], block.convs2, strict=True)
    )


def bytes_per_frame(model: BigVGAN, dtype: torch.dtype) -> int:
    """Memory that one mel frame needs while it is computed, at the widest stage; an upper estimate.

    Alive at once: the stage's input, two states of the residual stream, the blocks' sum, and the input and the
    output of a convolution. The convolution library takes more for itself: on an H100 the peak was 2.6 times that in
    fp16, and 3.9 times in fp32.
    """
    config = model.config
    size = dtype.itemsize
    widest = max(width * math.prod(config.rates[: stage + 1]) for stage, width in enumerate(config.channels[1:]))
    return (4 if dtype == torch.float32 else 3) * widest * (3 * size + 3 * torch.float32.itemsize)
