"""Vocoders that each break one promise of the contract, and one that breaks none."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from types import SimpleNamespace

import torch

from distill_core import Registry, Variant, VocoderBase, VocoderCard, hookimpl
from distill_core.discovery import Discovery
from distill_core.report import EngineReport
from distill_core.weights import check_state_dict, load_checkpoint
from tests import toy
from tests.toy import HALO, MEL, ToyVocoder


class Conforming(ToyVocoder):
    """Keeps every promise."""


def load(card, variant, *, device, precision, weights=None, chunk_frames=None) -> ToyVocoder:
    """A factory as it should be, for the class that the card's name stands for."""
    checkpoint = None if weights is None else load_checkpoint(weights)
    if checkpoint is not None:
        variant = variant.with_config(checkpoint.config, own=True)
    vocoder = made(PLANTS[card.name], variant, device=device, precision=precision, chunk_frames=chunk_frames)
    if checkpoint is not None:
        put_into(vocoder, checkpoint.state_dict)
    return vocoder


def made(kind: Callable[..., ToyVocoder], variant: Variant, **arguments) -> ToyVocoder:
    """A vocoder, made without a draw from the program's random numbers."""
    with torch.random.fork_rng(devices=[]):
        return kind(variant, **arguments)


def put_into(vocoder: ToyVocoder, state: dict[str, torch.Tensor]) -> None:
    check_state_dict(state, {name: value.shape for name, value in vocoder.model.state_dict().items()}, "the toy")
    vocoder.model.load_state_dict(state)


class Relabelled(ToyVocoder):
    """Loads another variant than was asked for."""

    def __init__(self, variant: Variant, **arguments) -> None:
        super().__init__(Variant("something else", MEL, MEL.sample_rate), **arguments)


class ElsewhereReport(ToyVocoder):
    def report(self) -> EngineReport:
        return EngineReport("eager", "cuda:0", self.precision)


class Chatty(ToyVocoder):
    def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
        print("vocoding ...")
        return super()._vocode(mel)


class ChattyBelow(ToyVocoder):
    """Prints past Python, as compiled code and started programs do."""

    def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
        os.write(1, b"vocoding ...")
        return super()._vocode(mel)


class ChattyLoading(ToyVocoder):
    def __init__(self, *args, **arguments) -> None:
        super().__init__(*args, **arguments)
        print("Loading checkpoint ...")


class GlobalSettings(ToyVocoder):
    def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
        torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
        return super()._vocode(mel)


class GlobalSettingOnce(ToyVocoder):
    """Changes a setting with the first call; the next one finds it as it wants it."""

    def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
        torch.backends.cudnn.deterministic = True
        return super()._vocode(mel)


class GlobalNoise(ToyVocoder):
    """Seeds the process to be deterministic itself."""

    def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        return super()._vocode(mel)


class GlobalDraw(ToyVocoder):
    def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
        return super()._vocode(mel) + 0 * torch.rand(1)


class AutoPrecision(ToyVocoder):
    """Repeats what it was asked for instead of choosing."""

    precision = property(lambda self: self._asked)


class AlwaysAuto(ToyVocoder):
    """Says how it was chosen, and not what."""

    precision = "auto"


class FullForHalf(ToyVocoder):
    """Has no bf16, and does not say so."""

    def __init__(self, *args, precision: str, **arguments) -> None:
        super().__init__(*args, precision="fp32" if precision == "bf16" else precision, **arguments)


class HalfOverflows(ToyVocoder):
    def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
        return super()._vocode(mel) / (self.precision == "fp32")


class NotANumber(ToyVocoder):
    def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
        return super()._vocode(mel) * float("nan")


class NotANumberUnchecked(ToyVocoder):
    """The same, of one that does without the base class's check."""

    def mel_to_waveform(self, mel, **arguments):
        return super().mel_to_waveform(mel, **arguments) * float("nan")


class DividesBySilence(ToyVocoder):
    """Scales by what a mel of silence has none of."""

    def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
        return super()._vocode(mel) * ((mel - MEL.silence) / (mel - MEL.silence)).mean()


class FailsOnSilence(ToyVocoder):
    def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
        if not (mel != MEL.silence).any():
            raise IndexError("no voiced frame")
        return super()._vocode(mel)


class TwoChannels(ToyVocoder):
    def _run_eagerly(self, mel: torch.Tensor) -> torch.Tensor:
        return super()._run_eagerly(mel)[:, None].expand(-1, 2, -1)


class Crashes(ToyVocoder):
    def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x5 and 7x16)")


class SixteenBit(ToyVocoder):
    def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
        return super()._vocode(mel) * 32767


class NoiseByPosition(ToyVocoder):
    """Draws the same noise at each call, so that it depends on where a chunk begins."""

    def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
        wave = super()._vocode(mel)
        return wave + 0.01 * torch.randn(wave.shape, generator=torch.Generator().manual_seed(0)).to(wave.device)


