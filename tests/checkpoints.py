"""Small random checkpoints of real configurations, for tests that need weights and not their quality."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch

VARIANT = "base_22khz_80band"


def bigvgan_config(channels: int = 32, variant: str = VARIANT) -> dict[str, Any]:
    """A published configuration with fewer channels."""
    from distill_bigvgan._vendor.bigvgan import CONFIGS

    return {**CONFIGS[f"bigvgan_{variant}"], "upsample_initial_channel": channels}


def bigvgan_state(config: dict[str, Any], seed: int = 0) -> dict[str, torch.Tensor]:
    """A random state dict in the published, weight-normed layout."""
    from distill_bigvgan._vendor.bigvgan import BigVGAN

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BigVGAN(config)
        for name, parameter in model.named_parameters():
            if name.endswith((".alpha", ".beta")):
                torch.nn.init.normal_(parameter, std=0.3)
    return model.state_dict()


def bigvgan_files(config: dict[str, Any] | None = None) -> dict[str, bytes]:
    """`config.json` and `bigvgan_generator.pt` as the Hub has them."""
    config = config or bigvgan_config()
    buffer = io.BytesIO()
    torch.save({"generator": bigvgan_state(config)}, buffer)
    return {"config.json": json.dumps(config).encode(), "bigvgan_generator.pt": buffer.getvalue()}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder
