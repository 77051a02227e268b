"""Files of inputs answered on this machine, each into a file of its own name and format."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from centra.errors import ConflictError, DataError, UsageError
from centra.progress import Progress, silent
from centra.scoring.answers import AnswerColumns
from centra.scoring.formats import format_of, output_name
from centra.scoring.journal import Journal, MadeFrom, WorkFolder
from centra.scoring.readers import FIELDS, Position, open_reader
from centra.scoring.scorer import Scorer
from centra.scoring.writers import make_writer
from centra.system.files import file_digest
from centra.system.reading import open_regular

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from concurrent.futures import Future
    from io import BufferedReader

    from centra.runtime import Release
    from centra.scoring.journal import Rows as WrittenRows
    from centra.scoring.readers import Reader, Rows
    from centra.scoring.scorer import Encoded
    from centra.scoring.writers import Writer

__all__ = ["ScoredFile", "plan_outputs", "score_files"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ScoredFile:
    """A file of answers that is done."""

    input: Path
    output: Path
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
    inputs: Sequence[Path | str],
    output: Path | str,
    *,
    tasks: Collection[str] | str | None = None,
    top_k: int | None = None,
    flat: bool = False,
    columns: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> list[ScoredFile]:
    """Answer files of inputs, in constant memory.

    Each row of an output has all columns of its input, ``answers`` (or, flat, columns for each task),
    and ``error`` where it cannot be answered, which stops no other row. Killed at any moment, the same
    call goes on where it stopped, and ends with the bytes that it would have had; done, it changes
    nothing more.

    Args:
        release: answers.
        inputs: ``.jsonl``, ``.csv``, ``.tsv``, ``.parquet``, or ``.txt`` with a text on each line; rows
            have ``text`` (and ``text_pair``) or ``tokens``.
        output: the folder of the outputs, which have the names of their inputs; it is made. Of lines of
            text the output is JSONL.
        tasks, top_k: as for :meth:`centra.Release.predict`.
        flat: columns for each task; see :class:`centra.scoring.answers.AnswerColumns`.
        columns: by ``text``, ``text_pair`` or ``tokens`` the column that it is in, where it has another
            name.
        progress: told of bytes of each input.

    Returns:
        What became of each input, in order.

    Raises:
        UsageError: a file of no format that is read, or options that are none.
        NotFoundError: a task that is not loaded.
        ConflictError: two outputs of one name; an output that exists, or was begun from something else;
            a column of an input that its answers need; or an input changes meanwhile.
        DataError: an input cannot be read, is in another encoding, or has no column of texts.
        VerificationError: an output was changed since it was made.
        StoreNotWritableError: the folder cannot be written.
        Exception: a branch failed; what was answered before counts.
    """
    scorer = Scorer(release, tasks=tasks, top_k=top_k)
    named = {**dict(zip(FIELDS, FIELDS, strict=True)), **(columns or {})}
    scoring = _Scoring(
        scorer=scorer,
        columns=AnswerColumns(scorer.kinds, flat=flat, top_k=top_k),
        named=named,
        options={
            "columns": named,
            "release": release.digest,
            "engine": release.engine,
            "dtype": release.dtype,
            "tasks": tuple(scorer.kinds),
            "top_k": top_k,
            "flat": flat,
        },
        progress=progress,
    )
    plan = plan_outputs(inputs, Path(output))
    for source, target in plan:
        scoring.check(source, target)
    return [scoring.score(source, target) for source, target in plan]


def plan_outputs(inputs: Sequence[Path | str], output: Path) -> list[tuple[Path, Path]]:
    """Each input with its output.

    Raises:
        UsageError: a file of no format that is read, or the folder is a file.
        ConflictError: an input would be its own output, or two have one.
    """
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output}: is a file; expected a folder", code="not-a-folder")
    plan = [(Path(source), output / output_name(Path(source).name)) for source in inputs]
    counts = Counter(target for _, target in plan)
    for source, target in plan:
        if counts[target] > 1:
            others = ", ".join(str(other) for other, same in plan if same == target)
            raise ConflictError(
                f"{target}: would be the output of {counts[target]} inputs: {others}; give them one "
                "by one, each with a folder of its own",
                code="same-output",
                path=str(target),
            )
        if target.exists() and source.exists() and target.samefile(source):
            raise ConflictError(
                f"{source}: lies in the folder of the outputs, and its output would take its place; "
                "give another folder",
                code="output-is-input",
                path=str(source),
            )
    return plan


@dataclass(frozen=True, kw_only=True)
class _Scoring:
    """What is the same for all files of a run."""

    scorer: Scorer
    columns: AnswerColumns
    named: Mapping[str, str]
    options: Mapping[str, Any]
    progress: Progress

    def check(self, source: Path, target: Path) -> None:
        """Refuse a file before anything is computed."""
        with _opened(source) as file:
            self._reader(file, source)
        work = WorkFolder(target)
        if work.read() is not None or target.exists():
            work.find(self._made_from(source))

    def score(self, source: Path, target: Path) -> ScoredFile:
        """Answer a file."""
        begun = time.monotonic()
        work = WorkFolder(target)
        with work.locked():
            made_from = self._made_from(source)
            before = work.find(made_from)
            journal = before
            if journal is None or journal.output is None:
                journal = self._score(source, work, made_from, journal)
            changed = not target.exists()
            work.publish(journal)
        assert journal.output is not None
        return ScoredFile(
            input=source,
            output=target,
            digest=journal.output,
            size=target.stat().st_size,
            rows=journal.rows,
            failed=journal.failed,
            truncated=journal.truncated,
            resumed=0 if before is None else before.rows,
            changed=changed,
            seconds=time.monotonic() - begun,
        )

    def _score(
        self, source: Path, work: WorkFolder, made_from: MadeFrom, before: Journal | None
    ) -> Journal:
        """Answer what is not answered yet, and make the file of it."""
        with _opened(source) as file:
            reader = self._reader(file, source)
            writer = make_writer(reader, self.columns)
            with (
                work.begin(made_from, reader.start, writer.head())
                if before is None
                else work.go_on(before)
            ) as written:
                self._answer(source, reader, writer, written)
        if _digest(source) != made_from.input:
            raise ConflictError(
                f"{source}: has changed while it was read; remove {work.folder} to begin again",
                code="input-changed",
                path=str(source),
            )
        return work.end(written.journal, None if writer.whole else writer.finish)

    def _answer(self, source: Path, reader: Reader, writer: Writer, written: WrittenRows) -> None:
        """Read and tokenise one chunk, compute another, and write a third, all at once."""
        report = _Report(source, written.journal.rows, self.progress)
        journal = written.journal
        start = Position(offset=journal.offset, line=journal.line)
        with ThreadPoolExecutor(1) as reading, ThreadPoolExecutor(1) as writing:
            writes: Future[None] | None = None
            for rows, encoded in _ahead(reading, self._encoded(source, reader, start)):
                answered = self.scorer.answer(encoded)
                if writes is not None:
                    writes.result()
                writes = writing.submit(self._write, rows, answered, writer, written)
                report(written.journal.rows, rows.bytes_read)
            if writes is not None:
                writes.result()
        report(written.journal.rows, report.size)

    def _encoded(
        self, source: Path, reader: Reader, start: Position
    ) -> Iterator[tuple[Rows, Encoded]]:
        try:
            for rows in reader.read(start):
                yield rows, self.scorer.encode(rows)
        except OSError as error:
            raise DataError(f"{source}: cannot be read ({error.strerror or error})") from error

    def _write(
        self,
        rows: Rows,
        answered: Sequence[dict[str, Any] | str],
        writer: Writer,
        written: WrittenRows,
    ) -> None:
        written.add(
            writer.encode(rows, [self.columns.cells(one) for one in answered]),
            rows.end,
            rows=len(rows),
            failed=sum(isinstance(one, str) for one in answered),
            truncated=sum(
                any("truncated" in answer for answer in one.values())
                for one in answered
                if not isinstance(one, str)
            ),
        )

    def _reader(self, file: BufferedReader, source: Path) -> Reader:
        # By its name alone: errors become a part of the output, which is the same from any folder.
        form = format_of(source.name)
        reserved = self.columns.names
        return open_reader(file, form, source.name, columns=self.named, reserved=reserved)

    def _made_from(self, source: Path) -> MadeFrom:
        return MadeFrom.model_validate(
            {"input": _digest(source), "format": format_of(source.name), **self.options}
        )


class _Report:
    """Tells of a file's rows, and how many are answered in a second."""

    def __init__(self, source: Path, before: int, progress: Progress) -> None:
        self._name, self._before, self._progress = source.name, before, progress
        self._begun = time.monotonic()
        self.size = source.stat().st_size

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


def _opened(source: Path) -> BufferedReader:
    try:
        return open_regular(source)
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror})") from error


def _digest(source: Path) -> str:
    try:
        return file_digest(source)
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror})") from error
