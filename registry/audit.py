"""The log of changes: each event is chained to the one before it, and none is ever changed.

Writing is :meth:`registry.database.unit_of_work.UnitOfWork.record`, in the change's own transaction. The
database itself refuses to update or delete an event. An event's digest covers its content and the
digest before it, and the log's head holds the last one, so that a row which somebody changed, took
out or put in behind the database's back shows.

Whoever can write the database can also write the whole chain anew. That shows by a *witness*: how
many events there were, and the digest of the last, kept where the database's owner has no say. The
store keeps one of each release; others are printed, and can be asked for again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.exc import DataError

from centra.errors import StoreError, StoreNotWritableError, UsageError, VerificationError
from registry.database import guards, tables
from registry.database.listing import within
from registry.database.models import AuditEvent, AuditHead
from registry.rules.chain import START, chain_digest
from registry.rules.replay import Change, differences, partly, replay

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from centra.store import Witness
    from registry.connection import Registry
    from registry.database.listing import Moment
    from registry.database.unit_of_work import UnitOfWork

__all__ = [
    "AuditError",
    "Event",
    "Verified",
    "accept",
    "ask_witnesses",
    "bear_witness",
    "events",
    "guard",
    "verify",
]

_ACCEPT = "audit:accept"
_WITNESS = re.compile(r"([1-9][0-9]{0,17}):([0-9a-f]{64})")
_SHOWN = 50
"""So many findings of a kind are named; the others are counted."""


class AuditError(VerificationError):
    """The log is not as it was written, or the tables are not as the log says."""

    def __init__(self, says: str, event: int | None = None) -> None:
        super().__init__(says)
        self.event = event
        """The first event that does not fit, where it is one."""

    @classmethod
    def at(cls, event: int, cause: str) -> AuditError:
        """An event that does not fit."""
        return cls(
            f"audit event {event}: {cause}. Nothing from there on can be trusted; compare with a "
            "backup of the database.",
            event,
        )


@dataclass(frozen=True, kw_only=True)
class Event:
    """One change."""

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    forced: bool
    details: dict[str, Any]
    digest: str


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A log that is as it was written, and tables that are as it says."""

    events: int
    digest: str
    """Of the last event."""
    witness: str
    """``COUNT:DIGEST``. Kept elsewhere, it shows later whether this very log was cut or rewritten."""
    witnesses: int
    """How many witnesses agree: the store's, and those that were asked for."""
    void: dict[int, list[str]]
    """The store's witnesses that do not count, by the event that says so; see :func:`accept`."""
    rows: int
    """How many rows are as the log says."""
    partly: int
    """Of how many of them the log, written by an older Centra, does not say every value."""


def events(
    registry: Registry,
    *,
    task: str | None = None,
    actor: str | None = None,
    since: Moment | None = None,
) -> list[Event]:
    """The log, oldest first.

    Args:
        registry: where.
        task: keep the changes of this task.
        actor: keep the changes by this actor (``team/person``), or by this team (``team``).
        since: keep what happened at this time or later; or how long ago.

    Raises:
        TaskNotFoundError: there is no such task.
        DatabaseError: the registry cannot be used.
    """
    query = select(AuditEvent).order_by(AuditEvent.id)
    with registry.read() as uow:
        if task is not None:
            query = query.where(
                AuditEvent.subject == uow.task(task).name, AuditEvent.action.startswith("task:")
            )
        if actor is not None:
            query = query.where(
                (AuditEvent.actor == actor)
                | AuditEvent.actor.startswith(f"{actor}/", autoescape=True)
            )
        query = within(uow, query, AuditEvent.at, since, None)
        return [
            Event(
                id=event.id,
                at=event.at,
                actor=event.actor,
                action=event.action,
                subject=event.subject,
                forced=event.forced,
                details=event.details,
                digest=event.digest,
            )
            for event in uow.session.scalars(query)
        ]


