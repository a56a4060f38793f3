"""The convolutions of the residual blocks, by cuDNN in two ways and by the engine's own kernel, for `benchmarks.gpu`.

Printed are the multiplications and additions of the plain sum over the seconds: what the engine's kernel multiplies
by zeros besides, when it takes several rows as one, is not counted.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from distill_bigvgan._vendor.bigvgan import CONFIGS
from distill_core.engines.gpu.convolutions import Convolution
from distill_core.engines.gpu.ops import Ops

from .gpu_bandwidth import median, with_kernels

_CONFIG = CONFIGS["bigvgan_v2_44khz_128band_512x"]
_DILATIONS = (1, 5)
_REPEAT = 10


def measure(device: torch.device, *, frames: int, tiny: bool) -> dict[str, Any]:
    """Operations per second of every width, kernel size and dilation of the 44.1 kHz model, in fp16 and fp32."""
    return with_kernels(lambda ops: _measured(ops, device, frames, tiny), device)


def _measured(ops: Ops[Any], device: torch.device, frames: int, tiny: bool) -> dict[str, Any]:
    rows = []
    length, channels = frames, int(_CONFIG["upsample_initial_channel"])
    for rate in _CONFIG["upsample_rates"]:
        length, channels = length * rate, channels // 2
        kinds = itertools.product(_CONFIG["resblock_kernel_sizes"], _DILATIONS, (torch.float16, torch.float32))
        for taps, dilation, dtype in kinds:
            width = 3 if tiny else channels
            x = torch.randn(1, length // 20 * 20, width, device=device, dtype=dtype)
            weight = (torch.randn(width, width, taps, device=device) / (width * taps) ** 0.5).to(dtype)
            rates = _rates(ops, x, weight, dilation, 1 if tiny else _REPEAT)
            rows.append({"channels": channels, "taps": taps, "dilation": dilation, **rates})
    return {"convolutions": rows}


def _rates(ops: Ops[Any], x: Tensor, weight: Tensor, dilation: int, repeat: int) -> dict[str, float | None]:
    """Operations per second of each way, None where there is none."""
    ways = {
        "lines": Convolution(weight, None, dilation, x.dtype, x.device, in_columns=False),
        "columns": Convolution(weight, None, dilation, x.dtype, x.device, in_columns=True),
        "own": ops.convolution(weight, dilation),
    }
    operations = 2 * x.shape[1] * weight.numel()
    return {
        name: None if way is None else operations / median(lambda _, way=way: way(x), x.device, repeat)
        for name, way in ways.items()
    }


def table(figures: dict[str, Any]) -> str:
    if "reason" in figures:
        return f"\n### The convolutions\n\n{figures['reason']}"
    lines = [
        "\n### The convolutions, TFLOP/s: cuDNN along lines, along columns, the engine's own\n",
        "| channels | taps | dilation | fp16 | fp32 |",
        "|---|---|---|---|---|",
    ]
    rows = figures["convolutions"]
    for half, full in zip(rows[::2], rows[1::2], strict=True):
        shown = (", ".join(_shown(each[way]) for way in ("lines", "columns", "own")) for each in (half, full))
        lines.append(f"| {half['channels']} | {half['taps']} | {half['dilation']} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _shown(rate: float | None) -> str:
    return "-" if rate is None else f"{rate / 1e12:.3g}"
