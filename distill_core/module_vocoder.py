"""A vocoder that is one torch module: what most back-ends need and nothing more."""

from __future__ import annotations

from typing import Any

import torch

from .card import Variant
from .device import check_precision
from .errors import PrecisionError
from .report import EngineReport
from .vocoder import DEFAULT_CHUNK_FRAMES, VocoderBase

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class ModuleVocoder(VocoderBase):
    """The eager engine: a module [B, n_mels, T] -> [B, 1, T * hop_length], run as it is.

    Args:
        model: float32 module, its weights loaded; it is put into evaluation mode and frozen.
        variant: what is loaded.
        halo: frames of context on each side that an output frame depends on.
        device: where to run.
        precision: "fp32", or "bf16" or "fp16" by torch's autocast; "auto" is fp32 here.
        chunk_frames: as for `VocoderBase`.

    Raises:
        PrecisionError: fp16 on a CPU.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        variant: Variant,
        *,
        halo: int,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
        chunk_frames: int | None = None,
        **base: Any,
    ) -> None:
        device = torch.device(device)
        self._asked = check_precision(precision)
        if precision == "fp16" and device.type == "cpu":
            raise PrecisionError("The eager engine has no fp16 on a CPU: use precision='fp32' or 'bf16'.")
        super().__init__(
            variant,
            halo=halo,
            device=device,
            precision="fp32" if precision == "auto" else precision,
            chunk_frames=DEFAULT_CHUNK_FRAMES if chunk_frames is None else chunk_frames,
            **base,
        )
        self.model = model.requires_grad_(False).eval().to(device)

    def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
        # A call that fell back to the CPU for lack of memory has no fp16 there, and computes in fp32.
        half = None if mel.device.type == "cpu" and self.precision == "fp16" else _AUTOCAST.get(self.precision)
        with torch.autocast(mel.device.type, dtype=half, enabled=half is not None):
            wave: torch.Tensor = self.model(mel)
        return wave[:, 0].float()

    def report(self) -> EngineReport:
        notes = ("precision='auto' is fp32 in this engine.",) if self._asked == "auto" else ()
        return EngineReport("eager", str(self.device), self.precision, notes)
