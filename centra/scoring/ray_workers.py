"""What the workers of a Ray cluster do of scoring files: read chunks, answer them, make the files.

An error is a result like any other, packed, and raised by the driver: Ray would hand on its text alone,
or try again.
"""

from __future__ import annotations

import logging
import pickle
import socket
import threading
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from centra.errors import CentraError, ConflictError, first_line
from centra.runtime import load_release
from centra.scoring.files import answer_counts
from centra.scoring.parts import Part, PartFolder
from centra.scoring.scorer import Scorer
from centra.scoring.writers import make_writer
from centra.store.files import Folder, open_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from centra.data.readers import Position
    from centra.scoring.journal import Journal, MadeFrom
    from centra.scoring.plan import PlannedFile, Question

__all__ = [
    "END",
    "Answerer",
    "Attempts",
    "Job",
    "Loading",
    "Row",
    "finish",
    "packed",
    "read",
    "unpacked",
]

_log = logging.getLogger(__name__)

_ATTEMPTS = 5
"""How often a chunk may take its worker with it: Ray would begin it again for ever."""
END = -1
"""Instead of a chunk's number: the file has been read to its end."""

Row = dict[str, Any]
"""A row of Ray Data: plain values, and packed ones."""


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How a worker comes to its release."""

    source: str
    """As for :func:`centra.load_release`; a digest, and no channel, which could move."""
    tasks: tuple[str, ...] | None
    engine: str
    threads: int
    device: str | None
    dtype: str | None


@dataclass(frozen=True, kw_only=True)
class Job:
    """A file that is to be answered."""

    number: int
    """Of the file in this run."""
    planned: PlannedFile
    question: Question
    made_from: MadeFrom
    start: Position
    """Behind the parts of which none before is missing."""
    first: int
    """The number of the part that begins there."""
    there: frozenset[int]
    """The numbers of the parts behind it that are there, too.

    It is said once, before the run: a task that Ray repeats must give what it gave before.
    """


def read(row: Row) -> Iterator[Row]:
    """Read a file.

    Args:
        row: ``job``, packed.

    Yields:
        Of each chunk that is to be answered ``file`` and ``number``, ``chunk``, packed, and ``read``,
        the bytes up to its end from that of the one before. At the end one with the number
        :data:`END`, whose chunk is the count of all parts.
    """
    job: Job = unpacked(row["job"])
    try:
        yield from _chunks(job)
    except Exception as error:  # noqa: BLE001 - the driver raises it
        yield {"file": job.number, "number": END, "chunk": packed(error), "read": 0}


def _chunks(job: Job) -> Iterator[Row]:
    planned = job.planned
    place = planned.output.address, planned.name
    number, told = job.first, 0
    with planned.source.folder.open(planned.source.name) as file:
        reader = job.question.open_reader(file, planned)
        writer = make_writer(reader, job.question.answer_columns())
        for rows in reader.read(job.start):
            if number not in job.there:
                yield {
                    "file": job.number,
                    "number": number,
                    "chunk": packed((place, writer, rows)),
                    "read": rows.bytes_read - told,
                }
                told = rows.bytes_read
            number += 1
    if planned.input_digest() != job.made_from.input:
        raise ConflictError(
            f"{planned.source.shown}: has changed while it was read; remove {planned.parts.folder} to "
            "begin again",
            code="input-changed",
            path=planned.source.shown,
        )
    yield {"file": job.number, "number": END, "chunk": packed(number), "read": 0}


class Attempts:
    """An actor that counts how often chunks were begun."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[int, int]] = Counter()

    def begin(self, file: int, number: int) -> int:
        """Count another attempt; gives how many there were before."""
        self._counts[file, number] += 1
        return self._counts[file, number] - 1


