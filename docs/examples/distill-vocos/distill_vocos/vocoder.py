"""Loads Vocos. Imported by `registry.get("vocos")` and by nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from distill_core import MelSpec, ModuleVocoder, Variant, VocoderCard
from distill_core.weights import check_state_dict, load_checkpoint

from .upstream import backbone_class

DIM, HIDDEN, LAYERS = 512, 1536, 8
"""The published 24 kHz model."""

_KERNEL = 7  # of the embedding and of each ConvNeXt block, along time
_OF_TRAINING = "feature_extractor."  # in the checkpoint; computes mels, which is MelSpec's business here


class FourierHead(nn.Module):
    """Features [B, T, dim] -> waveform [B, T * hop_length], by way of a spectrogram; equation 2 of the paper.

    Frame k is centred at sample k * hop_length, so T frames reach (T - 1) * hop_length samples and half a window
    further; upstream cuts the former, this takes one hop of the latter as well.
    """

    def __init__(self, dim: int, n_fft: int, hop_length: int) -> None:
        super().__init__()
        self.out = nn.Linear(dim, n_fft + 2)
        self.istft = nn.Module()  # only to have the checkpoint's name for the window
        self.istft.register_buffer("window", torch.hann_window(n_fft))
        self.n_fft, self.hop_length = n_fft, hop_length

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        # Half precision has neither complex numbers nor phases that are exact enough.
        log_magnitude, phase = self.out(features).float().transpose(1, 2).chunk(2, dim=1)
        spectrum = torch.polar(log_magnitude.exp().clamp(max=1e2), phase)
        length = spectrum.shape[-1] * self.hop_length
        window: torch.Tensor = self.istft.window
        return torch.istft(spectrum, self.n_fft, self.hop_length, window=window, center=True, length=length)


class Vocos(nn.Module):
    """[B, n_mels, T] -> [B, 1, T * hop_length]."""

    def __init__(self, mel: MelSpec, dim: int = DIM, hidden: int = HIDDEN, layers: int = LAYERS) -> None:
        super().__init__()
        self.backbone = backbone_class()(mel.n_mels, dim, hidden, layers)
        self.head = FourierHead(dim, mel.n_fft, mel.hop_length)
        # Each kernel sees 3 frames to a side; of the overlapping windows a sample is under the next two at most.
        self.halo = (layers + 1) * (_KERNEL // 2) + mel.n_fft // (2 * mel.hop_length)

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(mel))[:, None]


class VocosVocoder(ModuleVocoder):
    """Vocos; `model` is the module above."""

    def __init__(self, model: Vocos, variant: Variant, **arguments: Any) -> None:
        super().__init__(model, variant, halo=model.halo, **arguments)


def load(
    card: VocoderCard,
    variant: Variant,
    *,
    device: torch.device | str,
    precision: str,
    weights: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    chunk_frames: int | None = None,
    untrained: bool = False,
) -> VocosVocoder:
    """The factory that the card names.

    Args:
        weights: a file or state dict in upstream's layout, with a `config.json` beside it if its mels are of another
            format, or a folder of both; None: the variant's, from the Hub.
        untrained: random weights, the same every time; for tests and to measure speed.

    Raises:
        MissingDependencyError: vocos is not installed.
        WeightsError: the weights cannot be had, or are of another model.
    """
    read = None
    if weights is not None or not untrained:
        read = load_checkpoint(weights, variant.weights)
        variant = variant.with_config(read.config, own=weights is not None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Vocos(variant.mel)
    if read is not None:
        state = {name: value for name, value in read.state_dict.items() if not name.startswith(_OF_TRAINING)}
        check_state_dict(state, {name: value.shape for name, value in model.state_dict().items()}, "Vocos")
        model.load_state_dict(state)
    return VocosVocoder(model, variant, device=device, precision=precision, chunk_frames=chunk_frames)
