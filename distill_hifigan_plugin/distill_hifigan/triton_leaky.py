"""HiFi-GAN's activation as one pass over memory, written in Triton. Importing this needs Triton.

It adds the bias and the residual that the convolution before it left out, and can write their sum: the residual
stream then costs no pass of its own. Arithmetic is in fp32.
"""
# mypy: disable-error-code="no-untyped-def,misc,untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from distill_core.engines.gpu.ops import Extent
from distill_core.engines.gpu.triton_rows import WARPS, TritonOps, check_rows

from .leaky import LeakyReLU


# Lengths vary from chunk to chunk, and a kernel for each of their divisors would be compiled in the middle of a call.
@triton.jit(do_not_specialize=["each", "padded"])
def leaky_kernel(
    x_ptr,
    residual_ptr,
    bias_ptr,
    sum_ptr,
    out_ptr,
    frames_ptr,
    slope,
    each,
    padded,
    C: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    KEEP_SUM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The activation of `x + bias + residual`, element by element over [B, P, C]; zeros behind the signals."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    index = tl.program_id(1).to(tl.int64) * padded * C + place
    own = place < tl.load(frames_ptr) * each * C
    s = tl.load(x_ptr + index, mask=own, other=0.0).to(tl.float32)
    if HAS_BIAS:
        s += tl.load(bias_ptr + place % C, mask=own, other=0.0)
    if HAS_RESIDUAL:
        s += tl.load(residual_ptr + index, mask=own, other=0.0).to(tl.float32)
    held = place < padded * C
    if KEEP_SUM:
        tl.store(sum_ptr + index, s, mask=held)
    tl.store(out_ptr + index, tl.where(s < 0.0, s * slope, s).to(out_ptr.dtype.element_ty), mask=held)


class TritonLeakyOps(TritonOps):
    """`TritonOps` with the activation above."""

    def activate(
        self,
        x: Tensor,
        activation: LeakyReLU,
        extent: Extent,
        *,
        bias: Tensor | None = None,
        residual: Tensor | None = None,
        keep: bool = False,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor | None]:
        batch, padded, channels = x.shape
        check_rows(x, extent, rows=(residual,), vectors=(bias,))
        out = torch.empty(x.shape, dtype=dtype, device=x.device)
        kept = torch.empty(x.shape, dtype=torch.float32, device=x.device) if keep else None
        with torch.cuda.device_of(x):  # Triton launches on the current device, whatever the tensors' is
            leaky_kernel[(triton.cdiv(padded * channels, self.block), batch)](
                x,
                x if residual is None else residual,
                x if bias is None else bias,
                out if kept is None else kept,
                out,
                extent.frames,
                activation.slope,
                extent.rows_per_frame,
                padded,
                C=channels,
                HAS_BIAS=bias is not None,
                HAS_RESIDUAL=residual is not None,
                KEEP_SUM=keep,
                BLOCK=self.block,
                num_warps=WARPS,
                enable_fp_fusion=True,
            )
        return out, kept
