"""How much of a mel an output frame depends on, worked out from the layers.

Walking from the output back to the input, each layer widens an interval of positions. What is
asked for one output frame, `hop_length` samples, is at the end an interval of mel frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .config import Upsampler


@dataclass(frozen=True)
class Interval:
    """Positions `first` to `last`, both included, at the rate of one layer."""

    first: int
    last: int

    def widened(self, reach: int) -> Interval:
        """What this depends on through a layer that sees `reach` positions on each side."""
        return Interval(self.first - reach, self.last + reach)

    def before_transposed(self, kernel: int, rate: int) -> Interval:
        """What this depends on through a transposed convolution with padding (kernel - rate) / 2.

        Output `n` sums the inputs `m` whose tap `n + padding - m * rate` is one of the kernel's.
        """
        padding = (kernel - rate) // 2
        first_tap_end = self.first + padding - (kernel - 1)
        return Interval(-(-first_tap_end // rate), (self.last + padding) // rate)


def same_reach(kernel: int, dilation: int = 1) -> int:
    """Positions on each side that a convolution with "same" padding sees."""
    return dilation * (kernel - 1) // 2


def residual_reach(kernel: int, dilations: Sequence[int], resblock: str, activation: int) -> int:
    """Reach of a residual block whose activations see `activation` positions on each side.

    Type "1" follows each dilated convolution with an undilated one, type "2" does not.
    """
    paired = activation + same_reach(kernel) if resblock == "1" else 0
    return sum(activation + same_reach(kernel, dilation) + paired for dilation in dilations)


def context(config: Upsampler, *, activation: int, pre_kernel: int = 7, post_kernel: int = 7) -> tuple[int, int]:
    """Mel frames before and after frame `t` that the samples of output frame `t` depend on.

    `activation` is the reach of the activation inside the residual blocks and before the last
    convolution (0 for one that acts on each sample alone).
    """
    span = Interval(0, config.hop_length - 1).widened(same_reach(post_kernel) + activation)
    widest = max(
        residual_reach(kernel, dilations, config.resblock, activation)
        for kernel, dilations in zip(config.block_kernels, config.block_dilations, strict=True)
    )
    for rate, kernel in zip(reversed(config.rates), reversed(config.kernels), strict=True):
        span = span.widened(widest).before_transposed(kernel, rate)
    span = span.widened(same_reach(pre_kernel))
    return -span.first, span.last
