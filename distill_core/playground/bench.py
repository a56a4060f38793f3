"""Where the work is done: vocoders loaded and kept, a sound or a mel sent through one, and what came of it.

No user interface here: a `Job` is told how far it is, an `Outcome` says what there is to hear and see.
"""

from __future__ import annotations

import gc
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DistillError, InvalidAudioError, InvalidMelError
from ..mel import MelSpec
from .choices import Choice, megabytes
from .jobs import Job, Turn

if TYPE_CHECKING:
    import torch

    from ..pictures import Colours, Spectrogram
    from ..registry import Registry
    from ..report import EngineReport
    from ..vocoder import VocoderBase

log = logging.getLogger(__name__)

MAX_SECONDS = 3600
"""Longer sounds belong to `distill-vocoder vocode`: here everything is held in memory, three times over."""


@dataclass(frozen=True)
class Loaded:
    """A vocoder ready to run.

    Args:
        vocoder: as chosen: with its adapter and resampler.
        seconds: what loading took this time; 0 if it was kept from before.
    """

    vocoder: VocoderBase
    seconds: float


@dataclass(frozen=True)
class Picture:
    """A spectrogram with what to write above it."""

    spectrogram: Spectrogram
    title: str
    colours: Colours
    note: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a run made.

    Args:
        source: name of the file that went in.
        result: the sound that came out, [channels, samples], and its rate in Hz.
        reference: the sound that went in, likewise; None for a mel.
        pictures: of the reference, of the result, of their difference.
        apart: mean of the difference, in dB, regardless of sign.
        elapsed: seconds that analysing and vocoding took.
        report: which engine ran.
        mel: the format that was in between.
        remarks: what else a person should know.
    """

    source: str
    result: tuple[torch.Tensor, int]
    reference: tuple[torch.Tensor, int] | None
    pictures: tuple[Picture, Picture, Picture]
    apart: float
    elapsed: float
    report: EngineReport
    mel: MelSpec
    remarks: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Of sound made."""
        return self.result[0].shape[-1] / self.result[1]

    @property
    def times_real_time(self) -> float:
        return self.seconds / self.elapsed


class Bench:
    """Loaded vocoders, the last few of them, and one turn for all who want to compute.

    Args:
        registry: where vocoders come from.
        keep: how many stay loaded; the one that was not used for longest goes first.
    """

    def __init__(self, registry: Registry, *, keep: int = 2) -> None:
        self.registry = registry
        self.keep = max(1, keep)
        self.turn = Turn()
        self._kept: OrderedDict[tuple[str, ...], VocoderBase] = OrderedDict()

    def load(self, choice: Choice, job: Job) -> Loaded:
        """The vocoder that was chosen, its weights downloaded first if need be. Call it in your turn.

        Raises:
            DistillError: as `registry.get`.
        """
        from ..adapted import AdaptedVocoder
        from ..device import select_device
        from ..weights import ensure

        name = self.registry.resolve(choice.vocoder).name
        card = self.registry.card(name)
        variant = card.variant(choice.variant)
        source = MelSpec.preset(choice.mel) if choice.mel else None
        job.stage(f"Preparing {name}")
        device = str(select_device(choice.device, among=card.devices))
        key = (name, variant.name, device, choice.precision)
        began = time.perf_counter()
        seconds = 0.0
        vocoder = self._kept.get(key)
        if vocoder is None:
            if variant.weights is not None:
                size = f", {megabytes(variant.weights.size)}" if variant.weights.size else ""
                ensure(variant.weights, tqdm_class=job.tqdm_class(f"Downloading {name} {variant.name}{size}"))
                began = time.perf_counter()
            job.stage(f"Loading {name} {variant.name}")
            self._make_room()
            vocoder = self.registry.get(name, variant=variant.name, device=device, precision=choice.precision)
            vocoder.report()  # makes the engine ready: part of loading, not of the first sound's speed
            seconds = time.perf_counter() - began
            self._kept[key] = vocoder
        self._kept.move_to_end(key)
        return Loaded(AdaptedVocoder.around(vocoder, mel=source, sample_rate=choice.sample_rate), seconds)

    def _make_room(self) -> None:
        while len(self._kept) >= self.keep:
            (name, *_), gone = self._kept.popitem(last=False)
            self.registry.unload(name)  # of this name the registry forgets all; what is kept here lives on
            del gone
            gc.collect()


def check_sound(path: str | None) -> None:
    """See that there is a sound, before anything is downloaded or loaded for it.

    Raises:
        DistillError: there is none, the file is none, or it is too long.
    """
    from ..audio import for_libsndfile, read_audio

    if not path:
        raise InvalidAudioError("There is no sound yet: drop a file, record one, or press an example.")
    with _named(Path(path)):
        read_audio(path, max_seconds=1)
        import soundfile

        header = soundfile.info(for_libsndfile(path))
        _check_seconds(header.frames / header.samplerate, Path(path))


