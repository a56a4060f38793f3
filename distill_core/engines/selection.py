"""Which engine runs a module, and the trial that a fast one has to pass first."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..errors import EngineError
from ..flow import Flow
from .channels_last import EngineUnavailable, bf16_instructions, why_no_onednn

log = logging.getLogger(__name__)

EAGER = "eager"
CHANNELS_LAST = "channels-last"
CUDA = "cuda"
ENGINES = ("auto", EAGER, CHANNELS_LAST, CUDA)

_TRIAL_FRAMES = 12
"""Enough for every layer behind the first to be packed as it is for longer mels."""
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
"""Relative error that the trial lets pass: ten times what is measured, far less than any mistake makes."""


_NO_BF16 = "processor has no instructions for bf16 (AMX or AVX512-BF16)"


class Run(Protocol):
    """Mel [B, n_mels, left + T + right] -> waveform [B, T * hop_length]: the frames on either side are context."""

    def __call__(self, mel: Tensor, left: int = 0, right: int = 0) -> Tensor: ...


@dataclass(frozen=True)
class Fast:
    """An engine ready to run; notes on what keeps it from being faster; `flow` begins a `Flow`, where it has such."""

    run: Run
    notes: tuple[str, ...] = ()
    flow: Callable[[], Flow] | None = None


class Accelerated(Protocol):
    """An engine on an accelerator, which has passed its trial there: mel [B, n_mels, T] -> [B, T * hop_length]."""

    precision: str

    @property
    def notes(self) -> tuple[str, ...]:
        """For `report()`."""

    @property
    def chunk_frames(self) -> int:
        """How many frames at once the memory that is free now is good for."""

    def __call__(self, mel: Tensor) -> Tensor: ...


def check_engine(engine: str) -> str:
    """The engine's name itself, if it is one of `ENGINES`; else `EngineError`."""
    if engine not in ENGINES:
        raise EngineError(f"There is no engine {engine!r}: write {', '.join(ENGINES[:-1])} or {ENGINES[-1]}.")
    return engine


def why_not_channels_last(precision: str) -> str | None:
    """None if the channels-last engine can run on this CPU in this precision, else why it cannot."""
    if precision != "bf16":
        return None
    return why_no_onednn() or (f"this {_NO_BF16}" if bf16_instructions() is None else None)


def why_not_on_cpu(precision: str, engine: str) -> str | None:
    """None if it makes sense to compute in this precision on this CPU, else a sentence that says why not.

    An x86 processor without instructions for bf16 emulates it, which took 3 times as long as fp32 for one small
    convolution and some 40 times for BigVGAN. Only who asks for the eager engine gets that.
    """
    if precision == "fp16":
        return "There is no fp16 on a CPU: use precision='fp32', or 'auto', which takes bf16 where that is fast."
    if precision != "bf16" or engine == EAGER:
        return None
    if platform.machine().lower() in ("x86_64", "amd64") and bf16_instructions() is None:
        return (
            f"This {_NO_BF16}, and emulating it takes far longer than fp32: use precision='fp32', or 'auto', which "
            "takes bf16 where that is fast. In Python, engine='eager' emulates it."
        )
    return None


def best_cpu_precision() -> str:
    """What `precision="auto"` is on this CPU: bf16 where the processor multiplies it, else fp32."""
    return "fp32" if why_not_channels_last("bf16") else "bf16"


def tried(fast: Fast, eager: Callable[[Tensor], Tensor], n_mels: int, dtype: torch.dtype) -> Fast:
    """`fast`, if it makes of a small mel what the eager module makes of it in fp32.

    Raises:
        EngineUnavailable: it does not, or it fails.
    """
    draw = torch.Generator("cpu").manual_seed(0)
    mel = 2 * torch.randn(1, n_mels, _TRIAL_FRAMES, generator=draw, dtype=torch.float32, device="cpu") - 4
    expected = eager(mel)
    try:
        difference = (fast.run(mel) - expected).norm().item()
    except Exception as error:  # compilers and processors fail in many ways; eager still works
        raise EngineUnavailable(f"its trial failed with {type(error).__name__}: {error}") from error
    # a silent output, of a model that is no vocoder yet, has nothing to be relative to
    limit = _TOLERANCE[dtype] * max(expected.norm().item(), 1e-3)
    if not difference <= limit:
        raise EngineUnavailable(f"its trial was off by {difference:.1e} where {limit:.1e} is allowed")
    return fast
