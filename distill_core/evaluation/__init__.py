"""Compare vocoders on recordings of one's own: figures, and a report to look at and listen to.

    from distill_core.evaluation import compare, measure

    scores = measure(reference, result, sample_rate)         # two waveforms -> {"pesq": 3.01, "mel": 1.94, …}
    comparison = compare(["recordings/"], "hifigan,bigvgan")
    comparison.write_report("report.html")

The packages behind the metrics are the extra distill-core[compare]; a metric whose package is missing is left out.
"""

from .choices import VocoderChoice
from .metrics import METRICS, Metric, Scorer, Scores, measure
from .runner import Column, Compared, Comparison, Result, compare
from .summary import Statistics, Summary

__all__ = [
    "METRICS",
    "Column",
    "Compared",
    "Comparison",
    "Metric",
    "Result",
    "Scorer",
    "Scores",
    "Statistics",
    "Summary",
    "VocoderChoice",
    "compare",
    "measure",
]
