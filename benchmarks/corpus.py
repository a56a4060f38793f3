"""A corpus of short recordings: the command `vocode FOLDER` beside a plain loop, on the same cores, in one run.

    python -m benchmarks.corpus --files 2000

The files are cut from Debian's recordings (python tools/recordings.py fetches them) at their own rates and with
their own channels. The plain loop reads a file, analyses it, calls `mel_to_waveform`, writes, and goes on to the
next, with as many torch threads as there are cores. Both ways are processes of their own and begin with nothing
loaded; the ways take turns, and the fastest round of each counts. Seconds of sound count each channel.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from tools import recordings

from .cpu import processor


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corpus", description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=2000, metavar="N", help="how many (default: 2000)")
    parser.add_argument(
        "--seconds",
        type=float,
        nargs=2,
        default=(0.1, 0.4),
        metavar="S",
        help="shortest and longest (default: 0.1 0.4)",
    )
    parser.add_argument("--recordings", type=Path, metavar="DIR", help="cut from these instead")
    parser.add_argument("--vocoder", default="hifigan")
    parser.add_argument("--workers", type=int, metavar="N", help="of the command (default: its own choice)")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="of each way, in turns (default: 2)")
    parser.add_argument("--output", type=Path, metavar="PATH", help="write the table to PATH.md as well")
    parser.add_argument("--loop", nargs=2, type=Path, metavar=("IN", "OUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.loop:
        return loop(*args.loop, args.vocoder)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = cut(args, folder / "in")
        ways = {
            "plain loop": [sys.executable, "-m", "benchmarks.corpus", "--vocoder", args.vocoder, "--loop"],
            "vocode FOLDER": [sys.executable, "-m", "distill_core.cli", "vocode", "--quiet", "--vocoder", args.vocoder],
        }
        if args.workers:
            ways["vocode FOLDER"] += ["--workers", str(args.workers)]
        results: dict[str, dict[str, float]] = {}
        for round_ in range(args.rounds):
            for way, command in ways.items():
                out = folder / way
                shutil.rmtree(out, ignore_errors=True)
                if way == "plain loop":
                    out.mkdir()
                    result = measure([*command, str(folder / "in"), str(out)])
                else:
                    result = measure([*command, str(folder / "in"), "-o", str(out)])
                if way not in results or result["wall"] < results[way]["wall"]:
                    results[way] = result
                print(f"round {round_ + 1}, {way}: {json.dumps(result)}", file=sys.stderr)
        difference = largest_difference(*(folder / way for way in ways), args.files)
    text = report(results, seconds, difference, args)
    print(text)
    if args.output:
        args.output.with_suffix(".md").write_text(text + "\n")
    return 0


def cut(args: argparse.Namespace, folder: Path) -> float:
    """Fill a folder with pieces of recordings; returns how many seconds they are, each channel counted."""
    import soundfile

    places = [args.recordings] if args.recordings else [recordings.folder(each) for each in recordings.PACKAGES]
    if None in places:
        sys.exit("Debian's recordings are not here: python tools/recordings.py fetches them")
    endings = {".flac", ".oga", ".ogg", ".wav"}
    sources = sorted(path for place in places for path in place.rglob("*") if path.suffix in endings)
    sounds = [soundfile.read(path, dtype="float32", always_2d=True) for path in sources]
    chance = random.Random(0)
    least, most = args.seconds
    sounds = [(wave, rate) for wave, rate in sounds if len(wave) > least * rate + 1]
    weights = [len(wave) / rate for wave, rate in sounds]
    total = 0.0
    for number in range(args.files):
        [(wave, rate)] = chance.choices(sounds, weights)
        length = min(len(wave), round(chance.uniform(least, most) * rate))
        start = chance.randrange(len(wave) - length + 1)
        path = folder / f"{number % 20:02}" / f"{number:06}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wave[start : start + length], rate)
        total += length * wave.shape[1] / rate
    return total


def loop(folder: Path, out: Path, vocoder_name: str) -> int:
    """What a person writes who has `mel_to_waveform` and a folder."""
    from distill_core import registry
    from distill_core.audio import read_audio, write_audio
    from distill_core.resynthesis import resynthesize

    vocoder = registry.get(vocoder_name)
    for path in sorted(folder.rglob("*.wav")):
        wave, rate = read_audio(path)
        write_audio(out / path.relative_to(folder), resynthesize(wave, rate, vocoder), vocoder.sample_rate)
    return 0


def measure(command: list[str]) -> dict[str, float]:
    """Seconds on the clock and of all processors, and the peak of what all processes together hold in memory."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.25):
            peak[0] = max(peak[0], memory(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    wall = time.perf_counter() - started
    ended.set()
    watcher.join()
    if code:
        sys.exit(f"{' '.join(command)} ended with {code}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": wall, "cpu": cpu, "memory": peak[0]}


def memory(pid: int) -> float:
    """Bytes that a process and all below it hold, what they share counted once; not a number without /proc."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        own = next(float(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        below = [each for task in tasks for each in (task / "children").read_text().split()]
    except (OSError, StopIteration):
        return 0.0 if Path("/proc/self").exists() else float("nan")
    return own + sum(memory(int(each)) for each in below)


def largest_difference(one: Path, other: Path, files: int) -> float:
    """Between the samples of two folders' files, full scale being 1; all files have to be there."""
    import numpy
    import soundfile

    paths = sorted(path for path in one.rglob("*.wav"))
    if len(paths) != files:
        sys.exit(f"{len(paths)} of {files} files came out")
    worst = 0.0
    for path in paths:
        mine, theirs = soundfile.read(path)[0], soundfile.read(other / path.relative_to(one))[0]
        worst = max(worst, float(numpy.abs(mine - theirs).max()))
    return worst


def report(results: dict[str, dict[str, float]], seconds: float, difference: float, args: argparse.Namespace) -> str:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = f"; load average {os.getloadavg()[0]:.1f} at the end" if hasattr(os, "getloadavg") else ""
    base = results["plain loop"]["wall"]
    lines = [
        f"{processor()}, {cores} cores, {platform.system()}, torch {torch.__version__}{load}. `{args.vocoder}`, "
        f"{args.files} files of {args.seconds[0]:g} to {args.seconds[1]:g} s, {seconds:.0f} s in all with each channel "
        f"counted. Largest difference between the two ways' samples: {difference:.1e}.",
        "",
        "| | time | files per second | sound per second | times the loop | core-minutes for an hour | memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for way, result in results.items():
        wall = result["wall"]
        lines.append(
            f"| {way} | {wall:.1f} s | {args.files / wall:.1f} | {seconds / wall:.2f} s | {base / wall:.2f} "
            f"| {result['cpu'] / seconds * 60:.1f} | {result['memory'] / 1e9:.2f} GB |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
