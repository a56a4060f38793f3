"""The vocoder under test: found, loaded and fed the way a user of the registry would."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from ..activation import import_factory
from ..card import Variant, VocoderCard
from ..discovery import Candidate, Discovery
from ..errors import PluginError
from ..registry import Registry
from ..registry import registry as process_registry
from .checks import ConformanceError, NotApplicable

if TYPE_CHECKING:
    import torch

    from ..vocoder import VocoderBase

# Two ways to the same waveform may round differently: largest difference allowed, relative to the peak.
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 5e-2}
_WHOLE = 1 << 30
NOISE_OF_THE_MEL = (
    "A frame's noise has to follow from its mel alone: see 'A model that needs noise' in docs/plugins.md. One buffer "
    "of hop_length samples for every frame would do, but buzzes."
)
"""What to do about noise: drawn for each call, if with one seed, a frame's would depend on the chunk it is in."""
_SEED = 20250117  # no model's favourite: seeding again with the same number would not show


@dataclass(frozen=True)
class Trace:
    """What was done to the process meanwhile, which is the program's own.

    Args:
        doing: "Importing …", "Loading it" or "Running it".
        printed: to stdout, whichever way it went there.
        changed: torch's settings, each as `name from old to new`.
        random: what was done to torch's global random numbers: "seeds", "draws from" or nothing.
    """

    doing: str
    printed: str
    changed: tuple[str, ...]
    random: str


