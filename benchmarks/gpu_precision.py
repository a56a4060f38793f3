"""What rounding costs in the GPU engine: its data flow on the CPU, against the vendored module in fp32.

    python -m benchmarks.gpu_precision

Full-size configurations with random weights, a short random mel, relative error of the waveform. Convolutions
are torch's for CPUs: they round their inputs, weights and outputs as a GPU's do and add up in fp32, but in
another order. Beside it the eager engine under torch's autocast. No GPU is involved, and none is measured.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from distill_bigvgan._vendor.bigvgan import CONFIGS, BigVGAN
from distill_bigvgan.engines.cuda import DTYPES
from distill_bigvgan.engines.gpu_generator import RowsGenerator
from distill_bigvgan.engines.gpu_ops import TorchOps

NAMES = ("bigvgan_v2_44khz_128band_512x", "bigvgan_v2_24khz_100band_256x", "bigvgan_base_24khz_100band")


def errors(name: str, frames: int) -> dict[str, tuple[float, float]]:
    """By precision: of the GPU engine's data flow, and of the eager engine."""
    torch.manual_seed(0)
    model = BigVGAN(CONFIGS[name])
    model.remove_weight_norm()
    model.eval().requires_grad_(False)
    mel = torch.randn(1, model.config.num_mels, frames) * 2 - 4
    found = {}
    with torch.inference_mode():
        truth = model(mel)[:, 0].double()
        for precision, dtype in DTYPES.items():
            rows = RowsGenerator(model, dtype=dtype, device=mel.device, ops=TorchOps())
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
    for name in NAMES:
        for precision, (rows, eager) in errors(name, args.frames).items():
            print(f"| `{name}` | {precision} | {rows:.1e} | {eager:.1e} |", flush=True)


if __name__ == "__main__":
    main()
