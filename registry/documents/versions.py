"""Versions of a task, and how the modules of two differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from centra.formats.identities import VersionNumber  # noqa: TC001 - pydantic reads the annotations
from registry.documents.base import Document, Moment, from_field

if TYPE_CHECKING:
    from centra.formats import contract, decision
    from registry.versions import VersionRow

__all__ = ["ContractDifference", "DecisionChange", "Version"]


class Version(Document):
    """One version of a task."""

    version: VersionNumber
    digest: str
    """Of the module's file."""
    size: int
    """Bytes of the module's file."""
    backbone: str
    kind: str
    """The name of its kind: ``classification``, ``multilabel``, ``regression``, ``tagging``."""
    input: str
    """``single`` or ``pair``: whether it takes one text or two."""
    labels: list[str]
    """In the order of the logits."""
    tap_layer: int
    """The frozen layer that it reads; 0 for the embeddings."""
    depth: int
    """How many layers of its own it adds."""
    metrics: dict[str, float]
    """What its maker reports of it, on the dev set."""
    created_at: Moment
    created_by: str

    @classmethod
    def of(cls, row: VersionRow) -> Version:
        """The document of a version."""
        return cls(
            version=row.version,
            digest=row.digest,
            size=row.size,
            backbone=row.backbone,
            kind=row.kind,
            input=row.input,
            labels=list(row.labels),
            tap_layer=row.tap_layer,
            depth=row.depth,
            metrics=row.metrics,
            created_at=row.created_at,
            created_by=row.created_by,
        )


class ContractDifference(Document):
    """How what callers rely on differs; pairs where something does."""

    kind: tuple[str, str] | None
    input: tuple[str, str] | None
    added: list[str]
    """Labels."""
    removed: list[str]
    """Labels."""
    renamed: list[tuple[str, str]]
    """Labels that another took the place of, in an otherwise equal list."""
    reordered: bool
    """Whether the labels are the same in another order."""

    @classmethod
    def of(cls, difference: contract.ContractDifference) -> ContractDifference:
        """The document of a difference."""
        return cls(
            kind=difference.kind,
            input=difference.input,
            added=list(difference.added),
            removed=list(difference.removed),
            renamed=list(difference.renamed),
            reordered=difference.reordered,
        )


class DecisionChange(Document):
    """A field in which the decisions of two modules differ: how their logits become answers."""

    field: str
    """``activation``, ``threshold``, ``rejection``, ``max_length``, ``template`` or ``pooling``."""
    from_: float | str | list[float] | list[str] | None = from_field()
    to: float | str | list[float] | list[str] | None

    @classmethod
    def of(cls, change: decision.DecisionChange) -> DecisionChange:
        """The document of a change."""
        before, after = (
            [*value] if isinstance(value, tuple) else value
            for value in (change.before, change.after)
        )
        return cls.model_validate({"field": change.field, "from": before, "to": after})
