"""Measuring a released task on data, and recording what came out with the data's fingerprint."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import joinedload, undefer

from centra.data.inputs import fingerprint_of
from centra.data.labelling import read_for
from centra.errors import NotFoundError, UsageError
from centra.evaluation.outcomes import pack_outcomes
from centra.evaluation.report import check_slices, make_report
from centra.evaluation.summary import Summary
from centra.formats.precision import Precision
from centra.formats.task_module import read_spec
from centra.progress import Progress, Remark, silent, unheard
from centra.releases.evaluation import measure
from centra.runtime.engines import default_engine, engine_version
from registry import releases
from registry.database.models import Evaluation, ReleaseTask
from registry.rules.replay import measurement_content

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from centra.data.inputs import Example
    from centra.data.source import DataSource
    from centra.evaluation.report import Report
    from centra.formats.task_module import TaskSpec
    from registry.connection import Registry
    from registry.database.models import TaskVersion
    from registry.database.unit_of_work import UnitOfWork

__all__ = ["Evaluated", "EvaluationRow", "evaluate", "of_version", "report"]


@dataclass(frozen=True, kw_only=True)
class EvaluationRow:
    """A version measured on data, inside a release."""

    release: int
    task: str
    version: str
    precision: Precision
    """In which the release held it."""
    engine: str | None
    """What computed it, and its version: ``onnxruntime 1.32.0``; None for a measurement of a Centra
    that did not record it."""
    data: str
    """The fingerprint of the examples."""
    examples: int
    metrics: dict[str, float]
    at: datetime
    by: str
    summary: Summary | None = field(default=None, compare=False, repr=False)
    """Of a report on it; None where it was measured before one was kept, or it was not asked for."""
    complete: bool = True
    """Whether all is kept that this Centra keeps; an earlier one kept nothing of the rows."""
    outcomes: bytes | None = field(default=None, compare=False, repr=False)
    """That, packed, where it was asked for."""

    @property
    def counts(self) -> bool:
        """Whether these are the metrics of the version in this precision.

        One in int8 may have been measured in float32, on a machine that could do no better, where
        nothing says what computed it.
        """
        return self.precision == Precision.FP32 or self.engine is not None


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What measuring a task led to."""

    row: EvaluationRow
    new: bool
    """Whether it was recorded; False where the same was recorded already."""
    report: Report
    """On the answers, row by row; of the same data always the same."""


def evaluate(
    registry: Registry,
    reference: str,
    task: str,
    data: str | Path | DataSource,
    progress: Progress = silent,
    *,
    remark: Remark = unheard,
) -> tuple[EvaluationRow, bool]:
    """Measure a task of the merged release on labelled data, and record it.

    Args:
        registry: where.
        reference: a release's number, a channel's name, or the start of a digest.
        task: a task that the release holds.
        data: a file, a folder whose ``dev.*`` is taken, or another source; see
            :func:`centra.data.labelling.read_for`.
        progress: told of each step.
        remark: told what the data's labels were taken for.

    A task in int8 is computed by the onnx engine, which alone can; one in float32 by either engine.

    Returns:
        What was measured, and whether it is news: a version is measured once on the same data in
        the same precision, whichever release held it so then, because its answers are the same. One
        that an earlier Centra measured, which kept nothing of the rows, is measured once more.

    Raises:
        UsageError: the task is in int8, and onnxruntime is not installed.
        NotFoundError: there is no such release, or it holds no such task.
        DataError: missing, empty or malformed data, data that changes meanwhile, or a label that
            the task does not know.
        FormatError, BlobNotFoundError, CorruptBlobError, StoreError, DatabaseError: it cannot be
            read.
    """
    subject = _Subject.read(registry, reference, task, data, progress=progress, remark=remark)
    row = subject.recorded
    if row is not None:
        return row, False
    made = subject.report(registry, progress, slices=())
    return _record(registry, subject, made)


def report(
    registry: Registry,
    reference: str,
    task: str,
    data: str | Path | DataSource,
    progress: Progress = silent,
    *,
    slices: Sequence[str] = (),
    remark: Remark = unheard,
) -> Evaluated:
    """Measure a task as :func:`evaluate` does, and report on its answers.

    Args:
        registry, reference, task, data, progress, remark: as for :func:`evaluate`.
        slices: columns of the data's rows, or ``length``, to report on the rows by.

    Raises:
        UsageError: no row has such a column; or see :func:`evaluate`, as for all other errors.
    """
    subject = _Subject.read(registry, reference, task, data, progress=progress, remark=remark)
    check_slices(subject.examples, slices)
    made = subject.report(registry, progress, slices=slices)
    row, new = _record(registry, subject, made)
    return Evaluated(row=row, new=new, report=made)


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """What is to be measured, and on what."""

    release: int
    task: str
    precision: Precision
    spec: TaskSpec
    examples: list[Example]
    data: str
    """Their fingerprint."""
    recorded: EvaluationRow | None
    """The same measurement, where it is on record."""

    @classmethod
    def read(
        cls,
        registry: Registry,
        reference: str,
        task: str,
        data: str | Path | DataSource,
        *,
        progress: Progress,
        remark: Remark,
    ) -> _Subject:
        registry.check_store()
        with registry.read() as uow:
            number = uow.release(reference).number
            version, precision = _released_version(uow, number, task)
            known = of_version(uow, version)
            module = version.digest
        spec = read_spec(registry.store.fetch(module))
        # Read once: what is measured on is what the record names.
        examples = read_for(spec, data, progress, remark)
        digest = fingerprint_of(examples)
        return cls(
            release=number,
            task=task,
            precision=precision,
            spec=spec,
            examples=examples,
            data=digest,
            recorded=_find_recorded(known, digest, precision),
        )

    @property
    def engine(self) -> str:
        # What is on record holds for every machine, so a GPU has no say in it.
        return _engine_for(self.task, self.precision)

    def report(self, registry: Registry, progress: Progress, *, slices: Sequence[str]) -> Report:
        loaded = releases.load(
            registry,
            str(self.release),
            tasks=[self.task],
            engine=self.engine,
            device="cpu",
            progress=progress,
        )
        given = measure(loaded, self.task, self.examples, progress)
        return make_report(
            self.spec, self.examples, given.judgements, given.outcomes, slices=slices
        )


