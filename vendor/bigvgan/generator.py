"""BigVGAN's generator: mel spectrogram in, waveform out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..common import generator, receptive_field
from ..common.config import ConfigError, Upsampler, as_attr_dict, read_bool, read_upsampler, require
from ..common.weight_norm import WeightNormConv1d, WeightNormConvTranspose1d
from . import activation
from .activation import Activation1d, Snake, SnakeBeta, default_filter

if TYPE_CHECKING:
    from typing_extensions import Self

_ACTIVATIONS: Mapping[str, type[Snake]] = {"snake": Snake, "snakebeta": SnakeBeta}


@dataclass(frozen=True)
class BigVGANConfig(Upsampler):
    """What the generator reads of `config.json`; the rest is training's."""

    activation: str
    snake_logscale: bool
    use_tanh_at_final: bool
    use_bias_at_final: bool

    @classmethod
    def read(cls, h: object) -> BigVGANConfig:
        """Check `h`, a mapping or an object with attributes; `ConfigError` says what is wrong."""
        h = as_attr_dict(h)
        shared = read_upsampler(h, "BigVGAN")
        require(h, ("activation", "snake_logscale"), "BigVGAN")
        if h["activation"] not in list(_ACTIVATIONS):
            raise ConfigError(
                f"not a BigVGAN configuration: activation is {h['activation']!r}, expected one of {list(_ACTIVATIONS)}"
            )
        return cls(
            **vars(shared),
            activation=h["activation"],
            snake_logscale=read_bool(h, "snake_logscale", "BigVGAN"),
            use_tanh_at_final=read_bool(h, "use_tanh_at_final", "BigVGAN", default=True),
            use_bias_at_final=read_bool(h, "use_bias_at_final", "BigVGAN", default=True),
        )


class AMPBlock1(nn.Module):
    """Residual block of pairs: act, dilated convolution, act, convolution. [B, C, T] -> [B, C, T]."""

    def __init__(
        self, channels: int, kernel: int, dilations: tuple[int, ...], act: Callable[[int], Activation1d]
    ) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(_same(channels, kernel, dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(_same(channels, kernel, 1) for _ in dilations)
        self.activations = nn.ModuleList(act(channels) for _ in range(2 * len(dilations)))

    def forward(self, x: Tensor) -> Tensor:
        for i, (dilated, plain) in enumerate(zip(self.convs1, self.convs2, strict=True)):
            y = dilated(self.activations[2 * i](x))
            x = plain(self.activations[2 * i + 1](y)).add_(x)
        return x


class AMPBlock2(nn.Module):
    """Residual block of single steps: act, dilated convolution. [B, C, T] -> [B, C, T]."""

    def __init__(
        self, channels: int, kernel: int, dilations: tuple[int, ...], act: Callable[[int], Activation1d]
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_same(channels, kernel, dilation) for dilation in dilations)
        self.activations = nn.ModuleList(act(channels) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        for conv, act in zip(self.convs, self.activations, strict=True):
            x = conv(act(x)).add_(x)
        return x


class BigVGAN(generator.Generator):
    """Mel [B, num_mels, T] -> waveform [B, 1, T * hop_length] within [-1, 1].

    `h` is upstream's configuration, a mapping or an object with attributes; unknown keys are
    ignored. As built, convolutions are weight-normed and named as in the published checkpoints;
    `from_state_dict` and `from_pretrained` give the folded form for inference.
    `use_cuda_kernel=True` changes nothing but speed upstream; here it warns and is ignored.
    Raises `ConfigError`, a `ValueError`.
    """

    architecture = "BigVGAN"
    config: BigVGANConfig
    checkpoint_names = ("bigvgan_generator.pt", "g_*")

    def __init__(self, h: object, use_cuda_kernel: bool = False) -> None:
        super().__init__()
        if use_cuda_kernel:
            _warn_of_cuda_kernel()
        self.h = as_attr_dict(h)
        self.config = config = BigVGANConfig.read(self.h)
        channels = config.channels
        self.conv_pre = WeightNormConv1d(config.num_mels, channels[0], 7, padding=3)
        self.ups = nn.ModuleList(
            # in a list of one: that is where the checkpoints have it
            nn.Sequential(WeightNormConvTranspose1d(before, after, kernel, rate, padding=(kernel - rate) // 2))
            for before, after, kernel, rate in zip(
                channels[:-1], channels[1:], config.kernels, config.rates, strict=True
            )
        )
        act = partial(_activation, config)
        block = AMPBlock1 if config.resblock == "1" else AMPBlock2
        self.resblocks = nn.ModuleList(
            block(width, kernel, dilations, act)
            for width in channels[1:]
            for kernel, dilations in zip(config.block_kernels, config.block_dilations, strict=True)
        )
        self.activation_post = act(channels[-1])
        self.conv_post = WeightNormConv1d(channels[-1], 1, 7, padding=3, bias=config.use_bias_at_final)

    def forward(self, mel: Tensor) -> Tensor:
        self.check_mel(mel)
        x = self.conv_pre(mel)
        for stage, up in enumerate(self.ups):
            x = self.residual_stage(stage, up(x))
        x = self.conv_post(self.activation_post(x))
        return torch.tanh(x) if self.config.use_tanh_at_final else torch.clamp(x, -1.0, 1.0)

    @classmethod
    def from_pretrained(cls, path: str | Path, *, use_cuda_kernel: bool = False) -> Self:
        if use_cuda_kernel:
            _warn_of_cuda_kernel()
        return super().from_pretrained(path)

    @classmethod
    def _default_buffer(cls, name: str) -> Tensor:
        return default_filter("cpu")


def context(h: object) -> tuple[int, int]:
    """Mel frames before and after a frame that its samples depend on."""
    return receptive_field.context(BigVGANConfig.read(h), activation=activation.REACH)


def halo(h: object) -> int:
    """Mel frames of context that an output frame depends on, the larger of both sides."""
    return max(context(h))


def expected_shapes(h: object) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the folded state dict of this configuration; allocates nothing."""
    return generator.expected_shapes(BigVGAN, h)


def _warn_of_cuda_kernel() -> None:
    warnings.warn(
        "use_cuda_kernel=True is ignored: this BigVGAN has no kernel to compile; its output is the same",
        RuntimeWarning,
        stacklevel=3,
    )


def _activation(config: BigVGANConfig, channels: int) -> Activation1d:
    return Activation1d(_ACTIVATIONS[config.activation](channels, logscale=config.snake_logscale))


def _same(channels: int, kernel: int, dilation: int) -> WeightNormConv1d:
    return WeightNormConv1d(channels, channels, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2)
