"""The little HTML that every part of the report needs."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

from .metrics import Metric
from .runner import Comparison

SERIES = 6
"""So many vocoders have a colour of their own; then they begin again."""


def escape(text: object) -> str:
    """Text for HTML, inside and outside of attributes."""
    return html.escape(str(text), quote=True)


def data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def breakable(label: str) -> str:
    """A vocoder's label or a file's name, escaped, that may break after its punctuation."""
    text = escape(label)
    for mark in (":", "@", "=", "/", "_", "."):
        text = text.replace(mark, f"{mark}<wbr>")
    return f"<bdi>{text}</bdi>"


def swatch(comparison: Comparison, label: str) -> str:
    """A vocoder's colour, beside its name everywhere."""
    return f'<span class="swatch {series(comparison, label)}" aria-hidden="true">●</span>&nbsp;'


def series(comparison: Comparison, label: str) -> str:
    """The class that gives a vocoder its colour."""
    labels = [column.label for column in comparison.columns]
    return f"v{labels.index(label) % SERIES}"


def unit(metric: Metric) -> str:
    return f' <span class="unit">{escape(metric.unit)}</span>' if metric.unit else ""


def direction(metric: Metric) -> str:
    """Which values are better, as a sign with words for those who do not see it."""
    sign = {"higher": "↑", "lower": "↓", "zero": "→0"}[metric.better]
    words = {"higher": "higher is better", "lower": "lower is better", "zero": "nearest to zero is best"}
    return (
        f'<span class="direction" title="{words[metric.better]}" aria-hidden="true">{sign}</span>'
        f'<span class="hidden">, {words[metric.better]}</span>'
    )


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names))


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
