"""HiFi-GAN's generator: mel spectrogram in, waveform out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..common import generator, receptive_field
from ..common.config import Upsampler, as_attr_dict, read_upsampler
from ..common.weight_norm import WeightNormConv1d, WeightNormConvTranspose1d

SLOPE = 0.1
# Upstream leaves the last one at torch's default, and the checkpoints were trained so.
FINAL_SLOPE = 0.01


@dataclass(frozen=True)
class HiFiGANConfig(Upsampler):
    """What the generator reads of `config.json`; the rest is training's."""

    @classmethod
    def read(cls, h: object) -> HiFiGANConfig:
        """Check `h`, a mapping or an object with attributes; `ConfigError` says what is wrong.

        `num_mels` is 80 where it is absent, as upstream's code takes it to be.
        """
        return cls(**vars(read_upsampler({"num_mels": 80, **as_attr_dict(h)}, "HiFi-GAN")))


class ResBlock1(nn.Module):
    """Residual block of pairs: dilated convolution, convolution. [B, C, T] -> [B, C, T]."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(_same(channels, kernel, dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(_same(channels, kernel, 1) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            y = dilated(F.leaky_relu(x, SLOPE))
            x = plain(F.leaky_relu_(y, SLOPE)).add_(x)
        return x


class ResBlock2(nn.Module):
    """Residual block of single dilated convolutions. [B, C, T] -> [B, C, T]."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_same(channels, kernel, dilation) for dilation in dilations)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(F.leaky_relu(x, SLOPE)).add_(x)
        return x


class HiFiGAN(generator.Generator):
    """Mel [B, num_mels, T] -> waveform [B, 1, T * hop_length] within [-1, 1].

    `h` is upstream's configuration, a mapping or an object with attributes; unknown keys are
    ignored. As built, convolutions are weight-normed and named as in the published checkpoints;
    `from_state_dict` and `from_pretrained` give the folded form for inference.
    Raises `ConfigError`, a `ValueError`.
    """

    architecture = "HiFi-GAN"
    checkpoint_names = ("generator.pt*", "generator_*", "g_*")

    def __init__(self, h: object) -> None:
        super().__init__()
        self.h = as_attr_dict(h)
        self.config = config = HiFiGANConfig.read(self.h)
        channels = config.channels
        self.conv_pre = WeightNormConv1d(config.num_mels, channels[0], 7, padding=3)
        self.ups = nn.ModuleList(
            WeightNormConvTranspose1d(before, after, kernel, rate, padding=(kernel - rate) // 2)
            for before, after, kernel, rate in zip(
                channels[:-1], channels[1:], config.kernels, config.rates, strict=True
            )
        )
        block = ResBlock1 if config.resblock == "1" else ResBlock2
        self.resblocks = nn.ModuleList(
            block(width, kernel, dilations)
            for width in channels[1:]
            for kernel, dilations in zip(config.block_kernels, config.block_dilations, strict=True)
        )
        self.conv_post = WeightNormConv1d(channels[-1], 1, 7, padding=3)

    def forward(self, mel: Tensor) -> Tensor:
        self.check_mel(mel)
        x = self.conv_pre(mel)
        for stage, up in enumerate(self.ups):
            x = self.residual_stage(stage, up(F.leaky_relu_(x, SLOPE)))
        return torch.tanh(self.conv_post(F.leaky_relu_(x, FINAL_SLOPE)))


Generator = HiFiGAN  # upstream's name


def context(h: object) -> tuple[int, int]:
    """Mel frames before and after a frame that its samples depend on."""
    return receptive_field.context(HiFiGANConfig.read(h), activation=0)


def halo(h: object) -> int:
    """Mel frames of context that an output frame depends on, the larger of both sides."""
    return max(context(h))


def expected_shapes(h: object) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the folded state dict of this configuration; allocates nothing."""
    return generator.expected_shapes(HiFiGAN, h)


def _same(channels: int, kernel: int, dilation: int) -> WeightNormConv1d:
    return WeightNormConv1d(channels, channels, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2)
