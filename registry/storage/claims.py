"""Claims on blobs: what lets garbage collection and registering go on beside each other.

No store is called inside a writing transaction, for a store may take minutes and others would wait.
So each says in a short transaction what it is about to do with a blob, does it, and takes the claim
back in a second one, together with what comes of it:

- whoever stores a blob claims it first. Only what is reached neither by a row nor by such a claim may
  be claimed for removal, and the row is written only while the claim still stands;
- whoever removes a blob claims it first. It may be claimed for storing only when the removal is over.

Claims of a process that was killed run out, by the database's clock. See docs/adr/0016.
"""

from __future__ import annotations

import logging
import time
import uuid
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import delete, insert, select, update

from centra.errors import CentraError, StoreError
from centra.progress import Progress, silent
from centra.system.files import content_digest
from registry.database.models import BlobClaim

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

    from centra.formats.identities import Digest
    from registry.connection import Registry
    from registry.database.unit_of_work import UnitOfWork

__all__ = [
    "TURN_S",
    "Claim",
    "claim_for_removal",
    "claimed_for_storing",
    "end_removals",
    "forget_removed",
    "new_operation",
    "recover_interrupted",
    "storing",
]

TURN_S = 10.0
"""How long after a claim for removal the last removal may begin."""

_STORING = timedelta(days=1)
"""How long a claim for storing counts."""
_REMOVING = timedelta(minutes=10)
"""How long one for removal does: until then, a request that a collector began may have an effect."""
_BUSY = timedelta(seconds=2 * TURN_S)
"""How long other collectors leave to a collector what it claimed."""
_POLL_S = 0.2
_LONG_S = 2.0
"""After how long somebody who waits is warned why."""

_log = logging.getLogger(__name__)


class Claim:
    """Blobs that are to be named by rows: from before they are stored until the rows are there.

    Used in a ``with`` block, at whose end nothing is claimed any more.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._operation = new_operation()
        self._digests: set[Digest] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _at: TracebackType | None,
    ) -> None:
        if self._digests:
            # Should it not be possible: it runs out, too.
            with suppress(CentraError), self._registry.write(any_store=True) as uow:
                uow.session.execute(self._own(delete(BlobClaim)))

    def put(self, source: Path | bytes, digest: Digest | None = None) -> Digest:
        """Claim a blob and store it; see :meth:`centra.store.BlobStore.put`.

        Raises:
            StoreError, StoreNotWritableError, DatabaseError: the registry cannot be used.
        """
        digest = digest or content_digest(source)
        self.put_all({digest: source})
        return digest

    def put_all(self, sources: Mapping[Digest, Path | bytes], progress: Progress = silent) -> None:
        """Claim blobs and store them, those that are there, too: that mends what is damaged.

        Args:
            sources: by the digests that they are known to have; files are private copies, that
                nobody else can change.
            progress: told of each blob.

        Raises:
            StoreError, StoreNotWritableError, DatabaseError: the registry cannot be used.
        """
        self._claim(sources.keys() - self._digests)
        for done, (digest, source) in enumerate(sources.items(), 1):
            self._registry.store.put(source, digest)
            progress("store blobs", done, len(sources))

    @contextmanager
    def write(self) -> Iterator[UnitOfWork]:
        """A writing transaction whose rows may name the blobs; it ends the claim.

        Raises:
            StoreError: the claim ran out before, and the blobs may be gone.
            DatabaseError: the database cannot be used.
        """
        with self._registry.write() as uow:
            own = uow.session.scalars(self._own(delete(BlobClaim)).returning(BlobClaim.digest))
            if set(own) != self._digests:
                raise StoreError(
                    f"it took more than {_STORING.days} day to store all blobs, and garbage "
                    "collection may have removed the first of them again; try again"
                )
            yield uow
        self._digests.clear()

    def _own(self, statement: Any) -> Any:
        return statement.where(BlobClaim.operation == self._operation)

    def _claim(self, digests: set[Digest]) -> None:
        since = time.monotonic()
        warned = False
        while digests:
            with self._registry.write() as uow:
                now = uow.clock()
                blocked = digests & _since(uow, "remove", now - _REMOVING)
                if not blocked:
                    _add(uow, self._operation, "store", dict.fromkeys(digests), now)
                    break
            if not warned and time.monotonic() - since > _LONG_S:
                warned = True
                _log.warning(
                    "waiting for a garbage collection that is about to remove what is to be stored; "
                    "one that was killed is waited for for %d minutes",
                    _REMOVING.total_seconds() // 60,
                )
            time.sleep(_POLL_S)
        self._digests |= digests


@contextmanager
def storing(
    registry: Registry, sources: Mapping[Digest, Path | bytes], progress: Progress = silent
) -> Iterator[UnitOfWork]:
    """Store blobs, and then open the writing transaction whose rows may name them.

    Args:
        registry: where.
        sources, progress: see :meth:`Claim.put_all`.

    Raises:
        StoreError, StoreNotWritableError, DatabaseError: the registry cannot be used.
    """
    with Claim(registry) as claim:
        claim.put_all(sources, progress)
        with claim.write() as uow:
            yield uow


def new_operation() -> str:
    """What tells the claims of one operation from those of all others."""
    return uuid.uuid4().hex


def claimed_for_storing(uow: UnitOfWork) -> set[str]:
    """The digests of the blobs that somebody is about to store, or has stored, for a row to come."""
    return _since(uow, "store", uow.clock() - _STORING)


def claim_for_removal(
    uow: UnitOfWork, operation: str, garbage: Mapping[str, int]
) -> tuple[set[str], set[str]]:
    """Claim blobs that no row reaches for removal, which must begin within :data:`TURN_S`.

    Args:
        uow: the transaction that has found them unreached.
        operation: the collection's own.
        garbage: their sizes by digest.

    Returns:
        Those that are claimed now, and those that another collection has claimed.
    """
    now = uow.clock()
    # Not just passed over: whoever claimed them must notice, and store them anew.
    uow.session.execute(
        delete(BlobClaim).where(BlobClaim.purpose == "store", BlobClaim.at < now - _STORING)
    )
    busy = garbage.keys() & _since(uow, "remove", now - _BUSY)
    mine = garbage.keys() - busy - _since(uow, "store", now - _STORING)
    # One that was killed has left these: they are ours to log, but still claimed for its sake.
    uow.session.execute(
        update(BlobClaim)
        .where(BlobClaim.purpose == "remove", BlobClaim.digest.in_(mine))
        .values(size=None)
    )
    _add(uow, operation, "remove", {digest: garbage[digest] for digest in mine}, now)
    return mine, busy


def end_removals(uow: UnitOfWork, operation: str, gone: Collection[str]) -> None:
    """Take a collection's claims back, and keep for the log which of the blobs are gone."""
    own = (BlobClaim.operation == operation, BlobClaim.purpose == "remove")
    uow.session.execute(
        update(BlobClaim).where(*own, BlobClaim.digest.in_(gone)).values(purpose="removed")
    )
    uow.session.execute(delete(BlobClaim).where(*own))


