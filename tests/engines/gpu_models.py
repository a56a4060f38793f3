"""Small generators of real configurations with random weights, for the tests of the GPU engine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distill_bigvgan._vendor.bigvgan import CONFIGS, Activation1d, BigVGAN, Snake
from distill_core.engines.gpu.engine import CudaEngine
from distill_hifigan._vendor.hifigan import CONFIGS as HIFIGAN_CONFIGS
from distill_hifigan._vendor.hifigan import HiFiGAN

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


def model(name: str, *, channels: int, seed: int = 0, **changes: Any) -> BigVGAN:
    """A published configuration with fewer channels; the waveform of `mel` stays clear of -1 and 1."""
    torch.manual_seed(seed)
    generator = BigVGAN({**CONFIGS[name], "upsample_initial_channel": channels, **changes})
    for part in generator.modules():
        if isinstance(part, Activation1d):
            randomise(part.act)
    generator.remove_weight_norm()
    generator.eval().requires_grad_(False)
    with torch.inference_mode():
        peak = generator.conv_post(torch.randn(1, generator.config.channels[-1], 500)).abs().max()
    generator.conv_post.weight /= 4 * peak
    return generator


def tiny(seed: int = 0, channels: int = 8) -> BigVGAN:
    """One stage, one block of one pair."""
    return model(
        "bigvgan_base_22khz_80band",
        channels=channels,
        seed=seed,
        upsample_rates=[2],
        upsample_kernel_sizes=[4],
        hop_size=2,
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1]],
    )


def hifigan(version: str, *, channels: int = 32, **changes: Any) -> HiFiGAN:
    """As `model`, of HiFi-GAN."""
    torch.manual_seed(0)
    generator = HiFiGAN({**HIFIGAN_CONFIGS[version], "upsample_initial_channel": channels, **changes})
    generator.remove_weight_norm()
    return generator.eval().requires_grad_(False)


def randomise(act: Snake) -> None:
    """Frequencies and amplitudes about 1, different in every channel."""
    with torch.no_grad():
        for parameter in act.parameters():
            logs = 0.4 * torch.randn(parameter.shape)
            parameter.copy_(logs if act.logscale else logs.exp())


def mel(generator: BigVGAN | HiFiGAN, batch: int, frames: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(batch, generator.config.num_mels, frames, generator=draw) * 2 - 4


def wave(generator: torch.nn.Module, mel: Tensor) -> Tensor:
    """[B, samples], which must not be clipped: there a wrong waveform would look right."""
    with torch.inference_mode():
        samples: Tensor = generator(mel)[:, 0]
    assert 1e-4 < float(samples.abs().max()) < 0.98
    return samples


def vocode(run: Callable[[Tensor], Tensor], mel: Tensor) -> Tensor:
    """As the vocoder calls an engine."""
    with torch.inference_mode():
        return run(mel)


def check_on_this_gpu(engine: CudaEngine, generator: BigVGAN | HiFiGAN, limit: float) -> None:
    """That an engine computes there what its generator does, by graphs too."""
    for batch, frames in ((1, 1), (2, 13), (1, 100), (1, 700)):
        example = mel(generator, batch, frames)
        want = wave(generator.double(), example.double())
        generator.float()
        for _ in range(3):  # plain, recorded, replayed
            assert error(vocode(engine, example.cuda()).cpu(), want) <= limit
    assert not any("graphs" in note for note in engine.notes)


def error(got: Tensor, want: Tensor) -> float:
    """Relative, in the 2-norm."""
    assert got.shape == want.shape
    return float((got.double() - want.double()).norm() / want.double().norm())


def run_interpreted(file: str) -> None:
    """Have `tests/engines/interpreted/<file>` pass in a process where Triton interprets kernels on the CPU.

    Triton decides on import, for the whole process; the rest of the suite keeps the compiler. Skips where the
    whole file was skipped there.
    """
    pytest.importorskip("triton", reason="Triton is not installed: pip install triton (Linux)")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/engines/interpreted/{file}"],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    if " passed" not in done.stdout:
        pytest.skip(next((line for line in done.stdout.splitlines() if "SKIPPED" in line), done.stdout[-500:]))