def _record(registry: Registry, subject: _Subject, report: Report) -> tuple[EvaluationRow, bool]:
    """Write a measurement down, unless it is on record; whether that is news."""
    number, task, digest = subject.release, subject.task, subject.data
    metrics = {name: round(value, 6) for name, value in report.all.metrics.items()}
    if subject.recorded is not None:
        return subject.recorded, False
    summary, outcomes = Summary.of(report).to_dict(), pack_outcomes(report.outcomes)
    with registry.write() as uow:
        version, precision = _released_version(uow, number, task)
        row = _find_recorded(of_version(uow, version), digest, precision)
        if row is not None:
            return row, False
        evaluation = Evaluation(
            release=uow.release(str(number)),
            version=version,
            engine=engine_version(subject.engine),
            data=digest,
            examples=len(subject.examples),
            metrics=metrics,
            summary=summary,
            outcomes=outcomes,
            at=uow.now,
            by=str(uow.actor),
        )
        uow.session.add(evaluation)
        details = {
            "release": number,
            "version": str(version.number),
            "precision": precision,
            "engine": evaluation.engine,
            "data": digest,
            "examples": len(subject.examples),
            "metrics": metrics,
            **measurement_content(summary, outcomes),
        }
        uow.record("task:evaluate", task, details)
        uow.session.flush()
        return _row(evaluation, precision), True


def of_version(
    uow: UnitOfWork, version: TaskVersion, *, summaries: bool = False, outcomes: bool = False
) -> list[EvaluationRow]:
    """All measurements of a version, the newest first.

    They count for every release that holds the version in that precision: its answers are the same.

    Args:
        uow: what reads.
        version: which.
        summaries: also read these.
        outcomes: also read these.
    """
    query = (
        select(Evaluation, ReleaseTask.precision, Evaluation.summary.is_not(None))
        .join(
            ReleaseTask,
            (ReleaseTask.release_id == Evaluation.release_id)
            & (ReleaseTask.version_id == Evaluation.version_id),
        )
        .where(Evaluation.version_id == version.id)
        .options(joinedload(Evaluation.release))
        .order_by(Evaluation.id.desc())
    )
    if summaries:
        query = query.options(undefer(Evaluation.summary))
    if outcomes:
        query = query.options(undefer(Evaluation.outcomes))
    return [
        replace(
            _row(evaluation, precision),
            summary=Summary.from_dict(evaluation.summary)
            if summaries and evaluation.summary
            else None,
            complete=complete,
            outcomes=evaluation.outcomes if outcomes else None,
        )
        for evaluation, precision, complete in uow.session.execute(query)
    ]


def _engine_for(task: str, precision: Precision) -> str:
    """The engine that computes a task as its release says, on the CPU."""
    engine = default_engine("cpu")
    if precision == Precision.INT8 and engine != "onnx":
        raise UsageError(
            f"task {task} is in int8, which only the onnx engine computes, and that needs "
            "onnxruntime: pip install 'centra[serve]'"
        )
    return engine


def _find_recorded(
    rows: list[EvaluationRow], data: str, precision: Precision
) -> EvaluationRow | None:
    """The measurement on the same data in the same precision, if one counts and lacks nothing."""
    same = (row for row in rows if (row.data, row.precision) == (data, precision))
    return next((row for row in same if row.counts and row.complete), None)


def _released_version(uow: UnitOfWork, release: int, task: str) -> tuple[TaskVersion, Precision]:
    held = uow.tasks_of(uow.release(str(release)))
    if task not in held:
        raise NotFoundError(f"release {release} holds no task {task!r}; it holds {', '.join(held)}")
    return held[task]


def _row(evaluation: Evaluation, precision: Precision) -> EvaluationRow:
    return EvaluationRow(
        release=evaluation.release.number,
        task=evaluation.version.task.name,
        version=str(evaluation.version.number),
        precision=precision,
        engine=evaluation.engine,
        data=evaluation.data,
        examples=evaluation.examples,
        metrics=evaluation.metrics,
        at=evaluation.at,
        by=evaluation.by,
    )