def check_mel(path: str | None) -> None:
    """See that there is a mel, before anything is downloaded or loaded for it.

    Raises:
        DistillError: there is none, or the file holds none.
    """
    from ..mel_files import FORMATS, read_mel

    if not path:
        raise InvalidMelError(f"There is no mel yet: drop a file, {', '.join(FORMATS)}.")
    with _named(Path(path)):
        read_mel(path)


def vocode_sound(path: Path, vocoder: VocoderBase, job: Job) -> Outcome:
    """A sound to a mel and back, and both to look at.

    Raises:
        DistillError: the file is no sound, is too long, or cannot be analysed; the message names no folder.
    """
    from .. import pictures
    from ..audio import read_audio
    from ..resynthesis import resynthesize

    with _named(path):
        job.stage("Reading the sound")
        wave, rate = read_audio(path)
        job.stage("Vocoding")
        began = time.perf_counter()
        result = resynthesize(wave, rate, vocoder, progress=job.frames).cpu()
        elapsed = time.perf_counter() - began
        job.stage("Drawing")
        top = max(rate, vocoder.sample_rate) / 2
        before = pictures.spectrogram(wave, rate, top=top)
        after = pictures.spectrogram(result, vocoder.sample_rate, top=top, columns=before.level.shape[1])
    return Outcome(
        path.name,
        (result, vocoder.sample_rate),
        (wave, rate),
        *_compared(before, after, "Reference", f"{rate:,} Hz", f"{vocoder.sample_rate:,} Hz"),
        elapsed,
        vocoder.report(),
        vocoder.mel,
    )


def vocode_mel(path: Path, vocoder: VocoderBase, job: Job) -> Outcome:
    """A mel from a file to sound; its picture, and that of the mel which the sound has in the same format.

    Raises:
        DistillError: the file holds no mel, or not one for this vocoder; the message names no folder.
    """
    from .. import pictures
    from ..mel_files import read_mel
    from ..resample import resample

    spec = vocoder.mel
    remarks: tuple[str, ...] = ()
    with _named(path):
        job.stage("Reading the mel")
        mel = read_mel(path)
        if mel.dim() == 4 and mel.shape[1] == 1:
            mel = mel[:, 0]
        if mel.dim() == 3 and mel.shape[0] > 1:
            remarks = (f"The file holds {mel.shape[0]} mels; this is the first.",)
            mel = mel[:1]
        frames = mel.shape[-1] if mel.dim() else 0
        _check_seconds(frames * spec.hop_length / spec.sample_rate, path)
        job.stage("Vocoding")
        began = time.perf_counter()
        result = vocoder.mel_to_waveform(mel, progress=job.frames)[0].cpu()
        elapsed = time.perf_counter() - began
    job.stage("Drawing")
    before = pictures.mel_picture(mel[0], spec)
    heard = resample(result, vocoder.sample_rate, spec.sample_rate)
    short = spec.n_fft + 1 - heard.shape[-1]
    if short > 0:
        import torch

        heard = torch.nn.functional.pad(heard, (0, short))
    after = pictures.mel_picture(spec.analyze(heard)[0], spec, columns=before.level.shape[1])
    return Outcome(
        path.name,
        (result, vocoder.sample_rate),
        None,
        *_compared(before, after, "Mel", f"{spec.n_mels} bands, {frames} frames", "the same bands"),
        elapsed,
        vocoder.report(),
        spec,
        remarks,
    )


def _compared(
    before: Spectrogram, after: Spectrogram, title: str, note: str, other_note: str
) -> tuple[tuple[Picture, Picture, Picture], float]:
    import numpy as np

    from .. import pictures

    colours = pictures.levels_for(before, after)
    between = pictures.difference(after, before, floor=colours.low)
    return (
        Picture(before, title, colours, note),
        Picture(after, "Result", colours, other_note),
        Picture(between, "Difference", pictures.DIFFERENCE, "result minus reference"),
    ), float(np.abs(between.level).mean())


def _check_seconds(seconds: float, path: Path) -> None:
    if seconds > MAX_SECONDS:
        raise InvalidAudioError(
            f"{path}: lasts {seconds / 60:.0f} minutes; here {MAX_SECONDS // 60} are the limit. "
            "distill-vocoder vocode does sounds of any length."
        )


class _named:
    """Errors about a file call it by its name: the folder is the server's, and means nothing to people."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, DistillError) and str(self.path) in str(error):
            error.args = (str(error).replace(str(self.path), self.path.name), *error.args[1:])
