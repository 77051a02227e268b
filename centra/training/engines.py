"""Where training runs are carried out: processes of this machine, or a Ray cluster.

An engine maps a function over jobs and yields each result as it comes. Jobs share nothing but
files: on a cluster they are in a bucket, or at the same path on every machine. Each job has one
process, and that one GPU where there are any.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import threading
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Protocol, TypeVar

from centra.errors import CentraError, UsageError
from centra.system.processes import PROGRAM, apart, is_program
from centra.system.processors import processors
from centra.system.ray import connect_to_ray

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["ENGINES", "Engine", "LocalEngine", "RayEngine", "gpu_of", "open_engine"]

Job = TypeVar("Job")
Result = TypeVar("Result")

ENGINES = ("local", "ray")

_log = logging.getLogger(__name__)

_LOSSES = 4
"""So often a job is carried out again."""


class Engine(Protocol):
    """Carries out jobs, several at a time."""

    @property
    def one_machine(self) -> bool:
        """Whether all jobs are carried out on this machine."""
        ...

    def map(
        self, function: Callable[[Job], Result], jobs: Sequence[Job]
    ) -> Iterator[tuple[int, Result]]:
        """Yield ``(index of the job, result)`` as jobs end, in any order.

        Args:
            function: importable by name.
            jobs: picklable.

        Raises:
            CentraError: a worker was killed; on a cluster, those of one job again and again.
            Exception: whatever the function raised; jobs that have not begun are given up.
        """
        ...


class LocalEngine:
    """This machine. With one process the jobs run in the caller's own, one after the other."""

    one_machine = True

    def __init__(self, processes: int | None = None) -> None:
        """Choose how many processes.

        Args:
            processes: at the same time; default one per GPU, or without any one per core, to eight.
                Those at work share the cores: small batches gain little from more threads.

        Raises:
            UsageError: fewer than one.
        """
        if processes is not None and processes < 1:
            raise UsageError(
                f"jobs must be at least 1, found {processes}", code="bad-jobs", jobs=processes
            )
        self.processes = processes or _gpus() or min(processors(), 8)
        self._pool: ProcessPoolExecutor | None = None

    def map(
        self, function: Callable[[Job], Result], jobs: Sequence[Job]
    ) -> Iterator[tuple[int, Result]]:
        if self.processes == 1:
            yield from ((i, function(job)) for i, job in enumerate(jobs))
            return
        # Fewer jobs than processes have more cores each.
        threads = max(1, _limit() // min(self.processes, max(len(jobs), 1)))
        environment = {**os.environ}
        with apart():
            self._pool = self._pool or _start_pool(self.processes, environment)
            waiting = {
                self._pool.submit(_with_threads, threads, function, job): i
                for i, job in enumerate(jobs)
            }
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        except BrokenProcessPool as error:
            self._pool = None
            raise CentraError(
                "a training process was ended from outside, perhaps for lack of memory; repeated, it "
                "goes on where it stopped, and with fewer jobs it needs less",
                code="worker-killed",
            ) from error
        finally:
            for future in waiting:
                future.cancel()


class RayEngine:
    """A Ray cluster: the one of ``RAY_ADDRESS``, or one that is started on this machine."""

    one_machine = False

    def __init__(self) -> None:
        """Connect.

        Raises:
            UsageError: Ray is not installed, or the cluster of ``RAY_ADDRESS`` is not there.
        """
        self._ray = connect_to_ray()
        self._resources: Callable[[], dict[str, float]] = self._ray.cluster_resources

    def map(
        self, function: Callable[[Job], Result], jobs: Sequence[Job]
    ) -> Iterator[tuple[int, Result]]:
        """A job whose worker is lost is carried out again; see :class:`Engine`."""
        # Each job has one core, or one GPU where the cluster has any. Ray would make losses good by
        # itself, but without a word, and a worker without memory for ever.
        gpus = 1 if self._resources().get("GPU") else 0
        remote = self._ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(function)
        waiting = {remote.remote(job): i for i, job in enumerate(jobs)}
        losses = Counter[int]()
        try:
            while waiting:
                (done, *_), _ = self._ray.wait([*waiting])
                # Waits no longer, also where it failed: cancelling what has ended can bring Ray down.
                place = waiting.pop(done)
                try:
                    result = self._ray.get(done)
                except self._ray.exceptions.RayTaskError as error:
                    # Its own text is the worker's traceback.
                    raise error.cause from error
                except self._ray.exceptions.RayError as error:
                    losses[place] += 1
                    self._check_loss(error, f"run {place + 1} of {len(jobs)}", losses[place])
                    waiting[remote.remote(jobs[place])] = place
                else:
                    yield place, result
        finally:
            for reference in waiting:
                self._ray.cancel(reference)

    def _check_loss(self, error: Exception, run: str, count: int) -> None:
        """Refuse to carry out once more what is lost again and again, or has never begun."""
        kinds = self._ray.exceptions
        lost = (
            kinds.NodeDiedError,
            kinds.ObjectLostError,
            kinds.OutOfMemoryError,
            kinds.WorkerCrashedError,
        )
        reason = str(error).strip().partition("\n")[0]
        if not isinstance(error, lost):
            raise CentraError(
                f"Ray could not carry out {run}: {reason}", code="ray-failed"
            ) from error
        if count > _LOSSES:
            raise CentraError(
                f"{run} lost its worker {count} times, and is given up. The last time Ray said: "
                f"{reason} Repeated, it goes on where it stopped.",
                code="worker-lost",
                losses=count,
            ) from error
        _log.warning("%s lost its worker, and is carried out again: %s", run, reason)


def open_engine(name: str, processes: int | None = None) -> Engine:
    """The engine of a name in :data:`ENGINES`.

    Args:
        name: ``local`` or ``ray``.
        processes: of the local one; see :class:`LocalEngine`.

    Raises:
        UsageError: another name, or an engine that is not there.
    """
    if name == "local":
        return LocalEngine(processes)
    if name == "ray":
        return RayEngine()
    raise UsageError(
        f"engine {name!r}: expected one of {', '.join(ENGINES)}",
        code="unknown-engine",
        engine=name,
        known=list(ENGINES),
    )


def _start_pool(processes: int, environment: dict[str, str]) -> ProcessPoolExecutor:
    # Forked copies of a process that has run torch may hang, and those of one that has seen a GPU
    # may not use it. Without GPUs workers are forks of a process that has imported all and run
    # nothing: the import, seconds long, happens once and not in each.
    context = multiprocessing.get_context("spawn" if _gpus() else "forkserver")
    program = [PROGRAM] if is_program() else []
    context.set_forkserver_preload([*program, "centra.training.jobs"])
    places = context.SimpleQueue()
    for place in range(processes):
        places.put(place)
    return ProcessPoolExecutor(
        processes,
        mp_context=context,
        initializer=_start_worker,
        initargs=(places, environment),
    )


def _start_worker(places: multiprocessing.SimpleQueue[int], environment: dict[str, str]) -> None:
    """Take a GPU, and end with the parent however that ends."""
    # The process that it is a fork of may have been started in another environment.
    os.environ.clear()
    os.environ.update(environment)
    # Each training begins with a garbage collection, which need not look at what was imported.
    gc.freeze()
    place = places.get()
    if gpus := _gpus():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu_of(place, gpus, visible)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def gpu_of(place: int, gpus: int, visible: str) -> str:
    """The one GPU of a process, as CUDA_VISIBLE_DEVICES names it.

    Args:
        place: of the process among those at work, from 0.
        gpus: how many there are.
        visible: what CUDA_VISIBLE_DEVICES was: the caller may have been given some of them only.
    """
    names = visible.split(",") if visible else [str(i) for i in range(gpus)]
    return names[place % gpus].strip()


def _with_threads(threads: int, function: Callable[[Job], Result], job: Job) -> Result:
    """Carry out a job with its share of the cores."""
    import torch

    torch.set_num_threads(threads)
    return function(job)


def _limit() -> int:
    """The threads of all processes together: the cores, or fewer where the environment says so."""
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return min(processors(), int(wanted)) if wanted.isdecimal() else processors()


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
