"""What runs in the cluster: workers that hold the model, and the ledger in which they note what they have begun.

A worker may be killed at any moment, and Ray then hands its parcel to another as often as it takes. The ledger is how
the next one knows: what was done already is not done again, and what kills worker after worker is given up.
"""

from __future__ import annotations

import os
import pickle
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count, takewhile
from typing import TYPE_CHECKING, Any

from ..audio import _soundfile, for_libsndfile
from ..errors import DistillError
from .batches import Batch
from .job import Outcome, VocodeJob
from .plan import numbered
from .record import Record

if TYPE_CHECKING:
    from .plan import Item
    from .runner import Runner

_WHOLE = 2
"""So often a parcel is tried as it is; after that file by file, each of them once."""

_LOADS = 3
"""So often in a row a worker may die while it loads the model."""

_NEWS_EVERY = 0.5  # seconds

Parcel = list[Batch]
"""Batches that a worker takes at once: it reads the next and writes the last while it computes."""


@dataclass
class _Begun:
    attempts: int = 0
    outcomes: dict[int, Outcome] = field(default_factory=dict)  # by the item's position in its parcel
    alone: set[int] = field(default_factory=set)  # positions of items that were begun by themselves


class Ledger:
    """What was begun and not yet ended. Lives in a process of its own, which no vocoder runs in."""

    def __init__(self) -> None:
        self._begun: dict[int, _Begun] = {}
        self._ended: set[int] = set()
        self._loads: dict[str, int] = {}
        self._seconds = 0.0
        self._stopped = False

    def begin(self, parcel: int) -> tuple[int, dict[int, Outcome], set[int]]:
        """A parcel is begun: for the how manieth time, what came of it before, which items were begun alone.

        The 0th time if nothing more is to be begun.
        """
        if self._stopped:
            return 0, {}, set()
        # A worker that was killed when its reply had arrived, and Ray did not know it yet, is replaced like any other.
        begun = self._begun.setdefault(parcel, _Begun(attempts=int(parcel in self._ended)))
        begun.attempts += 1
        return begun.attempts, begun.outcomes, begun.alone

    def begin_alone(self, parcel: int, position: int) -> None:
        self._begun[parcel].alone.add(position)

    def note(self, parcel: int, position: int, outcome: Outcome) -> None:
        """One item of a parcel is done, or failed."""
        self._begun.setdefault(parcel, _Begun()).outcomes[position] = outcome

    def end(self, parcel: int) -> None:
        """A parcel's outcomes have arrived where they are wanted."""
        self._begun.pop(parcel, None)
        self._ended.add(parcel)

    def loading(self, worker: str) -> int:
        """A worker loads the model: for the how manieth time since it last succeeded."""
        self._loads[worker] = self._loads.get(worker, 0) + 1
        return self._loads[worker]

    def loaded(self, worker: str) -> None:
        self._loads.pop(worker, None)

    def advance(self, seconds: float) -> None:
        self._seconds += seconds

    def seconds(self) -> float:
        """Seconds of sound computed since this was last asked."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def stop(self) -> None:
        """From now on nothing is begun."""
        self._stopped = True


class Worker:
    """Loads the model when it is made, and vocodes parcels: the callable class of Ray Data's `map_batches`.

    Args:
        job: what to do; `threads` is set.
        ledger: the actor handle of a `Ledger`.
    """

    def __init__(self, job: VocodeJob, ledger: Any) -> None:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
            os.environ[name] = str(job.threads)  # read when torch and numba are imported
        self.job = job
        self.ledger = ledger
        self.refusal = ""
        self.about: dict[str, Any] = {}
        self.runner = self._load()

    def _load(self) -> Runner | None:
        import ray

        worker = ray.get_runtime_context().get_actor_id() or ""
        if ray.get(self.ledger.loading.remote(worker)) > _LOADS:
            self.refusal = f"{here()}: a worker was killed {_LOADS} times while it loaded the vocoder; is there memory?"
            return None
        try:
            runner = self.job.load()
            self.about = {"vocoder": repr(runner.vocoder), "report": runner.vocoder.report().to_dict()}
        except DistillError as error:
            self.refusal = f"{here()}: {error}"
            return None
        except Exception as error:  # a plug-in's own, or a package that is missing or broken on this node
            self.refusal = f"{here()}: the vocoder could not be loaded ({type(error).__name__}: {error})."
            return None
        finally:
            self.ledger.loaded.remote(worker)
        return runner

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """A parcel's number and bytes, as arrays of one; likewise the number, its outcomes, and what else is to say."""
        number = int(row["number"][0])
        outcomes = self._do(number, pickle.loads(row["parcel"][0])) if self.runner is not None else []
        reply = {"refusal": self.refusal, "about": self.about, "outcomes": outcomes}
        return {"number": [number], "reply": [pickle.dumps(reply)]}

    def _do(self, number: int, parcel: Parcel) -> list[Outcome]:
        import ray

        items = [item for batch in parcel for item in batch.items]
        positions = {item: position for position, item in enumerate(items)}
        attempt, outcomes, alone = ray.get(self.ledger.begin.remote(number))
        if attempt == 0:
            return []
        news = _News(self.ledger)

        def emit(outcome: Outcome) -> None:
            position = positions[outcome.item]
            outcomes[position] = outcome
            self.ledger.note.remote(number, position, outcome)

        if attempt > 1:
            self._recorded(items, outcomes)
        if attempt <= _WHOLE:
            self._run(list(_remaining(parcel, positions, outcomes)), emit, news)
        else:
            self._one_by_one(number, parcel, positions, outcomes, alone, emit, news)
        news.tell()
        return [outcomes[position] for position in sorted(outcomes)]

    def _recorded(self, items: list[Item], outcomes: dict[int, Outcome]) -> None:
        """Take in what was written just before a worker was killed, and of which only the record tells."""
        if self.job.folder is None or self.job.overwrite:
            return
        record = Record(self.job.folder, self.job.settings)
        for position, item in enumerate(items):
            if position not in outcomes and record.is_current(item):
                outcomes[position] = _written(item)

    def _one_by_one(
        self,
        number: int,
        parcel: Parcel,
        positions: dict[Item, int],
        outcomes: dict[int, Outcome],
        alone: set[int],
        emit: Any,
        news: _News,
    ) -> None:
        import ray

        for batch in parcel:
            for index, item in enumerate(batch.items):
                position = positions[item]
                if position in outcomes:
                    continue
                if position in alone:
                    why = "every worker that came to this file was killed; perhaps it takes more memory than there is."
                    emit(Outcome(item, "failed", f"{item.input}: {why}"))
                    continue
                ray.get(self.ledger.begin_alone.remote(number, position))
                self._run([batch.only([index])], emit, news)

    def _run(self, batches: list[Batch], emit: Any, news: _News) -> None:
        assert self.runner is not None
        self.runner.run_all(batches, emit, news.advance)


