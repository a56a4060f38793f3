"""Which device a vocoder runs on, and in what precision."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from .errors import DeviceError, PrecisionError
from .wording import on_one_line

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

KINDS = ("cuda", "mps", "cpu")
"""Kinds of device in the order in which "auto" prefers them."""

PRECISIONS = ("fp32", "bf16", "fp16", "auto")

_OUT_OF_MEMORY = (
    "out of memory",
    "Invalid buffer size",  # MPS
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "NVML_SUCCESS == r INTERNAL ASSERT FAILED",
    "Output channels > 65536 not supported",  # of any dimension, by MPS before macOS 15.1
)


def select_device(spec: str | torch.device = "auto", *, among: Sequence[str] = KINDS) -> torch.device:
    """The device to run on, tried with a small matrix product first.

    Args:
        spec: "auto" (CUDA, then MPS, then CPU), "cuda", "cuda:N", "mps" or "cpu".
        among: the kinds of device the vocoder supports.

    Raises:
        DeviceError: a device asked for by name is unknown, not there, not supported or fails the trial.
            "auto" warns about an accelerator that fails and passes it over.
    """
    import torch

    text = str(spec).strip().lower()
    if text != "auto":
        try:
            device = torch.device(text)
        except RuntimeError:
            device = None
        if device is None or device.type not in KINDS or (device.type != "cuda" and device.index):
            raise DeviceError(f"There is no device {spec!r}: write auto, cuda, cuda:N, mps or cpu.")
        if device.type not in among:
            raise DeviceError(f"This vocoder does not run on {device.type!r}; it runs on {', '.join(among)}.")
        device = _indexed(device)
        reason = why_unusable(device)
        if reason:
            raise DeviceError(f"The device {text!r} cannot be used: {reason}. Use device='auto' or device='cpu'.")
        return device
    for kind in KINDS:
        if kind not in among or not _present(kind):
            continue
        device = _indexed(torch.device(kind))
        reason = why_unusable(device)
        if reason is None:
            return device
        log.warning("Passing over %s, which failed a small matrix product: %s", device, reason)
    raise DeviceError(f"None of the devices this vocoder runs on ({', '.join(among)}) is usable here.")


def parsed(device: str | torch.device) -> torch.device:
    """A device by its name, whether or not it is here; "cuda" is the current one of them.

    Raises:
        DeviceError: torch knows no such device; "auto" is none.
    """
    import torch

    try:
        return _indexed(torch.device(device))
    except (RuntimeError, TypeError) as error:
        raise DeviceError(
            f"There is no device {device!r}: write cuda, cuda:N, mps or cpu. select_device('auto') chooses one."
        ) from error


def why_unusable(device: torch.device) -> str | None:
    """None if a small matrix product on the device comes out right, else what went wrong."""
    import torch

    if not _present(device.type):
        return f"this torch ({torch.__version__}) sees no {device.type.upper()} device"
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        return f"there are {torch.cuda.device_count()} CUDA devices, numbered from 0"
    try:
        ones = torch.ones(8, 8, dtype=torch.float32, device=device)  # whatever the default dtype: MPS has no float64
        total = float((ones @ ones).sum())
    except Exception as error:  # drivers fail in many ways; whichever it is, this device is out
        return on_one_line(error)
    return None if total == 512.0 else f"a matrix product of ones came out as {total}, not 512"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an accelerator failed because it was given too much at once.

    torch has a class for that, but MPS, the libraries below torch and, where the driver cannot say how much memory
    there is (Jetson, some MIG partitions), torch's allocator itself raise other errors.
    """
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def no_room(device: torch.device, what: str, error: BaseException) -> DeviceError:
    """The error for `what` that is too large for the memory left on a device, by what torch said."""
    said = " ".join(str(error).split())
    return DeviceError(
        f"There is not enough memory on {device} for {what}: free some of it, or use device='cpu'. ({said})"
    )


def empty_caches() -> None:
    """Give back the memory that torch keeps on accelerators for later, as far as it has used any."""
    import torch

    with suppress(RuntimeError):  # of the allocator, while another thread captures a CUDA graph
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def check_precision(precision: str) -> str:
    """The precision itself, if it is one of `PRECISIONS`.

    Raises:
        PrecisionError: it is not; the message lists them.
    """
    if precision not in PRECISIONS:
        raise PrecisionError(f"There is no precision {precision!r}: write {', '.join(PRECISIONS[:-1])} or auto.")
    return precision


def _present(kind: str) -> bool:
    import torch

    if kind == "cuda":
        return torch.cuda.is_available()
    if kind == "mps":
        return torch.backends.mps.is_available()
    return True


def _indexed(device: torch.device) -> torch.device:
    """`cuda` as `cuda:0`, which tensors there say, and `cpu:0` as `cpu`: so that equal devices compare equal."""
    import torch

    if device.type == "cuda" and device.index is None:
        try:
            return torch.device("cuda", torch.cuda.current_device() if torch.cuda.is_available() else 0)
        except Exception:  # a driver that fails, a process that was forked: `why_unusable` says what is wrong
            return torch.device("cuda", 0)
    return torch.device(device.type) if device.type in KINDS and device.type != "cuda" else device
