"""The precision of HiFi-GAN's stages."""

from __future__ import annotations

import torch

_FP32_STAGES = 1
"""Stages at the end that are computed in fp32 where bf16 is asked for: they are narrow, and what they round is heard
as noise between the words. fp16 rounds eight times finer."""


def stage_dtypes(count: int, dtype: torch.dtype) -> list[torch.dtype]:
    """Of so many stages, which are to be computed in `dtype` as far as that is good for the sound."""
    if dtype != torch.bfloat16:
        return [dtype] * count
    rounded = max(1, count - _FP32_STAGES)
    return [dtype] * rounded + [torch.float32] * (count - rounded)
