"""What a chunk's size costs: time per frame, with the halo around each chunk, and without.

    python -m benchmarks.chunks

BigVGAN's default variant with random weights, on the CPU. A chunk of a size in the middle of a long mel is computed
with the halo's frames on either side, and as a mel of its own. The sizes take turns, so that a busy machine is so for
all of them, and the fastest turn of each counts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from distill_core import registry
from distill_core.engines.selection import best_cpu_precision

from .cpu import HOP, RATE, mel_of, processor, write_checkpoint

SIZES = (32, 64, 108, 160, 256, 384, 512)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chunks", description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="FRAMES")
    both = list(dict.fromkeys(["fp32", best_cpu_precision()]))
    parser.add_argument("--precision", nargs="+", default=both, help="default: fp32, and bf16 where it is not emulated")
    parser.add_argument("--turns", type=int, default=3, metavar="N")
    parser.add_argument("--channels", type=int, metavar="N", help="of a narrower model; default: its own 1536")
    args = parser.parse_args()
    print(f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}; milliseconds per frame\n")
    print("| chunk_frames | " + " | ".join(str(size) for size in args.sizes) + " |")
    print("|---" * (1 + len(args.sizes)) + "|")
    with tempfile.TemporaryDirectory() as name:
        write_checkpoint(Path(name), args.channels)
        for precision in args.precision:
            for label, times in measure(name, precision, args.sizes, args.turns).items():
                cells = [f"{1e3 * took / size:.1f}" for took, size in zip(times, args.sizes, strict=True)]
                print(f"| {label} | " + " | ".join(cells) + " |", flush=True)


def measure(weights: str, precision: str, sizes: list[int], turns: int) -> dict[str, list[float]]:
    """Of chunks of these sizes: seconds, with a halo around them and without."""
    vocoder = registry.get("bigvgan", device="cpu", weights=weights, precision=precision)
    mels = [mel_of((size + 2 * vocoder.halo) * HOP / RATE) for size in sizes]
    found = {precision: [float("inf")] * len(sizes), f"{precision}, no halo": [float("inf")] * len(sizes)}
    for turn in range(turns + 1):
        for times, halo in zip(found.values(), (vocoder.halo, 0), strict=True):
            for index, (size, mel) in enumerate(zip(sizes, mels, strict=True)):
                began = time.perf_counter()
                vocoder._compute(mel[..., : size + 2 * halo], context=(halo, halo))
                if turn:  # the first packs and compiles
                    times[index] = min(times[index], time.perf_counter() - began)
    return found


if __name__ == "__main__":
    main()
