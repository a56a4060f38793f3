"""Compares vocoders on recordings: every file through every vocoder, and every metric of the result."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import DistillError, MissingDependencyError
from ..resynthesis import analyze
from . import references
from .choices import VocoderChoice, Vocoders, chosen
from .metrics import METRICS, Scorer, Scores, Speech, fitted, why_missing
from .packages import versions
from .references import Recording
from .summary import Summary, summarize

if TYPE_CHECKING:
    from ..vocoder import VocoderBase

log = logging.getLogger(__name__)

_WARM_UP_FRAMES = 64


@dataclass
class Column:
    """One vocoder of a comparison.

    Args:
        label: how it was named.
        vocoder: None if it could not be loaded.
        error: why.
    """

    label: str
    vocoder: VocoderBase | None = None
    error: str | None = None
    warm: bool = False

    def to_dict(self) -> dict[str, Any]:
        vocoder = self.vocoder
        if vocoder is None:
            return {"label": self.label, "error": self.error}
        return {
            "label": self.label,
            "variant": vocoder.variant.name,
            "sample_rate": vocoder.sample_rate,
            "parameters": vocoder.variant.parameters or None,
            "mel": vocoder.mel.describe(),
            "report": vocoder.report().to_dict(),
        }


@dataclass
class Result:
    """What one vocoder made of one file.

    Args:
        scores: None if it failed.
        error: why.
        wave: [samples] at `sample_rate`; kept for the first files only.
    """

    scores: Scores | None = None
    error: str | None = None
    seconds: float = 0.0
    wave: torch.Tensor | None = None
    sample_rate: int = 0

    def to_dict(self) -> dict[str, Any]:
        if self.scores is None:
            return {"error": self.error}
        return {
            "scores": dict(self.scores.values),
            "absent": dict(self.scores.absent),
            "computing_seconds": self.seconds,
        }


@dataclass
class Compared:
    """One reference and what became of it.

    Args:
        path: as it was found.
        name: as it is shown: without the folder that all files share.
        speech: whether it is speech; None if nobody can tell.
        error: why it could not be read.
        recording: kept for the first files only.
        results: by the vocoder's label.
    """

    path: Path
    name: str
    seconds: float = 0.0
    sample_rate: int = 0
    channels: int = 0
    whole: bool = True
    speech: bool | None = None
    error: str | None = None
    recording: Recording | None = None
    results: dict[str, Result] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        head = {"file": references.shown(str(self.path)), "name": self.name}
        if self.error is not None:
            return {**head, "error": self.error}
        return {
            **head,
            "seconds": self.seconds,
            "sample_rate": self.sample_rate,
            "channels": self.channels,
            "whole": self.whole,
            "speech": self.speech,
            "results": {label: result.to_dict() for label, result in self.results.items()},
        }


@dataclass
class Comparison:
    """The outcome of `compare`.

    Args:
        columns: the vocoders, as they were named.
        files: the references, in order.
        problems: names that mean no file, and why.
        missing: metrics that cannot be computed here, and why.
        max_seconds: as `compare` was told.
        speech: likewise.
    """

    columns: list[Column]
    files: list[Compared]
    problems: dict[str, str]
    missing: dict[str, str]
    max_seconds: float | None
    speech: Speech

    @property
    def labels(self) -> list[str]:
        """Of the vocoders that could be loaded."""
        return [column.label for column in self.columns if column.vocoder is not None]

    @property
    def measured(self) -> list[Compared]:
        """The files that could be read."""
        return [each for each in self.files if each.error is None]

    def failures(self) -> list[str]:
        """Everything that went wrong, a line each."""
        lines = [f"{column.label}: {column.error}" for column in self.columns if column.error]
        lines += self.problems.values()
        lines += [str(each.error) for each in self.files if each.error]
        for each in self.measured:
            lines += [f"{each.name}, {label}: {result.error}" for label, result in each.results.items() if result.error]
        return lines

    def summary(self) -> dict[str, Summary]:
        """Mean, spread and best vocoder of every metric that has a value."""
        return summarize(self)

    def to_dict(self) -> dict[str, Any]:
        """All of it for JSON."""
        packages = [metric.package for metric in METRICS.values() if metric.package]
        return {
            "vocoders": [column.to_dict() for column in self.columns],
            "metrics": {
                key: {"label": metric.label, "unit": metric.unit, "better": metric.better, "about": metric.about}
                for key, metric in METRICS.items()
            },
            "missing": self.missing,
            "packages": versions(*packages),
            "max_seconds": self.max_seconds,
            "speech": self.speech,
            "summary": {key: summary.to_dict() for key, summary in self.summary().items()},
            "files": [each.to_dict() for each in self.files],
            "problems": {references.shown(name): references.shown(text) for name, text in self.problems.items()},
        }

    def write_report(self, path: str | os.PathLike[str], **options: Any) -> int:
        """Write the report, one HTML file: see `distill_core.evaluation.report.write`; returns its size in bytes."""
        from .report import write

        return write(self, path, **options)


def compare(
    recordings: Iterable[str | os.PathLike[str]],
    vocoders: Vocoders,
    *,
    device: str = "auto",
    speech: Speech = "auto",
    max_seconds: float | None = 30.0,
    keep: int = 20,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Send recordings through vocoders and measure what comes out.

    A file that cannot be read, and a vocoder that cannot be loaded or fails, is recorded and stops nothing. If
    no vocoder can be loaded, no file is read.

    Args:
        recordings: audio files, folders of them, globs.
        vocoders: `"hifigan,bigvgan@bf16"`, a list of such names, or a mapping from labels to names or to
            loaded vocoders (see `VocoderChoice` for how names are written).
        device: as for `Registry.get`.
        speech: "yes" and "no" say what all recordings are; "auto" decides for each by its pitch.
        max_seconds: no more than this of each recording is compared; None for all of it.
        keep: of so many recordings the sound is kept, for the report.
        progress: is given (results done, results in all).

    Raises:
        UnknownVocoderError: a vocoder's name that cannot be read.
        ValueError: `max_seconds` is not above 0.
    """
    if max_seconds is not None and not max_seconds > 0:
        raise ValueError(f"max_seconds must be above 0, or None for all, not {max_seconds!r}.")
    choices = chosen(vocoders)
    paths, problems = references.find(recordings)
    if not any(os.path.isfile(each) for each in paths):
        choices = {}  # for whom there is nothing to do, and weights that may have to be downloaded
    columns = [_column(label, choice, device) for label, choice in choices.items()]
    missing = {key: why for key in METRICS if (why := why_missing(key)) is not None}
    comparison = Comparison(columns, [], problems, missing, max_seconds, speech)
    usable = [column for column in columns if column.vocoder is not None]
    if columns and not usable:
        paths = []  # looking at them takes minutes, and for nothing
    for column in columns:
        if column.error is not None and usable:  # a name that is misspelt is better known before the minutes than after
            log.warning("Left out: %s: %s", column.label, column.error)
    done, total, kept = 0, len(paths) * len(usable), 0
    for path, name in zip(paths, references.short_names(paths), strict=True):
        compared = Compared(path, name)
        comparison.files.append(compared)
        recording = _read(compared, max_seconds)
        if recording is None:
            done += len(usable)
            if progress is not None:
                progress(done, total)
            continue
        scorer = _described(compared, recording, speech)
        if kept < keep:
            compared.recording = recording
            kept += 1
        for column in usable:
            compared.results[column.label] = _result(column, recording, scorer, keep=compared.recording is not None)
            done += 1
            if progress is not None:
                progress(done, total)
    return comparison


