"""BigVGAN as a vocoder: checkpoint -> generator -> `BigVGANVocoder`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from distill_core.card import Variant, VocoderCard
from distill_core.engines.selection import Accelerated, Fast
from distill_core.module_vocoder import ModuleVocoder
from distill_core.weights import load_checkpoint

from ._vendor.bigvgan import CONFIGS, BigVGAN, halo


class BigVGANVocoder(ModuleVocoder):
    """NVIDIA's BigVGAN. `model` is the generator, its weight norm folded.

    Args:
        model: from `BigVGAN.from_state_dict`.
        variant: what is loaded.
        **placement: device, precision, chunk_frames, engine and reload, as for `ModuleVocoder`.
    """

    default_chunk_frames = 384  # four seconds at 44.1 kHz in one; see benchmarks/chunks.py

    def __init__(self, model: BigVGAN, variant: Variant, **placement: Any) -> None:
        super().__init__(model, variant, halo=halo(model.h), **placement)

    def _channels_last(self, dtype: torch.dtype) -> Fast:
        from .engines import channels_last

        return channels_last.build(self.model, dtype)

    def _cuda(self, precision: str) -> Accelerated:
        from .engines import cuda

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
    progress: bool = True,
    tqdm_class: Any = None,
) -> BigVGANVocoder:
    """The factory that the card names; see `Registry.get` for the arguments.

    `weights` without a configuration of its own (a bare state dict) is taken for one of `variant`.

    Raises:
        WeightsError: the weights cannot be had, are damaged, or are those of another model.
        PrecisionError, EngineError, OptionError: as `ModuleVocoder`, before any weights are fetched.
    """
    BigVGANVocoder.check_placement(device=device, precision=precision, chunk_frames=chunk_frames, engine=engine)
    checkpoint = load_checkpoint(
        weights, variant.weights, names=BigVGAN.checkpoint_names, progress=progress, tqdm_class=tqdm_class
    )
    described = variant.with_config(checkpoint.config, own=weights is not None)
    config = checkpoint.config or CONFIGS[f"bigvgan_{variant.name}"]
    try:
        model = BigVGAN.from_state_dict(config, checkpoint.state_dict)
    except ValueError as error:
        raise checkpoint.misfit(error, f"the variant {variant.name}") from error
    reread = checkpoint.rereader()
    return BigVGANVocoder(
        model,
        described,
        device=device,
        precision=precision,
        chunk_frames=chunk_frames,
        engine=engine,
        reload=None if reread is None else lambda: BigVGAN.from_state_dict(config, reread()),
    )
