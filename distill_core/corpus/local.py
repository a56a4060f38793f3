"""The engine on one machine: a few worker processes that load the model once each, and one that hands out the work.

A worker that dies is replaced and what it had is tried again, by itself; a batch that kills again is halved until
the file is found. At most `_AHEAD` batches are with a worker: one that is computed, one that is read.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from ..errors import CorpusError, DistillError
from .batches import MAX_SECONDS, Batch
from .job import Outcome, VocodeJob
from .resources import accelerator_seen, default_workers

if TYPE_CHECKING:
    from ..vocoder import VocoderBase

log = logging.getLogger(__name__)

_AHEAD = 2
_DEATHS = 2
"""A single file that a worker died of so many times is given up."""

Emit = Callable[[Outcome], None]
Advance = Callable[[float], None]


@dataclass
class _Task:
    """A batch, or what is left of it, and how often a worker died with it."""

    batch: Batch
    deaths: int = 0
    done: set[int] = field(default_factory=set)  # positions whose outcome is known

    @property
    def suspect(self) -> bool:
        return self.deaths > 0


class _Worker:
    """A process, the tasks it has, and the pipe to it. It comes up by itself, and loads the model when told to."""

    def __init__(self, threads: int | None, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.number = number
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(threads, theirs), name=f"vocode-{number}", daemon=True)
        self.tasks: deque[_Task] = deque()
        self.told = self.ready = False
        self.card = 0  # of the CUDA devices, where they are used
        with _no_interrupts():
            self.process.start()
        theirs.close()

    def load(self, job: VocodeJob) -> None:
        self.told = True
        with suppress(OSError):
            self.pipe.send(job)

    def give(self, task: _Task) -> None:
        self.tasks.append(task)
        with suppress(OSError):  # where it is dead, which is seen when its pipe is read
            self.pipe.send(task.batch)

    @property
    def is_occupied(self) -> bool:
        """Whether nothing more should wait behind what it has: a suspect, or a file of some length."""
        return any(task.suspect or sum(task.batch.seconds) > 3 * MAX_SECONDS for task in self.tasks)

    def end(self) -> None:
        """Kill it, whatever it is doing."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


