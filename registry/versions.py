"""Versions of a task as plain values, and how the modules of two differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from centra.formats.precision import Precision

if TYPE_CHECKING:
    from datetime import datetime

    from centra.formats.contract import Contract
    from centra.formats.identities import Digest, VersionNumber
    from centra.store import BlobReader
    from registry.database.models import TaskVersion

__all__ = ["ReleasedVersion", "VersionRow", "compare_tensors", "version_row"]


@dataclass(frozen=True, kw_only=True)
class ReleasedVersion:
    """A version of a task as a release holds it."""

    number: VersionNumber
    digest: Digest
    contract: Contract
    precision: Precision

    def __str__(self) -> str:
        number = str(self.number)
        return number if self.precision == Precision.FP32 else f"{number} {self.precision}"


@dataclass(frozen=True, kw_only=True)
class VersionRow:
    """One version of a task."""

    version: VersionNumber
    digest: Digest
    size: int
    """Bytes of the module's file."""
    backbone: str
    kind: str
    input: str
    labels: list[str]
    tap_layer: int
    depth: int
    metrics: dict[str, float]
    created_at: datetime
    created_by: str


def compare_tensors(reader: BlobReader, before: Digest, after: Digest) -> tuple[list[str], int]:
    """Which tensors of two modules differ, in type, shape or any byte, or are in one alone.

    Args:
        reader: where the modules are.
        before, after: their digests.

    Returns:
        The names, sorted, and how many tensors are the same.

    Raises:
        BlobNotFoundError, CorruptBlobError, FormatError, StoreError: they cannot be read.
    """
    from centra.formats.tensors import read_raw

    old, new = (read_raw(reader.fetch(digest)) for digest in (before, after))
    names = sorted(old.keys() | new.keys())
    changed = [name for name in names if old.get(name) != new.get(name)]
    return changed, len(names) - len(changed)


def version_row(version: TaskVersion) -> VersionRow:
    """A version as plain values."""
    return VersionRow(
        version=version.number,
        digest=version.digest,
        size=version.size,
        backbone=version.backbone.reference,
        kind=version.kind,
        input=version.input,
        labels=version.labels,
        tap_layer=version.tap_layer,
        depth=version.depth,
        metrics=version.metrics,
        created_at=version.created_at,
        created_by=version.created_by,
    )
