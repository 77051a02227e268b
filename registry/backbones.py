"""Backbones: registering and reading them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from centra.backbone import BackboneSpec
from centra.errors import StoreError
from centra.names import parse_name
from centra.progress import Progress, silent
from registry.models import Backbone

if TYPE_CHECKING:
    from datetime import datetime

    from registry.connection import Registry

__all__ = ["BackboneRow", "list_all", "register", "show", "spec"]


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
    created_at: datetime
    created_by: str

    @property
    def reference(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"


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
        source, revision, progress: see :func:`centra.backbone.import_backbone`.

    Returns:
        The backbone, and whether it is new: the same weights and tokenizer are registered once,
        under whatever name.

    Raises:
        InvalidNameError: the name is not acceptable.
        NotFoundError, FormatError, IncompatibleError: the source cannot be used.
        StoreError, StoreNotWritableError, DatabaseError: the registry cannot be used.
    """
    from centra.backbone import import_backbone

    parse_name(name, "backbone name")
    with registry.read():
        pass  # A database that cannot be used must show before the long work does.
    imported = import_backbone(source, registry.store, revision=revision, progress=progress)
    with registry.write() as uow:
        known = uow.backbone_by_digest(imported.digest)
        if known is not None:
            return _row(known), False
        # Garbage collection removes in writing transactions alone: what is here now stays.
        if not all(registry.store.has(blob) for blob in imported.blobs()):
            raise StoreError(f"blobs of {source} were removed while it was registered; try again")
        newest = uow.session.scalar(select(func.max(Backbone.version)).where(Backbone.name == name))
        backbone = Backbone(
            name=name,
            version=(newest or 0) + 1,
            digest=imported.digest,
            family=imported.family,
            num_layers=imported.num_layers,
            hidden_size=imported.hidden_size,
            max_length=imported.max_length,
            source=f"{source}@{revision}" if revision else source,
            created_by=str(uow.actor),
        )
        uow.session.add(backbone)
        uow.record(
            "backbone:register", name, {"version": backbone.version, "digest": backbone.digest}
        )
        uow.session.flush()
        return _row(backbone), True


def list_all(registry: Registry) -> list[BackboneRow]:
    """All backbones, by name, the newest version of each first."""
    with registry.read() as uow:
        return [_row(backbone) for backbone in uow.backbones()]


def show(registry: Registry, reference: str) -> BackboneRow:
    """One backbone by ``name`` (its newest version) or ``name@version``.

    Raises:
        NotFoundError: there is none.
    """
    with registry.read() as uow:
        return _row(uow.backbone(reference))


def spec(registry: Registry, reference: str) -> BackboneSpec:
    """A backbone's full spec from the store: its settings and the digest of each layer.

    Raises:
        NotFoundError, BlobNotFoundError, CorruptBlobError, StoreError: it cannot be had.
    """
    return BackboneSpec.fetch(show(registry, reference).digest, registry.store)


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
        created_at=backbone.created_at,
        created_by=backbone.created_by,
    )
