"""The nine checkpoints NVIDIA published, all MIT, on the Hub under `nvidia/bigvgan_…`.

A pin with sizes and hashes is one that several independent public records agree on
(`base_24khz_100band`: one record). For the others `main` is resolved on the first download, and what
came is recorded and held to from then on.
"""

from __future__ import annotations

from distill_core.card import Variant
from distill_core.mel.spec import MelSpec
from distill_core.weights.pin import WeightsPin

CONFIG_FILE = "config.json"
CHECKPOINT_FILE = "bigvgan_generator.pt"
DEFAULT_VARIANT = "v2_44khz_128band_512x"


def _pinned(name: str, revision: str, config: tuple[int, str], checkpoint: tuple[int, str]) -> WeightsPin:
    return WeightsPin(f"nvidia/bigvgan_{name}", revision, {CONFIG_FILE: config, CHECKPOINT_FILE: checkpoint})


def _unpinned(name: str) -> WeightsPin:
    return WeightsPin(f"nvidia/bigvgan_{name}", "main", {CONFIG_FILE: (None, None), CHECKPOINT_FILE: (None, None)})


def _variant(parameters: int, weights: WeightsPin) -> Variant:
    name = weights.repo.removeprefix("nvidia/bigvgan_")
    mel = MelSpec.preset(f"bigvgan-{name}")
    return Variant(name, mel, mel.sample_rate, weights, parameters)


VARIANTS = (
    _variant(
        122_152_752,
        _pinned(
            DEFAULT_VARIANT,
            "95a9d1dcb12906c03edd938d77b9333d6ded7dfb",
            (1403, "65b7f487bfaf15256056a75f6667ef5f640214c981922a111927873705ea4ddb"),
            (489041291, "d9fe7ec6bd0b44ed9d66973d5012d8181c1570b01e5c72df51973e241dccd357"),
        ),
    ),
    _variant(112_715_568, _unpinned("v2_44khz_128band_256x")),
    _variant(
        112_414_512,
        _pinned(
            "v2_24khz_100band_256x",
            "c329ede9e9bbc100ddf5c91e2330a61921262370",
            (1402, "d77e2c96583ca2296ac112a56ec7cc6bd5da4bf7681ceff18448bedc4fcf6512"),
            (450088331, "6f9c5715550c9d0f11159ceb8935638da5aeb19e27d1e63677632df095e376f5"),
        ),
    ),
    _variant(
        112_199_472,
        _pinned(
            "v2_22khz_80band_256x",
            "633ff708ed5b74903e86ff1298cf4a98e921c513",
            (1405, "88a1f47acf747db0b21e97a389d838566147f7a5464583ff5c8d819d870f03ee"),
            (449228171, "e95ba25972d3de0628d99cd156e9315a9c018899bf739988959ebe3544080ced"),
        ),
    ),
    _variant(112_199_472, _unpinned("v2_22khz_80band_fmax8k_256x")),
    _variant(112_414_513, _unpinned("24khz_100band")),
    _variant(112_199_473, _unpinned("22khz_80band")),
    _variant(
        14_015_041,
        _pinned(
            "base_24khz_100band",
            "0f6305d0e010eaafdbf649978f46c3b5af099343",
            (1034, "885553969751bfd87f1980017364e968917cd34347376ed08238db673ea5b46b"),
            (56297637, "ca8bced4d3ef588e654742f732455c16abb004e49d7d3bf03edade84d3e982f2"),
        ),
    ),
    _variant(13_943_361, _unpinned("base_22khz_80band")),
)
