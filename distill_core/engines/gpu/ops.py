"""What a GPU engine computes besides a library's convolutions: operations on rows, and their plain torch form.

Kernels do the same in one pass each; this form says what that is, and lets a whole engine run where there is neither
a GPU nor Triton.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from typing_extensions import Self


class Activation(Protocol):
    """The parameters of a model's activation, and what it computes."""

    def plain(self, rows: Tensor) -> Tensor:
        """The activation of signals [B, L, C] from end to end, fp32 to fp32, in plain torch."""

    def to(self, device: torch.device) -> Self:
        """The same with its tensors there."""


A = TypeVar("A", bound=Activation)
A_contra = TypeVar("A_contra", bound=Activation, contravariant=True)


@dataclass(frozen=True)
class Extent:
    """How far the signals in rows [B, P, C] go: behind their last row, up to P, are zeros, for convolutions to see.

    The number of frames is on the device, where kernels read it: a recorded run of so many rows is good for any
    signal that has no more.

    Args:
        frames: [1], int32: of the mel, the same for all items.
        rows_per_frame: how many rows each became.
    """

    frames: Tensor
    rows_per_frame: int = 1

    def times(self, rate: int) -> Extent:
        """After upsampling."""
        return Extent(self.frames, self.rows_per_frame * rate)

    def inside(self, rows: Tensor) -> Tensor:
        """[P, 1]: which rows are the signals' own."""
        places = torch.arange(rows.shape[1], device=rows.device, dtype=torch.int32)
        return (places < self.frames * self.rows_per_frame)[:, None]


class OwnConvolution(Protocol):
    """A "same" convolution of rows with zero padding, faster than the library's: [B, P, in] -> [B, P, out]."""

    multiple: int
    """P has to be some times as many."""

    def __call__(self, x: Tensor) -> Tensor: ...


class Ops(Protocol[A_contra]):
    """The operations on rows [B, P, C]. Inputs in fp32, fp16 or bf16; arithmetic in fp32.

    Behind the signals a result is zero, whatever the inputs are there.

    Attributes:
        trouble: why convolutions are left to the library where it is slower, or None.
    """

    trouble: str | None

    def activate(
        self,
        x: Tensor,
        activation: A_contra,
        extent: Extent,
        /,
        *,
        bias: Tensor | None = None,
        residual: Tensor | None = None,
        keep: bool = False,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor | None]:
        """The activation of `s = x + bias + residual` in `dtype`; and with `keep` also `s`, in fp32."""

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
        """`(total + x + bias + residual) * scale` in `dtype`. May be written over `total`, an fp32 tensor."""

    def convolution(self, weight: Tensor, dilation: int) -> OwnConvolution | None:
        """For a weight [out, in, k] in the dtype and on the device of the rows; None: the library's is taken."""


class TorchOps:
    """`Ops` in plain torch: for tests, and as the statement of what the kernels compute."""

    trouble: str | None = None

    def activate(
        self,
        x: Tensor,
        activation: Activation,
        extent: Extent,
        *,
        bias: Tensor | None = None,
        residual: Tensor | None = None,
        keep: bool = False,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor | None]:
        length = int(extent.frames) * extent.rows_per_frame
        s = x[:, :length].float()
        if bias is not None:
            s = s + bias
        if residual is not None:
            s = s + residual[:, :length]
        behind = (0, 0, 0, x.shape[1] - length)
        made = F.pad(activation.plain(s).to(dtype), behind).contiguous()
        return made, F.pad(s, behind) if keep else None

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
        s = x.float() + bias + residual
        s = (s if total is None else total + s) * scale
        return torch.where(extent.inside(x), s, 0.0).to(dtype)

    def convolution(self, weight: Tensor, dilation: int) -> OwnConvolution | None:
        return None
