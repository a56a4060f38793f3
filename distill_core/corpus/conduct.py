"""A corpus from plan to summary, whichever engine does the work."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from . import files
from .bar import Bar
from .batches import WINDOW, Batch, batches
from .job import Outcome, VocodeJob
from .plan import Item, Plan
from .record import Record, prepare

MAX_KEPT = 10_000
"""Failures that are kept to be listed; more are only counted."""


class Engine(Protocol):
    """Runs a job over batches, somewhere."""

    about: dict[str, Any]
    """What a worker said of its vocoder: "vocoder" and "report"; empty if there was nothing to do."""

    def run(
        self, batches: Iterable[Batch], emit: Callable[[Outcome], None], advance: Callable[[float], None]
    ) -> None:
        """Do all batches; `emit` is given each item's outcome, `advance` is told of seconds that are computed."""

    def stop(self) -> None:
        """Take no more batches; may be called by `emit`."""


@dataclass
class Summary:
    """What became of a corpus: counts of files, seconds of sound, each channel counted, and of time."""

    folder: str
    files: int = 0
    done: int = 0
    current: int = 0
    failed: int = 0
    seconds: float = 0.0
    elapsed: float = 0.0
    stopped: str = ""
    """Why nothing more was begun, where that is so."""
    failures: list[Outcome] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Files that were not come to."""
        return self.files - self.done - self.current - self.failed


class Conductor:
    """Does what is missing or changed of a corpus.

    Args:
        plan: what there is.
        job: what to do; its `folder` is the plan's.
        engine: who does it.
        fail_fast: begin nothing more after the first failure.
        quiet: no bar.

    `summary` grows while `run` runs, and holds what was done when that is interrupted.
    """

    def __init__(
        self, plan: Plan, job: VocodeJob, engine: Engine, *, fail_fast: bool = False, quiet: bool = False
    ) -> None:
        self.plan = plan
        self.job = job
        self.engine = engine
        self.fail_fast = fail_fast
        self.summary = Summary(plan.folder)
        self._quiet = quiet
        self._bar = Bar(True, 0)
        self._record: Record | None = None

    def run(self) -> Summary:
        """Do it.

        Raises:
            DistillError: as `Plan`, `prepare` and the engine; single files are in the summary.
        """
        summary, settings = self.summary, self.job.settings  # which knows of a misspelt vocoder
        summary.files = sum(1 for _ in self.plan)  # all that is wrong with the plan is found before work begins
        prepare(self.plan.folder)
        self._record = Record(self.plan.folder, settings)
        started = time.monotonic()
        try:
            with Bar(self._quiet, summary.files) as self._bar:
                missing = batches(self._missing(), self.job.frame_seconds, self._bar.expect)
                self.engine.run(missing, self._take, self._bar.advance)
            if not summary.stopped:  # files may have come and gone since they were counted
                summary.files = summary.done + summary.current + summary.failed
        finally:
            summary.elapsed = time.monotonic() - started
            files.sweep(self.plan.folder)
        return summary

    def unfinished(self, batch: Batch) -> list[int]:
        """Which items of a batch, whose worker was lost, are not recorded as done."""
        assert self._record is not None
        self._record.refresh()
        return [i for i, item in enumerate(batch.items) if not self._record.is_current(item)]

    def _missing(self) -> Iterator[Item]:
        """The items that have to be done."""
        assert self._record is not None
        if self.job.overwrite:
            yield from self.plan
            return
        items = iter(self.plan)
        while window := list(itertools.islice(items, WINDOW)):
            states = [self._state(item) for item in window]
            if any(foreign for _, foreign in states):  # unless another run on this folder has just written it
                self._record.refresh()
                states = [self._state(item) if each[1] else each for item, each in zip(window, states, strict=True)]
            for item, (current, foreign) in zip(window, states, strict=True):
                if current:
                    self.summary.current += 1
                    self._bar.skip()
                elif foreign is not None:
                    reason = f"{foreign}: exists already, and is not as this command left it."
                    self._take(Outcome(item, "failed", f"{reason} Use --force to overwrite it."))
                    if self.summary.stopped:
                        return
                else:
                    yield item

    def _state(self, item: Item) -> tuple[bool, str | None]:
        """Whether an item is done, and if not, what lies where its outputs belong that no run has put there."""
        assert self._record is not None
        if self._record.is_current(item):
            return True, None
        return False, next((place for place in self._record.places(item) if not self._record.is_ours(place)), None)

    def _take(self, outcome: Outcome) -> None:
        summary = self.summary
        if outcome.status == "done":
            summary.done += 1
            summary.seconds += outcome.seconds * outcome.channels
        else:
            summary.failed += 1
            if len(summary.failures) < MAX_KEPT:
                summary.failures.append(outcome)
            if outcome.fatal:
                self._stop("nothing more can be written there")
            elif self.fail_fast:
                self._stop("--fail-fast")
        self._bar.file_done()

    def _stop(self, why: str) -> None:
        if not self.summary.stopped:
            self.summary.stopped = why
            self.engine.stop()
