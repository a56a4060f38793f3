"""What the ways to convolve with fewer multiplications have in common, see `winograd`."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from .channels_last import Conv
from .winograd_schemes import scheme_for
from .workspace import Workspace


class WinogradConv(Conv):
    """As `Conv`, in fp32.

    Args:
        weight: [C_out, C_in, kernel], kernel odd; both numbers of channels are multiples of `MULTIPLE`.
        bias, negative_slope: as for `Conv`.
        scratch: where transformed signals are kept for as long as they are needed; many layers may share it.
        dilation: between taps.
    """

    MULTIPLE: ClassVar[int]
    WORTH: ClassVar[tuple[int, int]]
    """Channels, and channels times taps, from which on transforms cost less than they save."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        *,
        scratch: Workspace,
        dilation: int = 1,
        negative_slope: float | None = None,
    ) -> None:
        self.channels, self._inputs, kernel = weight.shape
        self._scheme = scheme_for(kernel)
        self._blocks = self._scheme.blocks(kernel)
        self._dilation = dilation
        self._scratch = scratch
        self.context = dilation * (kernel - 1) // 2
        self._prepare(weight.detach(), None if bias is None else bias.detach(), negative_slope)

    def _prepare(self, weight: Tensor, bias: Tensor | None, negative_slope: float | None) -> None:
        """Keep what this way needs of them."""
        raise NotImplementedError
