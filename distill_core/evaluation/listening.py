"""The part of the report to look at and listen to: a recording and what each vocoder made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..pictures import Spectrogram
from . import images
from .markup import breakable, data_uri, duration, escape, listed, swatch, unit
from .metrics import METRICS, Metric
from .runner import Compared, Comparison, Result
from .sounds import Audio, encode
from .tables import is_best

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Style:
    """What is shown: sounds of this kind, and pictures or not (without matplotlib there are none)."""

    audio: Audio
    pictures: bool


def listening(comparison: Comparison, style: Style) -> str:
    """A part for every file whose sound was kept."""
    shown = [(index, each) for index, each in enumerate(comparison.files) if each.recording is not None]
    if not shown:
        return ""
    lead = []
    if style.audio != "none":
        lead.append(
            '<span class="only-js">Starting a player stops the one that plays, and goes on from where that was: '
            "listen to one sound, then press play on another. A click on a spectrogram jumps there.</span>"
        )
    rest = len(comparison.measured) - len(shown)
    if rest > 0:
        which = "the first recording" if len(shown) == 1 else f"the first {len(shown)} recordings"
        lead.append(f"Here: {which}. The figures of all {len(comparison.measured)} are below.")
    files = "".join(_file(comparison, index, each, style) for index, each in shown)
    heading = "Listen and look" if style.audio != "none" else "Look"
    return (
        f'<section id="files" aria-labelledby="files-h"><h2 id="files-h">{heading}</h2>'
        f'<p class="lead">{" ".join(lead)}</p>{files}</section>'
    )


def _file(comparison: Comparison, index: int, each: Compared, style: Style) -> str:
    assert each.recording is not None
    recording = each.recording
    rates = [recording.sample_rate, *(result.sample_rate for result in each.results.values() if result.scores)]
    axes = images.View(recording.seconds, min(48_000, max(8_000, *rates)) / 2)
    levels = axes.levels(recording.wave, recording.sample_rate) if style.pictures else None
    top = images.loudest(levels) if levels is not None else 0.0
    view = _View(each.name, axes, levels, top, style)
    cards = [_reference(view, each)]
    cards += [_card(comparison, view, each, label, result) for label, result in each.results.items()]
    return (
        f'<article class="file" id="file-{index}" aria-labelledby="file-{index}-h">'
        f'<header><h3 id="file-{index}-h">{breakable(each.name)}</h3><p>{escape(_about(each))}</p></header>'
        f'<div class="cards">{"".join(cards)}</div></article>'
    )


def _about(each: Compared) -> str:
    channels = {1: "mono", 2: "stereo, mixed"}.get(each.channels, f"{each.channels} channels, mixed")
    facts = [duration(each.seconds), f"{each.sample_rate:,} Hz", channels]
    if not each.whole:
        facts[0] = f"the first {facts[0]}"
    if each.speech is not None:
        facts.append("speech" if each.speech else "not speech")
    return " · ".join(facts)


@dataclass(frozen=True)
class _View:
    """One file's pictures and players."""

    name: str
    axes: images.View
    reference: Spectrogram | None
    top: float
    style: Style

    def spectrogram(self, levels: Spectrogram, of: str) -> str:
        alt = f"Spectrogram of {of}: {self.axes.seconds:.2f} s, 0 to {self.axes.top / 1000:g} kHz"
        return self._figure(images.of_levels(levels, self.top), alt, "spectrogram")

    def difference(self, levels: Spectrogram, of: str) -> str:
        assert self.reference is not None
        picture = images.of_difference(levels, self.reference, self.top)
        alt = f"Difference of {of} to the reference, in dB"
        return self._figure(picture, alt, "delta", caption="Difference to the reference")

    def _figure(self, picture: bytes, alt: str, kind: str, caption: str = "") -> str:
        assert self.reference is not None
        frequency = "".join(
            f'<line x1="100%" x2="88%" y1="{100 * place:.2f}%" y2="{100 * place:.2f}%"/>'
            f'<text x="76%" y="{100 * place:.2f}%" dy="0.35em">{label}</text>'
            for place, label in self.axes.frequency_ticks(self.reference)
        )
        ticks = self.axes.time_ticks()
        time = "".join(
            f'<line x1="{100 * place:.2f}%" x2="{100 * place:.2f}%" y1="0" y2="4"/>'
            f'<text x="{100 * place:.2f}%" y="15"{_anchor(place)}>{label}{" s" if place == 0 else ""}</text>'
            for place, label in ticks
        )
        head = f"<figcaption>{caption}</figcaption>" if caption else ""
        return (
            f'<figure class="picture {kind}">{head}<span class="khz" aria-hidden="true">kHz</span>'
            f'<svg class="y" aria-hidden="true">{frequency}</svg>'
            f'<div class="plane"><img src="{data_uri("image/webp", picture)}" alt="{escape(alt)}" decoding="async">'
            '<span class="head"></span></div>'
            f'<svg class="x" aria-hidden="true">{time}</svg></figure>'
        )

    def player(self, wave: torch.Tensor, rate: int, of: str) -> str:
        if self.style.audio == "none":
            return ""
        media_type, content = encode(wave, rate, self.style.audio)
        label = f"{self.name}, {of}"
        return (
            f'<audio controls preload="metadata" aria-label="{escape(label)}" src="{data_uri(media_type, content)}">'
            "</audio>"
        )