class Answerer:
    """An actor that answers chunks; several threads may call it."""

    def __init__(self, loading: Loading, question: Question, attempts: Any) -> None:
        """Load nothing yet: of a start that fails Ray tells in text alone."""
        self._loading, self._question, self._attempts = loading, question, attempts
        self._columns = question.answer_columns()
        self._scorer: Scorer | None = None
        self._computing = threading.Lock()

    def __call__(self, row: Row) -> Row:
        """Answer a chunk, and write its part.

        Args:
            row: of :func:`read`.

        Returns:
            ``file``, ``number`` and ``read`` as they came, ``rows``, how many were answered, and
            ``result``, packed: of the end of a file what came with it, else nothing.
        """
        told = {"file": row["file"], "number": row["number"], "rows": 0, "read": row["read"]}
        if row["number"] == END:
            return {**told, "result": row["chunk"]}
        try:
            part = self._answer(row["file"], row["number"], row["chunk"])
        except Exception as error:  # noqa: BLE001 - the driver raises it
            _log.exception("a chunk was not answered")
            return {**told, "result": packed(error)}
        return {**told, "rows": part.rows, "result": packed(None)}

    def _answer(self, file: int, number: int, chunk: bytes) -> Part:
        import ray

        (address, name), writer, rows = unpacked(chunk)
        if ray.get(self._attempts.begin.remote(file, number)) >= _ATTEMPTS:
            raise CentraError(
                f"the rows from {rows.places[0]} on were begun {_ATTEMPTS} times, and each time the "
                "worker was ended, perhaps for lack of memory; fewer workers on a machine need less",
                code="worker-killed",
            )
        scorer = self._loaded()
        encoded = scorer.encode(rows)
        with self._computing:
            answered = scorer.answer(encoded)
        data = writer.encode(rows, [self._columns.cells(one) for one in answered])
        part = Part(number=number, end=rows.end, **answer_counts(answered))
        PartFolder(output=_folder(address), name=name).add(part, data)
        return part

    def _loaded(self) -> Scorer:
        with self._computing:
            if self._scorer is None:
                self._scorer = _load(self._loading, self._question)
            return self._scorer


def _load(loading: Loading, question: Question) -> Scorer:
    release = load_release(
        loading.source,
        tasks=loading.tasks,
        engine=loading.engine,
        threads=loading.threads,
        device=loading.device,
        dtype=loading.dtype,
    )
    if release.digest != question.release:
        raise ConflictError(
            f"{socket.gethostname()}: {loading.source} holds release sha256:{release.digest}; expected "
            f"{question.release}. All machines must reach the same under this address",
            code="another-release",
        )
    return Scorer(release, tasks=loading.tasks, top_k=question.top_k)


def finish(job: bytes) -> bytes:
    """Make a file of its parts, all of which are there.

    Args:
        job: packed.

    Returns:
        The journal of its end, packed.
    """
    try:
        return packed(_made(unpacked(job)))
    except Exception as error:  # noqa: BLE001 - the driver raises it
        return packed(error)


def _made(job: Job) -> Journal:
    planned, work = job.planned, job.planned.parts
    journal = work.find(job.made_from)
    assert journal is not None
    if journal.output is None:
        with planned.source.folder.open(planned.source.name) as file:
            reader = job.question.open_reader(file, planned)
            writer = make_writer(reader, job.question.answer_columns())
        journal = work.end(journal, None if writer.whole else writer.finish)
    work.publish(journal)
    return journal


@cache
def _folder(address: str) -> Folder:
    """A folder, opened once in a process: each one in S3 has connections of its own."""
    return open_folder(address)


def packed(value: object) -> bytes:
    """A value that can be sent; what is no error of ours becomes one."""
    if isinstance(value, Exception) and not isinstance(value, CentraError):
        value = CentraError(
            f"a worker on {socket.gethostname()} failed: {type(value).__name__}: {first_line(value)}",
            code="worker-failed",
        )
    return pickle.dumps(value)


def unpacked(data: bytes) -> Any:
    """What was packed, by a process of the same run.

    Raises:
        CentraError: it was one.
    """
    value = pickle.loads(data)  # noqa: S301 - nobody else's
    if isinstance(value, CentraError):
        raise value
    return value
