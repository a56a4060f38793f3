"""From a checkpoint file to a vocoder that is ready: ours beside NVIDIA's `bigvgan`, on the same file.

    python -m benchmarks.loading

A full-size checkpoint (v2_44khz_128band_512x, 489 MB, random weights) is written to a temporary folder and
read once, so that all find it in the page cache. Each way of loading then runs in a process of its own,
taking turns. Seconds are from the file to a model with weight norm folded, and on to the first second of sound: for
ours, that includes making the fast engine. Memory is the peak of what is anonymous, above the process with torch and
the package imported, while the model is loaded (Linux only: RssAnon, polled).
"""

from __future__ import annotations

import argparse
import json
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

VARIANT = "v2_44khz_128band_512x"
CHECKPOINT = "bigvgan_generator.pt"
CONVERTED = "converted/bigvgan.safetensors"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loading", description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="runs of each (default: 5)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--child", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return run_child(args.child[0], Path(args.child[1]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = write_checkpoint(folder)
        write_converted(folder)
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(args.repeat):
            for way, results in runs.items():
                results.append(measure(way, folder))
    results = {way: summary(results) for way, results in runs.items()}
    checksums = [result["checksum"] for result in results.values()]
    if max(checksums) - min(checksums) > 1e-6 * max(map(abs, checksums)):
        sys.exit(f"the ways did not load the same weights: {checksums}")
    if args.json:
        print(json.dumps({"checkpoint_bytes": size, "ways": results}, indent=2))
    else:
        print_report(size, results)
    return 0


def write_checkpoint(folder: Path, variant: str = VARIANT) -> int:
    """A published-size checkpoint with random weights, in the layout NVIDIA publishes; returns its bytes."""
    import torch

    from distill_bigvgan._vendor.bigvgan import CONFIGS, BigVGAN

    config = CONFIGS[f"bigvgan_{variant}"]
    torch.manual_seed(0)
    state = BigVGAN(config).state_dict()
    torch.save({"generator": state}, folder / CHECKPOINT)
    (folder / "config.json").write_text(json.dumps(config))
    return len((folder / CHECKPOINT).read_bytes())  # and so it is in the page cache


def write_converted(folder: Path) -> None:
    """The same checkpoint as `distill-vocoder weights convert -o` writes it."""
    from distill_core.weights import load_checkpoint
    from distill_core.weights.folded import convert

    source = load_checkpoint(folder, names=[CHECKPOINT])
    assert source.path is not None
    convert(source.path, source.state_dict, source.config, folder / CONVERTED)


Loaded = tuple[Any, Callable[[Any], Any]]
"""The module, and what makes a waveform of a mel."""


def load_ours(folder: Path) -> Loaded:
    from distill_core import registry

    vocoder = registry.get("bigvgan", weights=folder, device="cpu")
    return vocoder.model, vocoder.mel_to_waveform


def load_converted(folder: Path) -> Loaded:
    return load_ours(folder / CONVERTED)


def load_nvidia(folder: Path) -> Loaded:
    import torch
    from bigvgan import BigVGAN
    from bigvgan.env import AttrDict

    model = BigVGAN(AttrDict(json.loads((folder / "config.json").read_text())))
    model.load_state_dict(torch.load(folder / CHECKPOINT, map_location="cpu")["generator"])
    model.remove_weight_norm()
    model.eval()

    @torch.no_grad()
    def vocode(mel: torch.Tensor) -> torch.Tensor:
        waveform: torch.Tensor = model(mel)
        return waveform

    return model, vocode


WAYS: dict[str, tuple[str, Callable[[Path], Loaded]]] = {
    "nvidia": ("NVIDIA's constructor, load_state_dict, remove_weight_norm", load_nvidia),
    "ours": ("distill-bigvgan", load_ours),
    "converted": ("distill-bigvgan, converted once", load_converted),
}


def run_child(way: str, folder: Path) -> int:
    """Import, tell the parent, load, tell the parent, make a second of sound, tell the parent."""
    import torch

    if way == "nvidia":
        sys.stdout = sys.stderr  # the package prints
        import bigvgan  # noqa: F401

        sys.stdout = sys.__stdout__
    else:
        import distill_bigvgan.bigvgan_vocoder  # noqa: F401
    torch.zeros(1)
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.perf_counter()
    sys.stdout = sys.stderr
    model, vocode = WAYS[way][1](folder)
    sys.stdout = sys.__stdout__
    print(time.perf_counter() - started, flush=True)
    sys.stdin.readline()
    checksum = sum(p.double().sum().item() for p in model.parameters())
    config = json.loads((folder / "config.json").read_text())
    mel = torch.rand(1, config["num_mels"], config["sampling_rate"] // config["hop_size"]) - 6
    started = time.perf_counter()
    vocode(mel)
    print(time.perf_counter() - started, checksum, flush=True)
    return 0


def measure(way: str, folder: Path) -> dict[str, float]:
    """One run of one way, its memory watched from here."""
    command = [sys.executable, "-m", "benchmarks.loading", "--child", way, str(folder)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    if child.stdout.readline() != "ready\n":
        sys.exit(f"{WAYS[way][0]} could not be loaded: is it installed? See tests/requirements-peers.txt")
    before = peak = anonymous_bytes(child.pid)
    child.stdin.write("\n")
    child.stdin.flush()
    while not select.select([child.stdout], [], [], 0.001)[0]:
        peak = max(peak, anonymous_bytes(child.pid))
    seconds = child.stdout.readline()
    if not seconds:
        sys.exit(f"{WAYS[way][0]} failed")
    peak = max(peak, anonymous_bytes(child.pid))
    vocoding, checksum = child.communicate("\n")[0].split()
    loading = float(seconds)
    return {
        "seconds": loading,
        "sound": loading + float(vocoding),
        "anonymous": peak - before,
        "checksum": float(checksum),
    }


def anonymous_bytes(pid: int) -> float:
    """Memory of a process that no file stands behind; not a number where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return float("nan")
    return next((float(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon")), 0.0)


def summary(runs: list[dict[str, float]]) -> dict[str, float]:
    """Medians of the times, the highest memory."""
    return {
        "seconds": statistics.median(run["seconds"] for run in runs),
        "fastest": min(run["seconds"] for run in runs),
        "slowest": max(run["seconds"] for run in runs),
        "sound": statistics.median(run["sound"] for run in runs),
        "anonymous": max(run["anonymous"] for run in runs),
        "checksum": runs[0]["checksum"],
    }


def print_report(size: int, results: dict[str, dict[str, float]]) -> None:
    print(f"checkpoint: {size / 1e6:.0f} MB\n")
    print(f"{'':58}{'median':>8}{'range':>16}{'peak memory':>14}{'/ file':>8}{'first second of sound':>24}")
    for way, result in results.items():
        span = f"{result['fastest']:.2f} - {result['slowest']:.2f} s"
        print(
            f"{WAYS[way][0]:58}{result['seconds']:6.2f} s{span:>16}"
            f"{result['anonymous'] / 1e6:11.0f} MB{result['anonymous'] / size:8.2f}{result['sound']:22.2f} s"
        )
    for way in results:
        if way != "nvidia":
            print(f"\n{WAYS[way][0]}: {results['nvidia']['seconds'] / results[way]['seconds']:.1f} times faster")


if __name__ == "__main__":
    sys.exit(main())
