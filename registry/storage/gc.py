"""Garbage collection: removing what nothing reaches from the store.

A blob is reached when a task version, a release, a backbone or a channel's pointer names it, or when
somebody has claimed it for a row to come (:mod:`registry.storage.claims`). All else is garbage once it is older
than a grace period. The decision is made twice: over the whole store, which is the dry run, and again
for each batch, in a short writing transaction that claims it. Then it is removed, in no transaction.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from centra.progress import Progress, silent
from centra.store import LocalStore
from registry.storage import claims
from registry.storage.identity import store_location
from registry.storage.needed import blobs_to_keep, needed_by_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from centra.store import BlobStore, StoredBlob
    from registry.connection import Registry
    from registry.database.unit_of_work import UnitOfWork

__all__ = [
    "GRACE",
    "Collection",
    "Garbage",
    "collect",
    "subject",
]

_log = logging.getLogger(__name__)

GRACE = timedelta(days=7)
"""How long a blob that nothing reaches is left alone, unless asked otherwise."""

# A write that still runs touches its temporary file; one that did not for so long was killed.
_WRITING = timedelta(hours=1)
_BATCH = 500
_PAUSE_S = 0.5
"""How long to wait where another collection has claimed all that is left."""
_SUBJECT = 127  # characters of an audit event's subject
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""One that goes on while the machine sleeps, where there is one."""


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
        registry: where.
        grace: what is younger, by the store's own clock, is left alone.
        delete: remove it; otherwise nothing is changed.
        progress: told while blobs are removed.

    Raises:
        WrongStoreError: the store is not the one that the database writes to.
        UnreadableError: something that says what must stay is damaged; nothing was removed by it.
        StoreError, StoreNotWritableError, DatabaseError: the registry cannot be used. What had been
            removed before is recorded in the log, by the next collection if not by this one.
    """
    began = time.monotonic()
    registry.check_store()
    known: dict[str, set[str]] = {}
    now = registry.store.clock()
    # Listed before the database is asked: what is claimed or registered after that is reached.
    blobs = list(_everything(registry.store, now))
    keep = blobs_to_keep(registry, known)
    unreached = [one for one in blobs if one.name not in keep]
    old = [one for one in unreached if one.age >= _needed_age(one.kind, grace)]
    old.sort(key=lambda one: (one.modified, one.name))
    young = [one for one in unreached if one.age < _needed_age(one.kind, grace)]
    if delete:

        def is_old(blob: StoredBlob) -> bool:
            return _age(blob.modified, now) >= _needed_age("blob", grace)

        _recover(registry, blobs)
        old = _remove(registry, old, known, is_old, progress=progress)
        elapsed = time.monotonic() - began
        _log.info(
            "removed %d files, %d bytes, from %s in %.1f s",
            len(old),
            _bytes(old),
            store_location(registry.store),
            elapsed,
            extra={"count": len(old), "bytes": _bytes(old), "seconds": elapsed},
        )
    return Collection(
        deleted=delete,
        grace=int(grace.total_seconds()),
        garbage=old,
        count=len(old),
        bytes=_bytes(old),
        young=len(young),
        young_bytes=_bytes(young),
    )


def subject(store: BlobStore) -> str:
    """A store as audit events name it."""
    place = store_location(store)
    return place if len(place) <= _SUBJECT else f"…{place[1 - _SUBJECT :]}"


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


def _recover(registry: Registry, blobs: Sequence[Garbage]) -> None:
    """Put into the log what collections removed that were killed."""
    with registry.write() as uow:
        found = claims.recover_interrupted(uow, {one.name for one in blobs})
        if found:
            _record(uow, registry.store, [*found.values()], interrupted=True)


def _remove(
    registry: Registry,
    garbage: Sequence[Garbage],
    known: dict[str, set[str]],
    is_old: Callable[[StoredBlob], bool],
    *,
    progress: Progress,
) -> list[Garbage]:
    """Remove what is still garbage, batch by batch; gives what was removed."""
    operation = claims.new_operation()
    pending, removed = deque(garbage), list[Garbage]()
    gone: set[str] = set()
    try:
        while pending:
            keep = blobs_to_keep(registry, known)
            batch = [pending.popleft() for _ in range(min(_BATCH, len(pending)))]
            until = time.clock_gettime(_CLOCK) + claims.TURN_S
            with registry.write() as uow:
                needed = needed_by_rows(uow, known)
                if needed is None:  # A backbone, of this moment: what it says is to be read first.
                    pending.extendleft(reversed(batch))
                    continue
                blobs = (one for one in batch if one.kind == "blob")
                left = {one.name: one.size for one in blobs if one.name not in keep | needed}
                mine, busy = claims.claim_for_removal(uow, operation, left)
            own = [one for one in batch if one.name in mine or one.kind == "leftover"]
            pending.extend(one for one in batch if one.name in busy)
            while own and time.clock_gettime(_CLOCK) < until:
                one = own.pop(0)
                if _remove_one(registry.store, one, is_old):
                    removed.append(one)
                    gone.add(one.name)
            pending.extendleft(reversed(own))
            with registry.write() as uow:
                claims.end_removals(uow, operation, gone)
            gone.clear()
            progress("remove blobs", len(garbage) - len(pending), len(garbage))
            if busy and not mine:
                time.sleep(_PAUSE_S)
    finally:
        if garbage:
            leftovers = [one.size for one in removed if one.kind == "leftover"]
            with registry.write() as uow:
                claims.end_removals(uow, operation, gone)
                sizes = [*claims.forget_removed(uow, operation).values(), *leftovers]
                if sizes:
                    _record(uow, registry.store, sizes)
    return removed


def _record(
    uow: UnitOfWork, store: BlobStore, sizes: Sequence[int], *, interrupted: bool = False
) -> None:
    details = {"count": len(sizes), "bytes": sum(sizes)}
    uow.record("store:gc", subject(store), details | ({"interrupted": True} if interrupted else {}))


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
    _log.debug("removed blob sha256:%s", one.name)
    return True


def _bytes(garbage: Sequence[Garbage]) -> int:
    return sum(one.size for one in garbage)
