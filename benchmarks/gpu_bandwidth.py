"""How near the activation kernel comes to what the card's memory can do, for `benchmarks.gpu`.

A kernel that reads its input once and writes its output once cannot be faster than a copy of the same bytes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from distill_bigvgan._vendor.bigvgan import CONFIGS, Activation1d, SnakeBeta
from distill_bigvgan.engines.snake import SnakeParameters
from distill_core.engines.gpu.ops import Extent, Ops, TorchOps
from distill_core.wording import on_one_line

_CONFIG = CONFIGS["bigvgan_v2_44khz_128band_512x"]
_REPEAT = 30
_SETS = 4
"""Buffers taken in turn, so that the cache does not serve what memory should."""


def measure(device: torch.device, *, frames: int, tiny: bool) -> dict[str, Any]:
    """Bytes per second of a copy, and of the kernel at every width of the 44.1 kHz model for `frames` frames."""
    return with_kernels(lambda ops: _measured(ops, device, frames, tiny), device)


def with_kernels(measured: Callable[[Ops[SnakeParameters]], dict[str, Any]], device: torch.device) -> dict[str, Any]:
    """What is measured of the engine's kernels, or of plain torch where there is no card.

    Where they cannot be measured, the reason: this comes last, and what was measured before is not lost for it.
    """
    if device.type != "cuda":
        return measured(TorchOps())
    try:
        from distill_bigvgan.engines.triton_snake import TritonSnakeOps

        # events and streams are the current device's, whatever the tensors' is
        with torch.cuda.device(device), torch.inference_mode():
            return measured(TritonSnakeOps())
    except Exception as error:  # no Triton, no compiler for its launcher, no memory
        return {"reason": f"The kernels could not be measured: {on_one_line(error)}"}


def _measured(ops: Ops[SnakeParameters], device: torch.device, frames: int, tiny: bool) -> dict[str, Any]:
    repeat = 2 if tiny else _REPEAT
    copy = _copy(2**12 if tiny else 2**28, device, repeat)
    rows = []
    length, channels = frames, int(_CONFIG["upsample_initial_channel"])
    for rate in _CONFIG["upsample_rates"]:
        length, channels = length * rate, channels // 2
        shape = (1, length, 3 if tiny else channels)
        rows += [_kernel(ops, device, shape, residual, repeat) for residual in (False, True)]
    return {"copy": copy, "kernels": rows}


def _copy(numbers: int, device: torch.device, repeat: int) -> float:
    """Bytes per second, read and written, of fp32 numbers."""
    source, target = (torch.randn(numbers, device=device) for _ in range(2))
    return 2 * source.nbytes / median(lambda _: target.copy_(source), device, repeat)


def _kernel(
    ops: Ops[SnakeParameters], device: torch.device, shape: tuple[int, int, int], residual: bool, repeat: int
) -> dict[str, Any]:
    """One call as the fp16 engine makes it: plain, or with the fp32 residual stream read and written too."""
    snake = SnakeParameters.of(Activation1d(SnakeBeta(shape[-1], logscale=True)), device)
    extent = Extent(torch.tensor([shape[1]], dtype=torch.int32, device=device))
    bias = torch.randn(shape[-1], device=device)
    inputs = [torch.randn(shape, device=device).half() for _ in range(_SETS)]
    streams = [torch.randn(shape, device=device) if residual else None for _ in range(_SETS)]

    def run(turn: int) -> object:
        number = turn % _SETS
        return ops.activate(
            inputs[number], snake, extent, bias=bias, residual=streams[number], keep=residual, dtype=torch.float16
        )

    moved = inputs[0].numel() * (2 + 2 + (4 + 4 if residual else 0))
    seconds = median(run, device, repeat)
    return {"rows": shape[1], "channels": shape[2], "residual": residual, "bytes_per_second": moved / seconds}


def median(run: Callable[[int], object], device: torch.device, repeat: int) -> float:
    """Seconds on the device: by its own clock where it has one, after three runs that do not count."""
    seconds = []
    for turn in range(repeat + 3):
        if device.type == "cuda":
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            # enough work ahead that the launch is over before the device gets to it
            torch.cuda._sleep(1_000_000)
            start.record()
            run(turn)
            stop.record()
            stop.synchronize()
            seconds.append(start.elapsed_time(stop) / 1000)
        else:
            started = time.perf_counter()
            run(turn)
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[3:])


def table(figures: dict[str, Any]) -> str:
    if "reason" in figures:
        return f"\n### The activation kernel\n\n{figures['reason']}"
    copy = figures["copy"]
    lines = [
        f"\n### The activation kernel in fp16, beside a copy ({copy / 1e9:.4g} GB/s, read and written)\n",
        "| rows x channels | plain | with the residual stream |",
        "|---|---|---|",
    ]
    kernels = figures["kernels"]
    for plain, fused in zip(kernels[::2], kernels[1::2], strict=True):
        shares = " | ".join(
            f"{each['bytes_per_second'] / 1e9:.4g} GB/s, {each['bytes_per_second'] / copy:.0%}"
            for each in (plain, fused)
        )
        lines.append(f"| {plain['rows']} x {plain['channels']} | {shares} |")
    return "\n".join(lines)
