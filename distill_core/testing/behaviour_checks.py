"""How it behaves as part of a program: repeated, shared, moved, and beside code that trains."""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
from collections.abc import Iterator
from typing import Any

from ..device import why_unusable
from ..errors import DeviceError, PluginError
from ..wording import on_one_line
from .checks import ConformanceError, Group, NotApplicable, require
from .subject import NOISE_OF_THE_MEL, Subject, difference

BEHAVIOUR = Group("behaviour")

_UNTIL_FULL = 8
"""Calls with one and the same mel after which a cache has filled, and memory grows no more."""


@BEHAVIOUR.promise("the same mel gives the same waveform, whatever came between, and nothing of it is kept")
def deterministic(subject: Subject) -> None:
    vocoder = subject.running
    one, other = subject.mel(1, 4, seed=5), subject.mel(2, 2, seed=6)
    first = vocoder.mel_to_waveform(one)
    vocoder.mel_to_waveform(other)
    second = vocoder.mel_to_waveform(one)
    error = difference(second, first)
    allowed = 0.0 if vocoder.device.type == "cpu" else subject.tolerance
    require(
        error <= allowed,
        f"The same mel gives another waveform the second time; they differ by {error:.1e} of the peak. Put the "
        f"model into eval(), and carry nothing from call to call. {NOISE_OF_THE_MEL}",
    )
    frame = one[..., :1]
    for _ in range(_UNTIL_FULL):
        vocoder.mel_to_waveform(frame)
    held = _bytes_of_tensors()
    for _ in range(2):
        before = held
        vocoder.mel_to_waveform(frame)
        held = _bytes_of_tensors()
        if held <= before:
            return
    raise ConformanceError(
        f"Each call leaves {held - before} bytes of tensors behind: memory grows with every mel. Append nothing of a "
        "call to a list or dict on self."
    )


def _bytes_of_tensors() -> int:
    """The memory of all tensors that something still holds."""
    import torch

    gc.collect()
    found = {}
    for each in gc.get_objects():
        if issubclass(type(each), torch.Tensor):  # isinstance would wake proxies of other packages
            with contextlib.suppress(Exception):  # such as a sparse one, without a storage
                storage = each.untyped_storage()
                found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


@BEHAVIOUR.promise("inference only: no graph, no gradients, an output any code can use, the caller's mel untouched")
def inference_only(subject: Subject) -> None:
    import torch

    vocoder = subject.running
    mel = subject.mel(1, 4).requires_grad_()
    before = mel.detach().clone()
    with torch.enable_grad():
        wave = vocoder.mel_to_waveform(mel)
        require(torch.is_grad_enabled(), "After the call gradients are switched off for the caller.")
        require(not wave.requires_grad, "The waveform requires gradients: every call keeps its whole graph in memory.")
        require(not wave.is_inference(), "The waveform is an inference tensor: using it in a loss would fail.")
    untouched = torch.equal(mel.detach(), before)
    require(untouched, "The caller's mel was changed in place. Clone it before an operation that writes.")
    model = getattr(vocoder, "model", None)
    if isinstance(model, torch.nn.Module):
        trained = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
        require(not trained, f"{trained[:1]} holds gradients.")
        modes = [name or "the model" for name, module in model.named_modules() if module.training]
        require(not modes, f"{modes[:1]} is in training mode: dropout and batch statistics would be live. Call eval().")


@BEHAVIOUR.promise("several threads may call one vocoder")
def threads(subject: Subject) -> None:
    vocoder = subject.running
    mels = [subject.mel(1, 3, seed=10 + index) for index in range(4)]
    want = [vocoder.mel_to_waveform(mel) for mel in mels]
    got: list[Any] = [None] * len(mels)
    barrier = threading.Barrier(len(mels))

    def work(index: int) -> None:
        try:
            barrier.wait()
            for _ in range(2):
                got[index] = vocoder.mel_to_waveform(mels[index])
                if difference(got[index], want[index]) > subject.tolerance:
                    return
        except Exception as error:
            got[index] = error

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads take turns as often as they can
    try:
        workers = [threading.Thread(target=work, args=(index,)) for index in range(len(mels))]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        sys.setswitchinterval(interval)
    advice = "Keep what belongs to one call in local variables, not on self."
    for wave, alone in zip(got, want, strict=True):
        if isinstance(wave, Exception):
            raise ConformanceError(f"Called from {len(mels)} threads it fails: {wave!r}. {advice}") from wave
        subject.require_same(wave, alone, f"With {len(mels)} threads the output of one", advice)