class LocalEngine:
    """Runs a job over batches with several processes.

    Args:
        job: what to do. By default each worker computes on one thread: many threads on one file gain less than as
            many files side by side, and the results then do not depend on how many workers there are.
        workers: how many processes; None for as many as cores and memory are good for, or one for each CUDA device
            that the job may use.
        unfinished: of a batch whose worker died, which items still have to be done; by default all whose outcome
            was not told. With a record, those that it does not tell of.
    """

    def __init__(
        self, job: VocodeJob, workers: int | None = None, *, unfinished: Callable[[Batch], Iterable[int]] | None = None
    ) -> None:
        self.job = replace(job, threads=job.threads or 1)
        self.count = workers
        self.unfinished = unfinished
        self.about: dict[str, Any] = {}
        self._can_be_loaded = False
        self._workers: list[_Worker] = []
        self._ahead: deque[Batch] = deque()  # taken, and not yet handed out
        self._suspects: deque[_Task] = deque()
        self._started = 0
        self._stopped = False

    def run(self, batches: Iterable[Batch], emit: Emit, advance: Advance) -> None:
        """Do all batches.

        Args:
            batches: taken as workers become free, and no more ahead than there are workers.
            emit: is given each item's outcome, in the calling thread.
            advance: is told of seconds of sound as they are computed, likewise.

        Raises:
            DistillError: the model cannot be loaded; nothing was done then.
            CorpusError: workers die while they load it.
        """
        source = iter(batches)
        try:
            while True:
                self._hand_out(source)
                self._take_ahead(source, 1)
                if self._stopped:
                    self._ahead.clear()
                    self._suspects.clear()
                if not self._ahead and not self._suspects and not any(worker.tasks for worker in self._workers):
                    return
                self._staff(source)
                self._listen(emit, advance)
        finally:
            for worker in self._workers:
                worker.end()
            self._workers.clear()

    def stop(self) -> None:
        """Hand out nothing more; `run` returns when what was handed out is done. May be called by `emit`."""
        self._stopped = True

    def _take_ahead(self, source: Iterator[Batch], count: int) -> None:
        """See that so many batches wait to be handed out, if there are so many."""
        while not self._stopped and len(self._ahead) < count and (batch := next(source, None)) is not None:
            self._ahead.append(batch)

    def _staff(self, source: Iterator[Batch]) -> None:
        """Have as many workers as there is something for.

        The first loads alone: it may download, or find that it cannot. The others come up meanwhile.
        """
        if not self.about:
            most = self._expected()
        elif self._ahead or self._suspects:
            most = self._wanted()
        else:
            most = 0
        self._take_ahead(source, most)
        busy = sum(bool(worker.tasks) for worker in self._workers)
        wanted = min(most, busy + len(self._ahead) + len(self._suspects))
        while len(self._workers) < wanted:
            self._workers.append(_Worker(self.job.threads, self._started))
            self._started += 1
        for worker in self._workers[: wanted if self._can_be_loaded else 1]:
            if not worker.told:
                worker.load(self._placed(worker))

    def _placed(self, worker: _Worker) -> VocodeJob:
        """The job as one worker is to do it: on the CUDA device that has the fewest, where there are several."""
        if not self.about or self._devices == 1:
            return self.job
        taken = Counter(each.card for each in self._workers if each.told)
        worker.card = min(range(self._devices), key=lambda card: taken[card])
        return replace(self.job, device=f"cuda:{worker.card}")

    @property
    def _devices(self) -> int:
        """Of an accelerator, over how many workers are spread: the one that the job names, or all there are."""
        devices: int = self.about["devices"]
        return devices if self.job.device in ("auto", "cuda") else 1

    def _expected(self) -> int:
        """How many workers there will be, as far as can be told before the first has loaded."""
        if not self._ahead:
            return 1
        if self.job.device == "cpu" or (self.job.device == "auto" and not accelerator_seen()):
            return self.count or default_workers(self.job.parameters, self.job.threads or 1)
        return 1

    def _wanted(self) -> int:
        if self.count is None:
            on_cpu = self.about["device"] == "cpu"
            threads = self.job.threads or 1
            self.count = default_workers(self.about["parameters"], threads) if on_cpu else self._devices
        return max(1, self.count)

    def _hand_out(self, source: Iterator[Batch]) -> None:
        """Give free workers something to do: first everybody one batch, then the next, to be read meanwhile.

        A suspect goes to a worker that has nothing else, so that it is known what that dies of.
        """
        for depth in range(_AHEAD):
            for worker in self._workers:
                if not worker.ready or len(worker.tasks) > depth or worker.is_occupied:
                    continue
                if self._suspects:
                    if not worker.tasks:
                        worker.give(self._suspects.popleft())
                    continue
                self._take_ahead(source, 1)
                if self._ahead and not self._stopped:
                    worker.give(_Task(self._ahead.popleft()))

    def _listen(self, emit: Emit, advance: Advance) -> None:
        """Wait for word from a worker, and take it in."""
        pipes: dict[object, _Worker] = {worker.pipe: worker for worker in self._workers}  # each system has its class
        for pipe in wait([worker.pipe for worker in self._workers]):
            worker = pipes[pipe]
            try:
                kind, value = worker.pipe.recv()
            except (EOFError, OSError):
                self._buried(worker, emit)
                continue
            if kind == "loaded":
                self._can_be_loaded = True
            elif kind == "ready":
                worker.ready = True
                self.about = value
            elif kind == "refused":
                raise DistillError(value)
            elif kind == "seconds":
                advance(value)
            elif kind == "outcome":
                task = worker.tasks[0]
                task.done.add(task.batch.items.index(value.item))
                emit(value)
                if len(task.done) == len(task.batch.items):
                    worker.tasks.popleft()

    def _buried(self, worker: _Worker, emit: Emit) -> None:
        """Take a dead worker's tasks back; a new one takes its place with the next round."""
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)
        if not worker.ready:
            how = _how(worker.process.exitcode)
            if not self._can_be_loaded or not self._workers:
                raise CorpusError(f"A worker ended while it loaded the vocoder: {how}.")
            self.count = len(self._workers)
            log.warning("A worker ended while it loaded the vocoder (%s); going on with %d.", how, self.count)
        for task in worker.tasks:
            left = [i for i in range(len(task.batch.items)) if i not in task.done]
            rest = task.batch.only(left)
            if self.unfinished is not None:
                still = set(self.unfinished(rest))
                for i, item in enumerate(rest.items):
                    if i not in still:
                        emit(Outcome(item, "done", outputs=(item.output,)))
                rest = rest.only(sorted(still))
            deaths = task.deaths + 1
            if not rest.items:
                continue
            if deaths < _DEATHS:
                self._suspects.append(_Task(rest, deaths))
            elif len(rest.items) > 1:
                middle = len(rest.items) // 2
                for half in (range(middle), range(middle, len(rest.items))):
                    self._suspects.append(_Task(rest.only(half), _DEATHS - 1))
            else:
                item = rest.items[0]
                how = _how(worker.process.exitcode)
                emit(Outcome(item, "failed", f"{item.input}: a worker ended whenever it came to this file: {how}."))


