"""The card of Vocos. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from distill_core import MelSpec, Variant, VocoderCard, WeightsPin, hookimpl

MEL = MelSpec.preset("vocos-24khz-100band")

CARD = VocoderCard(
    name="vocos",
    summary="Vocos: a Fourier-domain vocoder at 24 kHz, one frame at a time and therefore fast",
    api=1,
    factory="distill_vocos.vocoder:load",
    variants=[
        Variant(
            "mel-24khz",
            MEL,
            MEL.sample_rate,
            # Sizes and hashes are not known beforehand: what first comes is recorded and held to.
            WeightsPin("charactr/vocos-mel-24khz", "main", {"pytorch_model.bin": (None, None)}),
        )
    ],
    devices=("cuda", "mps", "cpu"),
    license="MIT",
    homepage="https://github.com/gemelo-ai/vocos",
)


@hookimpl
def distill_vocoders() -> Sequence[VocoderCard]:
    return [CARD]
