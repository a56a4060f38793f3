"""Convolutions over time in channels-last layout, their weights packed once for oneDNN.

A signal [B, C, L] travels as a tensor [B, C, 1, L] in torch's channels-last memory format: rows of C
values, one per position. In that layout oneDNN's blocked kernels take it as it is, and a packed weight
is read in the order the kernel wants; the plain layout costs a reordering at every call.
"""

from __future__ import annotations

import platform

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


class Conv:
    """A "same" convolution over time with packed weights. [B, C_in, 1, L] -> [B, C_out, 1, L].

    Args:
        weight: [C_out, C_in, kernel], kernel odd.
        bias: [C_out] or None.
        dtype: what it computes in, of input, output and packed weights.
        negative_slope: leaky ReLU applied to the output on its way out, or None.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        *,
        dtype: torch.dtype,
        dilation: int = 1,
        negative_slope: float | None = None,
    ) -> None:
        kernel = weight.shape[-1]
        self.dtype = dtype
        self.bias = None if bias is None else bias.detach().to(dtype)
        self._padding = (0, dilation * (kernel - 1) // 2)
        self._dilation = (1, dilation)
        self._attr = ("none", [], "") if negative_slope is None else ("leaky_relu", [negative_slope], "")
        # Packed without naming an input size: measured, one layout serves every length equally well.
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(
            weight.detach().unsqueeze(2).to(dtype), self._padding, (1, 1), self._dilation, 1, []
        )

    def __call__(self, x: Tensor) -> Tensor:
        return settled(
            torch.ops.mkldnn._convolution_pointwise(
                x, self._weight, self.bias, self._padding, (1, 1), self._dilation, 1, *self._attr
            )
        )

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """`self(x) + residual`, added where the convolution writes its output."""
        return settled(
            torch.ops.mkldnn._convolution_pointwise(
                x, residual, self._weight, self.bias, self._padding, (1, 1), self._dilation, 1, *_ADD
            )
        )


class TransposedConv:
    """A transposed convolution over time with packed weights. [B, C_in, 1, L] -> [B, C_out, 1, L * stride].

    Args:
        weight: [C_in, C_out, kernel], kernel - stride even.
        bias: [C_out] or None.
        dtype: as for `Conv`.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, stride: int, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.bias = None if bias is None else bias.detach().to(dtype)
        self._geometry = ((0, (weight.shape[-1] - stride) // 2), (0, 0), (1, stride), (1, 1), 1)
        self._weight = torch.ops.mkldnn._reorder_convolution_transpose_weight(
            weight.detach().unsqueeze(2).to(dtype), *self._geometry, []
        )

    def __call__(self, x: Tensor) -> Tensor:
        return settled(
            torch.ops.mkldnn._convolution_transpose_pointwise(
                x, self._weight, self.bias, *self._geometry, "none", [], ""
            )
        )
