"""What composing a release led to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from registry.documents.base import Document, Layers, from_field, schema

if TYPE_CHECKING:
    from centra.releases import int8 as comparisons
    from registry import releases

__all__ = ["Change", "Composition", "DevComparison", "Int8Comparison"]


class Change(Document):
    """What happens to one task from one release to another."""

    task: str
    change: str
    """``added``, ``updated``, ``redefined`` or ``removed``."""
    from_: str | None = from_field()
    """The version before; null for a task that is added."""
    to: str | None
    """The version after; null for a task that is removed."""
    precision: tuple[str, str] | None = Field(exclude_if=lambda pair: pair is None, default=None)
    """A pair; left out where the precision is the same."""

    @classmethod
    def of(cls, change: releases.Change) -> Change:
        """The document of a change."""
        return cls(
            task=change.task,
            change=change.change,
            from_=change.before,
            to=change.after,
            precision=change.precision,
        )


class DevComparison(Document):
    """A task on labelled data, in fp32 and in int8."""

    examples: int
    agreement: float
    """The share of equal answers: of words for tagging, of inputs for other kinds."""
    metric: str
    """The first of the kind's metrics."""
    fp32: float
    int8: float
    loss: float
    """Of the metric, in points, which are hundredths; negative for a gain."""

    @classmethod
    def of(cls, comparison: comparisons.DevComparison) -> DevComparison:
        """The document of a comparison."""
        return cls(
            examples=comparison.examples,
            agreement=comparison.agreement,
            metric=comparison.metric,
            fp32=comparison.fp32,
            int8=comparison.int8,
            loss=comparison.loss,
        )


class Int8Comparison(Document):
    """A task's answers in int8 beside those in fp32."""

    task: str
    agreement: float
    """The share of equal answers on the probe: of tokens for tagging, of inputs for other kinds."""
    difference: float
    """The largest difference of logits on the probe."""
    dev: DevComparison | None
    """Null where no data was given."""
    refused: str | None
    """Why the task stays in fp32; null where it goes to int8."""

    @classmethod
    def of(cls, comparison: comparisons.Int8Comparison) -> Int8Comparison:
        """The document of a comparison."""
        return cls(
            task=comparison.task,
            agreement=comparison.agreement,
            difference=comparison.difference,
            dev=DevComparison.of(comparison.dev) if comparison.dev else None,
            refused=comparison.refused,
        )


class Composition(Document):
    """A set of versions that was merged and checked, and perhaps published."""

    schema_: str = schema("composition")
    release: int | None
    """The release that holds exactly this; null for a plan that none holds."""
    digest: str
    """Of the manifest."""
    published: bool
    """Whether a new release was made."""
    base: int | None
    """The release that it is compared with; null where nothing was released."""
    changes: list[Change]
    """Against the base."""
    layers: Layers
    tasks: dict[str, str]
    precisions: dict[str, str]
    """Per task ``fp32`` or ``int8``."""
    int8: list[Int8Comparison]
    """Of the tasks whose answers in int8 were held against those in fp32 now."""

    @classmethod
    def of(cls, composition: releases.Composition) -> Composition:
        """The document of a composition."""
        return cls(
            release=composition.release,
            digest=composition.digest,
            published=composition.published,
            base=composition.base,
            changes=[Change.of(change) for change in composition.changes],
            layers=Layers.of(composition.layers),
            tasks=composition.tasks,
            precisions=dict(composition.manifest.precisions),
            int8=[Int8Comparison.of(comparison) for comparison in composition.int8],
        )
