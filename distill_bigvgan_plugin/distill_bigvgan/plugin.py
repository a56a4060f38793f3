"""The card of BigVGAN: what it is, its nine published variants, and where their weights are. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

from distill_core.card import API_VERSION, VocoderCard
from distill_core.hookspecs import hookimpl

from .variants import DEFAULT_VARIANT, VARIANTS

CARD = VocoderCard(
    name="bigvgan",
    summary="NVIDIA's BigVGAN: universal vocoder, up to 44.1 kHz, anti-aliased periodic activations",
    api=API_VERSION,
    factory="distill_bigvgan.bigvgan_vocoder:load",
    variants=VARIANTS,
    default_variant=DEFAULT_VARIANT,
    devices=("cuda", "mps", "cpu"),
    license="MIT",
    homepage="https://github.com/NVIDIA/BigVGAN",
)


@hookimpl
def distill_vocoders() -> Sequence[VocoderCard]:
    return [CARD]
