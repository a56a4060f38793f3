"""Is this a mel that this vocoder can take? One clear error each where it is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .errors import InvalidMelError
from .mel.spec import MelSpec

_WITH_EXTREMES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def checked_mel(mel: Any, spec: MelSpec) -> torch.Tensor:
    """`mel` as [B, n_mels, T], floating point, at least one frame. Values are looked at by `check_finite`.

    Args:
        mel: [B, n_mels, T] or [B, 1, n_mels, T]; a tensor, or a numpy array.
        spec: the format it is supposed to be in.

    Raises:
        InvalidMelError: naming what was found and what was expected.
    """
    bands = spec.n_mels
    expected = f"[B, {bands}, T] or [B, 1, {bands}, T]"
    if not isinstance(mel, torch.Tensor):
        if not hasattr(mel, "__array_interface__"):
            raise InvalidMelError(f"A mel must be a torch tensor {expected}, not {type(mel).__name__}.")
        try:
            mel = torch.from_numpy(mel)
        except TypeError as error:
            raise InvalidMelError(f"A mel must hold floating-point numbers, not {mel.dtype}.") from error
    shape = list(mel.shape)
    if mel.dim() == 4 and mel.shape[1] == 1:
        mel = mel[:, 0]
    if mel.dim() != 3:
        hint = " Add the batch axis with mel[None]." if mel.dim() == 2 else ""
        raise InvalidMelError(f"A mel must have the shape {expected}; this one has {shape}.{hint}")
    if not mel.dtype.is_floating_point:
        raise InvalidMelError(f"A mel must hold floating-point numbers, not {mel.dtype}: mel.float() converts.")
    if mel.shape[1] != bands:
        hint = " It looks transposed: mel.transpose(-1, -2)." if mel.shape[2] == bands else ""
        raise InvalidMelError(
            f"This vocoder takes mels of {bands} bands, {expected}; this one has {mel.shape[1]} bands: {shape}.{hint}"
        )
    if mel.shape[0] == 0 or mel.shape[2] == 0:
        raise InvalidMelError(f"A mel needs at least one item and one frame, {expected}; this one has {shape}.")
    checked: torch.Tensor = mel.detach()
    return checked


def checked_lengths(lengths: Sequence[int] | torch.Tensor | None, mel: torch.Tensor) -> list[int]:
    """The number of frames of each item of `mel` [B, n_mels, T].

    Raises:
        InvalidMelError: not one whole number from 1 to T for each item.
    """
    rows, _, frames = mel.shape
    if lengths is None:
        return [frames] * rows
    values = lengths.tolist() if isinstance(lengths, torch.Tensor) else list(lengths)
    whole = [value for value in values if not isinstance(value, bool) and int(value) == value]
    if len(values) != rows or len(whole) != rows or not all(1 <= value <= frames for value in whole):
        raise InvalidMelError(
            f"lengths must give a whole number of frames from 1 to {frames} for each of {rows} items, not {values}."
        )
    return [int(value) for value in values]


def check_finite(mel: torch.Tensor, lengths: Sequence[int], *, first_frame: int = 0) -> None:
    """See that no NaN or infinity is among the true frames of `mel` [B, n_mels, T].

    Raises:
        InvalidMelError: naming item, band and frame of the first; frames are counted from `first_frame`.
    """
    if mel.dtype in _WITH_EXTREMES and all(extreme.isfinite() for extreme in torch.aminmax(mel)):
        return  # found without a copy of the mel, which may be long
    finite = torch.isfinite(mel)
    if bool(finite.all()):
        return
    for row, length in enumerate(lengths):
        bad = (~finite[row, :, :length]).nonzero()
        if len(bad):
            band, frame = bad[bad[:, 1].argmin()].tolist()
            value = mel[row, band, frame].item()
            raise InvalidMelError(
                f"A mel must be finite; this one holds {len(bad)} values that are not, the first ({value}) "
                f"in item {row}, band {band}, frame {first_frame + frame}."
            )
