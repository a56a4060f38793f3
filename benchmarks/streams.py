"""What a stream's pieces cost: time per frame, with nothing computed twice, and with a halo around each piece.

    python -m benchmarks.streams

BigVGAN's default variant with random weights, and HiFi-GAN with its trained ones, on the CPU. A mel arrives in pieces
of so many frames. The engine streams it as it does, then computes each piece with its halo, as engines do that keep
nothing; both take turns, and the fastest turn counts. "all" is the mel in one piece.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from distill_core import VocoderBase, registry

from .cpu import processor, write_checkpoint

SIZES = (1, 2, 4, 8, 16, 32, 64)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streams", description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="FRAMES")
    parser.add_argument("--vocoders", nargs="+", default=["hifigan", "bigvgan"])
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--frames", type=int, default=128, metavar="N", help="of the mel")
    parser.add_argument("--turns", type=int, default=3, metavar="N")
    parser.add_argument("--channels", type=int, metavar="N", help="of a narrower BigVGAN; default: its own 1536")
    args = parser.parse_args()
    print(f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}; milliseconds per frame\n")
    print("| frames a piece | a frame lasts | " + " | ".join(str(size) for size in args.sizes) + " | all |")
    print("|---" * (3 + len(args.sizes)) + "|")
    with tempfile.TemporaryDirectory() as name:
        write_checkpoint(Path(name), args.channels)
        for vocoder in args.vocoders:
            options = {"weights": name} if vocoder == "bigvgan" else {}
            loaded = registry.get(vocoder, device="cpu", precision=args.precision, **options)
            lasts = f"{1e3 * loaded.hop_length / loaded.sample_rate:.1f}"
            for label, times in measure(loaded, args.sizes, args.frames, args.turns).items():
                cells = [f"{vocoder}{label}", lasts, *(f"{1e3 * each:.1f}" for each in times)]
                print("| " + " | ".join(cells) + " |", flush=True)


def measure(vocoder: VocoderBase, sizes: list[int], frames: int, turns: int) -> dict[str, list[float]]:
    """For pieces of these sizes, and for the whole: seconds a frame."""
    mel = 2 * torch.randn(1, vocoder.mel.n_mels, frames, generator=torch.Generator().manual_seed(0)) - 5
    ways: dict[str, Any] = {"": vocoder._flow, ", halo computed": lambda: None}
    found = {label: [float("inf")] * (len(sizes) + 1) for label in ways}
    for turn in range(turns + 1):
        for index, size in enumerate([*sizes, frames]):
            for label, flow in ways.items():
                vocoder._flow = flow  # type: ignore[method-assign]
                began = time.perf_counter()
                if size == frames:
                    vocoder.mel_to_waveform(mel, check_format=False)
                else:
                    for _ in vocoder.stream(mel.split(size, dim=-1), check_format=False):
                        pass
                if turn:  # the first packs and compiles
                    found[label][index] = min(found[label][index], (time.perf_counter() - began) / frames)
    return found


if __name__ == "__main__":
    main()
