"""Files of inputs answered by one process, each into a file of its own name and format."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from centra.data.readers import Position
from centra.errors import ConflictError, DataError
from centra.progress import Progress, silent
from centra.scoring.plan import PlannedFile, Question, named_columns, plan_outputs
from centra.scoring.scorer import Scorer
from centra.scoring.writers import make_writer

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from centra.data.readers import Reader, Rows
    from centra.runtime import Release
    from centra.scoring.answers import AnswerColumns
    from centra.scoring.journal import Journal, MadeFrom, WorkFolder
    from centra.scoring.journal import Rows as WrittenRows
    from centra.scoring.parts import PartFolder, PartRows
    from centra.scoring.scorer import Encoded
    from centra.scoring.writers import Writer

__all__ = ["ScoredFile", "answer_counts", "score_files", "scored_file"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ScoredFile:
    """A file of answers that is done."""

    input: str
    """Its address, for people."""
    output: str
    digest: str
    """Of the output."""
    size: int
    """Of the output, in bytes."""
    rows: int
    failed: int
    """Rows that have an error instead of answers."""
    truncated: int
    """Rows of which a task did not read all."""
    resumed: int
    """Rows that earlier runs had answered."""
    changed: bool
    """Whether it was not done before."""
    seconds: float
    """What this run took for it."""


def score_files(
    release: Release,
    inputs: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    tasks: Collection[str] | str | None = None,
    top_k: int | None = None,
    flat: bool = False,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    progress: Progress = silent,
) -> list[ScoredFile]:
    """Answer files of inputs, in constant memory.

    Each row of an output has all columns of its input, ``answers`` (or, flat, columns for each task),
    and ``error`` where it cannot be answered, which stops no other row. Killed at any moment, the same
    call goes on where it stopped, and ends with the bytes that it would have had; done, it changes
    nothing more.

    Args:
        release: answers.
        inputs: ``.jsonl``, ``.json``, ``.csv``, ``.tsv``, ``.parquet``, ``.arrow``, ``.conll``, or
            ``.txt`` with a text on each line; rows have ``text`` (and ``text_pair``) or ``tokens``. Also
            folders, what ``datasets`` saved among them, patterns, and such in S3, see
            :func:`centra.store.files.find_files`; and ``hf://ORG/NAME``.
        output: the folder of the outputs, or ``s3://bucket/prefix``. They have the names of their
            inputs; of what a folder or pattern stands for, with what follows the folder. Of lines of
            text, JSON and CoNLL the output is JSONL, of Arrow Parquet.
        tasks, top_k: as for :meth:`centra.Release.predict`.
        flat: columns for each task; see :class:`centra.scoring.answers.AnswerColumns`.
        columns: by ``text``, ``text_pair`` or ``tokens`` the column that it is in, where it has another
            name.
        encoding: of text files; None for UTF-8, or what a byte-order mark says.
        progress: told of bytes of each input.

    Returns:
        What became of each input, in order.

    Raises:
        UsageError: a file of no format that is read, or options that are none.
        NotFoundError: a task that is not loaded, or no such file.
        ConflictError: two outputs of one name; an output that exists, or was begun from something else;
            a column of an input that its answers need; or an input changes meanwhile.
        DataError: an input cannot be read, is in another encoding, or has no column of texts.
        VerificationError: an output was changed since it was made.
        StoreNotWritableError: the folder cannot be written.
        StoreError: a bucket cannot be reached.
        Exception: a branch failed; what was answered before counts.
    """
    scorer = Scorer(release, tasks=tasks, top_k=top_k)
    question = Question(
        release=release.digest,
        engine=release.engine,
        dtype=release.dtype,
        kinds=scorer.kinds,
        top_k=top_k,
        flat=flat,
        columns=named_columns(columns),
        encoding=encoding,
    )
    scoring = _Scoring(
        scorer=scorer, question=question, columns=question.answer_columns(), progress=progress
    )
    plan = plan_outputs(inputs, output)
    for file in plan:
        scoring.check(file)
    return [scoring.score(file) for file in plan]


def answer_counts(answered: Sequence[dict[str, Any] | str]) -> dict[str, int]:
    """How many rows there are, how many of them have an error, and how many were not read whole."""
    return {
        "rows": len(answered),
        "failed": sum(isinstance(one, str) for one in answered),
        "truncated": sum(
            any("truncated" in answer for answer in one.values())
            for one in answered
            if not isinstance(one, str)
        ),
    }


def scored_file(
    file: PlannedFile, journal: Journal, *, size: int, resumed: int, changed: bool, seconds: float
) -> ScoredFile:
    """What became of a file that is done.

    Args:
        file: what it is.
        journal: of its end.
        size, resumed, changed, seconds: see :class:`ScoredFile`.
    """
    assert journal.output is not None
    return ScoredFile(
        input=file.source.shown,
        output=file.target,
        digest=journal.output,
        size=size,
        rows=journal.rows,
        failed=journal.failed,
        truncated=journal.truncated,
        resumed=resumed,
        changed=changed,
        seconds=seconds,
    )


@dataclass(frozen=True, kw_only=True)
class _Scoring:
    """What is the same for all files of a run."""

    scorer: Scorer
    question: Question
    columns: AnswerColumns
    progress: Progress

    def check(self, file: PlannedFile) -> None:
        """Refuse a file before anything is computed."""
        with file.source.folder.open(file.source.name) as opened:
            self.question.open_reader(opened, file)
        if file.work.read() is not None or file.output.stat(file.name) is not None:
            file.work.find(self.question.made_from(file))

    def score(self, file: PlannedFile) -> ScoredFile:
        """Answer a file."""
        begun = time.monotonic()
        work = file.work
        with work.locked():
            made_from = self.question.made_from(file)
            before = work.find(made_from)
            journal = before
            if journal is None or journal.output is None:
                journal = self._score(file, work, made_from, journal)
            changed = work.publish(journal)
        return scored_file(
            file,
            journal,
            size=work.size(),
            resumed=0 if before is None else before.rows,
            changed=changed,
            seconds=time.monotonic() - begun,
        )

    def _score(
        self,
        file: PlannedFile,
        work: WorkFolder | PartFolder,
        made_from: MadeFrom,
        before: Journal | None,
    ) -> Journal:
        """Answer what is not answered yet, and make the file of it."""
        with file.source.folder.open(file.source.name) as opened:
            reader = self.question.open_reader(opened, file)
            writer = make_writer(reader, self.columns)
            with (
                work.begin(made_from, reader.start, writer.head())
                if before is None
                else work.go_on(before)
            ) as written:
                self._answer(file, reader, writer, written)
        if file.input_digest() != made_from.input:
            raise ConflictError(
                f"{file.source.shown}: has changed while it was read; remove {work.folder} to begin "
                "again",
                code="input-changed",
                path=file.source.shown,
            )
        return work.end(written.journal, None if writer.whole else writer.finish)

    def _answer(
        self, file: PlannedFile, reader: Reader, writer: Writer, written: WrittenRows | PartRows
    ) -> None:
        """Read and tokenise one chunk, compute another, and write a third, all at once."""
        report = _Report(file, written.journal.rows, self.progress)
        journal = written.journal
        start = Position(offset=journal.offset, line=journal.line)
        with ThreadPoolExecutor(1) as reading, ThreadPoolExecutor(1) as writing:
            writes: Future[None] | None = None
            for rows, encoded in _ahead(reading, self._encoded(file, reader, start)):
                answered = self.scorer.answer(encoded)
                if writes is not None:
                    writes.result()
                writes = writing.submit(self._write, rows, answered, writer, written)
                report(written.journal.rows, rows.bytes_read)
            if writes is not None:
                writes.result()
        report(written.journal.rows, report.size)

    def _encoded(
        self, file: PlannedFile, reader: Reader, start: Position
    ) -> Iterator[tuple[Rows, Encoded]]:
        try:
            for rows in reader.read(start):
                yield rows, self.scorer.encode(rows)
        except OSError as error:
            shown = file.source.shown
            raise DataError(f"{shown}: cannot be read ({error.strerror or error})") from error

    def _write(
        self,
        rows: Rows,
        answered: Sequence[dict[str, Any] | str],
        writer: Writer,
        written: WrittenRows | PartRows,
    ) -> None:
        data = writer.encode(rows, [self.columns.cells(one) for one in answered])
        written.add(data, rows.end, **answer_counts(answered))


class _Report:
    """Tells of a file's rows, and how many are answered in a second."""

    def __init__(self, file: PlannedFile, before: int, progress: Progress) -> None:
        self._name, self._before, self._progress = file.source.name, before, progress
        self._begun = time.monotonic()
        stat = file.source.folder.stat(file.source.name)
        self.size = 0 if stat is None else stat.size

    def __call__(self, rows: int, bytes_read: int) -> None:
        """Tell of it.

        Args:
            rows: that are written.
            bytes_read: of the input.
        """
        passed = time.monotonic() - self._begun
        rate = (rows - self._before) / passed if passed else 0.0
        what = f"{self._name}: {rows:,} rows, {rate:,.0f} a second"
        self._progress(what, min(bytes_read, self.size), self.size)


def _ahead(executor: ThreadPoolExecutor, items: Iterator[T]) -> Iterator[T]:
    """Some items, of which the next is made while one is in use."""
    end: Any = object()
    following = executor.submit(next, items, end)
    while (item := following.result()) is not end:
        following = executor.submit(next, items, end)
        yield item
