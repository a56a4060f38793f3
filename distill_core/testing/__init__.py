"""The conformance kit: does a vocoder keep the contract's promises?

In a plug-in's tests, one import and one line give one pytest test for each promise:

>>> from distill_core.testing import conformance
>>> TestMine = conformance("mine")

In a terminal it is `distill-vocoder check mine`, and `run_checks("mine")` anywhere else. `CHECKS` lists the
promises. A run costs what a few seconds of audio cost: a few hundred frames, most of them for the halo.
"""

from __future__ import annotations

from .checks import Check, ConformanceError, NotApplicable
from .runner import CHECKS, Report, Result, run_checks
from .subject import Subject
from .suite import VocoderConformance, conformance

__all__ = [
    "CHECKS",
    "Check",
    "ConformanceError",
    "NotApplicable",
    "Report",
    "Result",
    "Subject",
    "VocoderConformance",
    "conformance",
    "run_checks",
]
