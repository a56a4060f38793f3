"""Distributions as small drawings: a dot a file, a box from quartile to quartile, the median.

Places are percentages, so a drawing takes any width while its text and dots keep their size.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from .markup import breakable, direction, escape, series, swatch, unit
from .runner import Comparison
from .summary import Statistics, Summary

_ROW = 30
_AXIS = 20
_LEFT, _RIGHT = 3.0, 97.0


def distributions(comparison: Comparison) -> str:
    """A figure a metric; nothing where there are too few files for one to say anything."""
    figures = [
        _figure(comparison, summary)
        for summary in comparison.summary().values()
        if max(each.count for each in summary.vocoders.values()) >= 3
    ]
    if not figures:
        return ""
    return (
        '<section id="distributions" aria-labelledby="distributions-h"><h2 id="distributions-h">Distributions</h2>'
        '<p class="lead">A dot is a file; the box holds the middle half of them, its line is the median.</p>'
        f'<div class="plots">{"".join(figures)}</div></section>'
    )


def _figure(comparison: Comparison, summary: Summary) -> str:
    metric = summary.metric
    values = [value for each in summary.vocoders.values() for _, value in each.values]
    axis = Axis.around(values)
    rows = [
        f'<div class="strip"><div class="who">{swatch(comparison, label)}{breakable(label)}</div>'
        f"{_strip(each, axis, series(comparison, label), f'{label}: {_words(each, summary)}', metric.text)}</div>"
        for label, each in summary.vocoders.items()
    ]
    return (
        f'<figure class="card plot"><figcaption>{escape(metric.label)}{unit(metric)} {direction(metric)}</figcaption>'
        f"{''.join(rows)}{_axis(axis)}</figure>"
    )


def _words(each: Statistics, summary: Summary) -> str:
    values = [value for _, value in each.values]
    text = summary.metric.text
    count = f"{len(values)} files" if len(values) != 1 else "one file"
    return f"{text(min(values))} to {text(max(values))}, median {text(statistics.median(values))}, {count}"


class Axis:
    """A linear axis from `low` to `high` with ticks at round numbers."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    @classmethod
    def around(cls, values: Sequence[float]) -> Axis:
        low, high = min(values), max(values)
        if high - low < 1e-9 * max(1.0, abs(high)):
            margin = max(abs(high) * 0.1, 0.01)
            low, high = low - margin, high + margin
        return cls(low, high)

    def place(self, value: float) -> str:
        """A percentage of the drawing's width."""
        return f"{_LEFT + (_RIGHT - _LEFT) * (value - self.low) / (self.high - self.low):.2f}%"

    def ticks(self) -> list[tuple[float, str]]:
        span = self.high - self.low
        scale = 10 ** math.floor(math.log10(span))
        step = next(each * scale for each in (0.1, 0.2, 0.5, 1, 2, 5) if span / (each * scale) <= 4.5)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [(index * step, f"{index * step:.{digits}f}".replace("-", "−")) for index in range(first, last + 1)]


def _strip(each: Statistics, axis: Axis, colour: str, words: str, text: object) -> str:
    values = sorted(value for _, value in each.values)
    middle = _ROW / 2
    parts = [f'<line class="rail" x1="{_LEFT}%" x2="{_RIGHT}%" y1="{middle}" y2="{middle}"/>']
    if len(values) >= 3:
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        span = (high - low) / (axis.high - axis.low) * (_RIGHT - _LEFT)
        parts.append(f'<rect class="box" x="{axis.place(low)}" width="{span:.2f}%" y="6" height="{_ROW - 12}" rx="3"/>')
        parts.append(
            f'<line class="median" x1="{axis.place(median)}" x2="{axis.place(median)}" y1="4" y2="{_ROW - 4}"/>'
        )
    for index, (name, value) in enumerate(each.values):
        # Spread a little so that equal values are told apart, the same way every time.
        height = middle + ((index * 5) % 7 - 3) * (1.6 if len(values) > 1 else 0)
        shown = text(value) if callable(text) else value
        parts.append(
            f'<circle cx="{axis.place(value)}" cy="{height:.1f}" r="3"><title>{escape(name)}: {escape(shown)}</title>'
            "</circle>"
        )
    return f'<svg class="{colour}" height="{_ROW}" role="img" aria-label="{escape(words)}">{"".join(parts)}</svg>'


def _axis(axis: Axis) -> str:
    parts = []
    for value, label in axis.ticks():
        place = axis.place(value)
        parts.append(f'<line x1="{place}" x2="{place}" y1="0" y2="4"/><text x="{place}" y="16">{label}</text>')
    return f'<svg class="axis" height="{_AXIS}" aria-hidden="true">{"".join(parts)}</svg>'
