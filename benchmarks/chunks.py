"""What a chunk's size costs: time per frame that is kept, with the halo computed along with each chunk.

    python -m benchmarks.chunks

BigVGAN's default variant with random weights, on the CPU. A chunk of a size in the middle of a long mel is computed
with the halo's frames on either side. The sizes take turns, so that a busy machine is so for all of them, and the
fastest turn of each counts. The second row of a precision gives the time over all frames that are computed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from distill_core import registry

from .cpu import HOP, RATE, mel_of, processor, write_checkpoint

SIZES = (32, 64, 108, 160, 256, 384, 512)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chunks", description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="FRAMES")
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--turns", type=int, default=3, metavar="N")
    parser.add_argument("--channels", type=int, metavar="N", help="of a narrower model; default: its own 1536")
    args = parser.parse_args()
    print(f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}; milliseconds per frame\n")
    print("| chunk_frames | " + " | ".join(str(size) for size in args.sizes) + " |")
    print("|---" * (1 + len(args.sizes)) + "|")
    with tempfile.TemporaryDirectory() as name:
        write_checkpoint(Path(name), args.channels)
        for precision in args.precision:
            computed, times = measure(name, precision, args.sizes, args.turns)
            for label, frames in ((precision, args.sizes), (f"{precision}, no halo", computed)):
                cells = [f"{1e3 * took / count:.1f}" for took, count in zip(times, frames, strict=True)]
                print(f"| {label} | " + " | ".join(cells) + " |", flush=True)


def measure(weights: str, precision: str, sizes: list[int], turns: int) -> tuple[list[int], list[float]]:
    """Of chunks of these sizes: frames that are computed, and seconds."""
    vocoder = registry.get("bigvgan", device="cpu", weights=weights, precision=precision, chunk_frames=max(sizes) * 4)
    mels = [mel_of((size + 2 * vocoder.halo) * HOP / RATE) for size in sizes]
    best = [float("inf")] * len(sizes)
    for turn in range(turns + 1):
        for index, mel in enumerate(mels):
            began = time.perf_counter()
            vocoder.mel_to_waveform(mel, check_format=False)
            if turn:  # the first packs and compiles
                best[index] = min(best[index], time.perf_counter() - began)
    return [mel.shape[-1] for mel in mels], best


if __name__ == "__main__":
    main()