def _anchor(place: float) -> str:
    """Labels at the edges stay inside."""
    return ' class="first"' if place < 0.03 else ' class="last"' if place > 0.97 else ""


def _reference(view: _View, each: Compared) -> str:
    assert each.recording is not None
    picture = bars = ""
    if view.reference is not None:
        picture = view.spectrogram(view.reference, f"{each.name}, reference")
        bars = _colour_bars()
    player = view.player(each.recording.wave, each.recording.sample_rate, "reference")
    return f'<div class="card reference"><h4>Reference</h4>{picture}{player}{bars}</div>'


def _colour_bars() -> str:
    depth, reach = images.RANGE_DB, images.DIFFERENCE_DB
    bars = (
        ("magma", "Level, dB; 0 is the loudest spot of the reference", (f"−{depth}", f"−{depth // 2}", "0")),
        ("diverging", "Difference, dB", (f"−{reach}: too little", "0", f"too much: +{reach}")),
    )
    drawn = "".join(
        f'<div><span>{title}</span><svg height="26"><rect class="{fill}" width="100%" height="9" rx="2"/>'
        f'<text y="23" class="first">{low}</text><text x="50%" y="23">{middle}</text>'
        f'<text x="100%" y="23" class="last">{high}</text></svg></div>'
        for fill, title, (low, middle, high) in bars
    )
    return f'<div class="bars" aria-hidden="true">{drawn}</div>'


def _card(comparison: Comparison, view: _View, each: Compared, label: str, result: Result) -> str:
    head = f"<h4>{swatch(comparison, label)}{breakable(label)}</h4>"
    if result.scores is None or result.wave is None:
        return f'<div class="card">{head}<p class="failed">Failed: {escape(result.error)}</p></div>'
    of = f"{each.name}, {label}"
    picture = delta = ""
    if view.reference is not None:
        levels = view.axes.levels(result.wave, result.sample_rate)
        picture = view.spectrogram(levels, of)
        delta = view.difference(levels, of)
    player = view.player(result.wave, result.sample_rate, label)
    figures = "".join(
        _score(METRICS[key], value, best=is_best(each, label, METRICS[key]))
        for key, value in _in_order(result.scores.values).items()
    )
    return (
        f'<div class="card">{head}{picture}{player}{delta}<dl class="scores">{figures}</dl>'
        f"{_absent(result.scores.absent, comparison.missing)}</div>"
    )


def _score(metric: Metric, value: float, *, best: bool) -> str:
    mark = '<span class="hidden"> (best)</span>' if best else ""
    return (
        f'<div class="{"best" if best else ""}"><dt>{escape(metric.short)}</dt>'
        f"<dd>{metric.text(value)}{unit(metric)}{mark}</dd></div>"
    )


def _in_order(values: Mapping[str, float]) -> dict[str, float]:
    return {key: values[key] for key in METRICS if key in values}


def _absent(absent: Mapping[str, str], missing: Mapping[str, str]) -> str:
    """Which metrics have no value here and why; packages that are missing are named at the top already."""
    reasons: dict[str, list[str]] = {}
    for key, why in absent.items():
        if key not in missing:
            reasons.setdefault(why, []).append(METRICS[key].short)
    if not reasons:
        return ""
    text = "; ".join(f"{listed(names)}: {why}" for why, names in reasons.items())
    return f'<p class="absent">Not measured. {escape(text)}.</p>'


def gradients(style: Style) -> str:
    """The colour bars' fills; referred to by id from all of them."""
    if not style.pictures:
        return ""
    colours = images.palette_stops()
    stops = "".join(
        f'<stop offset="{index / (len(colours) - 1):.3f}" stop-color="{each}"/>' for index, each in enumerate(colours)
    )
    little, much = ("#" + bytes(each).hex() for each in (images.TOO_LITTLE, images.TOO_MUCH))
    return (
        '<svg class="defs" width="0" height="0" aria-hidden="true"><defs>'
        f'<linearGradient id="magma">{stops}</linearGradient><linearGradient id="diverging">'
        f'<stop offset="0" stop-color="{little}"/><stop offset="0.5" stop-color="{little}" stop-opacity="0"/>'
        f'<stop offset="0.5" stop-color="{much}" stop-opacity="0"/><stop offset="1" stop-color="{much}"/>'
        "</linearGradient></defs></svg>"
    )
