"""The CUDA engine: channels-last convolutions on the tensor cores, activations by Triton, graphs for short runs.

It is taken only where it has shown, on the very device and with the very weights, that it computes what the
module computes; everything else is `EngineUnavailable`, with the reason.
"""

from __future__ import annotations

import logging
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ...device import is_out_of_memory
from ...wording import on_one_line
from ..channels_last import EngineUnavailable
from . import self_test
from .generator import RowsGenerator
from .graphs import ReplayCache
from .ops import Ops

log = logging.getLogger(__name__)

AUTO = ("fp16", "bf16", "fp32")
"""What precision="auto" tries: by its rounding fp16 is eight times finer than bf16, and as fast."""

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
OLDEST = (7, 0)
"""Compute capability from which Triton and half-precision tensor cores are there."""

OLDEST_BF16 = (8, 0)
LARGEST_CHUNK = 2048
SMALLEST_CHUNK = 64
PATIENCE = 5.0
"""Seconds after which it is said what is waited for: with kernels that were kept, an engine is made in three."""

_SHARE = 0.5
"""Of the free memory that a chunk is meant to take: others use the card too."""


class Rows(Protocol):
    """Makes of a module what runs on the device, with convolutions in `dtype`. May raise `EngineUnavailable`."""

    def __call__(self, model: Any, *, dtype: torch.dtype, device: torch.device, ops: Any) -> RowsGenerator[Any]: ...


class CudaEngine:
    """A generator on a CUDA device: mel [B, n_mels, T], fp32, on the device -> waveform [B, T * hop_length].

    Called by one thread at a time, in inference mode.

    Args:
        model: the module, mel -> [B, 1, T * hop_length], on any device; it stays there, and need not be on this one.
        rows: describes the model.
        device: a CUDA device.
        precision: "fp32", "fp16", "bf16", or "auto" for the first of `AUTO` that works.
        triton: imports the model's Triton kernels.
        ops: others in their place, with which the engine runs on any device, for tests.

    Raises:
        EngineUnavailable: no CUDA, an old card, no Triton, a kernel that fails or is wrong: the reason.
    """

    name = "cuda"

    def __init__(
        self,
        model: nn.Module,
        rows: Rows,
        device: torch.device,
        precision: str,
        *,
        triton: Callable[[], Ops[Any]],
        ops: Ops[Any] | None = None,
    ) -> None:
        self._model = model
        self._rows = rows
        self._device = device
        self._ops = triton_ops(device, precision, triton) if ops is None else ops
        self._spare: dict[str, Tensor] | None = None
        passed_over: list[str] = []
        for choice in AUTO if precision == "auto" else (precision,):
            try:
                self._prepare(choice)
                break
            except EngineUnavailable as error:
                passed_over.append(str(error))
        else:
            raise EngineUnavailable("; ".join(passed_over))
        self._passed_over = tuple(passed_over)

    def _prepare(self, precision: str) -> None:
        check_capability(self._device, precision)
        try:
            with torch.inference_mode(), self._on_device(), self._told_if_it_takes_long():
                generator = self._rows(self._model, dtype=DTYPES[precision], device=self._device, ops=self._ops)
                self.error = self_test.check(generator, self._model)
        except EngineUnavailable:
            raise
        except Exception as error:  # a compiler, a driver, a library: whatever it is, the eager engine is there
            raise EngineUnavailable(f"it failed in {precision}: {on_one_line(error, 300)}{_advice(error)}") from error
        self.precision = precision
        self._generator = generator
        self._replays = (
            ReplayCache(generator.padded, multiple=generator.multiple) if self._device.type == "cuda" else None
        )

    def __call__(self, mel: Tensor) -> Tensor:
        with self._on_device():
            wave = self._computed(mel)
            if self.precision == "fp16" and not bool(wave.isfinite().all()):
                wave = self._without_overflow(mel)
        return wave

    def _computed(self, mel: Tensor) -> Tensor:
        if self._replays is None:
            return self._generator(mel)
        try:
            return self._replays(mel)
        except RuntimeError as error:
            if not len(self._replays) or not is_out_of_memory(error):
                raise
        self._replays.clear()  # graphs hold memory that this chunk may need
        return self._generator(mel)

    def _without_overflow(self, mel: Tensor) -> Tensor:
        """The same frames by the eager module in fp32: slow, and right."""
        if self._spare is None:
            log.warning(
                "%s went beyond the range of fp16: the chunks concerned are computed again in fp32. "
                "precision='bf16' or 'fp32' avoids computing them twice.",
                type(self._model).__name__,
            )
            self._spare = self_test.on_device(self._model, self._device)
        return self_test.eager(self._model, self._spare, mel)

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        """The engine's own precisions whatever the caller's autocast says, and its device as the current one."""
        with (
            torch.autocast(self._device.type, enabled=False),
            torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext(),
        ):
            yield

    @contextmanager
    def _told_if_it_takes_long(self) -> Iterator[None]:
        name = type(self._model).__name__
        words = "%s's kernels are compiled for this GPU, which takes a minute, and not again on this machine."
        told = threading.Timer(PATIENCE, log.warning, [words, name])
        told.daemon = True
        told.start()
        try:
            yield
        finally:
            told.cancel()

    @property
    def chunk_frames(self) -> int:
        """Frames that go through the model at once, as the memory that is free now allows."""
        return suited_chunk(free_bytes(self._device), self._generator.bytes_per_frame())

    @property
    def notes(self) -> tuple[str, ...]:
        """For `report()`: what was measured here, and what is not as it could be."""
        notes = [f"Relative error to the eager engine in its self-test on this device: {self.error:.1e}."]
        if self.precision == "fp32" and tf32_convolutions():
            notes.append("Convolutions may use TF32: torch.backends.cudnn.allow_tf32 is on, which is torch's default.")
        if (trouble := self._ops.trouble) is not None:
            notes.append(f"Convolutions run by cuDNN, also where it is slower: {trouble}.")
        notes += [f"Passed over for precision='auto': {reason}." for reason in self._passed_over]
        if self._replays is not None and self._replays.trouble:
            notes.append(f"No CUDA graphs: {self._replays.trouble}.")
        if self._spare is not None:
            notes.append("Some chunks went beyond the range of fp16 and were computed again in fp32.")
        return tuple(notes)


