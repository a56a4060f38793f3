"""What is any model's of a GPU engine's operations on rows, written in Triton. Importing this needs Triton."""
# mypy: disable-error-code="no-untyped-def,misc,untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...device import is_out_of_memory
from ...wording import on_one_line
from .ops import Extent, OwnConvolution
from .triton_convolution import GroupedConvolution, check_countable

WARPS = 4
"""Of a program."""

_BLOCK = 1024
"""Numbers that a program works on, where each is by itself."""

BEYOND = 4095
"""Numbers behind those of an item that its last program counts as well."""


@triton.jit(do_not_specialize=["each", "padded", "channels"])
def accumulate_kernel(
    x_ptr,
    residual_ptr,
    bias_ptr,
    total_ptr,
    out_ptr,
    frames_ptr,
    each,
    padded,
    channels,
    scale,
    HAS_TOTAL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """`(total + x + bias + residual) * scale`, element by element over [B, P, C]; zeros behind the signals."""
    start = tl.program_id(0) * BLOCK
    place = start + tl.arange(0, BLOCK)
    index = tl.program_id(1).to(tl.int64) * padded * channels + place
    own = place < tl.load(frames_ptr) * each * channels
    s = tl.load(x_ptr + index, mask=own, other=0.0).to(tl.float32)
    s += tl.load(residual_ptr + index, mask=own, other=0.0).to(tl.float32)
    s += tl.load(bias_ptr + place % channels, mask=own, other=0.0)
    if HAS_TOTAL:
        s += tl.load(total_ptr + index, mask=own, other=0.0).to(tl.float32)
    tl.store(out_ptr + index, (s * scale).to(out_ptr.dtype.element_ty), mask=place < padded * channels)


class TritonOps:
    """`Ops` less the activation, which a subclass has for its model.

    Args:
        block: numbers that a program works on; by default as many as suit a card.

    Attributes:
        trouble: see `Ops`.

    Raises:
        ValueError: rows that are not contiguous or not on one device; an item of 2^31 elements or more.
    """

    def __init__(self, block: int | None = None) -> None:
        self.block = _BLOCK if block is None else block
        self.trouble: str | None = None

    def accumulate(
        self,
        x: Tensor,
        residual: Tensor,
        bias: Tensor,
        extent: Extent,
        *,
        total: Tensor | None,
        scale: float,
        dtype: torch.dtype,
    ) -> Tensor:
        batch, padded, channels = x.shape
        check_rows(x, extent, rows=(residual, total), vectors=(bias,))
        out = total if total is not None and total.dtype == dtype else torch.empty_like(x, dtype=dtype)
        block = self.block
        with torch.cuda.device_of(x):
            accumulate_kernel[(triton.cdiv(padded * channels, block), batch)](
                x,
                residual,
                bias,
                x if total is None else total,
                out,
                extent.frames,
                extent.rows_per_frame,
                padded,
                channels,
                scale,
                HAS_TOTAL=total is not None,
                BLOCK=block,
                num_warps=WARPS,
                enable_fp_fusion=True,
            )
        return out

    def convolution(self, weight: Tensor, dilation: int) -> OwnConvolution | None:
        own = None if self.trouble else GroupedConvolution.suited(weight, dilation)
        try:
            return None if own is None else own.tried(weight)
        except Exception as error:  # a compiler, a card with little shared memory: the library does it, slower
            if is_out_of_memory(error):
                raise
            self.trouble = on_one_line(error, 300)
            return None


def check_rows(
    x: Tensor, extent: Extent, *, rows: tuple[Tensor | None, ...], vectors: tuple[Tensor | None, ...]
) -> None:
    """A kernel reads memory as it is told: `ValueError` for what does not lie there as told.

    Args:
        x: rows [B, P, C].
        extent: of them.
        rows: others of the same shape.
        vectors: [C] in fp32.
    """
    channels = x.shape[2]
    check_countable(x.shape[1] * channels + BEYOND, x)
    for each in (x, *rows):
        if each is not None and (each.shape != x.shape or not each.is_contiguous() or each.device != x.device):
            raise ValueError(f"expected contiguous rows {list(x.shape)} on {x.device}, not {_described(each)}")
    for each in vectors:
        if each is not None and (
            each.shape != (channels,)
            or each.dtype != torch.float32
            or not each.is_contiguous()
            or each.device != x.device
        ):
            raise ValueError(f"expected [{channels}] in fp32 on {x.device}, not {_described(each)}")
    if extent.frames.dtype != torch.int32 or extent.frames.device != x.device:
        raise ValueError(f"expected the number of frames in int32 on {x.device}, not {_described(extent.frames)}")


def _described(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} with strides {list(tensor.stride())}, {tensor.dtype} on {tensor.device}"