def _how(exitcode: int | None) -> str:
    """How a process ended, in words."""
    if exitcode is None or exitcode >= 0:
        return f"exit code {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    return f"{name}, which is what the system does when memory runs out" if name == "SIGKILL" else name


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Processes started in here take no notice of Ctrl-C, which is for the one that leads them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM, and the end of the terminal, end what runs in here as Ctrl-C does, with time to tidy up.

    It is heard once: timeout, and others who stop a process and its group, send it twice, the second into the tidying.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, interrupt)}
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows
    if hangup is not None and signal.getsignal(hangup) is signal.SIG_DFL:  # nohup has it ignored
        before[hangup] = signal.signal(hangup, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# In the worker


def _work(threads: int | None, pipe: Connection) -> None:
    """A worker's life: load, then batches as they come, until the pipe is closed or the parent gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it inherits nothing of `_no_interrupts` on Windows
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    if threads is not None:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
            os.environ[name] = str(threads)  # read when torch and numba are imported
    importlib.import_module(".runner", __package__)  # and torch with it, before there is a job

    lock = threading.Lock()

    def tell(kind: str, value: Any) -> None:
        try:
            with lock:
                pipe.send((kind, value))
        except OSError:  # nobody is there to be told
            os._exit(1)

    try:
        job: VocodeJob = pipe.recv()
    except EOFError:
        return
    try:
        runner = job.load()
        tell("loaded", None)
        tell("ready", _about(runner.vocoder))  # with its engine, which takes a second to be made
    except DistillError as error:
        tell("refused", str(error))
        return

    def batches() -> Iterator[Batch]:
        while True:
            try:
                batch = pipe.recv()
            except EOFError:
                return
            yield batch

    runner.run_all(batches(), lambda outcome: tell("outcome", outcome), lambda seconds: tell("seconds", seconds))


def _about(vocoder: VocoderBase) -> dict[str, Any]:
    import torch

    return {
        "vocoder": repr(vocoder),
        "report": vocoder.report().to_dict(),
        "device": vocoder.device.type,
        "devices": torch.cuda.device_count() if vocoder.device.type == "cuda" else 1,
        "parameters": vocoder.variant.parameters,
    }


def _end_with_parent() -> None:
    """Whatever the parent died of, nobody waits for this process any more."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