def _written(item: Item) -> Outcome:
    """The outcome of an item of which nothing is left but what was written; of a URL that is not looked at."""
    several = (numbered(item.output, part, 2) for part in count())
    outputs = tuple(takewhile(os.path.exists, several)) or (item.output,)
    done = Outcome(item, "done", outputs=outputs)
    try:
        about = [_soundfile().info(for_libsndfile(output)) for output in outputs]
    except Exception:  # whatever is wrong with it, it is for a count
        return done
    channels = sum(each.channels for each in about)
    return replace(done, seconds=about[0].duration, channels=channels, sample_rate=about[0].samplerate)


class _News:
    """Tells the ledger of progress, but not too often."""

    def __init__(self, ledger: Any) -> None:
        self.ledger = ledger
        self.seconds = 0.0
        self.told = time.monotonic()

    def advance(self, seconds: float) -> None:
        self.seconds += seconds
        if time.monotonic() - self.told > _NEWS_EVERY:
            self.tell()

    def tell(self) -> None:
        self.ledger.advance.remote(self.seconds)
        self.seconds, self.told = 0.0, time.monotonic()


def _remaining(parcel: Parcel, positions: dict[Item, int], outcomes: dict[int, Outcome]) -> Iterator[Batch]:
    """Of each batch what has no outcome."""
    for batch in parcel:
        rest = batch.only(i for i, item in enumerate(batch.items) if positions[item] not in outcomes)
        if rest.items:
            yield rest


def here() -> str:
    """This node, as a person would look for it."""
    import ray

    return f"node {ray.util.get_node_ip_address()} ({platform.node()})"
