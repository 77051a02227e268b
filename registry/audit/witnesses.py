"""Witnesses: how far the log had come, and the digest of its last event then.

The store keeps one of each release, where the database's owner has no say. Whoever restores an older
backup says so once, and the witnesses that contradict it do not count from then on.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from centra.errors import StoreError, StoreNotWritableError, UsageError
from registry.audit.chain import read_chain
from registry.database.models import AuditEvent
from registry.errors import AuditError
from registry.rules.chain import START
from registry.texts import first_lines

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from centra.store import Witness
    from registry.connection import Registry

__all__ = [
    "ACCEPT",
    "accept",
    "check_witnesses",
    "contradicted",
    "parse_witness",
    "unseen_by_store",
    "valid_witnesses",
    "void_witnesses",
    "witness_text",
    "write_witness",
]

_log = logging.getLogger(__name__)

ACCEPT = "audit:accept"
"""The action of the events that say which witnesses do not count."""

_WITNESS = re.compile(r"([1-9][0-9]{0,17}):([0-9a-f]{64})")


def check_witnesses(registry: Registry) -> int:
    """Hold the store's witnesses against the log as its events say, without following its chain.

    Returns:
        How many agree.

    Raises:
        AuditError: one does not.
        StoreError, DatabaseError: the registry cannot be used.
    """
    kept = registry.store.witnesses()
    with registry.read() as uow:
        known = select(AuditEvent.id, AuditEvent.digest).order_by(AuditEvent.id)
        digests = [START, *(digest for _, digest in uow.session.execute(known))]
        accepted = select(AuditEvent.id, AuditEvent.details).where(AuditEvent.action == ACCEPT)
        void = void_witnesses((event, details) for event, details in uow.session.execute(accepted))
    valid = valid_witnesses(kept, void)
    if against := contradicted(digests, valid):
        raise AuditError(unseen_by_store(against, len(digests) - 1), findings=["witnesses"])
    return len(valid)


def accept(registry: Registry) -> list[str]:
    """Say that the database was restored from a backup that is older than what the store has seen.

    The store's witnesses that contradict the log are listed in an event, and do not count from then
    on. Whoever reads the log sees who said so, and of which.

    Returns:
        These witnesses; nothing is written where there are none.

    Raises:
        AuditError: the log itself is broken.
        StoreError, DatabaseError: the registry cannot be used.
    """
    kept = registry.store.witnesses()
    with registry.write() as uow:
        changes, digests = read_chain(uow)
        known = void_witnesses(
            (change.id, change.details) for change in changes if change.action == ACCEPT
        )
        void = [witness_text(one) for one in contradicted(digests, valid_witnesses(kept, known))]
        if void:
            uow.record(ACCEPT, "restore", {"void": void})
    return void


def write_witness(registry: Registry, release: int) -> None:
    """Let the store keep where the log stood when a release was published.

    It is written after the transaction, as a channel's pointer is, and again by whoever publishes
    the same release again, so that a crash between leaves nothing that a rerun would not mend. The
    next one covers all events before it, too.

    Raises:
        StoreError: it cannot be written; the release is published all the same.
        DatabaseError: the registry cannot be used.
    """
    query = select(AuditEvent.id, AuditEvent.digest).where(
        AuditEvent.subject == str(release), AuditEvent.action == "release:publish"
    )
    with registry.read() as uow:
        event = uow.session.execute(query).one_or_none()
    if event is None:  # Published before there was a log.
        return
    try:
        registry.store.write_witness((event.id, event.digest))
    except (StoreError, StoreNotWritableError) as error:
        raise StoreError(
            f"release {release} is published, but the store has not seen that yet: {error} "
            "Then repeat the command.",
            code="witness-not-written",
            release=release,
        ) from error
    _log.debug("the store has seen the log up to event %d", event.id)


def parse_witness(text: str) -> Witness:
    """Read ``COUNT:DIGEST``.

    Raises:
        UsageError: it is anything else.
    """
    found = _WITNESS.fullmatch(text)
    if found is None:
        raise UsageError(
            f"{text!r} is no witness; expected COUNT:DIGEST", code="invalid-witness", witness=text
        )
    return int(found[1]), found[2]


def witness_text(witness: Witness) -> str:
    """A witness as ``COUNT:DIGEST``."""
    return "{}:{}".format(*witness)


def void_witnesses(accepted: Iterable[tuple[int, Mapping[str, Any]]]) -> dict[int, list[str]]:
    """The witnesses that do not count, by the event that says so.

    Args:
        accepted: the events of :func:`accept`, each with its details.
    """
    return {event: [str(witness) for witness in details["void"]] for event, details in accepted}


def valid_witnesses(
    witnesses: Iterable[Witness], void: Mapping[int, Collection[str]]
) -> list[Witness]:
    """Those that count."""
    accepted = {witness for texts in void.values() for witness in texts}
    return [witness for witness in witnesses if witness_text(witness) not in accepted]


def contradicted(digests: Sequence[str], witnesses: Iterable[Witness]) -> list[Witness]:
    """The witnesses that a chain of digests contradicts."""
    return [one for one in witnesses if digests[one[0] : one[0] + 1] != [one[1]]]


def unseen_by_store(against: Sequence[Witness], end: int) -> str:
    """What it means that the store's witnesses contradict a log that ends at this event."""
    lines = [
        f"the store has seen {witness_text(witness)}, but "
        + (f"the log ends at event {end}" if witness[0] > end else "that event is another here")
        for witness in against
    ]
    return (
        f"{first_lines(lines)}\nThe log was cut or written anew, or the database was restored from a "
        "backup that is older than the store: compare with a backup."
    )
