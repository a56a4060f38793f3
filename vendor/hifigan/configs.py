"""The published configurations V1, V2 and V3, and `universal`, which is V1's.

Each holds what inference needs of the published `config.json`; all are for 22,050 Hz speech.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_MEL = {
    "num_mels": 80,
    "n_fft": 1024,
    "hop_size": 256,
    "win_size": 1024,
    "sampling_rate": 22_050,
    "fmin": 0,
    "fmax": 8_000,
}
_V1 = {
    "resblock": "1",
    "upsample_rates": [8, 8, 2, 2],
    "upsample_kernel_sizes": [16, 16, 4, 4],
    "upsample_initial_channel": 512,
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    **_MEL,
}
_V3 = {
    "resblock": "2",
    "upsample_rates": [8, 8, 4],
    "upsample_kernel_sizes": [16, 16, 8],
    "upsample_initial_channel": 256,
    "resblock_kernel_sizes": [3, 5, 7],
    "resblock_dilation_sizes": [[1, 2], [2, 6], [3, 12]],
    **_MEL,
}

CONFIGS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"v1": _V1, "v2": {**_V1, "upsample_initial_channel": 128}, "v3": _V3, "universal": _V1}
)
