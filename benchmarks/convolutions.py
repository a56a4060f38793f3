"""Layers of the CPU engine in fp32: oneDNN's convolution beside those with fewer multiplications.

    python -m benchmarks.convolutions

A signal of each width goes through convolutions of 3, 7 and 11 taps with dilation 1 and 3, in three ways: by oneDNN
(`channels_last.Conv`), with transforms by torch (`winograd_torch.TorchConv`) and as a compiled kernel
(`winograd_compiled.CompiledConv`, with numba). The ways take turns, so that a busy machine is so for all of them, and
the fastest turn of each counts. Printed are the multiplications and additions of the plain sum, divided by the time:
ways that take fewer of them can be above what the processor can do.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch

from distill_core.engines.channels_last import Conv, Layout, room
from distill_core.engines.winograd_torch import TorchConv
from distill_core.engines.workspace import Workspace

from .cpu import processor

VALUES = 1 << 21
"""Of a signal, about."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.convolutions", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--channels",
        type=int,
        nargs="+",
        metavar="C",
        default=[32, 64, 128, 256, 384, 768],
        help="widths, multiples of 16 (default: %(default)s)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="default: torch's own choice")
    parser.add_argument("--turns", type=int, metavar="N", default=5, help="default: %(default)s")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    kinds: dict[str, Any] = {"oneDNN": Conv, "torch's transforms": TorchConv}
    try:
        from distill_core.engines.winograd_compiled import CompiledConv

        kinds["compiled kernel"] = CompiledConv
    except ModuleNotFoundError:
        print("Without the compiled kernel: pip install 'distill-core[cpu]' adds numba.\n")
    print(f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}; GFLOP/s of the plain sum\n")
    print("| channels | taps | dilation |", *(f" {name} |" for name in kinds), sep="")
    print("|---|---|---|", *("---|" for _ in kinds), sep="")
    with torch.inference_mode():
        for channels in args.channels:
            for kernel in (3, 7, 11):
                for dilation in (1, 3):
                    speeds = layer(channels, kernel, dilation, kinds, args.turns)
                    print(f"| {channels} | {kernel} | {dilation} |", *(f" {speed:.0f} |" for speed in speeds), sep="")
    return 0


def layer(channels: int, kernel: int, dilation: int, kinds: dict[str, Any], turns: int) -> list[float]:
    """GFLOP/s of each kind."""
    torch.manual_seed(0)
    weight, bias = torch.randn(channels, channels, kernel), torch.randn(channels)
    scratch = Workspace()
    convs = [
        kind(weight, bias, dilation=dilation, **({"dtype": torch.float32} if kind is Conv else {"scratch": scratch}))
        for kind in kinds.values()
    ]
    layout = Layout(1, VALUES // channels)
    space = room(max(conv.reach for conv in convs))
    x, out = (space.take(name, torch.float32, layout.rows, channels) for name in ("x", "out"))
    x.normal_()
    fastest = [float("inf")] * len(convs)
    for turn in range(turns + 1):
        for number, conv in enumerate(convs):
            started = time.perf_counter()
            conv(x, out, layout)
            if turn:  # the first warms up
                fastest[number] = min(fastest[number], time.perf_counter() - started)
    return [2 * layout.rows * channels**2 * kernel / seconds / 1e9 for seconds in fastest]


if __name__ == "__main__":
    raise SystemExit(main())
