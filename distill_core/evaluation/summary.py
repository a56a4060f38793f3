"""What many files come to: a mean, a spread, and who is best."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .metrics import METRICS, Metric

if TYPE_CHECKING:
    from .runner import Comparison


@dataclass(frozen=True)
class Statistics:
    """One metric of one vocoder over the files.

    Args:
        mean: for the real-time factor the ratio of all seconds.
        deviation: the standard deviation between the files (n - 1); None for a single one. For the real-time factor
            each file counts by its seconds, as in the mean.
        values: by file name, in the order of the files.
        loss: what vocoders are ranked by, the smaller the better.
    """

    mean: float
    deviation: float | None
    values: tuple[tuple[str, float], ...]
    loss: float

    @property
    def count(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Summary:
    """One metric of all vocoders that have a value, by label; `best` is empty where it makes no difference.

    Vocoders are ranked on the files for which all of them have a value, so that none gains by failing.
    """

    metric: Metric
    vocoders: dict[str, Statistics]
    best: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "best": list(self.best),
            "vocoders": {
                label: {"mean": each.mean, "deviation": each.deviation, "files": each.count}
                for label, each in self.vocoders.items()
            },
        }


def summarize(comparison: Comparison) -> dict[str, Summary]:
    """The summaries of all metrics that have a value, by key."""
    summaries = {}
    for key, metric in METRICS.items():
        values: dict[str, dict[int, tuple[str, float, float]]] = {}
        for label in comparison.labels:
            found = {}
            for index, each in enumerate(comparison.measured):
                result = each.results.get(label)
                if result is not None and result.scores is not None and key in result.scores.values:
                    found[index] = (each.name, result.scores.values[key], each.seconds)
            if found:
                values[label] = found
        if values:
            summaries[key] = _summary(metric, values)
    return summaries


def _summary(metric: Metric, values: dict[str, dict[int, tuple[str, float, float]]]) -> Summary:
    shared = set.intersection(*(set(each) for each in values.values()))
    statistics = {}
    for label, found in values.items():
        weighed = [(value, seconds if metric.key == "rtf" else 1.0) for _, value, seconds in found.values()]
        count, mean, deviation = len(weighed), _mean(weighed), None
        if count > 1:
            variance = _mean([((value - mean) ** 2, weight) for value, weight in weighed])
            deviation = math.sqrt(variance * count / (count - 1))
        common = [found[index] for index in sorted(shared)]
        losses = [metric.loss(value) for _, value, _ in common]
        loss = math.inf
        if common:
            ratio = [(value, seconds) for _, value, seconds in common]
            loss = _mean(ratio) if metric.key == "rtf" else sum(losses) / len(losses)
        pairs = tuple((name, value) for name, value, _ in found.values())
        statistics[label] = Statistics(mean, deviation, pairs, loss)
    return Summary(metric, statistics, _best(metric, statistics))


def _mean(weighed: list[tuple[float, float]]) -> float:
    """Of values, each with its weight."""
    return sum(value * weight for value, weight in weighed) / sum(weight for _, weight in weighed)


def _best(metric: Metric, statistics: dict[str, Statistics]) -> tuple[str, ...]:
    """Those that are best as far as the digits shown tell; none if that is all of them."""
    rounded = {label: round(each.loss, metric.digits) for label, each in statistics.items()}
    lowest = min(rounded.values())
    best = tuple(label for label, loss in rounded.items() if loss == lowest and math.isfinite(loss))
    return best if len(best) < len(statistics) else ()