def triton_ops(device: torch.device, precision: str, make: Callable[[], Ops[Any]]) -> Ops[Any]:
    """What `make` imports, if it can be expected to work. Raises `EngineUnavailable`."""
    if device.type != "cuda":
        raise EngineUnavailable(f"the CUDA engine runs on CUDA devices, not on {device}")
    if torch.version.cuda is None:
        raise EngineUnavailable("this torch is built for ROCm, where the CUDA engine has not been tried")
    if precision != "auto":  # before Triton is imported, which takes seconds
        check_capability(device, precision)
    try:
        ops = make()
    except Exception as error:  # half-installed compilers fail on import in ways of their own
        raise EngineUnavailable(
            f"Triton cannot be imported ({on_one_line(error, 300)}); it comes with torch for CUDA on Linux, "
            "elsewhere see whether `pip install triton` has a version for it"
        ) from error
    if interpreted():
        raise EngineUnavailable("TRITON_INTERPRET is set, so Triton's kernels run on the CPU")
    return ops


def interpreted() -> bool:
    """True where Triton was imported with TRITON_INTERPRET=1: kernels then run on the CPU, in numpy."""
    return os.environ.get("TRITON_INTERPRET", "") not in ("", "0")


def check_capability(device: torch.device, precision: str) -> None:
    """Raise `EngineUnavailable` for a card that is too old for the engine or for the precision."""
    if device.type != "cuda":
        return
    capability = torch.cuda.get_device_capability(device)
    oldest = OLDEST_BF16 if precision == "bf16" else OLDEST
    if capability < oldest:
        raise EngineUnavailable(
            f"{torch.cuda.get_device_name(device)} has compute capability {_dotted(capability)}; "
            f"the CUDA engine in {precision} needs {_dotted(oldest)}"
        )


def free_bytes(device: torch.device) -> int:
    """Memory that torch could still hand out: the driver's free memory, and what torch holds without using it."""
    free, _ = torch.cuda.mem_get_info(device)
    return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def suited_chunk(free: int, bytes_each: int) -> int:
    """Frames of a chunk that takes its share of `free` bytes, within what is sensible at either end.

    From `LARGEST_CHUNK` on a longer one only takes memory: the halo is a few hundredths of it, and the card is
    full. Below `SMALLEST_CHUNK` the halo is most of the work; if even that is too much, `VocoderBase` halves it.
    """
    return max(SMALLEST_CHUNK, min(LARGEST_CHUNK, int(free * _SHARE) // bytes_each))


def tf32_convolutions() -> bool:
    """True if torch's global settings let fp32 convolutions use TF32."""
    backend: Any = torch.backends.cudnn
    try:
        return bool(backend.allow_tf32)
    except RuntimeError:  # newer torch refuses to answer when its newer setting was used
        return str(backend.conv.fp32_precision) == "tf32"


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))


def _advice(error: BaseException) -> str:
    """What to install, where Triton could not build its launcher: what the compiler says went to stderr."""
    if isinstance(error, subprocess.CalledProcessError) or "C compiler" in str(error):
        return "; Triton builds its launcher once with a C compiler: install gcc and Python's headers (python3-dev)"
    return ""
