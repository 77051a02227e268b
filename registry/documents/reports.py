"""A report on a task's answers to labelled data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from centra.evaluation.calibration import distinct_shares
from registry.documents.base import Document, schema
from registry.documents.evaluations import Evaluation

if TYPE_CHECKING:
    from centra.evaluation import report
    from registry.evaluations import Evaluated

__all__ = ["EvaluationReport"]


class ClassScore(Document):
    """How a label fares."""

    label: str
    wanted: int
    """How often the data have it."""
    answered: int
    """How often it was answered."""
    right: int
    precision: float | None
    """Null where it was never answered."""
    recall: float | None
    """Null where it was never wanted."""
    f1: float


class ScoreBin(Document):
    """The scores of one range."""

    low: float
    high: float
    count: int
    score: float
    """Their mean."""
    accuracy: float
    """The share of them that came true."""


class KeptShare(Document):
    """What a threshold on the score keeps."""

    threshold: float
    coverage: float
    """The share of answers with at least this score."""
    accuracy: float | None
    """The share of these that are right; null where there are none."""


class ReportSlice(Document):
    """What holds of some rows."""

    value: str
    """What they have in common; empty of all rows."""
    rows: int
    metrics: dict[str, float]
    classes: list[ClassScore]
    """Those that occur."""
    faults: dict[str, int]
    """How many labels or spans are ``missed``, ``spurious``, or there with a ``wrong label``,
    ``wrong bounds`` or ``wrong label and bounds``."""
    calibration_error: float | None
    """The expected calibration error; null where scores are no probabilities."""
    calibration: list[ScoreBin]
    """The ranges of scores that hold any."""
    kept: list[KeptShare]
    """By rising thresholds, those alone from which on less is kept."""
    mean_deviation: float | None
    """Of numbers, the mean of how far they are off; null of other kinds."""

    @classmethod
    def of(cls, found: report.Slice) -> ReportSlice:
        """The document of some rows."""
        return cls(
            value=found.value,
            rows=found.rows,
            metrics={**found.metrics},
            classes=[
                ClassScore.model_validate(score, from_attributes=True) for score in found.classes
            ],
            faults={**found.faults},
            calibration_error=found.calibration.error if found.calibration else None,
            calibration=[
                ScoreBin.model_validate(one, from_attributes=True)
                for one in (found.calibration.bins if found.calibration else ())
            ],
            kept=[
                KeptShare.model_validate(share, from_attributes=True)
                for share in distinct_shares(found.kept)
            ],
            mean_deviation=found.mean_deviation,
        )


class ConfusedPair(Document):
    """How often one label was answered where another, or the same, was wanted."""

    wanted: str | None
    """Null where nothing was."""
    answered: str | None
    """Null where nothing was."""
    count: int


class WrongAnswer(Document):
    """A row that was answered wrongly."""

    where: str
    """File and line."""
    text: str
    wanted: str
    answered: str
    faults: list[str]
    slices: dict[str, str]
    """By column, what slice it is in."""


class EvaluationReport(Evaluation):
    """A version that has just been measured, with a report on its answers."""

    schema_: str = schema("evaluation-report")
    changed: bool
    """Whether the metrics were recorded; false where they were recorded already."""
    all: ReportSlice
    """Of all rows."""
    slices: dict[str, list[ReportSlice]]
    """By column."""
    confusion: list[ConfusedPair]
    errors: int
    """How many rows were answered wrongly; of numbers, not exactly as wanted."""
    worst: list[WrongAnswer]
    """Some of these, the worst first."""

    @classmethod
    def made(cls, evaluated: Evaluated) -> EvaluationReport:
        """The document of a report."""
        found = evaluated.report
        return cls(
            **dict(Evaluation.of(evaluated.row)),
            changed=evaluated.new,
            all=ReportSlice.of(found.all),
            slices={
                column: [ReportSlice.of(one) for one in slices]
                for column, slices in found.slices.items()
            },
            confusion=[
                ConfusedPair(wanted=wanted, answered=answered, count=count)
                for (wanted, answered), count in found.confusion.items()
            ],
            errors=found.errors,
            worst=[
                WrongAnswer(
                    where=row.where,
                    text=row.text,
                    wanted=row.wanted,
                    answered=row.answered,
                    faults=[*row.faults],
                    slices={**row.slices},
                )
                for row in found.worst
            ],
        )
