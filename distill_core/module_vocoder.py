"""A vocoder that is one torch module: run as it is, or by a faster engine made from it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from .card import Variant
from .checks import check_returned, checked_chunk_frames
from .device import check_precision, is_out_of_memory, parsed
from .engines.channels_last import EngineUnavailable
from .engines.selection import (
    CHANNELS_LAST,
    CUDA,
    EAGER,
    Accelerated,
    Fast,
    best_cpu_precision,
    check_engine,
    tried,
    why_not_channels_last,
    why_not_on_cpu,
)
from .errors import EngineError, PrecisionError
from .flow import Flow
from .report import EngineReport
from .vocoder import DEFAULT_CHUNK_FRAMES, VocoderBase
from .wording import on_one_line

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger(__name__)

_LONGEST_ON_OLD_MPS = 65536
"""Samples: before macOS 15.1, convolutions on MPS refuse what is longer."""

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class ModuleVocoder(VocoderBase):
    """A module [B, n_mels, T] -> [B, 1, T * hop_length] as a vocoder.

    The eager engine runs the module as it is. A subclass that overrides `_channels_last` has a second
    one for CPUs; it is made and tried on first use, and passed over where it cannot run. One that overrides
    `_cuda` has one for CUDA, made and tried when the model gets to such a device.

    Args:
        model: float32 module, its weights loaded; it is put into evaluation mode and frozen.
        variant: what is loaded.
        halo: frames of context on each side that an output frame depends on.
        device: where to run.
        precision: "fp32", "bf16" or "fp16"; "auto" is bf16 on a CPU whose processor multiplies it and
            where the channels-last engine runs, what the CUDA engine chooses where that runs, fp32 elsewhere.
        chunk_frames: as for `VocoderBase`; by default the CUDA engine's follows the free memory.
        engine: "eager", "channels-last" (CPU only), "cuda", or "auto": the faster one that is correct here.
        reload: makes `model` again, on the CPU, from where its weights came. With it the model is let go once
            the channels-last engine has packed the weights, and made again when `model` or `to` asks for it.

    Raises:
        TypeError, ValueError, DeviceError: as `VocoderBase`.
        PrecisionError: fp16 on a CPU, or bf16 on one that would have to emulate it.
        EngineError: an unknown engine, or one asked for by name that cannot run here.
        OptionError: `chunk_frames` is no whole number of 1 or more.
    """

    default_chunk_frames = DEFAULT_CHUNK_FRAMES
    """`chunk_frames` where nobody says another; a small model gains from more."""

    def __init__(
        self,
        model: torch.nn.Module,
        variant: Variant,
        *,
        halo: int,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
        chunk_frames: int | None = None,
        engine: str = "auto",
        reload: Callable[[], torch.nn.Module] | None = None,
        **base: Any,
    ) -> None:
        device = parsed(device)
        self.check_placement(device=device, precision=precision, chunk_frames=chunk_frames, engine=engine)
        self._asked, self._engine = precision, engine
        super().__init__(
            variant,
            halo=halo,
            device=device,
            precision=self._chosen_precision(device),
            chunk_frames=self.default_chunk_frames if chunk_frames is None else chunk_frames,
            **base,
        )
        if engine == CHANNELS_LAST and (reason := self._why_eager(device)):
            raise EngineError(f"engine='channels-last' cannot run here: {reason}. engine='auto' runs what can.")
        self._home = device
        self._fast: Fast | None = None
        self._accelerated: Accelerated | None = None
        self._passed_over: str | None = None
        self._default_chunk = chunk_frames is None
        self._reload = reload
        self._model: torch.nn.Module | None = model.requires_grad_(False).eval().to(device)
        self._accelerate()

    @classmethod
    def check_placement(
        cls,
        *,
        device: torch.device | str,
        precision: str = "fp32",
        chunk_frames: int | None = None,
        engine: str = "auto",
    ) -> None:
        """See that there can be such a vocoder, before its weights are downloaded or read.

        Raises:
            DeviceError, PrecisionError, EngineError, OptionError: as the constructor.
        """
        kind = parsed(device).type
        check_engine(engine)
        check_precision(precision)
        if kind == "cpu" and (reason := cls._why_not_on_cpu(precision, engine)):
            raise PrecisionError(reason)
        _check_runs_on(engine, kind)
        if chunk_frames is not None:
            checked_chunk_frames(chunk_frames)

    @property
    def model(self) -> Any:
        """The torch module, on `device`; read again if it was let go.

        Raises:
            WeightsError: it was let go, and its file has gone or changed since.
        """
        with self._turn:
            if self._model is None:
                assert self._reload is not None
                self._model = self._reload().requires_grad_(False).eval().to(self.device)
            return self._model

    @model.setter
    def model(self, model: torch.nn.Module) -> None:
        with self._turn:
            self._model, self._reload = model.requires_grad_(False).eval().to(self.device), None
            self._fast, self._passed_over = None, None
            self._accelerate()

    def _channels_last(self, dtype: torch.dtype) -> Fast:
        """The model as a channels-last engine. Raises `EngineUnavailable`."""
        raise EngineUnavailable("this model has none")

    def _cuda(self, precision: str) -> Accelerated:
        """`self.model`, which is on a CUDA device, as an engine there. Raises `EngineUnavailable`."""
        raise EngineUnavailable("this model has none")

    @property
    def _has_cuda(self) -> bool:
        return type(self)._cuda is not ModuleVocoder._cuda

    def _accelerate(self) -> None:
        """On a CUDA device, make the engine for it; where it cannot run, keep the reason."""
        self._accelerated = None
        _check_runs_on(self._engine, self._home.type)
        if self._home.type == "cuda" and self._engine in ("auto", CUDA):
            try:
                self._accelerated = self._cuda(self._asked)
                self._precision = self._accelerated.precision
            except EngineUnavailable as error:
                self._passed_over = str(error)
                if self._engine == CUDA:
                    raise EngineError(f"engine='cuda' cannot run here: {error}.") from error
                if self._has_cuda:
                    log.warning("%s runs eagerly, which is slower: %s", self, error)
        if self._default_chunk:
            engine = self._accelerated
            self.chunk_frames = self._eager_chunk() if engine is None else engine.chunk_frames

    def _was_full(self) -> None:
        if self._default_chunk and self._accelerated is not None:  # since it was chosen, others have come to the card
            self.chunk_frames = min(self.chunk_frames, self._accelerated.chunk_frames)

    def _give_up_acceleration(self, failure: str) -> None:
        """For what fails in a run and not in the trial on a short mel, such as a library that has no kernel for it."""
        self._accelerated, self._passed_over = None, f"it failed in a run with {failure}"
        self._precision = self._chosen_precision(self._home)  # "auto" was the engine's
        log.warning("%s runs eagerly from now on, which is slower: %s", self, self._passed_over)
        if self._default_chunk:
            self.chunk_frames = self._eager_chunk()

    def _eager_chunk(self) -> int:
        """`default_chunk_frames`, or as many as a device's convolutions can take."""
        if self._home.type != "mps" or torch.backends.mps.is_macos_or_newer(15, 1):
            return self.default_chunk_frames
        # One frame less: inside, a layer's input may be a few samples longer than what it makes.
        frames = _LONGEST_ON_OLD_MPS // self.hop_length - 1
        return max(1, min(self.default_chunk_frames, frames - 2 * self.halo))

    def _chosen_precision(self, device: torch.device) -> str:
        if self._asked != "auto":
            # Half precision goes along to an accelerator and back, not to a CPU that has none.
            missing = device.type == "cpu" and self._why_not_on_cpu(self._asked, self._engine)
            return "fp32" if missing else self._asked
        fast = device.type == "cpu" and self._engine != EAGER and self._has_channels_last()
        return best_cpu_precision() if fast else "fp32"

    @classmethod
    def _has_channels_last(cls) -> bool:
        return cls._channels_last is not ModuleVocoder._channels_last

    @classmethod
    def _why_not_on_cpu(cls, precision: str, engine: str) -> str | None:
        return why_not_on_cpu(precision, engine if cls._has_channels_last() else EAGER)

    def _why_eager(self, device: torch.device) -> str | None:
        """None if the channels-last engine may run on `device`, as far as can be told without making it."""
        if not self._has_channels_last():
            return "this model has none"
        if device.type != "cpu":
            return f"it is for CPUs, not for {device.type}"
        return why_not_channels_last(self.precision)

    def _prepared(self) -> Fast | None:
        """The fast engine for CPUs, made on first use; None where another one runs.

        Raises:
            EngineError: it was asked for by name, and cannot run here.
        """
        if self._home.type != "cpu":
            return None
        if self._fast is None and self._passed_over is None and self._engine != EAGER:
            self._passed_over = self._prepare()
        if self._passed_over is not None and self._engine == CHANNELS_LAST:
            raise EngineError(f"engine='channels-last' cannot run here: {self._passed_over}.")
        return self._fast

    def _ready(self) -> Fast | None:
        """The same, for a thread that may not have the turn: it waits for one where the engine has to be made."""
        fast = self._fast
        if fast is None:
            with self._turn:
                fast = self._prepared()
        return fast

    def _prepare(self) -> str | None:
        """Make the fast engine; returns why that cannot be done, if it cannot."""
        reason = self._why_eager(self._home)
        if reason is None:
            reason = self._try()
        if reason is not None and self._asked == "auto" and self._precision != "fp32":
            self._precision = "fp32"
            reason = self._why_eager(self._home) or self._try()
        if reason is not None and self._has_channels_last():
            log.warning("%s runs eagerly, which is slower: %s", self, reason)
        if self._fast is not None and self._fast.notes:
            log.warning("%s could be faster. %s", self, " ".join(self._fast.notes))
        return reason

    def _try(self) -> str | None:
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        try:
            with torch.inference_mode(), torch.autocast("cpu", enabled=False):
                self._fast = tried(self._channels_last(dtype), self._run_eagerly, self.mel.n_mels, dtype)
        except (EngineUnavailable, RuntimeError) as error:
            return str(error).partition("\n")[0]
        if self._reload is not None:
            self._model = None  # its weights are in the engine, packed
        return None

    def _move(self, device: torch.device) -> None:
        self.model.to(device)

    def to(self, device: torch.device | str) -> Self:
        super().to(device)
        with self._turn:
            if self.device != self._home:
                self._home, self._fast, self._passed_over = self.device, None, None
                self._precision = self._chosen_precision(self.device)
                self._accelerate()
        return self

    def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
        if mel.device.type == "cpu" and self._home.type == "cpu":
            fast = self._prepared()
            if fast is not None:
                left, right = self._context
                inner = fast.run(mel, left, right)
                return F.pad(inner, (left * self.hop_length, right * self.hop_length))
        failure = None
        if self._accelerated is not None and mel.device == self._home:
            try:
                return self._accelerated(mel)
            except RuntimeError as error:
                if self._engine == CUDA or is_out_of_memory(error):
                    raise
                failure = on_one_line(error, 300)
        # A call that fell back to the CPU for lack of memory may have no half precision there, and computes in fp32.
        missing = mel.device.type == "cpu" and self._why_not_on_cpu(self.precision, self._engine)
        half = None if missing else _AUTOCAST.get(self.precision)
        with torch.autocast(mel.device.type, dtype=half, enabled=half is not None):
            wave = self._run_eagerly(mel).float()
        if failure is not None:  # of the engine, and not of the device: there the eager one works
            self._give_up_acceleration(failure)
        return wave

    def _flow(self) -> Flow | None:
        if type(self)._vocode is not ModuleVocoder._vocode:  # it does something more, of which a flow knows nothing
            return None
        fast = self._ready()
        return None if fast is None or fast.flow is None else _EngineFlow(self, fast, fast.flow())

    def _run_eagerly(self, mel: torch.Tensor) -> torch.Tensor:
        """[B, n_mels, T] -> [B, T * hop_length], by the module itself."""
        model = self.model
        wave: torch.Tensor = model(mel)
        check_returned(type(model).__name__, wave, mel, (mel.shape[0], 1, mel.shape[2] * self.hop_length))
        return wave[:, 0]

    def report(self) -> EngineReport:
        """Which engine runs, where, in what precision, and why not a faster one; makes the engine ready.

        Once the channels-last engine is, it waits for no run of another thread.
        """
        fast = self._ready()
        notes = [f"precision={self._asked!r} is {self.precision} here."] if self._asked != self.precision else []
        name = EAGER
        if self._accelerated is not None:
            name = CUDA
            notes += self._accelerated.notes
        elif fast is not None:
            name = CHANNELS_LAST
            notes += fast.notes
        elif (self._home.type == "cpu" and self._has_channels_last()) or (self._home.type == "cuda" and self._has_cuda):
            reason = "engine='eager' was asked for" if self._engine == EAGER else self._passed_over
            faster = CUDA if self._home.type == "cuda" else CHANNELS_LAST
            notes.append(f"The faster engine, {faster}, does not run: {reason}.")
        return EngineReport(name, str(self.device), self.precision, tuple(notes))


class _EngineFlow:
    """As `Flow`, for as long as the vocoder has this engine."""

    def __init__(self, vocoder: ModuleVocoder, fast: Fast, flow: Flow) -> None:
        self._vocoder, self._fast, self._flow = vocoder, fast, flow

    def __call__(self, mel: torch.Tensor, last: bool) -> torch.Tensor | None:
        if self._vocoder._fast is not self._fast or mel.device.type != "cpu":
            return None
        return self._flow(mel, last)


def _check_runs_on(engine: str, kind: str) -> None:
    if engine == CUDA and kind != "cuda":
        raise EngineError(f"engine='cuda' cannot run on {kind}. engine='auto' runs what can.")
