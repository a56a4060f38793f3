"""Convolutions over time in channels-last layout, their weights packed once for oneDNN.

A signal [B, C, L] travels as a tensor [B, C, 1, L] in torch's channels-last memory format: rows of C
values, one per position. In that layout oneDNN's blocked kernels take it as it is, and a packed weight
is read in the order the kernel wants; the plain layout costs a reordering at every call.
"""

from __future__ import annotations

import platform
from typing import Any

import torch
from torch import Tensor

_ADD: tuple[object, ...] = ("add", 1.0, None, [], None)


class EngineUnavailable(Exception):
    """An engine cannot run here; the message is a sentence for `report()`."""


def check_available() -> None:
    """Raise `EngineUnavailable` where torch has no oneDNN convolutions to pack weights for."""
    if not torch.backends.mkldnn.is_available():
        raise EngineUnavailable(f"this torch ({torch.__version__}) for {platform.machine()} was built without oneDNN")
    if not torch.backends.mkldnn.enabled:
        raise EngineUnavailable("oneDNN is switched off: torch.backends.mkldnn.enabled is False")
    needed = ("_reorder_convolution_weight", "_reorder_convolution_transpose_weight", "_convolution_pointwise")
    if missing := [name for name in needed if not hasattr(torch.ops.mkldnn, name)]:
        raise EngineUnavailable(f"this torch ({torch.__version__}) lacks mkldnn.{missing[0]}")


def bf16_instructions() -> str | None:
    """The processor's instructions that multiply bfloat16, "AMX" or "AVX512-BF16"; None if it has none."""
    for name, test in (("AMX", "_is_amx_tile_supported"), ("AVX512-BF16", "_is_avx512_bf16_supported")):
        try:
            if getattr(torch.cpu, test)():
                return name
        except (AttributeError, RuntimeError):  # another torch, another architecture
            continue
    return None


def to_rows(x: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, C, L] -> [B, C, 1, L] in channels-last layout."""
    return settled(x.unsqueeze(2).to(dtype))


def settled(x: Tensor) -> Tensor:
    """`x` [B, C, 1, L] with its memory certainly in rows of channels; copies only if it is not."""
    if x.permute(0, 2, 3, 1).is_contiguous():
        return x
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


_SHORT = 64
_SHORT_HINT, _FRAMES_HINT = 48, 128
"""Lengths up to 64 and longer ones are packed for apart, each when first met.

Measured on AVX-512 with every width and kernel of the published models: oneDNN wants one layout for all
lengths above 64, often another one below, and a weight in the wrong one is reordered at every call,
which for wide layers takes longer than the convolution. Which one it wants it only says for a length.
"""


class _Packed:
    """A weight in the layout for a length, made from the model's own when that is first needed."""

    def __init__(
        self, weight: Tensor, dtype: torch.dtype, per_frame: int, dim: int, operation: Any, geometry: tuple[Any, ...]
    ) -> None:
        self._weight, self._dtype = weight.detach(), dtype
        self._channels, self._long = weight.shape[dim], max(_SHORT + 1, _FRAMES_HINT * per_frame)
        self._operation, self._geometry = operation, geometry
        self._layouts: dict[bool, Tensor] = {}

    def __call__(self, length: int) -> Tensor:
        short = length <= _SHORT
        packed = self._layouts.get(short)
        if packed is None:
            weight = self._weight.unsqueeze(2).to(self._dtype).contiguous(memory_format=torch.channels_last)
            size = [1, self._channels, 1, _SHORT_HINT if short else self._long]
            packed = self._layouts[short] = self._operation(weight, *self._geometry, size)
        return packed

    def __len__(self) -> int:
        """How many times it has been packed: 2 at most."""
        return len(self._layouts)


class Conv:
    """A "same" convolution over time with packed weights. [B, C_in, 1, L] -> [B, C_out, 1, L].

    Args:
        weight: [C_out, C_in, kernel], kernel odd.
        bias: [C_out] or None.
        dtype: what it computes in, of input, output and packed weights.
        per_frame: positions of the input for a mel frame, which tells what lengths to expect.
        negative_slope: leaky ReLU applied to the output on its way out, or None.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        *,
        dtype: torch.dtype,
        dilation: int = 1,
        per_frame: int = 1,
        negative_slope: float | None = None,
    ) -> None:
        self.bias = None if bias is None else bias.detach().to(dtype)
        self._geometry = ((0, dilation * (weight.shape[-1] - 1) // 2), (1, 1), (1, dilation), 1)
        self._attr = ("none", [], "") if negative_slope is None else ("leaky_relu", [negative_slope], "")
        pack = torch.ops.mkldnn._reorder_convolution_weight
        self.packed = _Packed(weight, dtype, per_frame, 1, pack, self._geometry)

    def __call__(self, x: Tensor) -> Tensor:
        weight = self.packed(x.shape[-1])
        return settled(torch.ops.mkldnn._convolution_pointwise(x, weight, self.bias, *self._geometry, *self._attr))

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """`self(x) + residual`, added where the convolution writes its output."""
        weight = self.packed(x.shape[-1])
        return settled(torch.ops.mkldnn._convolution_pointwise(x, residual, weight, self.bias, *self._geometry, *_ADD))


class TransposedConv:
    """A transposed convolution over time with packed weights. [B, C_in, 1, L] -> [B, C_out, 1, L * stride].

    Args:
        weight: [C_in, C_out, kernel], kernel - stride even.
        bias: [C_out] or None.
        dtype, per_frame: as for `Conv`.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, *, stride: int, dtype: torch.dtype, per_frame: int = 1
    ) -> None:
        self.bias = None if bias is None else bias.detach().to(dtype)
        self._geometry = ((0, (weight.shape[-1] - stride) // 2), (0, 0), (1, stride), (1, 1), 1)
        pack = torch.ops.mkldnn._reorder_convolution_transpose_weight
        self.packed = _Packed(weight, dtype, per_frame, 0, pack, self._geometry)

    def __call__(self, x: Tensor) -> Tensor:
        weight = self.packed(x.shape[-1])
        return settled(
            torch.ops.mkldnn._convolution_transpose_pointwise(x, weight, self.bias, *self._geometry, "none", [], "")
        )
