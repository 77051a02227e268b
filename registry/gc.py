"""Garbage collection: removing what nothing reaches from the store.

A blob is reached when a task version, a release, a backbone or a channel's pointer names it. All
else is garbage once it is older than a grace period. The decision is made twice: over the whole
store, which is the dry run, and again in each writing transaction that removes some of it. Whoever
writes a row for a blob makes sure in a writing transaction that the blob is there, and writers take
turns: so what a row names is never removed, however short the grace period.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from sqlalchemy import select

from centra.errors import (
    BlobNotFoundError,
    CentraError,
    CorruptBlobError,
    FormatError,
    InvalidNameError,
    VerificationError,
)
from centra.local_store import LocalStore
from centra.progress import Progress, silent
from registry.models import Release, TaskVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from centra.blobs import BlobStore, StoredBlob
    from registry.connection import Registry
    from registry.unit_of_work import UnitOfWork

__all__ = [
    "GRACE",
    "Collection",
    "Garbage",
    "UnreadableError",
    "amount",
    "collect",
    "place_of",
    "reachable",
]

GRACE = timedelta(days=7)
"""How long a blob that nothing reaches is left alone, unless asked otherwise."""

# A write that still runs touches its temporary file; one that did not for so long was killed.
_WRITING = timedelta(hours=1)
# Other writers wait meanwhile, and want a chance between: SQLite's look for theirs now and then.
_BATCH, _TURN_S, _PAUSE_S = 100, 1.0, 0.15
_SUBJECT = 127  # characters of an audit event's subject


class UnreadableError(VerificationError):
    """Something that says what must stay cannot be read, so nothing may be removed."""

    def __init__(self, what: str, cause: Exception, mend: str) -> None:
        super().__init__(
            f"cannot tell which blobs {what} needs, so nothing may be removed: {cause}\n"
            f"To go on, {mend}"
        )
        self.mend = mend


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """Something in the store that nothing reaches."""

    kind: Literal["blob", "leftover"]
    """A leftover is the temporary file of a killed write."""
    name: str
    """A blob's digest; a leftover's path inside the store."""
    size: int
    """Bytes."""
    modified: datetime
    age: int
    """Seconds, by the store's own clock."""


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What garbage collection found, or removed."""

    deleted: bool
    grace: int
    """Seconds."""
    garbage: list[Garbage]
    """The oldest first: what would be removed; or, where it was deleted, exactly what was."""
    count: int
    bytes: int
    young: int
    """How many more nothing reaches, but are younger than the grace period."""
    young_bytes: int


def collect(
    registry: Registry,
    *,
    grace: timedelta = GRACE,
    delete: bool = False,
    progress: Progress = silent,
) -> Collection:
    """Find the garbage of the registry's store, and remove it if asked.

    Args:
        registry: where. No other registry may keep its blobs in the same store.
        grace: what is younger, by the store's own clock, is left alone.
        delete: remove it; otherwise nothing is changed.
        progress: told while blobs are removed.

    Raises:
        UnreadableError: something that says what must stay is damaged; nothing was removed by it.
        StoreError, StoreNotWritableError, DatabaseError: the registry cannot be used. What had been
            removed before is recorded in the log.
    """
    known: dict[str, set[str]] = {}
    now = registry.store.clock()
    # Listed before the database is asked: what is registered after that is reached.
    blobs = list(_everything(registry.store, now))
    with registry.read() as uow:
        reached = reachable(uow, registry.store, known)
    unreached = [one for one in blobs if one.name not in reached]
    old = [one for one in unreached if one.age >= _needed_age(one.kind, grace)]
    old.sort(key=lambda one: (one.modified, one.name))
    young = [one for one in unreached if one.age < _needed_age(one.kind, grace)]
    if delete:

        def is_old(blob: StoredBlob) -> bool:
            return _age(blob.modified, now) >= _needed_age("blob", grace)

        old = _remove(registry, old, known, is_old, progress=progress)
    return Collection(
        deleted=delete,
        grace=int(grace.total_seconds()),
        garbage=old,
        count=len(old),
        bytes=_bytes(old),
        young=len(young),
        young_bytes=_bytes(young),
    )


def reachable(uow: UnitOfWork, store: BlobStore, known: dict[str, set[str]]) -> set[str]:
    """The digests of all blobs that must stay.

    A release that the database knows consists of versions and backbones that it knows, too; only
    that of a foreign pointer must be read for what it lists.

    Args:
        uow: the database as seen by one transaction.
        store: has the pointers, and the documents that say what belongs to a backbone or release.
        known: those documents by their digest, as far as they were read before; filled further.

    Raises:
        UnreadableError: a document or a pointer is missing, damaged or malformed.
        StoreError: the store cannot be reached.
    """
    released = set(uow.session.scalars(select(Release.digest)))
    reached = {*released, *uow.session.scalars(select(TaskVersion.digest))}
    for row in uow.backbones():
        if row.digest not in known:
            with _needed(
                f"backbone {row.reference}",
                f"register it again from its source: centra backbone register {row.name} SOURCE",
            ):
                known[row.digest] = _backbone_blobs(store, row.digest)
        reached |= known[row.digest]
    for channel in store.pointers():
        with _needed(
            f"the channel pointer {channel}.json",
            f"run 'centra channel sync {channel}'; or remove it, if nothing follows it",
        ):
            manifest = _pointed_manifest(store, channel)
            if manifest is None:
                continue  # Removed since it was listed.
            if manifest not in released and manifest not in known:
                known[manifest] = _release_blobs(store, manifest)
        reached |= known.get(manifest, set())
    return reached


def amount(count: int, size: int) -> str:
    """A number of files and their bytes, for people."""
    return f"{count} file{'' if count == 1 else 's'}, {size:,} bytes"


def place_of(store: BlobStore) -> str:
    """Where a store is, without options and credentials."""
    parts = urlsplit(store.url)
    if parts.scheme != "s3":
        return store.url
    return f"s3://{parts.netloc.rpartition('@')[2]}{parts.path}"


@contextmanager
def _needed(what: str, mend: str) -> Iterator[None]:
    try:
        yield
    except (BlobNotFoundError, CorruptBlobError, FormatError, InvalidNameError) as error:
        raise UnreadableError(what, error, mend) from error


def _backbone_blobs(store: BlobStore, digest: str) -> set[str]:
    from centra.backbone import BackboneSpec

    return BackboneSpec.parts(digest, store)


def _release_blobs(store: BlobStore, manifest: str) -> set[str]:
    from centra.release import ReleaseManifest

    path = store.fetch(manifest)
    return {manifest, *ReleaseManifest.from_bytes(path.read_bytes(), str(path)).files().values()}


def _pointed_manifest(store: BlobStore, channel: str) -> str | None:
    from centra.release import ChannelPointer

    data = store.read_pointer(channel)
    return None if data is None else ChannelPointer.from_bytes(data, f"{channel}.json").manifest


def _everything(store: BlobStore, now: datetime) -> Iterator[Garbage]:
    """All that lies in a store but for its pointers, reached or not."""
    for blob in store.blobs():
        yield Garbage(
            kind="blob",
            name=blob.digest,
            size=blob.size,
            modified=blob.modified,
            age=_age(blob.modified, now),
        )
    if isinstance(store, LocalStore):
        for left in store.leftovers():
            yield Garbage(
                kind="leftover",
                name=left.name,
                size=left.size,
                modified=left.modified,
                age=_age(left.modified, now),
            )


def _age(modified: datetime, now: datetime) -> int:
    # A server may date in finer steps than it tells the time.
    return max(0, int((now - modified).total_seconds()))


def _needed_age(kind: str, grace: timedelta) -> float:
    """Seconds from which on something may be removed."""
    return (max(grace, _WRITING) if kind == "leftover" else grace).total_seconds()


def _remove(
    registry: Registry,
    garbage: Sequence[Garbage],
    known: dict[str, set[str]],
    is_old: Callable[[StoredBlob], bool],
    *,
    progress: Progress,
) -> list[Garbage]:
    """Remove what is still garbage, a batch per writing transaction; gives what was removed."""
    pending, removed = deque(garbage), list[Garbage]()
    failure: BaseException | None = None
    while pending and failure is None:
        if len(pending) < len(garbage):
            time.sleep(_PAUSE_S)
        with registry.write() as uow:
            try:
                reached = reachable(uow, registry.store, known)
                until = time.monotonic() + _TURN_S
                for _ in range(min(_BATCH, len(pending))):
                    one = pending.popleft()
                    if one.name not in reached and _remove_one(registry.store, one, is_old):
                        removed.append(one)
                    if time.monotonic() > until:
                        break
            except (CentraError, KeyboardInterrupt) as error:
                failure = error  # What is gone already is recorded all the same.
            if removed and (failure or not pending):
                uow.record(
                    "store:gc",
                    _subject(registry.store),
                    {"count": len(removed), "bytes": _bytes(removed)},
                )
        progress("remove blobs", len(garbage) - len(pending), len(garbage))
    if failure:
        raise failure
    return removed


def _remove_one(store: BlobStore, one: Garbage, is_old: Callable[[StoredBlob], bool]) -> bool:
    if one.kind == "leftover":
        if isinstance(store, LocalStore):
            store.remove_leftover(one.name)
        return True
    found = store.stat(one.name)
    # It may be gone, or have been put again since it was listed.
    if found is None or not is_old(found):
        return False
    store.remove(one.name)
    return True


def _bytes(garbage: Sequence[Garbage]) -> int:
    return sum(one.size for one in garbage)


def _subject(store: BlobStore) -> str:
    place = place_of(store)
    return place if len(place) <= _SUBJECT else f"…{place[1 - _SUBJECT :]}"
