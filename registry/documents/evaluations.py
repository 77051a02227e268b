"""Measurements of a version inside a release."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.documents.base import Document, Moment, schema

if TYPE_CHECKING:
    from registry.evaluations import EvaluationRow

__all__ = ["Evaluation", "EvaluationChange"]


class Evaluation(Document):
    """A version measured on data, inside a release."""

    release: int
    task: str
    version: str
    precision: str
    """In which the release held it: ``fp32`` or ``int8``."""
    engine: str | None
    """What computed it, and its version; null for a measurement that does not say."""
    data: str
    """The fingerprint of the examples: a SHA-256 digest, the same for every format."""
    examples: int
    """How many the file holds."""
    metrics: dict[str, float]
    created_at: Moment
    created_by: str

    @classmethod
    def of(cls, row: EvaluationRow) -> Evaluation:
        """The document of a measurement."""
        return cls(
            release=row.release,
            task=row.task,
            version=row.version,
            precision=row.precision,
            engine=row.engine,
            data=row.data,
            examples=row.examples,
            metrics=row.metrics,
            created_at=row.at,
            created_by=row.by,
        )


class EvaluationChange(Evaluation):
    """A version that has just been measured, and whether that is new."""

    schema_: str = schema("evaluation-change")
    changed: bool
    """Whether it was recorded; false where the same was recorded already."""

    @classmethod
    def made(cls, row: EvaluationRow, *, changed: bool) -> EvaluationChange:
        """The document of a measurement that was just made."""
        return cls(**dict(Evaluation.of(row)), changed=changed)
