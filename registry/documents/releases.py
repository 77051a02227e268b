"""Releases: as listed, one with what it holds, verified, and pulled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.documents.base import Document, Layers, Moment, schema
from registry.documents.signatures import Signature

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from registry import releases
    from registry.signatures import SignatureRow

__all__ = ["PulledRelease", "Release", "ReleaseSummary", "Verification"]


class ReleaseSummary(Document):
    """A release as listed."""

    schema_: str = schema("release-summary")
    release: int
    digest: str
    """Of its manifest."""
    task_count: int
    """How many tasks it holds."""
    channels: list[str]
    """Those that serve it."""
    created_at: Moment
    created_by: str

    @classmethod
    def of(cls, row: releases.ReleaseRow) -> ReleaseSummary:
        """The document of a release as listed."""
        return cls(
            release=row.number,
            digest=row.digest,
            task_count=row.tasks,
            channels=row.channels,
            created_at=row.created_at,
            created_by=row.created_by,
        )


class Release(Document):
    """A release with what it holds."""

    schema_: str = schema("release")
    release: int
    digest: str
    """Of its manifest."""
    base: int | None
    """The release that it was composed onto."""
    channels: list[str]
    """Those that serve it."""
    tasks: dict[str, str]
    precisions: dict[str, str]
    """Per task ``fp32`` or ``int8``."""
    layers: Layers
    signatures: list[Signature]
    created_at: Moment
    created_by: str

    @classmethod
    def of(cls, detail: releases.ReleaseDetail, signatures: Iterable[SignatureRow]) -> Release:
        """The document of a release and its signatures."""
        return cls(
            release=detail.number,
            digest=detail.digest,
            base=detail.base,
            channels=detail.channels,
            tasks=detail.tasks,
            precisions=dict(detail.manifest.precisions),
            layers=Layers.of(detail.layers),
            signatures=[Signature.of(row) for row in signatures],
            created_at=detail.created_at,
            created_by=detail.created_by,
        )


class Verification(Document):
    """A release whose every file was hashed and every task run on its probe."""

    schema_: str = schema("verification")
    digest: str
    """Of the release's manifest."""
    files: int
    """How many."""
    size: int
    """Bytes, of all files."""
    parity: dict[str, float]
    """Per task the largest difference of logits from those that its module recorded."""
    int8: list[str]
    """The tasks that the release computes in int8; their parity, too, is that of float32."""
    signed_by: str | None
    """The fingerprint of the key, of those asked for, that signed it."""

    @classmethod
    def of(cls, verification: releases.Verification) -> Verification:
        """The document of a verification."""
        return cls(
            digest=verification.digest,
            files=verification.files,
            size=verification.size,
            parity=verification.parity,
            int8=verification.int8,
            signed_by=verification.signed_by,
        )


class PulledRelease(Document):
    """A release that was written as a folder."""

    schema_: str = schema("pulled-release")
    output: str
    """The folder."""
    digest: str
    """Of the release's manifest."""
    size: int
    """How many bytes were written; files that were there already are not."""

    @classmethod
    def of(cls, folder: Path, digest: str, size: int) -> PulledRelease:
        """The document of a folder that a release was written to."""
        return cls(output=str(folder), digest=digest, size=size)
