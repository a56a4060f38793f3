"""Is this a mel that this vocoder can take? One clear error each where it is not."""

from __future__ import annotations

import math
import numbers
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from .arrays import check_plain, check_unmasked, tensor_of
from .errors import InvalidMelError, OptionError, PluginError
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
        check_unmasked(mel, "A mel", InvalidMelError)
        try:
            mel = tensor_of(mel)
        except TypeError as error:
            raise InvalidMelError(f"A mel must hold floating-point numbers, not {mel.dtype}.") from error
    check_plain(mel, "A mel", InvalidMelError, expected)
    shape = list(mel.shape)
    if mel.dim() == 4 and mel.shape[1] == 1:
        mel = mel[:, 0]
    if mel.dim() != 3:
        hint = " Add the batch axis with mel[None]." if mel.dim() == 2 else ""
        raise InvalidMelError(f"A mel must have the shape {expected}; this one has {shape}.{hint}")
    if not mel.dtype.is_floating_point:
        hint = "" if mel.dtype.is_complex else ": mel.float() converts"
        raise InvalidMelError(f"A mel must hold floating-point numbers, not {mel.dtype}{hint}.")
    if mel.shape[1] != bands:
        hint = " It looks transposed: mel.transpose(-1, -2)." if mel.shape[2] == bands else ""
        raise InvalidMelError(
            f"This vocoder takes mels of {bands} bands, {expected}; this one has {mel.shape[1]} bands: {shape}.{hint}"
        )
    if mel.shape[0] == 0 or mel.shape[2] == 0:
        raise InvalidMelError(f"A mel needs at least one item and one frame, {expected}; this one has {shape}.")
    checked: torch.Tensor = mel.detach()
    # Of the floats of eight bits torch finds no largest, nor much else.
    return checked.float() if checked.itemsize == 1 else checked


def checked_lengths(lengths: Any, mel: torch.Tensor) -> list[int]:
    """The number of frames of each item of `mel` [B, n_mels, T].

    Raises:
        InvalidMelError: not one whole number from 1 to T for each item.
    """
    rows, _, frames = mel.shape
    if lengths is None:
        return [frames] * rows
    check_plain(lengths, f"lengths, from 1 to {frames} for each of {rows} items,", InvalidMelError)
    values = lengths.tolist() if hasattr(lengths, "tolist") else lengths
    values = list(values) if isinstance(values, Iterable) else values
    if (
        not isinstance(values, list)
        or len(values) != rows
        or not all(is_whole(value) and 1 <= value <= frames for value in values)
    ):
        raise InvalidMelError(
            f"lengths must give a whole number of frames from 1 to {frames} for each of {rows} items, not "
            f"{reprlib.repr(values)}."
        )
    return [int(value) for value in values]


def checked_chunk_frames(frames: Any) -> int:
    """`chunk_frames` as an int.

    Raises:
        OptionError: it is no whole number of 1 or more.
    """
    if not is_whole(frames) or frames < 1:
        raise OptionError(f"chunk_frames must be a whole number of frames, at least 1, not {frames!r}.")
    return int(frames)


def checked_pieces(mels: Any, spec: MelSpec) -> Iterator[Any]:
    """What goes through the pieces of a mel; the pieces themselves are looked at when they arrive.

    Raises:
        InvalidMelError: it is one mel, or nothing that can be gone through.
    """
    pieces = f"an iterable of pieces [B, {spec.n_mels}, t]"
    if isinstance(mels, torch.Tensor) or hasattr(mels, "__array_interface__"):
        raise InvalidMelError(
            f"stream takes {pieces}, and this is one mel: mel_to_waveform(mel) vocodes it in bounded memory as well; "
            "stream(mel.split(64, dim=-1)) gives the waveform piece by piece."
        )
    try:
        return iter(mels)
    except TypeError as error:
        hint = " Go through an asynchronous one in a thread." if hasattr(mels, "__aiter__") else ""
        raise InvalidMelError(f"stream takes {pieces}, not {type(mels).__name__}.{hint}") from error


def check_returned(who: str, wave: Any, mel: torch.Tensor, expected: tuple[int, ...]) -> None:
    """See that what a model or back-end made of `mel` is a waveform of the shape expected.

    Raises:
        PluginError: saying what `who` returned.
    """
    if isinstance(wave, torch.Tensor):
        if tuple(wave.shape) == expected and wave.dtype.is_floating_point:
            return
        found = f"{list(wave.shape)} of {wave.dtype}"
    else:
        found = f"a {type(wave).__name__}"
    raise PluginError(
        f"{who} returned {found} for a mel of {list(mel.shape)}; the contract asks for a floating-point tensor "
        f"{list(expected)}."
    )


def is_whole(value: Any) -> bool:
    """Whether it is a whole number, of Python, numpy or torch."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    return (
        isinstance(value, numbers.Real)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and float(value).is_integer()
    )


def check_finite(mel: torch.Tensor, lengths: Sequence[int], *, first_frame: int = 0) -> None:
    """See that no NaN or infinity is among the true frames of `mel` [B, n_mels, T], nor what float32 makes one of.

    Raises:
        InvalidMelError: naming item, band and frame of the first; frames are counted from `first_frame`.
    """
    if mel.dtype in _WITH_EXTREMES and torch.stack(torch.aminmax(mel)).float().isfinite().all():
        return  # found without a copy of the mel, which may be long, and with one look at a card
    finite = torch.isfinite(mel.float())
    if bool(finite.all()):
        return
    for row, length in enumerate(lengths):
        bad = (~finite[row, :, :length]).nonzero()
        if len(bad):
            band, frame = bad[bad[:, 1].argmin()].tolist()
            value = mel[row, band, frame].item()
            raise InvalidMelError(
                f"A mel must be finite in float32; this one holds {len(bad)} values that are not, the first ({value}) "
                f"in item {row}, band {band}, frame {first_frame + frame}."
            )