class NoiseOfTheMel(ToyVocoder):
    """As docs/plugins.md says how to."""

    def __init__(self, *args, **arguments) -> None:
        super().__init__(*args, **arguments)
        draw = torch.Generator().manual_seed(0)
        for name, size in (("looks", toy.MEL.n_mels), ("bank", toy.MEL.hop_length)):
            numbers = torch.randn(64, size, generator=draw).to(self.device)
            self.model.register_buffer(name, numbers, persistent=False)

    def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
        noise = torch.cos(self.model.looks @ mel).mT @ self.model.bank
        return super()._vocode(mel) + 0.01 * noise.flatten(1)


class Unseeded(ToyVocoder):
    """Whose weights are a little different at each load."""

    count = 0

    def __init__(self, *args, **arguments) -> None:
        super().__init__(*args, **arguments)
        Unseeded.count += 1
        draw = torch.Generator().manual_seed(Unseeded.count)
        with torch.no_grad():
            self.model.conv.weight.add_(0.01 * torch.randn(self.model.conv.weight.shape, generator=draw))


class Motionless(ToyVocoder):
    """Keeps its module under another name."""

    def _move(self, device: torch.device) -> None:
        VocoderBase._move(SimpleNamespace(), device)


class MovesWhatIsNotThere(ToyVocoder):
    def _move(self, device: torch.device) -> None:
        self.generator.to(device)


class HalfFails(ToyVocoder):
    def __init__(self, variant: Variant, *, precision: str = "fp32", **arguments) -> None:
        if precision == "bf16":
            raise RuntimeError("not implemented for 'BFloat16'")
        super().__init__(variant, precision=precision, **arguments)


class LosesAFrame(ToyVocoder):
    """Like a transposed convolution with too much padding."""

    def mel_to_waveform(self, mel, **arguments):
        return super().mel_to_waveform(mel, **arguments)[..., : -self.hop_length]


class DoubleOut(ToyVocoder):
    def mel_to_waveform(self, mel, **arguments):
        return super().mel_to_waveform(mel, **arguments).to(getattr(mel, "dtype", torch.float32))


class Overflows(ToyVocoder):
    def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
        return super()._vocode(mel) * (mel - MEL.silence).mul(200).mean().exp()


class IgnoresTheMel(ToyVocoder):
    def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
        return torch.ones(mel.shape[0], mel.shape[2] * self.hop_length)


class NormalisesOverTime(ToyVocoder):
    """Makes its own mel loud: by the loudest frame of what it happens to see."""

    def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
        return super()._vocode(mel - mel.amax(dim=(1, 2), keepdim=True))


class StreamsInPieces(ToyVocoder):
    """Vocodes each piece for itself."""

    def stream(self, mels, *, check_format=True):
        for mel in mels:
            yield self.mel_to_waveform(mel)


class StreamsLate(ToyVocoder):
    """Waits for everything."""

    def stream(self, mels, *, check_format=True):
        yield self.mel_to_waveform(torch.cat(list(mels), dim=-1))


class StreamsWithoutArguments(ToyVocoder):
    """Overrides stream, and not with the arguments it has."""

    def stream(self, mels):
        return super().stream(mels)


class RunsWithoutArguments(ToyVocoder):
    def mel_to_waveform(self, mel, *, lengths=None):
        return super().mel_to_waveform(mel, lengths=lengths)


class MixesRows(ToyVocoder):
    def mel_to_waveform(self, mel, *, lengths=None, progress=False, check_format=True):
        wave = super().mel_to_waveform(mel, lengths=lengths, progress=progress)
        return wave if lengths is None else wave + 0.1 * wave.roll(1, dims=0)


class MixesRowsOfOneRun(ToyVocoder):
    """Like a reshape that takes the batch for something else: a single row comes out right."""

    def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
        wave = super()._vocode(mel)
        return wave + 0.1 * (wave.mean(dim=0) - wave)


class ForgetsPadding(ToyVocoder):
    """Runs a padded batch as if it were full, which leaves sound after the ends."""

    def mel_to_waveform(self, mel, *, lengths=None, progress=False, check_format=True):
        if lengths is not None:
            super().mel_to_waveform(mel, lengths=lengths)  # the checks
            mel = torch.nan_to_num(mel, nan=MEL.silence)
        return super().mel_to_waveform(mel, progress=progress)


class HaloTooSmall(ToyVocoder):
    def __init__(self, *args, **arguments) -> None:
        super().__init__(*args, **arguments)
        self._halo = HALO - 1


class HaloForNothing(ToyVocoder):
    """A model that looks at one frame at a time, and claims context all the same."""

    def __init__(self, *args, **arguments) -> None:
        super().__init__(*args, **arguments)
        with torch.no_grad():
            kernel = self.model.conv.weight
            kernel[..., :HALO] = 0
            kernel[..., HALO + 1 :] = 0