class Subject:
    """A vocoder by name, and what it takes to load it.

    Args:
        name: the vocoder's name, or "auto".
        registry: where to look for it; by default the process-wide registry.
        **arguments: for `registry.get`, such as `variant=`, `weights=`; `weights` may be a function that
            makes them. The device is the CPU unless `device=` says otherwise.
    """

    def __init__(self, name: str, registry: Registry | None = None, **arguments: Any) -> None:
        self.registry = process_registry if registry is None else registry
        self.name = self.registry.resolve(name).name if name == "auto" else name
        self._arguments = {"device": "cpu", **arguments}
        self.traces: list[Trace] = []
        self._vocoder: VocoderBase | None = None
        self._error: BaseException | None = None

    # What it says about itself

    @cached_property
    def candidate(self) -> Candidate:
        return self.registry.candidate(self.name)

    @cached_property
    def card(self) -> VocoderCard:
        return self.registry.card(self.name)

    @property
    def known_card(self) -> VocoderCard:
        """The card; where there is none, that is said by one check and the others do not apply."""
        try:
            return self.card
        except Exception as error:
            raise NotApplicable(f"there is no card: {error}") from error

    @property
    def variant(self) -> Variant:
        return self.known_card.variant(self._arguments.get("variant"))

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """What `get` is called with."""
        weights = self._arguments.get("weights")
        return {**self._arguments, "weights": weights() if callable(weights) else weights}

    # Loading

    @cached_property
    def factory(self) -> Any:
        """What the card names, imported as the first step of loading.

        Raises:
            PluginBrokenError: it cannot be imported or is not callable.
        """
        with self._traced(f"Importing {self.card.factory.partition(':')[0]}"):
            return import_factory(self.candidate, self.card)

    def load(self, **changes: Any) -> VocoderBase:
        """Load it anew, by a registry of its own, which knows nothing but this plug-in."""
        only = Registry(find=lambda: Discovery((self.candidate,)), environ={})
        if self.candidate.plugin is not None:
            only = Registry(find=Discovery, environ={})
            only.register(self.candidate.plugin)
        return only.get(self.name, **{**self.arguments, **changes})

    def load_once(self) -> VocoderBase:
        """The vocoder that most checks share.

        Raises:
            Exception: whatever loading it raised, the first time and every time.
        """
        if self._error is not None:
            raise self._error
        if self._vocoder is None:
            try:
                self.arguments  # noqa: B018  # weights are made by the tests, not by the vocoder
                self.factory  # noqa: B018
                with self._traced("Loading it"):
                    self._vocoder = self.load()
            except BaseException as error:
                self._error = error
                raise
        return self._vocoder

    @property
    def vocoder(self) -> VocoderBase:
        """The vocoder; where it does not load, that is said by one check and the others do not apply."""
        self.known_card  # noqa: B018
        try:
            return self.load_once()
        except Exception as error:
            raise NotApplicable(f"it did not load: {error}") from error

    # Running

    @cached_property
    def trials(self) -> dict[str, torch.Tensor | Exception]:
        """What it makes of a few frames of noise and of silence and of `reference`, or why it makes nothing."""
        short = self.mel(1, 4)
        silence = short.new_full(short.shape, self.vocoder.mel.silence)
        with self._traced("Running it"):  # the first run: a setting that is changed once is the same afterwards
            return {
                "noise": _tried(lambda: self.whole(short)),
                "silence": _tried(lambda: self.whole(silence)),
                "a longer noise": _tried(lambda: self.reference[1]),
            }

    @contextlib.contextmanager
    def _traced(self, doing: str) -> Iterator[None]:
        before = torch_settings()
        with caught_stdout() as printed, watched_random_numbers() as done:
            yield
            random = done()
        after = torch_settings()
        changed = [f"{name} from {old} to {after[name]}" for name, old in before.items() if old != after[name]]
        self.traces.append(Trace(doing, "".join(printed), tuple(changed), random))

    @property
    def crash(self) -> Exception | None:
        """What vocoding noise ended in, where it was not stopped for NaN or infinity."""
        made = (self.trials["noise"], self.trials["a longer noise"])
        return next((each for each in made if isinstance(each, Exception) and not not_finite(each)), None)

    @property
    def running(self) -> VocoderBase:
        """The vocoder; where it makes no sound of noise, `shapes` or `finite` says so and the others do not apply."""
        vocoder = self.vocoder
        if self.crash is not None:
            raise NotApplicable(f"it does not run ({type(self.crash).__name__})")
        if not_finite(self.trials["noise"]) or not_finite(self.trials["a longer noise"]):
            raise NotApplicable("the output is not finite")
        return vocoder

    @property
    def tolerance(self) -> float:
        return TOLERANCE.get(self.vocoder.precision, TOLERANCE["bf16"])

    def mel(self, batch: int = 1, frames: int = 4, seed: int = 0) -> torch.Tensor:
        """A mel [batch, n_mels, frames] in the vocoder's format: of noise that swells and fades."""
        return noise_mel(self.vocoder.mel, batch, frames, seed)

    @contextlib.contextmanager
    def chunks_of(self, frames: int) -> Iterator[VocoderBase]:
        """The vocoder with another chunk size, put back at the end."""
        vocoder = self.vocoder
        before = vocoder.chunk_frames
        vocoder.chunk_frames = frames
        try:
            yield vocoder
        finally:
            vocoder.chunk_frames = before

    def whole(self, mel: torch.Tensor) -> torch.Tensor:
        """The waveform of all frames at once."""
        with self.chunks_of(_WHOLE) as vocoder:
            return vocoder.mel_to_waveform(mel)

    @cached_property
    def reference(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A mel of 2 * halo + 5 frames and its waveform, computed at once.

        The shortest mel in which two halves, each with its halo, do not see all of it. Computed once, as
        long mels are what costs time.
        """
        mel = self.mel(1, 2 * self.vocoder.halo + 5, seed=1)
        return mel, self.whole(mel)

    def require_same(self, got: torch.Tensor, want: torch.Tensor, what: str, advice: str) -> None:
        """Fail unless two waveforms agree within the precision's rounding."""
        if got.shape != want.shape:
            raise ConformanceError(f"{what}: {list(got.shape)} instead of {list(want.shape)} samples. {advice}")
        error = difference(got, want)
        if not error <= self.tolerance:
            raise ConformanceError(f"{what} differs by {error:.1e} of the peak (allowed: {self.tolerance:g}). {advice}")


def _tried(run: Callable[[], torch.Tensor]) -> torch.Tensor | Exception:
    try:
        return run()
    except Exception as error:
        return error


def not_finite(made: torch.Tensor | Exception) -> bool:
    """Whether a vocoder made NaN or infinity, or would have and was stopped by `VocoderBase`."""
    if isinstance(made, Exception):
        return isinstance(made, PluginError) and "NaN or infinity" in str(made)
    return not bool(made.isfinite().all())


@contextlib.contextmanager
def caught_stdout() -> Iterator[list[str]]:
    """Gives what has been printed meanwhile, once it is over: by Python, by compiled code or by a program started."""
    said: list[str] = []
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream), tempfile.TemporaryFile() as file:
        try:
            kept = os.dup(1)
        except OSError:  # the process has no stdout
            kept = None
        else:
            with contextlib.suppress(AttributeError, OSError, ValueError):  # it is None, broken or closed
                sys.__stdout__.flush()  # type: ignore[union-attr]
            os.dup2(file.fileno(), 1)
        try:
            yield said
        finally:
            if kept is not None:
                os.dup2(kept, 1)
                os.close(kept)
            file.seek(0)
            said += [stream.getvalue(), file.read().decode(errors="replace")]