@BEHAVIOUR.promise("to(device) returns the vocoder, and refuses a device that is not there without harm")
def to(subject: Subject) -> None:
    vocoder = subject.running
    mel = subject.mel(1, 2)
    want = vocoder.mel_to_waveform(mel)
    home = vocoder.device
    require(vocoder.to(home) is vocoder, "to(device) must return the vocoder itself.")
    for nowhere in ("cuda:99", "no-such-device"):
        try:
            vocoder.to(nowhere)
        except DeviceError:
            pass
        except Exception as error:
            raise ConformanceError(f"to({nowhere!r}) ends in a {type(error).__name__}, not a DeviceError.") from error
        else:
            raise ConformanceError(f"to({nowhere!r}) is accepted. If you override to, call select_device.")
        require(vocoder.device == home, f"After to({nowhere!r}) was refused, device is {vocoder.device}, not {home}.")
    subject.require_same(vocoder.mel_to_waveform(mel), want, "The output after a refused to(device)", "")


@BEHAVIOUR.promise("moving takes every tensor of the model along")
def moves_whole(subject: Subject) -> None:
    import torch

    subject.vocoder  # noqa: B018
    vocoder = subject.load()
    # The meta device holds no numbers and is everywhere: a tensor that stays behind shows without a GPU.
    try:
        vocoder._move(torch.device("meta"))
    except (AttributeError, PluginError) as error:
        if subject.known_card.devices == ("cpu",):
            raise NotApplicable("it runs on the CPU alone, and cannot be moved") from error
        raise ConformanceError(
            f"It cannot be moved to another device: {on_one_line(error).rstrip('.')}. Keep the torch module as "
            "self.model, or override _move(device)."
        ) from error
    except Exception as error:
        raise NotApplicable(f"this engine cannot be moved to torch's meta device ({type(error).__name__})") from error
    left = [name for name, tensor in _tensors(vocoder) if tensor.device.type != "meta"]
    require(
        not left,
        f"{', '.join(left[:3])} stays behind when the vocoder moves to another device. Make it a buffer "
        "(register_buffer(..., persistent=False)), or move it in _move.",
    )


def _tensors(vocoder: Any) -> Iterator[tuple[str, Any]]:
    """Every tensor that the vocoder or a module in it holds by name."""
    import torch

    for name, value in vars(vocoder).items():
        if isinstance(value, torch.Tensor):
            yield f"self.{name}", value
        elif isinstance(value, torch.nn.Module):
            for where, module in value.named_modules():
                held = {**module._parameters, **module._buffers, **vars(module)}
                for key, tensor in held.items():
                    if isinstance(tensor, torch.Tensor):
                        yield ".".join(filter(None, (f"self.{name}", where, key))), tensor


def _runs_on(subject: Subject, kind: str) -> None:
    import torch

    if kind not in subject.known_card.devices:
        raise NotApplicable(f"the card does not list {kind}")
    reason = why_unusable(torch.device(kind))
    if reason:
        raise NotApplicable(reason)
    vocoder = subject.running
    home = vocoder.device
    mel = subject.mel(1, 3, seed=7)
    want = vocoder.mel_to_waveform(mel)
    try:
        vocoder.to(kind)
        require(vocoder.device.type == kind, f"After to({kind!r}) device is {vocoder.device}.")
        wave = vocoder.mel_to_waveform(mel)
        require(wave.device.type == kind, f"On {kind} the waveform is on {wave.device}.")
        error = difference(wave.to(want.device), want)
        # Convolutions on another device sum in another order, on some in TF32.
        require(error <= max(1e-2, subject.tolerance), f"On {kind} the output differs by {error:.1e} from {home}.")
    finally:
        vocoder.to(home)
    subject.require_same(vocoder.mel_to_waveform(mel), want, f"Back on {home} the output", "")


@BEHAVIOUR.promise("it runs on the CPU, if the card says so, with the same output")
def runs_on_cpu(subject: Subject) -> None:
    _runs_on(subject, "cpu")


@BEHAVIOUR.promise("it runs on CUDA, if the card says so, with the same output")
def runs_on_cuda(subject: Subject) -> None:
    _runs_on(subject, "cuda")


@BEHAVIOUR.promise("it runs on Apple's MPS, if the card says so, with the same output")
def runs_on_mps(subject: Subject) -> None:
    _runs_on(subject, "mps")