class TakesAnything(ToyVocoder):
    """Replaces NaN by silence, to be helpful."""

    def mel_to_waveform(self, mel, **arguments):
        if isinstance(mel, torch.Tensor) and mel.is_floating_point() and arguments.get("lengths") is None:
            mel = torch.nan_to_num(mel, nan=MEL.silence)
        return super().mel_to_waveform(mel, **arguments)


class BareErrors(ToyVocoder):
    """Checks nothing, and lets torch complain."""

    def mel_to_waveform(self, mel, *, lengths=None, progress=False, check_format=True):
        if lengths is not None:
            return super().mel_to_waveform(mel, lengths=lengths)
        return super().mel_to_waveform(mel.reshape(mel.shape[0], MEL.n_mels, -1))


class CarriesState(ToyVocoder):
    """Cross-fades into what it made before."""

    last = None

    def mel_to_waveform(self, mel, **arguments):
        wave = super().mel_to_waveform(mel, **arguments)
        if self.last is not None:
            wave[..., :8] += 0.1 * self.last
        self.last = wave[:1, :, -8:].clone()
        return wave


class Hoards(ToyVocoder):
    """Keeps what it made, for looking at later."""

    def __init__(self, *args, **arguments) -> None:
        super().__init__(*args, **arguments)
        self.made: list[torch.Tensor] = []

    def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
        self.made.append(super()._vocode(mel))
        return self.made[-1]


class TrainingMode(ToyVocoder):
    def __init__(self, *args, **arguments) -> None:
        super().__init__(*args, **arguments)
        self.model.train()


class KeepsTheGraph(ToyVocoder):
    def _compute(self, mel: torch.Tensor, context: tuple[int, int] = (0, 0)) -> torch.Tensor:
        with self._turn:
            self.model.requires_grad_(True)
            return self._vocode(mel.float())


class ChangesTheMel(ToyVocoder):
    def mel_to_waveform(self, mel, **arguments):
        wave = super().mel_to_waveform(mel, **arguments)
        with torch.no_grad():
            mel.sub_(0.1)
        return wave


class ScratchOnSelf(ToyVocoder):
    """Keeps the mel of the call on the object."""

    def mel_to_waveform(self, mel, **arguments):
        self.current = mel
        time.sleep(0.002)
        return super().mel_to_waveform(self.current, **arguments)


class ToReturnsNothing(ToyVocoder):
    def to(self, device):
        super().to(device)


class ToBelievesAnything(ToyVocoder):
    def to(self, device):
        return self


class LeavesATensor(ToyVocoder):
    """A constant of the model that `module.to` does not know of."""

    def __init__(self, *args, **arguments) -> None:
        super().__init__(*args, **arguments)
        self.model.gain = torch.ones(1)


class WornByMoving(ToyVocoder):
    def to(self, device):
        with torch.no_grad():
            self.model.conv.bias += 0.1 * (device == "cpu")
        return super().to(device)


PLANTS: dict[str, Callable[..., ToyVocoder]] = {
    each.__name__: each for each in [Conforming, *ToyVocoder.__subclasses__()]
}


def load_ignoring_weights(card, variant, *, device, precision, weights=None):
    return made(ToyVocoder, variant, device=device, precision=precision)


def load_ignoring_config(card, variant, *, device, precision, weights=None):
    vocoder = made(ToyVocoder, variant, device=device, precision=precision)
    if weights is not None:
        put_into(vocoder, load_checkpoint(weights).state_dict)
    return vocoder


def load_letting_torch_complain(card, variant, *, device, precision, weights=None):
    vocoder = made(ToyVocoder, variant, device=device, precision=precision)
    if weights is not None:
        vocoder.model.load_state_dict(weights)
    return vocoder


def load_with_any_option(card, variant, *, device, precision, weights=None, **options):
    return load(SimpleNamespace(name="Conforming"), variant, device=device, precision=precision, weights=weights)


def load_by_position(card, variant, device):
    return made(ToyVocoder, variant, device=device)


def load_ignoring_precision(card, variant, *, device, precision, weights=None):
    arguments = {"device": device, "precision": "fp32", "weights": weights}
    return load(SimpleNamespace(name="Conforming"), variant, **arguments)


def load_seeding(card, variant, *, device, precision, weights=None):
    torch.manual_seed(0)
    return load(card, variant, device=device, precision=precision, weights=weights)


def load_drawing(card, variant, *, device, precision, weights=None):
    torch.nn.Linear(1, 1)
    return load(card, variant, device=device, precision=precision, weights=weights)


def registry_of(name: str, **changes) -> Registry:
    """A registry that knows one planted vocoder; the plug-in is registered as a module would be."""
    card = toy.card(name, **{"factory": "tests.testing_kit.planted:load", **changes})

    @hookimpl
    def distill_vocoders() -> list[VocoderCard]:
        return [card]

    registry = Registry(find=Discovery, environ={})
    registry.register(SimpleNamespace(distill_vocoders=distill_vocoders, __name__=f"planted.{name}"))
    return registry
