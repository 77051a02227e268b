"""What a version's model card tells beside the version itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from centra.formats.identities import ReleaseNumber  # noqa: TC001 - pydantic reads the annotations
from registry.documents.base import Document
from registry.documents.evaluations import Evaluation
from registry.documents.reports import ConfusedPair, ReportSlice

if TYPE_CHECKING:
    from centra.evaluation import summary
    from registry import cards
    from registry.evaluations import EvaluationRow

__all__ = ["Card", "RecordedEvaluation", "ReportSummary", "Teacher"]


class ReportSummary(Document):
    """What a report on answers says without any text of the data."""

    all: ReportSlice
    """Of all rows."""
    errors: int
    """How many rows were answered wrongly; of numbers, not exactly as wanted."""
    confusions: list[ConfusedPair]
    """The labels that were most often answered where others were wanted, at most 20."""

    @classmethod
    def of(cls, found: summary.Summary) -> ReportSummary:
        """The document of a summary."""
        return cls(
            all=ReportSlice.of(found.all),
            errors=found.errors,
            confusions=[
                ConfusedPair(wanted=one.wanted, answered=one.answered, count=one.count)
                for one in found.confusions
            ],
        )


class RecordedEvaluation(Evaluation):
    """A version measured on data, with what is kept of the report on its answers."""

    report: ReportSummary | None
    """Null for a measurement of an earlier Centra, which kept none."""

    @classmethod
    def recorded(cls, row: EvaluationRow) -> RecordedEvaluation:
        """The document of a measurement on record."""
        report = ReportSummary.of(row.summary) if row.summary else None
        return cls(**dict(Evaluation.of(row)), report=report)


class Teacher(Document):
    """The module that one was distilled from."""

    digest: str
    versions: list[str]
    """Where it is registered, ``TASK@VERSION``; empty where it is not."""

    @classmethod
    def of(cls, teacher: cards.Teacher) -> Teacher:
        """The document of a teacher."""
        return cls(digest=teacher.digest, versions=teacher.versions)


class Card(Document):
    """How a version was measured and trained, and who holds it."""

    evaluations: list[RecordedEvaluation]
    """The newest first."""
    releases: list[ReleaseNumber]
    """Those that hold this version."""
    int8: list[ReleaseNumber]
    """Those of them that hold it in int8."""
    channels: list[str]
    """Those that serve one of these releases now."""
    source: str | None
    """Where its module was fetched from: ``models:/…``, ``hf://…@COMMIT`` or ``s3://…``; null where it lay
    with whoever registered it."""
    threshold: float | list[float] | None
    """The probability from which a multilabel task names a label, or one for each label; null for
    other kinds."""
    rejection: float | None
    """The score below which a classification gives no label; null where it always gives one."""
    pooling: str
    """How a text's tokens become one row: ``first``, ``mean``, ``max`` or ``late``; of no weight for heads
    on every token."""
    template: str | list[str]
    """What each text is put in, or the first and the second of a pair, at ``{text}``; that alone for
    nothing."""
    max_length: int | None
    """Tokens kept of each input; null for the backbone's maximum."""
    crf: bool
    """Whether a tagging task's tags are decoded with a CRF."""
    training: dict[str, Any]
    """What the module's maker wrote into it, in words of its own."""
    teacher: Teacher | None
    """Of a module that was distilled."""
    remark: str | None
    """Why decision, CRF, training and teacher are not known, where the store cannot give the module."""

    @classmethod
    def of(cls, card: cards.Card) -> Card:
        """The document of a card."""
        return cls(
            evaluations=[RecordedEvaluation.recorded(row) for row in card.evaluations],
            releases=card.releases,
            int8=card.int8,
            channels=card.channels,
            source=card.source,
            threshold=[*card.threshold] if isinstance(card.threshold, tuple) else card.threshold,
            rejection=card.rejection,
            pooling=card.pooling,
            template=[*card.template] if isinstance(card.template, tuple) else card.template,
            max_length=card.max_length,
            crf=card.crf,
            training=card.training,
            teacher=Teacher.of(card.teacher) if card.teacher else None,
            remark=card.remark,
        )
