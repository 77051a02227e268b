"""Versions of a task as plain values, and how the modules of two differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from centra.formats.decision import DecisionChange
    from centra.formats.identities import Digest, VersionNumber
    from centra.store import BlobReader
    from registry.database.models import TaskVersion

__all__ = ["ModuleComparison", "VersionRow", "compare_modules", "version_row"]


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


@dataclass(frozen=True, kw_only=True)
class ModuleComparison:
    """How two modules differ in what their files hold."""

    decision: list[DecisionChange]
    """How logits become answers, with what kind and head say of it."""
    tensors_changed: list[str]
    """Those that differ in type, shape or any byte, or are in one alone; sorted."""
    tensors_same: int


def compare_modules(reader: BlobReader, before: Digest, after: Digest) -> ModuleComparison:
    """Compare two modules: what they decide, and every tensor.

    Args:
        reader: where the modules are.
        before, after: their digests.

    Raises:
        BlobNotFoundError, CorruptBlobError, FormatError, StoreError: they cannot be read.
    """
    from centra.formats.task_module import read_spec
    from centra.formats.tensors import read_raw

    files = [reader.fetch(digest) for digest in (before, after)]
    decisions = [read_spec(file).effective_decision for file in files]
    old, new = (read_raw(file) for file in files)
    names = sorted(old.keys() | new.keys())
    changed = [name for name in names if old.get(name) != new.get(name)]
    return ModuleComparison(
        decision=decisions[0].changes(decisions[1]),
        tensors_changed=changed,
        tensors_same=len(names) - len(changed),
    )


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
