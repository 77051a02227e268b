"""Signatures of releases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.documents.base import Document, Moment, schema

if TYPE_CHECKING:
    from registry.signatures import SignatureRow, SignedRelease

__all__ = ["Signature", "SignatureChange"]


class Signature(Document):
    """A signature as the store has it, not verified, with what the log says about it."""

    signature: str
    """The SHA-256 digest of its file."""
    key: str | None
    """The key's fingerprint; null for one that was not made here, but imported."""
    created_at: Moment | None
    """When it was made; null likewise."""
    created_by: str | None
    """Who ran the command; null likewise."""

    @classmethod
    def of(cls, row: SignatureRow) -> Signature:
        """The document of a signature."""
        return cls(
            signature=row.signature,
            key=row.key,
            created_at=row.signed_at,
            created_by=row.signed_by,
        )


class SignatureChange(Document):
    """What signing a release led to."""

    schema_: str = schema("signature-change")
    release: int
    digest: str
    """Of the release's manifest."""
    key: str
    """The key's fingerprint."""
    signature: str
    """The SHA-256 digest of the signature's file."""
    changed: bool
    """False where the release was signed with this key already."""

    @classmethod
    def of(cls, signed: SignedRelease) -> SignatureChange:
        """The document of a signing."""
        return cls(
            release=signed.release,
            digest=signed.digest,
            key=signed.key,
            signature=signed.signature,
            changed=signed.changed,
        )