def forget_removed(uow: UnitOfWork, operation: str) -> dict[str, int]:
    """Forget what a collection has removed; gives those for its event, with their sizes."""
    own = select(BlobClaim.digest, BlobClaim.size).where(
        BlobClaim.operation == operation, BlobClaim.purpose == "removed"
    )
    found = {digest: size for digest, size in uow.session.execute(own) if size is not None}
    uow.session.execute(delete(BlobClaim).where(BlobClaim.operation == operation))
    return found


def recover_interrupted(uow: UnitOfWork, there: Collection[str]) -> dict[str, int]:
    """Forget the claims of collections that were killed.

    Args:
        uow: the transaction that will write the event of what they removed.
        there: the digests of the blobs that the store has.

    Returns:
        What they removed and no event shows, with the sizes.
    """
    now = uow.clock()
    left = uow.session.scalars(
        select(BlobClaim).where(BlobClaim.purpose != "store", BlobClaim.at < now - _BUSY)
    )
    found = {}
    for claim in left:
        gone = claim.purpose == "removed" or claim.digest not in there
        if gone and claim.size is not None:
            found[claim.digest] = claim.size
            claim.size = None
        if claim.purpose == "removed" or claim.at < now - _REMOVING:
            uow.session.delete(claim)
    return found


def _since(uow: UnitOfWork, purpose: str, since: datetime) -> set[str]:
    return set(
        uow.session.scalars(
            select(BlobClaim.digest).where(BlobClaim.purpose == purpose, BlobClaim.at >= since)
        )
    )


def _add(
    uow: UnitOfWork, operation: str, purpose: str, blobs: Mapping[str, int | None], now: datetime
) -> None:
    if blobs:
        rows = [
            {"operation": operation, "digest": digest, "purpose": purpose, "at": now, "size": size}
            for digest, size in blobs.items()
        ]
        uow.session.execute(insert(BlobClaim), rows)
