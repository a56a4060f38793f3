"""The nine published configurations, by repository name without the owner.

Each holds what inference needs of the repository's `config.json`. The first-generation files
say nothing of `use_tanh_at_final` and `use_bias_at_final`, which then are true.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_LARGE = {"upsample_rates": [4, 4, 2, 2, 2, 2], "upsample_kernel_sizes": [8, 8, 4, 4, 4, 4]}
_LARGE_512X = {"upsample_rates": [8, 4, 2, 2, 2, 2], "upsample_kernel_sizes": [16, 8, 4, 4, 4, 4]}
_BASE = {"upsample_rates": [8, 8, 2, 2], "upsample_kernel_sizes": [16, 16, 4, 4]}
_V2 = {"use_tanh_at_final": False, "use_bias_at_final": False}


def _config(
    sampling_rate: int, num_mels: int, fmax: int | None, stages: Mapping[str, Any], final: Mapping[str, Any]
) -> dict[str, Any]:
    hop_size = 512 if stages is _LARGE_512X else 256
    n_fft = 4 * hop_size
    return {
        "resblock": "1",
        **stages,
        "upsample_initial_channel": 512 if stages is _BASE else 1536,
        "resblock_kernel_sizes": [3, 7, 11],
        "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
        **final,
        "activation": "snakebeta",
        "snake_logscale": True,
        "num_mels": num_mels,
        "n_fft": n_fft,
        "hop_size": hop_size,
        "win_size": n_fft,
        "sampling_rate": sampling_rate,
        "fmin": 0,
        "fmax": fmax,
    }


CONFIGS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "bigvgan_v2_44khz_128band_512x": _config(44_100, 128, None, _LARGE_512X, _V2),
        "bigvgan_v2_44khz_128band_256x": _config(44_100, 128, None, _LARGE, _V2),
        "bigvgan_v2_24khz_100band_256x": _config(24_000, 100, None, _LARGE, _V2),
        "bigvgan_v2_22khz_80band_256x": _config(22_050, 80, None, _LARGE, _V2),
        "bigvgan_v2_22khz_80band_fmax8k_256x": _config(22_050, 80, 8_000, _LARGE, _V2),
        "bigvgan_24khz_100band": _config(24_000, 100, 12_000, _LARGE, {}),
        "bigvgan_22khz_80band": _config(22_050, 80, 8_000, _LARGE, {}),
        "bigvgan_base_24khz_100band": _config(24_000, 100, 12_000, _BASE, {}),
        "bigvgan_base_22khz_80band": _config(22_050, 80, 8_000, _BASE, {}),
    }
)
