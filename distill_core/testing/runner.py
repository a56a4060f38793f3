"""Runs the checks and counts: what ran, what passed, what was skipped and why."""

from __future__ import annotations

import os
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..device import check_precision, select_device
from ..errors import PluginError, PrecisionError, WeightsNotFoundError
from ..registry import Registry
from .behaviour_checks import BEHAVIOUR
from .card_checks import CARD
from .checks import Check, ConformanceError, NotApplicable
from .loading_checks import LOADING
from .output_checks import OUTPUT
from .subject import Subject

CHECKS: tuple[Check, ...] = tuple(check for group in (CARD, LOADING, OUTPUT, BEHAVIOUR) for check in group.checks)
"""All promises, in the order in which they are checked."""


@dataclass(frozen=True)
class Result:
    """The outcome of one check; `detail` is why it failed or was skipped, `traceback` that of a surprise."""

    name: str
    group: str
    promise: str
    outcome: Literal["passed", "failed", "skipped"]
    detail: str
    seconds: float
    traceback: str = ""


@dataclass(frozen=True)
class Report:
    """What `run_checks` found.

    Args:
        vocoder: the name that was checked.
        subject: what it turned out to be, such as `BigVGANVocoder('v2_…', 128 bands -> 44100 Hz, fp32 on cpu)`.
        origin: the distribution it came from.
        results: one for each check.
    """

    vocoder: str
    subject: str
    origin: str
    results: tuple[Result, ...]

    @property
    def passed(self) -> tuple[Result, ...]:
        return tuple(result for result in self.results if result.outcome == "passed")

    @property
    def failed(self) -> tuple[Result, ...]:
        return tuple(result for result in self.results if result.outcome == "failed")

    @property
    def skipped(self) -> tuple[Result, ...]:
        return tuple(result for result in self.results if result.outcome == "skipped")

    @property
    def ok(self) -> bool:
        """Nothing failed."""
        return not self.failed

    @property
    def counts(self) -> dict[str, int]:
        """`{"run": …, "passed": …, "failed": …, "skipped": …}`; skipped ones did not run."""
        passed, failed, skipped = len(self.passed), len(self.failed), len(self.skipped)
        return {"run": passed + failed, "passed": passed, "failed": failed, "skipped": skipped}

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "ok": self.ok, "counts": self.counts}

    def lines(self) -> Iterator[str]:
        yield f"{self.vocoder} ({self.origin}): {self.subject}"
        group = ""
        for result in self.results:
            if result.group != group:
                group = result.group
                yield f"  {group}"
            yield from result_lines(result)
        yield self.summary

    @property
    def summary(self) -> str:
        """One line: how many ran, passed, failed and were skipped, and why."""
        counts = self.counts
        seconds = sum(result.seconds for result in self.results)
        ran = "1 check" if counts["run"] == 1 else f"{counts['run']} checks"
        line = f"{ran} ran in {seconds:.1f} s: {counts['passed']} passed, {counts['failed']} failed"
        if not self.skipped:
            return f"{line}, none skipped"
        reasons = Counter(result.detail for result in self.skipped)
        why = "; ".join(f"{reason} ({count})" if count > 1 else reason for reason, count in reasons.items())
        return f"{line}, {counts['skipped']} skipped: {why}"

    def __str__(self) -> str:
        return "\n".join(self.lines())


def result_lines(result: Result) -> Iterator[str]:
    """One check as text: its mark, name and promise, and below what is wrong."""
    mark = {"passed": "ok", "failed": "FAIL", "skipped": "skip"}[result.outcome]
    yield f"    {mark:4}  {result.name:22}  {result.promise}"
    if result.detail:
        yield f"          {result.detail}"
    yield from (f"          | {line}" for line in result.traceback.splitlines())


def run_checks(
    name: str,
    *,
    registry: Registry | None = None,
    on_result: Callable[[Result], None] | None = None,
    **arguments: Any,
) -> Report:
    """Check one vocoder against every promise of the contract.

    Args:
        name: the vocoder's name, or "auto".
        registry: where to look for it; by default the process-wide registry.
        on_result: called with each result as it comes.
        **arguments: as for `registry.get`; the device is the CPU unless `device=` says otherwise.

    Raises:
        UnknownVocoderError: nothing of that name is installed.
        UnknownVariantError, DeviceError, PrecisionError, WeightsNotFoundError: it cannot be had as asked for.
    """
    subject = Subject(name, registry, **arguments)
    origin = subject.registry.candidates(subject.name) or [subject.candidate]  # an unknown name is no broken promise
    _check_asked_for(subject)
    results = []
    for check in CHECKS:
        result = _run(check, subject)
        results.append(result)
        if on_result is not None:
            on_result(result)
    loaded = subject._vocoder
    return Report(subject.name, repr(loaded) if loaded is not None else "not loaded", origin[0].origin, tuple(results))


def _check_asked_for(subject: Subject) -> None:
    """What somebody asks for in vain is no broken promise either."""
    try:
        card = subject.card
    except PluginError:
        return  # as the checks will say
    card.variant(subject.arguments.get("variant"))
    select_device(subject.arguments["device"], among=card.devices)
    weights = subject.arguments["weights"]
    if isinstance(weights, str | os.PathLike) and not os.path.exists(os.path.expanduser(weights)):
        raise WeightsNotFoundError(f"There is no {os.fspath(weights)}: weights= takes a folder or a file that is here.")
    if check_precision(subject.arguments.get("precision", "fp32")) in ("fp32", "auto"):
        return  # which nobody can refuse
    try:
        subject.load_once()
    except PrecisionError:
        raise
    except Exception:
        return  # as the checks will say


def _run(check: Check, subject: Subject) -> Result:
    started = time.perf_counter()
    outcome: Literal["passed", "failed", "skipped"] = "passed"
    detail = trace = ""
    try:
        check.run(subject)
    except NotApplicable as reason:
        outcome, detail = "skipped", str(reason)
    except ConformanceError as error:
        outcome, detail = "failed", str(error)
    except Exception as error:  # the vocoder's own failure, in a place where it must not fail
        outcome, detail, trace = "failed", f"{type(error).__name__}: {error}", traceback.format_exc()
    return Result(check.name, check.group, check.promise, outcome, detail, time.perf_counter() - started, trace)