def verify(registry: Registry, *, expected: Sequence[str] = (), ask_store: bool = True) -> Verified:
    """Check the log, what keeps it from being changed, and the tables against it.

    The chain is followed from the first event to the head; every witness must agree with it; the
    database's triggers must stand; and every row must be as the events say.

    Args:
        registry: where.
        expected: witnesses that were kept elsewhere, ``COUNT:DIGEST``.
        ask_store: whether the store's witnesses must agree, too.

    Raises:
        UsageError: a witness is malformed.
        AuditError: something is not as it was written; all that does not fit is named, and of the
            chain the first event.
        StoreError: the store cannot be reached.
        DatabaseError: the registry cannot be used.
    """
    wanted = [_parsed(witness) for witness in expected]
    # Listed before the database is read: what they saw is there.
    seen = registry.store.witnesses() if ask_store else []
    with registry.read() as uow:
        changes, digests = _follow(uow)
        guarding = guards.faults(uow.session.connection())
        found = tables.read(uow)
    void = _void((change.id, change.details) for change in changes if change.action == _ACCEPT)
    counted = _counted(seen, void)
    try:
        said = replay(changes)
    except ValueError as error:
        raise AuditError.at(*error.args) from error
    faults = [
        *_unexpected(_against(digests, wanted), len(changes)),
        *_unseen(_against(digests, counted), len(changes)),
        *_unguarded(guarding),
        *_changed(differences(said, found)),
    ]
    if faults:
        raise AuditError("\n".join(faults))
    return Verified(
        events=len(changes),
        digest=digests[-1],
        witness=_text((len(changes), digests[-1])),
        witnesses=len(wanted) + len(counted),
        void=void,
        rows=len(found),
        partly=partly(said, found),
    )


def ask_witnesses(registry: Registry) -> int:
    """Hold the store's witnesses against the log as its events say, without following its chain.

    Returns:
        How many agree.

    Raises:
        AuditError: one does not.
        StoreError, DatabaseError: the registry cannot be used.
    """
    seen = registry.store.witnesses()
    with registry.read() as uow:
        known = select(AuditEvent.id, AuditEvent.digest).order_by(AuditEvent.id)
        digests = [START, *(digest for _, digest in uow.session.execute(known))]
        accepted = select(AuditEvent.id, AuditEvent.details).where(AuditEvent.action == _ACCEPT)
        void = _void((event, details) for event, details in uow.session.execute(accepted))
    counted = _counted(seen, void)
    faults = [*_unseen(_against(digests, counted), len(digests) - 1)]
    if faults:
        raise AuditError("\n".join(faults))
    return len(counted)


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
    seen = registry.store.witnesses()
    with registry.write() as uow:
        changes, digests = _follow(uow)
        known = _void((change.id, change.details) for change in changes if change.action == _ACCEPT)
        void = [_text(one) for one in _against(digests, _counted(seen, known))]
        if void:
            uow.record(_ACCEPT, "restore", {"void": void})
    return void


def guard(registry: Registry) -> list[str]:
    """Put back the triggers that keep the log from being changed, and record that they were not there.

    Returns:
        Their names; nothing is written where all stand.

    Raises:
        DatabaseError: the registry cannot be used, or this user may not make triggers.
    """
    with registry.write() as uow:
        restored = guards.restore(uow.session.connection())
        if restored:
            uow.record("audit:guard", "triggers", {"restored": restored})
    return restored


def bear_witness(registry: Registry, release: int) -> None:
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
            "Then repeat the command."
        ) from error


