"""What went from registry to registry in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from centra.formats.identities import VersionNumber  # noqa: TC001 - pydantic reads the annotations
from registry.documents.base import Document, schema

if TYPE_CHECKING:
    from pathlib import Path

    from registry import transfer

__all__ = ["Export", "Import", "ImportedBackbone", "ImportedRelease", "ImportedTask"]


class Export(Document):
    """What was written to a file."""

    schema_: str = schema("export")
    file: str
    digest: str
    """Of the file."""
    size: int
    """Bytes of the file."""
    tasks: dict[str, VersionNumber]
    release: int | None

    @classmethod
    def of(cls, file: Path, exported: transfer.Exported) -> Export:
        """The document of an export."""
        return cls(
            file=str(file),
            digest=exported.digest,
            size=exported.size,
            tasks=exported.tasks,
            release=exported.release,
        )


class ImportedBackbone(Document):
    """A backbone of a file, as it is called here."""

    backbone: str
    changed: bool
    """False where it was registered already."""


class ImportedTask(Document):
    """A task of a file, and the version that it is here."""

    task: str
    version: VersionNumber
    change: str | None
    """How it became that version: ``register``, ``update`` or ``redefine``; null where it was
    registered already."""
    forced: bool
    """Whether it was another team's to do, and the log says so."""
    current: VersionNumber
    """The version that is current here: another one only where this was registered already."""
    state: str
    """The task's here: ``retired`` only where this was registered already."""

    @classmethod
    def of(cls, task: transfer.ImportedTask) -> ImportedTask:
        """The document of a task."""
        return cls(
            task=task.task,
            version=task.version,
            change=task.change,
            forced=task.forced,
            current=task.current,
            state=task.state,
        )


class ImportedRelease(Document):
    """The release of a file, and its number here."""

    release: int
    digest: str
    """Of its manifest."""
    changed: bool
    """False where it was published already."""
    signatures: int
    """How many it did not have before."""

    @classmethod
    def of(cls, release: transfer.ImportedRelease) -> ImportedRelease:
        """The document of a release."""
        return cls(
            release=release.release,
            digest=release.digest,
            changed=release.changed,
            signatures=release.signatures,
        )


class Import(Document):
    """What importing a file led to."""

    schema_: str = schema("import")
    digest: str
    """Of the file."""
    changed: bool
    backbones: list[ImportedBackbone]
    tasks: list[ImportedTask]
    release: ImportedRelease | None

    @classmethod
    def of(cls, imported: transfer.Imported) -> Import:
        """The document of an import."""
        return cls(
            digest=imported.digest,
            changed=imported.changed,
            backbones=[
                ImportedBackbone(backbone=backbone.backbone, changed=backbone.changed)
                for backbone in imported.backbones
            ],
            tasks=[ImportedTask.of(task) for task in imported.tasks],
            release=ImportedRelease.of(imported.release) if imported.release else None,
        )
