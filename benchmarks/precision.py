"""What each engine and precision costs in accuracy, on every device of this machine.

    python -m benchmarks.precision

BigVGAN's default variant at full size, with random weights, against NVIDIA's package in fp32 on the CPU. HiFi-GAN's
trained `universal` on eight spoken recordings (python tools/recordings.py fetches them), against its eager engine in
fp32 on the CPU. The error is the norm of the difference over the norm; of the recordings it is the mean, and the
largest. `log-mel` is the mean difference of the two results' ln mels, `PESQ-WB` how much nearer to the recordings, or
farther from them, the result is. What cannot run here is listed with the reason.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill_core import registry
from distill_core.errors import DistillError
from distill_core.evaluation import Scorer
from training import recordings

from .cpu import mel_of, nvidia, processor, write_checkpoint

ENGINES = {"cpu": ("eager", "channels-last"), "cuda": ("eager", "cuda"), "mps": ("eager",)}
PRECISIONS = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "bf16", "fp16"), "mps": ("fp32", "bf16", "fp16")}
NEPER = 20.0 / math.log(10.0)
"""In dB."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help="of BigVGAN's mel (default: 1)")
    parser.add_argument("--channels", type=int, metavar="N", help="of a narrower BigVGAN; default: its own 1536")
    args = parser.parse_args()
    print(f"{processor()}, torch {torch.__version__}\n")
    bigvgan(args.seconds, args.channels)
    hifigan()


def settings() -> Iterator[tuple[str, str, str]]:
    """(device, engine, precision): all that this machine has a device for."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    for device in (name for name, is_there in there.items() if is_there):
        yield from ((device, engine, each) for engine in ENGINES[device] for each in PRECISIONS[device])


def made(vocoder: Any, mel: Tensor) -> Tensor:
    """The waveform, in fp64 on the CPU."""
    return vocoder.mel_to_waveform(mel, check_format=False).cpu().double()  # type: ignore[no-any-return]


def relative(wave: Tensor, truth: Tensor) -> float:
    return float((wave - truth).norm() / truth.norm())


def bigvgan(seconds: float, channels: int | None) -> None:
    """The table for BigVGAN."""
    mel = mel_of(seconds)
    with tempfile.TemporaryDirectory() as name:
        write_checkpoint(Path(name), channels)
        with torch.inference_mode(), contextlib.redirect_stdout(sys.stderr):  # for NVIDIA's code prints
            truth = nvidia(Path(name))(mel).double()
        print("| BigVGAN 44 kHz, random weights | engine | precision | relative error |\n|---|---|---|---|")
        for device, engine, precision in settings():
            try:
                vocoder = registry.get("bigvgan", device=device, engine=engine, precision=precision, weights=name)
                cell = f"{relative(made(vocoder, mel), truth):.1e}"
            except DistillError as error:
                cell = str(error)
            print(f"| {device} | {engine} | {precision} | {cell} |", flush=True)


def hifigan() -> None:
    """The table for HiFi-GAN."""
    print("\n| HiFi-GAN universal, speech | engine | precision | relative error | log-mel | PESQ-WB |")
    print("|---|---|---|---|---|---|")
    eager = registry.get("hifigan", device="cpu", engine="eager")
    speech = []
    for path in recordings.find().speech:
        wave = recordings.load(path, eager.sample_rate)
        mel = eager.mel.analyze(wave)
        truth = made(eager, mel)
        heard = Scorer(wave, eager.sample_rate, speech="yes")
        alike = Scorer(truth[0, 0].float(), eager.sample_rate, speech="yes")
        speech.append((mel, truth, heard, alike, heard.score(truth[0, 0].float(), eager.sample_rate)["pesq"]))
    for device, engine, precision in settings():
        try:
            vocoder = registry.get("hifigan", device=device, engine=engine, precision=precision)
            found = []
            for mel, truth, heard, alike, quality in speech:
                wave = made(vocoder, mel)
                single, rate = wave[0, 0].float(), vocoder.sample_rate
                change = heard.score(single, rate)["pesq"] - quality
                found.append((relative(wave, truth), alike.score(single, rate)["mel"] / NEPER, change))
        except DistillError as error:
            print(f"| {device} | {engine} | {precision} | {error} | | |", flush=True)
            continue
        errors, mels, changes = zip(*found, strict=True)
        error, log_mel, quality = (sum(values) / len(values) for values in (errors, mels, changes))
        cells = f"{error:.1e}, {max(errors):.1e} | {log_mel:.4f} | {quality:+.3f}"
        print(f"| {device} | {engine} | {precision} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
