"""Signatures of releases: making them, listing them, and asking whether a release has one.

A signature lies in the store, beside what it signs, so that whoever has the store alone can check
it; the log says who made it. Signature first, event second: a signature without an event, which a
crash may leave, gets its event when signing is repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select

from centra.releases.find import read_manifest
from registry.database.models import AuditEvent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from centra.releases.keys import PublicKey
    from registry.connection import Registry
    from registry.database.models import Release
    from registry.database.unit_of_work import UnitOfWork

__all__ = ["SignatureRow", "SignedRelease", "of_release", "sign", "signed_by"]

_SIGN = "release:sign"


@dataclass(frozen=True, kw_only=True)
class SignedRelease:
    """What signing a release led to."""

    release: int
    digest: str
    key: str
    """The key's fingerprint; see :class:`centra.releases.signing.Signature`."""
    signature: str
    """The SHA-256 digest of the signature's file."""
    changed: bool
    """False where the release was signed with this key already."""


@dataclass(frozen=True, kw_only=True)
class SignatureRow:
    """A signature as the store has it, not verified, with what the log says about it."""

    signature: str
    """The SHA-256 digest of its file."""
    key: str | None
    """The key's fingerprint; None for one that was not made here, but imported."""
    signed_at: datetime | None
    signed_by: str | None
    """Who ran the command."""


def sign(
    registry: Registry, reference: str, key: str | Path, *, passphrase: str | None = None
) -> SignedRelease:
    """Sign a release with an offline key, unless it has a valid signature by that key.

    Args:
        registry: where.
        reference: a number, a channel's name, or the start of a digest.
        key, passphrase: see :func:`centra.releases.signing.sign`.

    Raises:
        NotFoundError: there is no such release or key.
        UsageError: the key cannot be used, or the passphrase is wrong.
        BlobNotFoundError, CorruptBlobError: a trunk's blob is missing or damaged.
        StoreError, StoreNotWritableError, DatabaseError: the registry cannot be used.
        CentraError: the package model-signing is not installed.
    """
    from centra.formats.documents import sha256
    from centra.releases import signing

    registry.check_store()
    with registry.read() as uow:
        digest = uow.release(reference).digest
    manifest = read_manifest(digest, registry.store)
    signature = signing.sign(manifest, registry.store, Path(key), passphrase=passphrase)
    if signature.made:
        registry.store.write_signature(digest, signature.data)
    with registry.write() as uow:
        release = uow.release(digest)
        changed = signature.key not in {event.details["key"] for event in _events(uow, release)}
        if changed or signature.made:
            uow.record(
                _SIGN,
                str(release.number),
                {"digest": digest, "key": signature.key, "signature": sha256(signature.data)},
            )
        return SignedRelease(
            release=release.number,
            digest=digest,
            key=signature.key,
            signature=sha256(signature.data),
            changed=changed or signature.made,
        )


def of_release(registry: Registry, reference: str) -> list[SignatureRow]:
    """The signatures of a release, the oldest first.

    Raises:
        NotFoundError: there is no such release.
        StoreError, DatabaseError: the registry cannot be used.
    """
    from centra.formats.documents import sha256

    with registry.read() as uow:
        release = uow.release(reference)
        digest = release.digest
        made = {event.details["signature"]: event for event in _events(uow, release)}
        log = {
            signature: (event.details["key"], event.at, event.actor)
            for signature, event in made.items()
        }
    rows = []
    for data in registry.store.signatures(digest):
        key, at, by = log.get(sha256(data), (None, None, None))
        rows.append(SignatureRow(signature=sha256(data), key=key, signed_at=at, signed_by=by))
    return rows


def signed_by(
    registry: Registry, reference: str, keys: Sequence[str | Path | PublicKey]
) -> str | None:
    """Whether a release has a valid signature by one of these keys.

    Args:
        registry: where.
        reference: a number, a channel's name, or the start of a digest.
        keys: public keys, or the files that hold them as PEM.

    Returns:
        None where it has one, and otherwise the reason why it does not count as signed.

    Raises:
        NotFoundError: there is no such release or key.
        UsageError: a key cannot be used.
        CorruptBlobError, StoreError, DatabaseError: the registry cannot be used.
        CentraError: the package model-signing is not installed.
    """
    from centra.releases.signing import SignatureError, verify_release

    with registry.read() as uow:
        digest = uow.release(reference).digest
    manifest = read_manifest(digest, registry.store)
    try:
        verify_release(
            manifest,
            registry.store,
            [Path(key) if isinstance(key, str) else key for key in keys],
        )
    except SignatureError as error:
        return str(error)
    return None


def _events(uow: UnitOfWork, release: Release) -> list[AuditEvent]:
    query = select(AuditEvent).where(
        AuditEvent.action == _SIGN, AuditEvent.subject == str(release.number)
    )
    return list(uow.session.scalars(query.order_by(AuditEvent.id)))
