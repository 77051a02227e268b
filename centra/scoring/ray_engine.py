"""Files of inputs answered by a Ray cluster, over Ray Data.

Tasks read files and cut them into the chunks that one process would read; a pool of actors, each with
a release of its own, answers the chunks of all files in any order, and writes each as a part (see
:mod:`centra.scoring.parts`); when the parts of a file are all there, a task makes the file of them.
A chunk is answered as one process answers it, and so are the files, byte by byte.

A part that is there is not answered again, by whichever run. A worker or node that dies is made good
by Ray: the same file gives the same chunks again, and a part written twice is there once.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from centra.data.readers import Position
from centra.errors import CentraError, NotFoundError, UsageError, first_line
from centra.formats.names import distinct_names
from centra.progress import Progress, silent
from centra.releases.find import ReleaseLocation, find_release
from centra.releases.folder import ReleaseFolder
from centra.runtime.engines import default_engine
from centra.scoring.files import ScoredFile, scored_file
from centra.scoring.plan import PlannedFile, Question, named_columns, plan_outputs
from centra.scoring.ray_workers import (
    END,
    Answerer,
    Attempts,
    Job,
    Loading,
    finish,
    packed,
    read,
    unpacked,
)
from centra.scoring.writers import make_writer
from centra.store import anchored_store
from centra.system.parallel import in_parallel
from centra.system.ray import connect_to_ray

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterator, Mapping, Sequence

    from centra.scoring.journal import Journal
    from centra.scoring.ray_workers import Row

__all__ = ["WorkerSize", "score_files_on_ray"]

_LOOKED_AT = 16
"""How many files are looked at at once, before anything is answered."""
_FINISHED = 8
"""How many files are made of their parts at once."""
_LOSSES = 5
"""How often making a file may lose its worker."""
_WORTH_A_WORKER = 2**20
"""Bytes of inputs for which another worker is started."""


@dataclass(frozen=True, kw_only=True)
class WorkerSize:
    """What each of the workers has that answer."""

    cpus: int = 1
    gpus: float | None = None
    """Some, or a part of one; by default one where the cluster has any."""


@dataclass(kw_only=True)
class _File:
    """A file of this run."""

    planned: PlannedFile
    begun: float
    size: int
    """Bytes of the input."""
    resumed: int = 0
    """Rows that earlier runs have answered."""
    changed: bool = True
    done: Journal | None = None
    job: Job | None = None
    """Where it is not done."""
    answered: int = 0
    """Parts that this run has written."""
    parts: int | None = None
    """How many it has, once it is read to its end."""
    seconds: float = 0.0

    @property
    def is_answered(self) -> bool:
        """Whether all its parts are there."""
        job = self.job
        return job is not None and self.parts == job.first + len(job.there) + self.answered


def score_files_on_ray(
    source: str | os.PathLike[str],
    inputs: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    tasks: Collection[str] | str | None = None,
    top_k: int | None = None,
    flat: bool = False,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    worker: WorkerSize | None = None,
    progress: Progress = silent,
) -> list[ScoredFile]:
    """Answer files of inputs on the cluster of ``RAY_ADDRESS``, or on one that is started here.

    What becomes of them is what :func:`centra.scoring.score_files` makes of them, byte for byte, and a
    run of the one goes on where one of the other stopped. All machines reach the inputs, the folder of
    the outputs, and the release under the same addresses, and S3 by settings of their own.

    Args:
        source: of the release, as for :func:`centra.load_release`; a channel is looked up once.
        inputs, output, tasks, top_k, flat, columns, encoding: as for :func:`centra.scoring.score_files`.
        device, dtype: as for :func:`centra.load_release`.
        worker: what each worker has.
        progress: told of bytes of all inputs together.

    Returns:
        What became of each input, in order.

    Raises:
        CentraError: as for :func:`centra.scoring.score_files` and :func:`centra.load_release`; also on
            a worker, which ends the run.
        UsageError: Ray is not installed, no cluster is there, or it has no room for a worker.
    """
    plan = plan_outputs(inputs, output)
    location = find_release(source)
    tasks = None if tasks is None else tuple(distinct_names(tasks))
    # Of workers that it can start again Ray says what reads like a fault.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    ray = connect_to_ray(include_dashboard=False)
    room = ray.cluster_resources()
    size = _sized(worker or WorkerSize(), room)
    loading = _loading(_pinned(source, location), tasks, size, device=device, dtype=dtype)
    question = Question(
        release=location.digest,
        engine=loading.engine,
        dtype=loading.dtype,
        kinds=_kinds(location, tasks),
        top_k=top_k,
        flat=flat,
        columns=named_columns(columns),
        encoding=encoding,
    )
    look_at = partial(_look_at, question=question)
    files = [*in_parallel(look_at, enumerate(plan), _LOOKED_AT)]
    if any(file.job for file in files):
        _answer(ray, files, _Pool(loading=loading, size=size, room=room), progress)
    return [*in_parallel(_done, files, _LOOKED_AT)]


@dataclass(frozen=True, kw_only=True)
class _Pool:
    """The workers that answer."""

    loading: Loading
    size: WorkerSize
    room: Mapping[str, float]
    """What the cluster has."""

    def workers(self, size: int) -> int:
        """How many begin, for so many bytes of inputs; Ray adds others where a cluster grows."""
        fit = [self.room.get("CPU", 0) // self.size.cpus]
        if self.size.gpus:
            fit.append(self.room.get("GPU", 0) // self.size.gpus)
        return max(1, min(int(min(fit)), size // _WORTH_A_WORKER))


def _sized(worker: WorkerSize, room: Mapping[str, float]) -> WorkerSize:
    gpus = worker.gpus
    if gpus is None:
        gpus = 1 if room.get("GPU") else 0
    for name, wanted in (("CPU", worker.cpus), ("GPU", gpus)):
        if wanted > (found := room.get(name, 0.0)):
            raise UsageError(
                f"a worker is to have {wanted:g} of {name}, and the cluster has {found:g}",
                code="cluster-too-small",
                resource=name,
            )
    return WorkerSize(cpus=worker.cpus, gpus=gpus)


def _pinned(source: str | os.PathLike[str], location: ReleaseLocation) -> str:
    """The address of the very release that was found, wherever its channel leads later."""
    if isinstance(location.reader, ReleaseFolder):
        return os.path.abspath(os.fspath(source))  # noqa: PTH100 - nothing else of it is changed
    store: Any = location.reader
    return f"{anchored_store(store.url, Path.cwd())}#{location.digest}"


def _loading(
    source: str,
    tasks: tuple[str, ...] | None,
    size: WorkerSize,
    *,
    device: str | None,
    dtype: str | None,
) -> Loading:
    """What all workers are told alike, so that all compute alike."""
    device = device or ("cuda" if size.gpus else "cpu")
    engine = default_engine(device, dtype)
    return Loading(
        source=source,
        tasks=tasks,
        engine=engine,
        threads=size.cpus,
        device=device,
        dtype=dtype or {"onnx": None, "torch": "bf16" if size.gpus else "fp32"}[engine],
    )


def _kinds(location: ReleaseLocation, tasks: tuple[str, ...] | None) -> dict[str, str]:
    entries = location.manifest.tasks
    for name in tasks or ():
        if name not in entries:
            raise NotFoundError(
                f"the release has no task {name!r}; it has {', '.join(sorted(entries))}",
                code="no-such-task",
                task=name,
            )
    return {name: entries[name].kind for name in sorted(tasks or entries)}


def _look_at(numbered: tuple[int, PlannedFile], *, question: Question) -> _File:
    """Refuse a file before anything is answered, or begin it, or find how far it is."""
    number, planned = numbered
    file = _File(planned=planned, begun=time.monotonic(), size=0)
    work, made_from = planned.parts, question.made_from(planned)
    journal = work.find(made_from)
    with planned.source.folder.open(planned.source.name) as opened:
        file.size = opened.seek(0, os.SEEK_END)
        if journal is not None and journal.output is not None:
            file.done, file.resumed, file.changed = journal, journal.rows, work.publish(journal)
            return file
        reader = question.open_reader(opened, planned)
        if journal is None:
            head = make_writer(reader, question.answer_columns()).head()
            journal = work.begin(made_from, reader.start, head).journal
    parts = work.parts()
    first = next(number for number in count() if number not in parts)
    file.resumed = sum(part.rows for part in parts.values())
    file.job = Job(
        number=number,
        planned=planned,
        question=question,
        made_from=made_from,
        start=Position(offset=journal.offset, line=journal.line),
        first=first,
        there=frozenset(number for number in parts if number > first),
    )
    return file


def _done(file: _File) -> ScoredFile:
    assert file.done is not None
    return scored_file(
        file.planned,
        file.done,
        size=file.planned.parts.size(),
        resumed=file.resumed,
        changed=file.changed,
        seconds=file.seconds,
    )


def _answer(ray: Any, files: Sequence[_File], pool: _Pool, progress: Progress) -> None:
    """Answer files, and make each of its parts as soon as they are there."""
    report = _Report(files, progress)
    make = ray.remote(num_cpus=0, max_retries=_LOSSES)(finish)
    making: dict[Any, _File] = {}

    def collect(*, most: int) -> None:
        """Wait until at most so many files are being made."""
        while len(making) > most:
            (made, *_), _ = ray.wait([*making])
            file = making.pop(made)
            file.done = unpacked(ray.get(made))
            file.seconds = time.monotonic() - file.begun

    with _ray_errors(ray), closing(_answered(ray, files, pool)) as rows:
        for row in rows:
            file, result = files[row["file"]], unpacked(row["result"])
            if row["number"] == END:
                file.parts = result
            else:
                file.answered += 1
            report(row["rows"], row["read"])
            if file.is_answered:
                collect(most=_FINISHED - 1)
                making[make.remote(packed(file.job))] = file
        collect(most=0)
    report.end()


def _answered(ray: Any, files: Sequence[_File], pool: _Pool) -> Generator[Row]:
    """What workers tell of chunks and of the ends of files, in any order."""
    from ray.data import ActorPoolStrategy, DataContext, from_items

    jobs = [file.job for file in files if file.job is not None]
    workers = pool.workers(sum(file.size for file in files if file.job is not None))
    attempts = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Attempts).remote()
    context = DataContext.get_current().copy()
    context.target_max_block_size = 1  # Each chunk is a block, so that any worker may take it.
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # What fails is raised.
    with DataContext.current(context), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="ray")  # Of how few chunks there are.
        chunks = from_items(
            [{"job": packed(job)} for job in jobs], override_num_blocks=len(jobs)
        ).flat_map(read, num_cpus=0, concurrency=1 + workers // 2)
        answerer: Any = Answerer
        answers: Any = chunks.map(
            answerer,
            fn_constructor_args=(pool.loading, jobs[0].question, attempts),
            # A worker tokenises a chunk, or writes one, while it computes another.
            compute=ActorPoolStrategy(
                min_size=workers,
                max_concurrent_calls_per_actor=2,
                enable_true_multi_threading=True,
            ),
            num_cpus=pool.size.cpus,
            num_gpus=pool.size.gpus or None,
        )
        for batch in answers.iter_batches(
            batch_size=None, batch_format="pyarrow", prefetch_batches=0
        ):
            yield from batch.to_pylist()


@contextmanager
def _ray_errors(ray: Any) -> Iterator[None]:
    """Say of what Ray gives up what it means here."""
    try:
        yield
    except ray.exceptions.RayError as error:
        raise CentraError(
            f"the cluster gave up ({first_line(error)}); perhaps workers were ended for lack of "
            "memory. What was answered counts: repeated, the run goes on where it stopped",
            code="cluster-gave-up",
        ) from error


class _Report:
    """Tells of the bytes of all inputs together, and how many rows are answered in a second."""

    def __init__(self, files: Sequence[_File], progress: Progress) -> None:
        self._progress = progress
        self._begun = time.monotonic()
        self._files = len(files)
        self._total = sum(file.size for file in files)
        self._read = sum(file.size for file in files if file.job is None)
        self._rows = 0

    def __call__(self, rows: int, read_bytes: int) -> None:
        """Tell of a chunk.

        Args:
            rows: that it has.
            read_bytes: of the input, from the end of the chunk before.
        """
        self._rows += rows
        self._read += read_bytes
        self._tell(min(self._read, self._total - 1))

    def end(self) -> None:
        """Tell of the end."""
        self._tell(self._total)

    def _tell(self, done: int) -> None:
        rate = self._rows / max(time.monotonic() - self._begun, 1e-9)
        what = f"{self._files:,} files: {self._rows:,} rows, {rate:,.0f} a second"
        self._progress(what, done, self._total)