@contextlib.contextmanager
def watched_random_numbers() -> Iterator[Callable[[], str]]:
    """Gives what says what has been done to torch's global random numbers: "seeds", "draws from" or nothing.

    At the end they are as they were before.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        generator = torch.default_generator.manual_seed(_SEED)
        before = generator.get_state()

        def done() -> str:
            if generator.initial_seed() != _SEED:
                return "seeds"
            return "" if torch.equal(generator.get_state(), before) else "draws from"

        yield done


def noise_mel(spec: Any, batch: int, frames: int, seed: int) -> torch.Tensor:
    """A mel [batch, n_mels, frames] of noise whose level changes from frame to frame."""
    import torch

    generator = torch.Generator().manual_seed(1000 + seed)
    hop = spec.hop_length
    blocks = frames + 2 * (spec.n_fft // hop + 2)
    level = 10 ** (-2 * torch.rand(batch, blocks, 1, generator=generator))
    # Quiet: loud noise in every band is taken for a mel of another format, and rightly so.
    noise = (0.02 * level * torch.randn(batch, blocks, hop, generator=generator)).flatten(1)
    mel: torch.Tensor = spec.analyze(noise)
    start = (mel.shape[-1] - frames) // 2
    return mel[..., start : start + frames].contiguous()


def difference(got: torch.Tensor, want: torch.Tensor) -> float:
    """The largest difference, relative to the peak of `want`; not a number where either is not finite."""
    peak = want.abs().max().clamp_min(1e-12)
    return ((got.to(want.device) - want).abs().max() / peak).item()


def torch_settings() -> dict[str, Any]:
    """The settings of the process that a guest must not change."""
    import torch

    return {
        "torch.get_default_dtype()": torch.get_default_dtype(),
        "torch.get_default_device()": torch.get_default_device(),
        "torch.is_grad_enabled()": torch.is_grad_enabled(),
        "torch.is_inference_mode_enabled()": torch.is_inference_mode_enabled(),
        "torch.get_num_threads()": torch.get_num_threads(),
        **_precisions(),
        "torch.are_deterministic_algorithms_enabled()": torch.are_deterministic_algorithms_enabled(),
        "torch.backends.mkldnn.enabled": torch.backends.mkldnn.enabled,
        "torch.backends.cudnn.benchmark": torch.backends.cudnn.benchmark,
        "torch.backends.cudnn.deterministic": torch.backends.cudnn.deterministic,
    }


def _precisions() -> dict[str, Any]:
    """Torch's settings of what fp32 may be computed in."""
    import torch

    settings = {}
    for name in ("cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn"):
        with contextlib.suppress(AttributeError):  # an older torch
            found = attrgetter(f"{name}.fp32_precision")(torch.backends)
            settings[f"torch.backends.{name}.fp32_precision"] = "ieee" if found == "none" else found  # mean the same
    # Once one of these was set, torch may refuse to say what the older setting is; whoever sets that one sets these.
    return settings or {"torch.get_float32_matmul_precision()": torch.get_float32_matmul_precision()}
