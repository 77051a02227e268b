"""Reading backbones: the list, one of them, and who uses which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from centra.formats.backbone import BackboneSpec
from registry.database.listing import by_name
from registry.database.models import Backbone, Channel, ReleaseTask, TaskVersion

if TYPE_CHECKING:
    from datetime import datetime

    from centra.formats.identities import Digest, Name, ReleaseNumber, TaskName, VersionNumber
    from registry.connection import Registry
    from registry.database.unit_of_work import UnitOfWork
    from registry.rules.lifecycle import BackboneState

__all__ = [
    "BackboneRow",
    "BackboneUse",
    "backbone_row",
    "backbone_use",
    "list_backbones",
    "show",
    "spec",
    "status",
]


@dataclass(frozen=True, kw_only=True)
class BackboneRow:
    """A registered backbone."""

    name: Name
    version: int
    digest: Digest
    family: str
    num_layers: int
    hidden_size: int
    max_length: int
    source: str
    state: BackboneState
    created_at: datetime
    created_by: str

    @property
    def reference(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, kw_only=True)
class BackboneUse:
    """Who uses a backbone."""

    backbone: str
    state: BackboneState
    tasks: dict[TaskName, VersionNumber]
    """The active tasks whose current version is on it, and that version."""
    channels: dict[str, ReleaseNumber]
    """The channels that serve a release with a module on it, and that release."""
    releases: int
    """How many releases hold a module on it."""


def list_backbones(
    registry: Registry, *, state: str | None = None, family: str | None = None
) -> list[BackboneRow]:
    """Backbones, by name, the newest version of each first.

    Args:
        registry: where.
        state: keep those that are ``active`` or ``retired``.
        family: keep those of this family, e.g. ``bert``.

    Raises:
        DatabaseError: the registry cannot be used.
    """
    query = select(Backbone).order_by(by_name(registry, Backbone.name), Backbone.version.desc())
    for column, wanted in ((Backbone.state, state), (Backbone.family, family)):
        if wanted is not None:
            query = query.where(column == wanted)
    with registry.read() as uow:
        return [backbone_row(backbone) for backbone in uow.session.scalars(query)]


def show(registry: Registry, reference: str) -> BackboneRow:
    """One backbone by ``name`` (its newest version) or ``name@version``.

    Raises:
        NotFoundError: there is none.
    """
    with registry.read() as uow:
        return backbone_row(uow.backbone(reference))


def status(registry: Registry, name: str | None = None) -> list[BackboneUse]:
    """Who is on which backbone: how far a migration has come.

    Args:
        registry: where.
        name: only this backbone, ``name`` (all its versions) or ``name@version``.

    Raises:
        NotFoundError: there is no such backbone.
    """
    with registry.read() as uow:
        backbones = uow.backbones()
        if name is not None:
            uow.backbone(name)
            backbones = [b for b in backbones if name in (b.name, b.reference)]
        return [backbone_use(uow, backbone) for backbone in backbones]


def spec(registry: Registry, reference: str) -> BackboneSpec:
    """A backbone's full spec from the store: its settings and the digest of each layer.

    Raises:
        NotFoundError, BlobNotFoundError, CorruptBlobError, StoreError: it cannot be had.
    """
    return BackboneSpec.fetch(show(registry, reference).digest, registry.store)


def backbone_use(uow: UnitOfWork, backbone: Backbone) -> BackboneUse:
    """Who uses a backbone now."""
    held = (
        select(ReleaseTask.release_id)
        .join(TaskVersion, TaskVersion.id == ReleaseTask.version_id)
        .where(TaskVersion.backbone_id == backbone.id)
        .distinct()
    )
    channels = select(Channel).where(Channel.release_id.in_(held)).order_by(Channel.name)
    return BackboneUse(
        backbone=backbone.reference,
        state=backbone.state,
        tasks={
            version.task.name: version.number
            for version in uow.live().values()
            if version.backbone_id == backbone.id
        },
        channels={c.name: c.release.number for c in uow.session.scalars(channels)},
        releases=uow.session.scalar(select(func.count()).select_from(held.subquery())) or 0,
    )


def backbone_row(backbone: Backbone) -> BackboneRow:
    """A backbone as plain values."""
    return BackboneRow(
        name=backbone.name,
        version=backbone.version,
        digest=backbone.digest,
        family=backbone.family,
        num_layers=backbone.num_layers,
        hidden_size=backbone.hidden_size,
        max_length=backbone.max_length,
        source=backbone.source,
        state=backbone.state,
        created_at=backbone.created_at,
        created_by=backbone.created_by,
    )
