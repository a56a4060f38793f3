"""The engine on several machines: Ray Data hands parcels of batches to a pool of actors that hold the model.

The driver plans and reports as for one machine, and workers keep the same record. A corpus goes through in windows,
each a dataset of its own, so that the plan is never held as a whole.
"""

from __future__ import annotations

import itertools
import logging
import pickle
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ..errors import CorpusError, DistillError
from ..registry import registry
from .batches import Batch
from .job import Outcome, VocodeJob
from .ray_nodes import check_nodes
from .ray_session import session
from .ray_worker import Ledger, Parcel, Worker

_WINDOW = 512
"""Batches for each worker that a dataset holds; the first holds fewer, so that work begins soon."""

_FIRST = 64
_PARCEL = 16
"""At most so many batches are a parcel: what a killed worker loses, and how far apart the bar's steps are."""

_PARCELS = 8
"""Parcels for each worker, at least, as long as there are as many batches: the last ones end at about one time."""

_POLL = 0.2  # seconds

Emit = Callable[[Outcome], None]
Advance = Callable[[float], None]


@dataclass(frozen=True)
class _Pool:
    """What is asked of the cluster."""

    workers: int
    cpus: int
    gpus: float


class RayEngine:
    """Runs a job over batches on a Ray cluster, or on a Ray of this machine's own.

    Args:
        job: what to do. By default each worker computes on one thread, as with the engine on one machine.
        workers: how many actors; None for as many as the cluster has CPUs for, or GPUs.
        address: as for `session`.
        gpus_per_worker: what an actor takes of a GPU, such as 0.5; None for a whole one if the cluster has any and
            the job's device leaves it open. 0 for CPUs.
    """

    def __init__(
        self,
        job: VocodeJob,
        workers: int | None = None,
        *,
        address: str | None = None,
        gpus_per_worker: float | None = None,
    ) -> None:
        if gpus_per_worker is not None and not can_be_taken(gpus_per_worker):
            raise CorpusError(f"A worker takes 0, a part of one, or a whole number of GPUs, not {gpus_per_worker:g}.")
        # Every node has to come to the same vocoder, whatever else is installed there.
        name = registry.resolve(job.vocoder).name
        self.job = replace(job, vocoder=name, threads=job.threads or 1)
        self.workers = workers
        self.address = address
        self.gpus_per_worker = gpus_per_worker
        self.about: dict[str, Any] = {}
        self._stopped = False
        self._stage: Any = None

    def run(self, batches: Iterable[Batch], emit: Emit, advance: Advance) -> None:
        """Do all batches; as `LocalEngine.run`.

        Raises:
            DistillError: the model cannot be loaded on a node, which is named.
            CorpusError: Ray cannot be used, or ended; what was done is recorded.
        """
        source = iter(batches)
        first = next(source, None)
        if first is None:
            return
        threads = self.job.threads or 1
        with session(self.address, cpus=threads * (self.workers or _cores(threads))) as ray:
            pool, job = self._pool(ray)
            if len(ray.nodes()) > 1 or is_client(ray):
                check_nodes(ray, job, first.items[0])
            self._stage = _stage(ray, job, pool)
            window = [first, *_take(source, _FIRST * pool.workers - 1)]
            while window and not self._stopped:
                self._stage.start(parcels(window, pool.workers))
                following = self._follow(source, _WINDOW * pool.workers, emit, advance)
                window = following

    def stop(self) -> None:
        """Begin no more parcels; `run` returns when those that were begun are done."""
        self._stopped = True
        if self._stage is not None:
            self._stage.stop()

    def _follow(self, source: Iterator[Batch], count: int, emit: Emit, advance: Advance) -> list[Batch]:
        """Take in what a window's workers say until they are done, and gather the next window meanwhile."""
        following: list[Batch] = []
        while True:
            news = self._stage.news(0.0 if len(following) < count and not self._stopped else _POLL)
            for reply in news.replies:
                self._take(reply, emit)
            if news.seconds:
                advance(news.seconds)
            if news.error:
                raise CorpusError(f"Ray ended the run: {news.error} What was done is recorded: run it again.")
            if news.ended:  # perhaps before anything was gathered
                return following or _take(source, min(count, _FIRST))
            until = time.monotonic() + _POLL
            while len(following) < count and time.monotonic() < until and not self._stopped:
                batch = next(source, None)
                if batch is None:
                    count = 0
                else:
                    following.append(batch)

    def _take(self, reply: bytes, emit: Emit) -> None:
        said = pickle.loads(reply)
        if said["refusal"]:
            raise DistillError(said["refusal"])
        self.about = said["about"]
        for outcome in said["outcomes"]:
            emit(outcome)

    def _pool(self, ray: Any) -> tuple[_Pool, VocodeJob]:
        """How many actors of what size, and the job as they are to do it.

        Raises:
            CorpusError: the cluster has no room for one.
        """
        job = self.job
        nodes = [node["Resources"] for node in ray.nodes() if node.get("Alive")]
        each = self.gpus_per_worker
        if each is None:
            on_gpu = job.device.startswith("cuda") or job.device == "auto"
            each = 1.0 if on_gpu and any(node.get("GPU", 0) for node in nodes) else 0.0
        if each == 0 and job.device.startswith("cuda"):
            raise CorpusError("The cluster has no GPUs to give, and --device cuda needs one. Use --device cpu or auto.")
        if each == 0 and job.device == "auto":
            job = replace(job, device="cpu")  # a GPU that Ray did not assign is somebody else's
        cpus = job.threads or 1
        rooms = [int(node.get("GPU", 0) / each) if each else int(node.get("CPU", 0) // cpus) for node in nodes]
        if not sum(rooms) and self.workers is None:
            what = f"{each:g} GPUs" if each else f"{cpus} CPUs"
            raise CorpusError(
                f"No node of the cluster has {what} for a worker. Ask for less, or name --workers if nodes will come."
            )
        return _Pool(self.workers or sum(rooms), cpus, each), job


def parcels(window: list[Batch], workers: int) -> list[Parcel]:
    """Batches in runs of one length: several for each worker, as far as there are so many."""
    size = max(1, min(_PARCEL, len(window) // (_PARCELS * workers)))
    return [window[i : i + size] for i in range(0, len(window), size)]


def can_be_taken(gpus: float) -> bool:
    """Whether a worker can take so much of GPUs: 0, a part of one, or a whole number."""
    return 0 <= gpus <= 1 or gpus % 1 == 0 < gpus


def _cores(threads: int) -> int:
    from .resources import default_workers

    return default_workers(None, threads)


def _take(source: Iterator[Batch], count: int) -> list[Batch]:
    """So many more, as far as there are."""
    return list(itertools.islice(source, count))


def is_client(ray: Any) -> bool:
    """Whether this process is connected to a cluster from outside, by ray://."""
    return bool(ray.util.client.ray.is_connected())


def _stage(ray: Any, job: VocodeJob, pool: _Pool) -> Any:
    """Where the datasets are run from: this process, or one in the cluster if this is only a client of it.

    Ray Data cannot be driven by a client.
    """
    if not is_client(ray):
        return Stage(job, pool)
    remote = ray.remote(num_cpus=0, max_concurrency=2)(Stage).remote(job, pool)
    return _RemoteStage(ray, remote)


@dataclass(frozen=True)
class _News:
    replies: list[bytes]
    seconds: float
    ended: bool
    error: str


class Stage:
    """Runs one dataset after another, in a thread of its own."""

    def __init__(self, job: VocodeJob, pool: _Pool) -> None:
        import ray

        self.job = job
        self.pool = pool
        self.ray = ray
        self.ledger: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Ledger).remote()
        self._said: queue.Queue[tuple[int, bytes] | None] = queue.Queue()
        self._error = ""
        self._number = 0
        self._told = time.monotonic()

    def start(self, todo: list[Parcel]) -> None:
        """Begin a window; `news` says what comes of it."""
        rows = [{"number": self._number + i, "parcel": pickle.dumps(parcel)} for i, parcel in enumerate(todo)]
        self._number += len(rows)
        threading.Thread(target=self._run, args=(rows,), name="window", daemon=True).start()

    def news(self, wait: float) -> _News:
        """What came in since this was last asked, or comes within so many seconds."""
        replies: list[bytes] = []
        ended = False
        until = time.monotonic() + wait
        while not ended:
            try:
                said = self._said.get(timeout=max(0.0, until - time.monotonic()) if not replies else 0.0)
            except queue.Empty:
                break
            ended = said is None
            if said is not None:
                self.ledger.end.remote(said[0])
                replies.append(said[1])
        return _News(replies, self._seconds(ended), ended, self._error)

    def stop(self) -> None:
        self.ledger.stop.remote()

    def _seconds(self, now: bool) -> float:
        if not now and time.monotonic() - self._told < 2 * _POLL:
            return 0.0
        self._told = time.monotonic()
        try:
            return float(self.ray.get(self.ledger.seconds.remote(), timeout=5))
        except Exception:  # the ledger is being restarted: the bar will stand still for a moment
            return 0.0

    def _run(self, rows: list[dict[str, Any]]) -> None:
        try:
            for batch in self._dataset(rows).iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                columns = batch.to_pydict()
                for said in zip(columns["number"], columns["reply"], strict=True):
                    self._said.put(said)
        except BaseException as error:
            self._error = _brief(error)
        finally:
            self._said.put(None)

    def _dataset(self, rows: list[dict[str, Any]]) -> Any:
        from ray.data import ActorPoolStrategy, DataContext, from_items

        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.execution_no_progress_timeout_s = -1  # a file may be hours long
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        size: dict[str, Any] = {"num_gpus": self.pool.gpus} if self.pool.gpus else {"num_cpus": self.pool.cpus}
        return from_items(rows, override_num_blocks=len(rows)).map_batches(
            Worker,
            fn_constructor_args=(self.job, self.ledger),
            batch_size=1,
            compute=ActorPoolStrategy(size=min(self.pool.workers, len(rows))),
            **size,
        )


class _RemoteStage:
    """A `Stage` that lives in the cluster."""

    def __init__(self, ray: Any, stage: Any) -> None:
        self.ray = ray
        self.stage = stage

    def start(self, todo: list[Parcel]) -> None:
        self.ray.get(self.stage.start.remote(todo))

    def news(self, wait: float) -> _News:
        news: _News = self.ray.get(self.stage.news.remote(wait))
        return news

    def stop(self) -> None:
        self.ray.get(self.stage.stop.remote())


def _brief(error: BaseException) -> str:
    """The part of Ray's long messages that says what happened: its last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {(lines or ['?'])[-1][:400].rstrip('.')}."
