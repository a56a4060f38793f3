"""Peak memory of distill-bigvgan on a CPU by length of the audio, and what many lengths leave behind.

    python -m benchmarks.cpu_memory
    python -m benchmarks.cpu_memory --channels 64 --precision fp32

Each length runs in a process of its own, from the checkpoint to the waveform; the default variant on random
weights, with `--channels` a narrow one of its shape. Peak memory is the whole process's (Linux: VmHWM), less the
waveform that it returns. `--calls` then runs that many different lengths in one process and prints its memory
after each.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .cpu import BANDS, HOP, RATE, mel_of, write_checkpoint

CALLS = (3.0, 1.0, 0.1, 2.3, 0.7, 1.9, 2.9, 0.3, 1.3, 2.7)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu_memory", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, nargs="+", default=(10.0, 600.0), metavar="S", help="lengths of audio")
    parser.add_argument("--precision", default="auto", choices=("fp32", "bf16", "auto"))
    parser.add_argument("--engine", default="auto", choices=("auto", "eager", "channels-last"))
    parser.add_argument("--channels", type=int, metavar="N", help="of the first convolution (default: 1536)")
    parser.add_argument("--threads", type=int, metavar="N")
    parser.add_argument("--calls", action="store_true", help="many lengths in one process as well")
    parser.add_argument("--child", metavar="FOLDER", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(Path(args.child), args)
    with tempfile.TemporaryDirectory() as name:
        write_checkpoint(Path(name), args.channels)
        print("| audio | peak memory | less the waveform | beside the shortest | took |\n|---|---|---|---|---|")
        first = None
        for seconds in sorted(args.seconds):
            result = measure(name, args, [seconds])[-1]
            rest = result["peak"] - result["waveform"]
            first = first or rest
            print(
                f"| {seconds:g} s | {result['peak'] / 1e6:.0f} MB | {rest / 1e6:.0f} MB | {rest / first:.2f}× "
                f"| {result['took']:.1f} s |",
                flush=True,
            )
        if args.calls:
            print("\n| call | memory after it |\n|---|---|")
            for seconds, result in zip(CALLS, measure(name, args, list(CALLS)), strict=True):
                print(f"| {seconds:g} s | {result['now'] / 1e6:.0f} MB |")
    return 0


def measure(folder: str, args: argparse.Namespace, lengths: list[float]) -> list[dict[str, float]]:
    """What a process says after each of these lengths."""
    command = [sys.executable, "-m", "benchmarks.cpu_memory", "--child", folder, "--precision", args.precision]
    command += ["--engine", args.engine, *(["--threads", str(args.threads)] if args.threads else [])]
    command += ["--seconds", *map(str, lengths)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def child(folder: Path, args: argparse.Namespace) -> int:
    import torch

    from distill_core import registry

    if args.threads:
        torch.set_num_threads(args.threads)
    vocoder = registry.get("bigvgan", device="cpu", weights=folder, precision=args.precision, engine=args.engine)
    for seconds in args.seconds:
        mel = mel_of(seconds)
        assert mel.shape[1:] == (BANDS, max(1, round(seconds * RATE / HOP)))
        started = time.perf_counter()
        wave = vocoder.mel_to_waveform(mel, check_format=False)
        took = time.perf_counter() - started
        size = wave.numel() * wave.element_size()
        del wave, mel
        print(json.dumps({"peak": status("VmHWM"), "now": status("VmRSS"), "waveform": size, "took": took}), flush=True)
    return 0


def status(name: str) -> int:
    """A line of this process's /proc status, in bytes."""
    lines: dict[str, Any] = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


if __name__ == "__main__":
    sys.exit(main())
