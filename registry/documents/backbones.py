"""Backbones: as listed, one with its layers, what a change led to, and who uses one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from centra.formats.identities import ReleaseNumber, TaskName, VersionNumber  # noqa: TC001 - pydantic reads the annotations
from registry.documents.base import Document, Moment, schema

if TYPE_CHECKING:
    from centra.formats.backbone import BackboneSpec
    from registry.backbones import BackboneOutcome, BackboneRow
    from registry.backbones import BackboneUse as Use

__all__ = ["Backbone", "BackboneChange", "BackboneDetail", "BackboneUse"]


class Backbone(Document):
    """A frozen encoder that tasks share."""

    schema_: str = schema("backbone")
    backbone: str
    name: str
    """Without the version."""
    version: int
    digest: str
    """Of its description, which names all its parts by their digests."""
    family: str
    """How its layers look: ``bert``, ``roberta`` …"""
    num_layers: int
    hidden_size: int
    max_length: int
    """The most tokens of an input."""
    source: str
    """Where it was imported from."""
    state: str
    """``active`` or ``retired``; a retired one takes no new modules."""
    created_at: Moment
    created_by: str

    @classmethod
    def of(cls, row: BackboneRow) -> Backbone:
        """The document of a backbone."""
        return cls(
            backbone=row.reference,
            name=row.name,
            version=row.version,
            digest=row.digest,
            family=row.family,
            num_layers=row.num_layers,
            hidden_size=row.hidden_size,
            max_length=row.max_length,
            source=row.source,
            state=row.state,
            created_at=row.created_at,
            created_by=row.created_by,
        )


class BackboneChange(Backbone):
    """A backbone that was registered, retired or restored."""

    schema_: str = schema("backbone-change")
    changed: bool

    @classmethod
    def made(cls, outcome: BackboneOutcome) -> BackboneChange:
        """The document of a change."""
        return cls(**_fields(outcome.backbone), changed=outcome.changed)


class BackboneDetail(Backbone):
    """A backbone with one digest a layer."""

    schema_: str = schema("backbone-detail")
    embeddings: str
    """The digest of layer 0."""
    layers: list[str]
    """The digests of its layers, from layer 1 on."""

    @classmethod
    def with_layers(cls, row: BackboneRow, spec: BackboneSpec) -> BackboneDetail:
        """The document of a backbone and its description."""
        return cls(**_fields(row), embeddings=spec.embeddings, layers=list(spec.layers))


class BackboneUse(Document):
    """Who uses a backbone."""

    schema_: str = schema("backbone-use")
    backbone: str
    state: str
    """``active`` or ``retired``."""
    tasks: dict[TaskName, VersionNumber]
    """The active tasks whose current version is on it, each with that version."""
    channels: dict[str, ReleaseNumber]
    """The channels that serve a release with a module on it, each with that release."""
    releases: int
    """How many releases hold a module on it."""

    @classmethod
    def of(cls, use: Use) -> BackboneUse:
        """The document of a backbone's use."""
        return cls(
            backbone=use.backbone,
            state=use.state,
            tasks=use.tasks,
            channels=use.channels,
            releases=use.releases,
        )


def _fields(row: BackboneRow) -> dict[str, Any]:
    """What any document of a backbone begins with, but for its schema."""
    return {name: value for name, value in Backbone.of(row) if name != "schema_"}
