"""Checking the log, what keeps it from being changed, and the tables against it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.audit.chain import broken_at, read_chain
from registry.audit.witnesses import (
    ACCEPT,
    contradicted,
    parse_witness,
    unseen_by_store,
    valid_witnesses,
    void_witnesses,
    witness_text,
)
from registry.database import guards, tables
from registry.errors import AuditError
from registry.rules.replay import count_incomplete, differences, replay
from registry.texts import first_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from centra.store import Witness
    from registry.connection import Registry

__all__ = ["Verified", "restore_guards", "verify"]

_log = logging.getLogger(__name__)


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
    wanted = [parse_witness(witness) for witness in expected]
    # Listed before the database is read: what they saw is there.
    kept = registry.store.witnesses() if ask_store else []
    with registry.read() as uow:
        changes, digests = read_chain(uow)
        triggers = guards.wrong_triggers(uow.session.connection())
        found = tables.read(uow)
    void = void_witnesses(
        (change.id, change.details) for change in changes if change.action == ACCEPT
    )
    valid = valid_witnesses(kept, void)
    try:
        recorded = replay(changes)
    except ValueError as error:
        raise broken_at(*error.args) from error
    findings: dict[str, str] = {}
    if against := contradicted(digests, wanted):
        findings["expected-witnesses"] = _unexpected(against, len(changes))
    if against := contradicted(digests, valid):
        findings["witnesses"] = unseen_by_store(against, len(changes))
    if triggers:
        findings["guards"] = _unguarded(triggers)
    if changed := differences(recorded, found):
        findings["tables"] = _changed(changed)
    if findings:
        raise AuditError("\n".join(findings.values()), findings=[*findings])
    return Verified(
        events=len(changes),
        digest=digests[-1],
        witness=witness_text((len(changes), digests[-1])),
        witnesses=len(wanted) + len(valid),
        void=void,
        rows=len(found),
        partly=count_incomplete(recorded, found),
    )


def restore_guards(registry: Registry) -> list[str]:
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
            _log.info("put back the triggers %s", ", ".join(restored))
    return restored


def _unexpected(against: Sequence[Witness], end: int) -> str:
    return "\n".join(
        f"the log is not the one of which {count}:{digest} was kept: "
        + (f"it ends at event {end}" if count > end else f"its first {count} events are others")
        + ". It was cut or written anew, or an older backup was restored; compare with a backup "
        "of the database."
        for count, digest in against
    )


_PROBLEMS = {"missing": "is missing", "altered": "was altered", "foreign": "is not Centra's"}


def _unguarded(triggers: Sequence[guards.WrongTrigger]) -> str:
    lines = first_lines(
        f"the trigger {trigger.name} {_PROBLEMS[trigger.problem]}" for trigger in triggers
    )
    return (
        f"{lines}\nUntil all stand again, whoever writes to the database can change the log. Find "
        "out who did that."
    )


def _changed(differences: Sequence[str]) -> str:
    return (
        f"{first_lines(differences)}\nThe tables were changed past Centra. Find out who can write to "
        "the database, and put back what the log says, or restore a backup."
    )
