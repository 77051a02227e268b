"""Backbones: registering and reading them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from centra.errors import ConflictError, UsageError
from centra.formats.backbone import BackboneSpec
from centra.formats.names import parse_name
from centra.progress import Progress, silent
from registry.database.listing import by_name
from registry.database.models import Backbone, Channel, ReleaseTask, TaskVersion
from registry.rules.replay import backbone_content
from registry.storage.claims import Claim

if TYPE_CHECKING:
    from datetime import datetime

    from registry.connection import Registry
    from registry.database.unit_of_work import UnitOfWork

__all__ = [
    "BackboneRow",
    "BackboneUse",
    "add",
    "list_all",
    "register",
    "restore",
    "retire",
    "show",
    "spec",
    "status",
]


@dataclass(frozen=True, kw_only=True)
class BackboneRow:
    """A registered backbone."""

    name: str
    version: int
    digest: str
    family: str
    num_layers: int
    hidden_size: int
    max_length: int
    source: str
    state: str
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
    state: str
    tasks: dict[str, str]
    """The active tasks whose current version is on it, and that version."""
    channels: dict[str, int]
    """The channels that serve a release with a module on it, and that release."""
    releases: int
    """How many releases hold a module on it."""


def register(
    registry: Registry,
    name: str,
    source: str,
    *,
    revision: str | None = None,
    progress: Progress = silent,
) -> tuple[BackboneRow, bool]:
    """Import a transformers encoder as the next version of a backbone.

    Args:
        registry: where.
        name: e.g. ``minilm``.
        source, revision, progress: see :func:`centra.formats.backbone.import_backbone`.

    Returns:
        The backbone, and whether it is new: the same weights and tokenizer are registered once,
        under whatever name.

    Raises:
        InvalidNameError: the name is not acceptable.
        NotFoundError, FormatError, IncompatibleError: the source cannot be used.
        ConflictError: the same weights are registered and retired.
        StoreError, StoreNotWritableError, DatabaseError: the registry cannot be used.
    """
    from centra.formats.backbone import import_backbone

    parse_name(name, "backbone name")
    registry.check_store()  # What cannot be used must show before the long work does.
    with Claim(registry) as claim:
        imported = import_backbone(source, claim, revision=revision, progress=progress)
        with claim.write() as uow:
            known = uow.backbone_by_digest(imported.digest)
            if known is not None and known.state == "retired":
                raise ConflictError(
                    f"these weights are backbone {known.reference}, which is retired; bring it "
                    f"back: centra backbone restore {known.reference}"
                )
            if known is not None:
                return _row(known), False
            origin = f"{source}@{revision}" if revision else source
            return _row(add(uow, name, imported, source=origin)), True


def add(uow: UnitOfWork, name: str, spec: BackboneSpec, *, source: str) -> Backbone:
    """Write a backbone whose blobs are stored, and that is not known yet, as its name's next version.

    Args:
        uow: the transaction that it becomes part of.
        name: its checked name.
        spec: what ``backbone.json`` says.
        source: where it comes from, for people.
    """
    newest = uow.session.scalar(select(func.max(Backbone.version)).where(Backbone.name == name))
    backbone = Backbone(
        name=name,
        version=(newest or 0) + 1,
        digest=spec.digest,
        family=spec.family,
        num_layers=spec.num_layers,
        hidden_size=spec.hidden_size,
        max_length=spec.max_length,
        source=source,
        created_at=uow.now,
        created_by=str(uow.actor),
    )
    uow.session.add(backbone)
    uow.record(
        "backbone:register",
        name,
        {
            "version": backbone.version,
            "digest": backbone.digest,
            "content": backbone_content(backbone),
        },
    )
    uow.session.flush()
    return backbone


def list_all(
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
        return [_row(backbone) for backbone in uow.session.scalars(query)]


def show(registry: Registry, reference: str) -> BackboneRow:
    """One backbone by ``name`` (its newest version) or ``name@version``.

    Raises:
        NotFoundError: there is none.
    """
    with registry.read() as uow:
        return _row(uow.backbone(reference))


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
        return [_use(uow, backbone) for backbone in backbones]


def retire(registry: Registry, reference: str) -> tuple[BackboneRow, bool]:
    """Close a backbone to new modules; its bytes and the releases on it stay.

    Args:
        registry: where.
        reference: ``name@version``.

    Returns:
        The backbone, and whether it was open before.

    Raises:
        UsageError: the reference has no version.
        NotFoundError: there is no such backbone.
        ConflictError: an active task or a channel still uses it; each is named.
        DatabaseError: the registry cannot be used.
    """
    with registry.write() as uow:
        use = _use(uow, uow.backbone(_exact(reference)))
        if use.tasks or use.channels:
            users = [f"task {task}@{version}" for task, version in use.tasks.items()]
            users += [f"channel {name} (release {n})" for name, n in use.channels.items()]
            raise ConflictError(
                f"{reference} is in use by {', '.join(users)}; move these first: centra task "
                "update NAME FILE, then promote a release that does without it"
            )
        return _set_state(uow, reference, "retired")


def restore(registry: Registry, reference: str) -> tuple[BackboneRow, bool]:
    """Open a retired backbone again; arguments, result and errors as :func:`retire`."""
    with registry.write() as uow:
        return _set_state(uow, _exact(reference), "active")


def spec(registry: Registry, reference: str) -> BackboneSpec:
    """A backbone's full spec from the store: its settings and the digest of each layer.

    Raises:
        NotFoundError, BlobNotFoundError, CorruptBlobError, StoreError: it cannot be had.
    """
    return BackboneSpec.fetch(show(registry, reference).digest, registry.store)


def _exact(reference: str) -> str:
    if "@" not in reference:
        raise UsageError(f"say which version: {reference}@VERSION")
    return reference


def _set_state(uow: UnitOfWork, reference: str, state: str) -> tuple[BackboneRow, bool]:
    backbone = uow.backbone(reference)
    changed = backbone.state != state
    if changed:
        backbone.state = state
        verb = "retire" if state == "retired" else "restore"
        uow.record(f"backbone:{verb}", backbone.name, {"version": backbone.version})
        uow.session.flush()
    return _row(backbone), changed


def _use(uow: UnitOfWork, backbone: Backbone) -> BackboneUse:
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
            name: version.number
            for name, version in uow.live().items()
            if version.backbone_id == backbone.id
        },
        channels={c.name: c.release.number for c in uow.session.scalars(channels)},
        releases=uow.session.scalar(select(func.count()).select_from(held.subquery())) or 0,
    )


def _row(backbone: Backbone) -> BackboneRow:
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
