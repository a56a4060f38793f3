"""What rounding costs in the GPU engine: its data flow on the CPU, against the vendored module in fp32.

    python -m benchmarks.gpu_precision

BigVGAN's full-size configurations with random weights and a short random mel; HiFi-GAN with trained weights and the
beginning of the sample in samples/. Relative error of the waveform. Convolutions are torch's for CPUs: they round their
inputs, weights and outputs as a GPU's do and add up in fp32, but in another order. Beside it the eager engine under
torch's autocast. No GPU is involved, and none is measured.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill_bigvgan._vendor.bigvgan import CONFIGS, BigVGAN
from distill_bigvgan.engines import cuda as bigvgan
from distill_core import registry
from distill_core.audio import read_audio
from distill_core.engines.gpu.engine import DTYPES
from distill_core.engines.gpu.ops import TorchOps
from distill_core.resample import resample
from distill_hifigan import cuda as hifigan

NAMES = ("bigvgan_v2_44khz_128band_512x", "bigvgan_v2_24khz_100band_256x", "bigvgan_base_24khz_100band")
TRAINED = "hifigan universal"
SAMPLE = Path(__file__).parent.parent / "samples" / "speech.flac"


def random_bigvgan(name: str, frames: int) -> tuple[BigVGAN, Tensor]:
    torch.manual_seed(0)
    model = BigVGAN(CONFIGS[name])
    model.remove_weight_norm()
    model.eval().requires_grad_(False)
    return model, torch.randn(1, model.config.num_mels, frames) * 2 - 4


def trained_hifigan(frames: int) -> tuple[Any, Tensor]:
    vocoder = registry.get("hifigan", device="cpu", engine="eager")
    spoken, rate = read_audio(SAMPLE)
    mel = vocoder.mel.analyze(resample(spoken, rate, vocoder.sample_rate))
    return vocoder.model, mel[:, :, :frames]


def errors(model: Any, part: Any, mel: Tensor) -> dict[str, tuple[float, float]]:
    """By precision: of the GPU engine's data flow, as a plug-in's module makes it, and of the eager engine."""
    found = {}
    with torch.inference_mode():
        truth = model(mel)[:, 0].double()
        for precision, dtype in DTYPES.items():
            rows = part.rows(model, dtype=dtype, device=mel.device, ops=TorchOps())
            with torch.autocast("cpu", dtype=dtype, enabled=precision != "fp32"):
                eager = model(mel)[:, 0]
            found[precision] = (relative(rows(mel), truth), relative(eager, truth))
    return found


def relative(got: Tensor, truth: Tensor) -> float:
    return float((got.double() - truth).norm() / truth.norm())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_precision", description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=6, metavar="N", help="of the mel (default: 6)")
    args = parser.parse_args()
    print("| configuration | precision | GPU engine's data flow | eager engine |")
    print("|---|---|---|---|")
    for name in (*NAMES, TRAINED):
        if name == TRAINED:
            part, (model, mel) = hifigan, trained_hifigan(10 * args.frames)
        else:
            part, (model, mel) = bigvgan, random_bigvgan(name, args.frames)
        for precision, (rows, eager) in errors(model, part, mel).items():
            print(f"| `{name}` | {precision} | {rows:.1e} | {eager:.1e} |", flush=True)


if __name__ == "__main__":
    main()