def _read(compared: Compared, max_seconds: float | None) -> Recording | None:
    try:
        return references.read(compared.path, max_seconds)
    except MissingDependencyError:
        raise  # no file can be read
    except Exception as error:  # a file can be anything
        text = references.reason(error)
        path = references.shown(str(compared.path))
        compared.error = text if text.startswith(path) else f"{path}: {text}"
        return None


def _column(label: str, choice: VocoderChoice | VocoderBase, device: str) -> Column:
    if not isinstance(choice, VocoderChoice):
        return Column(references.shown(label), choice)
    try:
        return Column(references.shown(label), choice.load(device))
    except DistillError as error:
        return Column(references.shown(label), error=references.reason(error))


def _described(compared: Compared, recording: Recording, speech: Speech) -> Scorer:
    scorer = Scorer(recording.wave, recording.sample_rate, speech=speech)
    compared.seconds = recording.seconds
    compared.sample_rate = recording.sample_rate
    compared.channels = recording.channels
    compared.whole = recording.whole
    try:
        compared.speech = scorer.is_speech
    except MissingDependencyError:
        compared.speech = None
    return scorer


def _result(column: Column, recording: Recording, scorer: Scorer, *, keep: bool) -> Result:
    assert column.vocoder is not None
    vocoder = column.vocoder
    try:
        mel = analyze(recording.wave[None], recording.sample_rate, vocoder)
        if not column.warm:
            # What is made once, such as a fast engine, is no part of the speed.
            vocoder.mel_to_waveform(mel[..., :_WARM_UP_FRAMES]).cpu()
            column.warm = True
        started = time.perf_counter()
        wave = vocoder.mel_to_waveform(mel).cpu()[0, 0]  # .cpu() waits for an accelerator
        elapsed = time.perf_counter() - started
        wave = fitted(wave, max(1, round(recording.seconds * vocoder.sample_rate)))
        scores = scorer.score(wave, vocoder.sample_rate)
    except Exception as error:  # one result that fails leaves the others be
        log.debug("%s failed", column.label, exc_info=True)
        return Result(error=references.reason(error))
    scores = Scores({**scores.values, "rtf": elapsed / recording.seconds}, scores.absent)
    return Result(scores, None, elapsed, wave if keep else None, vocoder.sample_rate)