def _follow(uow: UnitOfWork) -> tuple[list[Change], list[str]]:
    """The events, and the chain's digests: before the first event, and after each."""
    digests, changes = [START], list[Change]()
    # Row by row: one that cannot be read must not hide which one it is.
    query = select(AuditEvent.__table__).order_by(AuditEvent.id)
    rows = iter(uow.session.connection().execute(query))
    while (event := _next_row(rows, len(digests))) is not None:
        number = len(digests)
        if event.id != number:
            raise AuditError.at(number, "is missing")
        digests.append(_link(digests[-1], event))
        if event.digest != digests[-1]:
            raise AuditError.at(event.id, "was changed, or one before it was")
        changes.append(
            Change(
                id=event.id,
                actor=event.actor,
                action=event.action,
                subject=event.subject,
                details=event.details,
            )
        )
    count, head = len(changes), uow.session.get(AuditHead, 1)
    if head is None or head.count > count:
        raise AuditError.at(count + 1, "is missing")
    if head.count < count:
        raise AuditError.at(head.count + 1, "was not written by Centra: the log ended before it")
    if head.digest != digests[-1]:
        raise AuditError.at(count, "is not the one that the log ended with")
    return changes, digests


def _next_row(rows: Iterator[Any], number: int) -> Any:
    try:
        return next(rows, None)
    except (ValueError, TypeError, RecursionError, DataError) as error:
        cause = error.orig if isinstance(error, DataError) else error
        raise AuditError.at(number, f"cannot be read ({cause})") from error


def _link(previous: str, event: Any) -> str:
    try:
        return chain_digest(previous, event)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise AuditError.at(event.id, f"cannot be read ({error})") from error


def _parsed(witness: str) -> Witness:
    found = _WITNESS.fullmatch(witness)
    if found is None:
        raise UsageError(
            f"{witness!r} is no witness; expected COUNT:DIGEST, as 'centra audit verify' prints it"
        )
    return int(found[1]), found[2]


def _text(witness: Witness) -> str:
    return "{}:{}".format(*witness)


def _void(accepted: Iterable[tuple[int, Mapping[str, Any]]]) -> dict[int, list[str]]:
    """The witnesses that do not count, by the event that says so."""
    return {event: [str(witness) for witness in details["void"]] for event, details in accepted}


def _counted(witnesses: Iterable[Witness], void: Mapping[int, Collection[str]]) -> list[Witness]:
    gone = {witness for some in void.values() for witness in some}
    return [witness for witness in witnesses if _text(witness) not in gone]


def _against(digests: Sequence[str], witnesses: Iterable[Witness]) -> list[Witness]:
    """The witnesses that a chain of digests contradicts."""
    return [one for one in witnesses if digests[one[0] : one[0] + 1] != [one[1]]]


def _unexpected(against: Sequence[Witness], end: int) -> Iterator[str]:
    for count, digest in against:
        yield (
            f"the log is not the one of which {count}:{digest} was kept: "
            + (f"it ends at event {end}" if count > end else f"its first {count} events are others")
            + ". It was cut or written anew, or an older backup was restored; compare with a backup "
            "of the database."
        )


def _unseen(against: Sequence[Witness], end: int) -> Iterator[str]:
    if against:
        lines = _some(
            [
                f"the store has seen {_text(one)}, but "
                + (f"the log ends at event {end}" if one[0] > end else "that event is another here")
                for one in against
            ]
        )
        yield (
            f"{lines}\nThe log was cut or written anew, or the database was restored from a backup "
            "that is older than the store: compare with a backup. If it was restored, say so: "
            "centra audit accept"
        )


def _unguarded(faults: Sequence[guards.Guard]) -> Iterator[str]:
    if faults:
        lines = _some([f"the trigger {name} {fault}" for name, fault in faults])
        yield (
            f"{lines}\nUntil all stand again, whoever writes to the database can change the log. Find "
            "out who did that; what is missing or altered comes back with: centra audit guard"
        )


def _changed(differences: Sequence[str]) -> Iterator[str]:
    if differences:
        yield (
            f"{_some(differences)}\nThe tables were changed past Centra. Find out who can write to the "
            "database, and put back what the log says, or restore a backup."
        )


def _some(lines: Sequence[str]) -> str:
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "\n".join([*lines[:_SHOWN], *more])
