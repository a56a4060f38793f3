"""HiFi-GAN as a vocoder: checkpoint -> generator -> `HiFiGANVocoder`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from distill_core.card import Variant, VocoderCard
from distill_core.engines.selection import Accelerated, Fast
from distill_core.module_vocoder import ModuleVocoder
from distill_core.weights import load_checkpoint

from ._vendor.hifigan import CONFIGS, HiFiGAN, halo
from .pretrained import pretrained_checkpoint


class HiFiGANVocoder(ModuleVocoder):
    """HiFi-GAN V1, V2 or V3. `model` is the generator, its weight norm folded.

    Args:
        model: from `HiFiGAN.from_state_dict`.
        variant: what is loaded.
        **placement: device, precision, chunk_frames, engine and reload, as for `ModuleVocoder`.
    """

    default_chunk_frames = 1024  # less than a third of what BigVGAN's default takes up, and a seventh faster than 256

    def __init__(self, model: HiFiGAN, variant: Variant, **placement: Any) -> None:
        super().__init__(model, variant, halo=halo(model.h), **placement)

    def _channels_last(self, dtype: torch.dtype) -> Fast:
        from . import channels_last

        return channels_last.build(self.model, dtype)

    def _cuda(self, precision: str) -> Accelerated:
        from . import cuda

        return cuda.engine(self.model, self.device, precision)


def load(
    card: VocoderCard,
    variant: Variant,
    *,
    device: torch.device | str,
    precision: str,
    weights: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    chunk_frames: int | None = None,
    engine: str = "auto",
) -> HiFiGANVocoder:
    """The factory that the card names; see `Registry.get` for the arguments.

    `weights` is a folder, a file, or a state dict, which may come as `{"generator": …, "config": …}`.
    Without a configuration of its own it is taken for V1 at 22,050 Hz.

    Raises:
        WeightsError: the weights are not there, are damaged, or are those of another model.
        PrecisionError, EngineError, OptionError: as `ModuleVocoder`, before any weights are read.
    """
    HiFiGANVocoder.check_placement(device=device, precision=precision, chunk_frames=chunk_frames, engine=engine)
    source = pretrained_checkpoint(variant.name) if weights is None else weights
    checkpoint = load_checkpoint(source, names=HiFiGAN.checkpoint_names)
    described = variant.with_config(checkpoint.config, own=weights is not None)
    config = checkpoint.config or CONFIGS["v1"]
    try:
        model = HiFiGAN.from_state_dict(config, checkpoint.state_dict)
    except ValueError as error:
        raise checkpoint.misfit(error, "V1") from error
    reread = checkpoint.rereader()
    return HiFiGANVocoder(
        model,
        described,
        device=device,
        precision=precision,
        chunk_frames=chunk_frames,
        engine=engine,
        reload=None if reread is None else lambda: HiFiGAN.from_state_dict(config, reread()),
    )
