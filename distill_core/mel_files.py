"""Mels in files: .npy, .pt and .safetensors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .audio import check_is_file, path_of
from .errors import CheckpointError, InvalidMelError
from .weights.checkpoint import NAMED_PROBLEMS, imported_by, load_pickled

if TYPE_CHECKING:
    import torch

FORMATS = (".npy", ".pt", ".pth", ".safetensors")
"""Endings of the files that are taken for mels."""


def read_mel(path: str | os.PathLike[str]) -> torch.Tensor:
    """The one tensor in a file as [B, n_mels, T]; [n_mels, T] gets a batch axis.

    A .pt or .safetensors file may hold a mapping with one tensor, or with one called "mel".

    Raises:
        InvalidMelError: no such file, not such a file, a pickle that would run code, or not one mel; or it claims
            more numbers than the file holds.
    """
    from .arrays import check_plain, tensor_of

    path = path_of(path, "A mel", InvalidMelError)
    check_is_file(path, str(path), InvalidMelError)
    kind = path.suffix.lower()
    try:
        if kind == ".npy":
            import numpy

            value: Any = tensor_of(numpy.load(path, allow_pickle=False))
        elif kind == ".safetensors":
            from safetensors.torch import load_file

            value = load_file(path)
        elif kind in FORMATS:
            value = load_pickled(path)
        else:
            raise InvalidMelError(f"{path}: a mel is read from {', '.join(FORMATS)}, not from {kind or 'no ending'}.")
    except InvalidMelError:
        raise
    except Exception as error:  # whatever the three readers make of a damaged or hostile file
        raise _unreadable(path, kind, error) from error
    mel = _the_tensor(path, value)
    check_plain(mel, f"{path}: a mel", InvalidMelError)
    if mel.numel() * mel.element_size() > path.stat().st_size:
        raise InvalidMelError(
            f"{path}: claims a mel of {list(mel.shape)}, more numbers than the file holds. If it was expanded, save "
            "mel.contiguous()."
        )
    return mel[None] if mel.dim() == 2 else mel


def _unreadable(path: Path, kind: str, error: Exception) -> InvalidMelError:
    """What is wrong with a file, without a library's advice on how to have its code run after all."""
    kept_shut = isinstance(error, CheckpointError)
    named = imported_by(path) if kind in (".pt", ".pth") and not kept_shut else []
    if named:
        return InvalidMelError(
            f"{path}: cannot be read: it holds more than tensors, and would run code when loaded "
            f"({', '.join(named[:NAMED_PROBLEMS])}); nothing was run. Save the mel alone, as a tensor: "
            "torch.save(torch.as_tensor(mel), path)."
        )
    if kind == ".npy" and isinstance(error, ValueError) and "pickle" in str(error):
        return InvalidMelError(
            f"{path}: cannot be read: it is damaged, or holds objects, which could run code when loaded; nothing was "
            "run. Save the mel as an array of numbers: np.save(path, mel)."
        )
    words = str(error) if isinstance(error, RuntimeError | ValueError | OSError | SyntaxError | TypeError) else ""
    words = words.removeprefix(f"{path} is ")
    reason = " ".join(words.partition("\n")[0].partition(". ")[0].split()).rstrip(".")
    said = f" ({reason})" if reason else ""
    return InvalidMelError(f"{path}: cannot be read as a {kind} file of tensors{said}. Is it damaged?")


def _the_tensor(path: Path, value: Any) -> torch.Tensor:
    import torch

    if isinstance(value, dict):
        tensors = {name: each for name, each in value.items() if isinstance(each, torch.Tensor)}
        if len(tensors) != 1 and "mel" not in tensors:
            listed = ", ".join(map(str, list(tensors)[:5])) or "none"
            raise InvalidMelError(f"{path}: must hold one tensor, or one named 'mel'; it holds {listed}.")
        value = tensors.get("mel", next(iter(tensors.values())))
    if not isinstance(value, torch.Tensor):
        raise InvalidMelError(f"{path}: holds a {type(value).__name__}, not a tensor.")
    return value
