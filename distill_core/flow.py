"""What a model offers that can be run over a mel as it arrives, with nothing computed twice."""

from __future__ import annotations

from typing import Protocol

import torch


class Flow(Protocol):
    """One run over a mel from its first frame to its last, piece by piece, in the model's own format."""

    def __call__(self, mel: torch.Tensor, last: bool) -> torch.Tensor | None:
        """The next frames, [B, n_mels, t] -> the samples that have become certain, [B, n], with the last frames all.

        None: it cannot go on, since the model's engine is another now.
        """
