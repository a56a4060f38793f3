"""Waveform -> mel, in any format."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..arrays import check_plain, check_unmasked, tensor_of
from ..errors import InvalidAudioError
from ..untraced import untraced
from .filters import filterbank
from .spec import MelSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOUDEST = 1e12
"""Of samples: far above those that count in 32-bit integers; not far above, powers leave float32."""


def analyze(waveform: Tensor | NDArray[Any], spec: MelSpec) -> Tensor:
    """The mel spectrogram of a waveform in the format `spec`.

    Half precision is computed in float32, float64 in float64. Gradients pass.

    Args:
        waveform: `[samples]`, `[B, samples]` or `[B, 1, samples]` at `spec.sample_rate`, floating point,
            full scale at 1 (not clipped there). A numpy array will do.

    Returns:
        `[B, n_mels, T]` on the waveform's device, T = `spec.frames(samples)`; B is 1 for rank 1.

    Raises:
        InvalidAudioError: another rank, several channels, integers, NaN or infinity, or too few samples
            for reflect padding (more than `spec.padding` are needed).
    """
    audio = _checked(waveform, spec)
    with torch.autocast(audio.device.type, enabled=False):
        return _analyze(audio, spec)


def _analyze(audio: Tensor, spec: MelSpec) -> Tensor:
    basis, window = _constants(spec, audio.device, audio.dtype)
    padded = F.pad(audio.unsqueeze(1), (spec.padding, spec.padding), mode="reflect").squeeze(1)
    spectrum = torch.stft(
        padded,
        spec.n_fft,
        hop_length=spec.hop_length,
        win_length=spec.win_length,
        window=window,
        center=False,
        return_complex=True,
    )
    if spec.power == 1.0 and spec.eps == 0.0:
        bins = spectrum.abs()  # unlike the root of a sum of squares, its gradient at 0 is 0
    else:
        bins = torch.view_as_real(spectrum).square().sum(-1) + spec.eps
        bins = bins.sqrt() if spec.power == 1.0 else bins
    return compress(basis @ bins, spec)


def compress(bands: Tensor, spec: MelSpec) -> Tensor:
    """Band values to mel values: the format's floor, then its logarithm, elementwise."""
    bands = bands.clamp(min=spec.floor)
    if spec.log is None:
        return bands
    return {"ln": torch.log, "log10": torch.log10, "log1p": torch.log1p}[spec.log](bands)


def expand(mel: Tensor, spec: MelSpec) -> Tensor:
    """Mel values to band values, the inverse of `compress` above the floor; never negative."""
    if spec.log is None:
        return mel.clamp(min=0.0)
    if spec.log == "log1p":
        return torch.expm1(mel).clamp(min=0.0)
    return torch.exp(mel) if spec.log == "ln" else torch.pow(10.0, mel)


def _checked(waveform: Tensor | NDArray[Any], spec: MelSpec) -> Tensor:
    """`waveform` as finite `[B, samples]` in float32 or float64."""
    check_unmasked(waveform, "A waveform", InvalidAudioError)
    check_plain(waveform, "A waveform", InvalidAudioError)
    try:
        audio = waveform if isinstance(waveform, Tensor) else tensor_of(waveform)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidAudioError(
            f"A waveform must be a tensor or array of numbers, not {type(waveform).__name__}."
        ) from error
    shape = tuple(audio.shape)
    if not audio.is_floating_point():
        raise InvalidAudioError(
            f"A waveform must be floating point with full scale at 1, not {audio.dtype}. "
            "Divide 16-bit samples by 32768."
        )
    if audio.ndim == 3 and shape[1] == 1:
        audio = audio[:, 0]
    elif audio.ndim == 1:
        audio = audio[None]
    elif audio.ndim != 2:
        raise InvalidAudioError(
            f"A waveform must have shape [samples], [B, samples] or [B, 1, samples], not {list(shape)}. "
            "Pass the channels of a stereo file as a batch, or their mean."
        )
    if audio.shape[0] == 0:
        raise InvalidAudioError(f"The batch of waveforms is empty: shape {list(shape)}.")
    samples = audio.shape[1]
    needed = max(spec.padding + 1, spec.n_fft - 2 * spec.padding)
    if samples < needed:
        transposed = len(shape) == 2 and shape[0] >= needed
        hint = "It looks like [samples, channels]: pass waveform.T." if transposed else "Pad with zeros."
        raise InvalidAudioError(
            f"{samples} samples ({samples / spec.sample_rate:.3f} s) are too few to analyse with "
            f"n_fft={spec.n_fft}: at least {needed} are needed. {hint}"
        )
    if audio.dtype != torch.float64:
        audio = audio.float()
    peak = max(float(extreme.abs()) for extreme in torch.aminmax(audio.detach()))
    if not math.isfinite(peak):
        raise InvalidAudioError("The waveform contains NaN or infinite samples.")
    if peak > _LOUDEST:
        raise InvalidAudioError(f"The waveform has samples up to {peak:.1e}, where full scale is 1. Is it damaged?")
    return audio


@untraced
@lru_cache(maxsize=32)
def _constants(spec: MelSpec, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Filterbank and window where they are needed. Shared by all callers, who must not write to them."""
    with torch.inference_mode(False):
        basis = torch.tensor(filterbank(spec), dtype=dtype, device="cpu").to(device)
        window = torch.hann_window(spec.win_length, dtype=dtype, device=device)
    return basis, window
