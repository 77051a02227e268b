from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from centra.errors import UsageError
from centra.system.files import file_digest
from cli.errors import exit_code
from registry import audit, backbones, channels, releases, tasks
from registry.database.models import AuditEvent, AuditHead
from registry.database.unit_of_work import UnitOfWork
from registry.errors import AuditError, TaskNotFoundError
from registry.rules.chain import chain_digest
from tests import support
from tests.registry.helpers import (
    ADA,
    BOB,
    acting,
    actions,
    anonymous,
    nothing_changes,
    rows,
    ruled,
    unguarded,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Executable

    from registry import Registry

MORE = ("alarm", "music", "weather", "news")

Step = tuple["Callable[[], object]", list[str]]


def life(registry: Registry, module: Callable[..., Path], encoder: Path) -> list[Step]:
    """Every use case that changes something, in an order that works, and its events."""
    return [
        (
            lambda: backbones.register(registry, "third", str(encoder)),
            ["backbone:register third"],
        ),
        (lambda: tasks.register(registry, "intent", module()), ["task:register intent"]),
        (lambda: tasks.update(registry, "intent", module(seed=1)), ["task:update intent"]),
        (
            lambda: releases.compose(registry, publish=True),
            ["release:publish 1", "channel:move latest"],
        ),
        (
            lambda: tasks.redefine(registry, "intent", module(labels=MORE)),
            ["task:redefine intent"],
        ),
        (lambda: tasks.pin(registry, "intent@1.0"), ["task:pin intent"]),
        (lambda: tasks.retire(registry, "intent"), ["task:retire intent"]),
        (lambda: tasks.restore(registry, "intent"), ["task:restore intent"]),
        (
            lambda: releases.compose(registry, publish=True),
            ["release:publish 2", "channel:move latest"],
        ),
        (lambda: channels.move(registry, "production", "1"), ["channel:move production"]),
        (lambda: channels.move(registry, "production", "2"), ["channel:move production"]),
        (lambda: ruled(registry, max_layers=9), ["policy:apply policy"]),
        (lambda: tasks.pin(registry, "intent@1.1"), ["task:pin intent"]),
        (lambda: releases.compose(registry, publish=True), ["channel:move latest"]),
    ]


@pytest.fixture(scope="session")
def third_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder that no registry has yet."""
    return support.make_encoder("bert", tmp_path_factory.mktemp("third"), seed=3)


def test_every_change_writes_its_event_and_its_repetition_none(
    registry: Registry, module: Callable[..., Path], third_encoder: Path
) -> None:
    expected: list[str] = []
    for step, events in life(registry, module, third_encoder):
        step()
        expected += events
        assert actions(registry) == expected
        with nothing_changes(registry):
            step()


def test_a_change_and_its_event_are_written_together_or_not_at_all(
    registry: Registry,
    module: Callable[..., Path],
    third_encoder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = UnitOfWork.record

    def failing(uow: UnitOfWork, *arguments: object, **options: object) -> None:
        record(uow, *arguments, **options)
        uow.session.flush()
        raise KeyboardInterrupt

    for step, _ in life(registry, module, third_encoder):
        before = rows(registry)
        with monkeypatch.context() as patch:
            patch.setattr(UnitOfWork, "record", failing)
            with pytest.raises(KeyboardInterrupt):
                step()
        assert rows(registry) == before
        step()


def test_a_failure_after_the_event_takes_it_back_too(registry: Registry) -> None:
    before = rows(registry)
    with pytest.raises(RuntimeError), registry.write() as uow:
        uow.record("task:register", "intent", {})
        uow.session.flush()
        raise RuntimeError
    assert rows(registry) == before


def test_a_read_commits_nothing(registry: Registry) -> None:
    before = rows(registry)
    try:
        with registry.read() as uow:
            uow.record("task:register", "intent", {})
            uow.session.flush()
    except Exception as error:  # noqa: BLE001 - PostgreSQL itself refuses to write here
        assert "read-only" in str(error)
    assert rows(registry) == before


def test_an_event_says_when_who_what_and_with_which_bytes(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(acting(registry, BOB), "emotion", module())
    event = audit.events(registry)[-1]
    assert (event.actor, event.action, event.subject) == (BOB, "task:register", "emotion")
    assert event.details.pop("content").keys() >= {"kind", "labels", "metrics", "depth"}
    assert 0 <= event.details.pop("parity") < 1e-4
    assert event.details == {
        "version": "1.0",
        "digest": file_digest(module()),
        "team": "vision",
    }
    assert not event.forced
    assert event.at.tzinfo is UTC
    assert datetime.now(UTC) - event.at < timedelta(minutes=1)


def test_events_come_oldest_first(registry: Registry, module: Callable[..., Path]) -> None:
    for seed in range(3):
        tasks.register(registry, f"task-{seed}", module(seed=seed))
    events = audit.events(registry)
    assert [event.subject for event in events[2:]] == ["task-0", "task-1", "task-2"]
    assert [event.at for event in events] == sorted(event.at for event in events)


def test_the_log_can_be_narrowed_to_a_task(registry: Registry, module: Callable[..., Path]) -> None:
    tasks.register(registry, "staging", module())
    tasks.register(registry, "intent", module())
    releases.compose(registry, publish=True)
    channels.move(registry, "staging", "1")
    tasks.retire(registry, "staging")
    found = [event.action for event in audit.events(registry, task="staging")]
    assert found == ["task:register", "task:retire"]


def test_the_log_can_be_narrowed_to_a_person_or_a_team(
    registry: Registry, module: Callable[..., Path]
) -> None:
    actors = ["a_b/ada", "a_b/bob", "axb/ada", "a_b-c/ada"]
    for seed, actor in enumerate(actors):
        tasks.register(acting(registry, actor), f"task-{seed}", module(seed=seed))
    tasks.register(anonymous(registry), "task-9", module(), team="a_b")

    def found(actor: str) -> list[str]:
        return [event.actor for event in audit.events(registry, actor=actor)]

    assert found("a_b") == ["a_b/ada", "a_b/bob"]
    assert found("a_b/ada") == ["a_b/ada"]
    assert found("a%") == found("a") == found("") == []
    assert found("eve") == ["eve"]
    assert found(ADA) == [ADA, ADA]
    assert [e.subject for e in audit.events(registry, task="task-1", actor="a_b")] == ["task-1"]
    assert audit.events(registry, task="task-1", actor="axb") == []


def test_the_log_can_be_narrowed_to_what_happened_since_a_moment_in_any_zone(
    registry: Registry, module: Callable[..., Path]
) -> None:
    for seed in range(3):
        tasks.register(registry, f"task-{seed}", module(seed=seed))
    events = audit.events(registry)
    moment = events[-2].at
    for zone in (UTC, timezone(timedelta(hours=14)), timezone(-timedelta(hours=11))):
        found = audit.events(registry, since=moment.astimezone(zone))
        assert [event.subject for event in found] == ["task-1", "task-2"]
        later = moment.astimezone(zone) + timedelta(microseconds=1)
        assert [e.subject for e in audit.events(registry, since=later)] == ["task-2"]
    assert audit.events(registry, since=events[0].at) == events
    assert audit.events(registry, since=datetime.now(UTC) + timedelta(hours=1)) == []
    assert audit.events(registry, task="task-0", since=moment) == []
    assert len(audit.events(registry, task="task-1", actor="nlu", since=moment)) == 1


def test_the_log_of_a_task_that_never_was_is_refused(registry: Registry) -> None:
    with pytest.raises(TaskNotFoundError):
        audit.events(registry, task="intent")


# The chain.


@pytest.fixture
def logged(
    registry: Registry, module: Callable[..., Path], bring: Callable[..., Registry]
) -> Iterator[Registry]:
    """A registry whose log has five events. What a test does to it is undone: it is lent again."""

    def build() -> None:
        for seed in range(3):
            tasks.register(registry, f"task-{seed}", module(seed=seed))
        assert len(audit.events(registry)) == 5

    bring("logged", build)
    tables = AuditEvent.__table__, AuditHead.__table__
    before = rows(registry)
    yield registry
    tamper(registry, *(delete(table) for table in tables))
    tamper(registry, *(insert(table).values(before[table.name]) for table in tables))


def tamper(registry: Registry, *changes: Executable) -> None:
    """Change the log behind the database's back."""
    with registry.engine.begin() as connection, unguarded(connection):
        for change in changes:
            connection.execute(change)


def chain_breaks_at(registry: Registry, event: int, *says: str) -> None:
    for _ in range(2):
        with pytest.raises(AuditError) as caught:
            audit.verify(registry)
        assert caught.value.event == event
        assert exit_code(caught.value) == 6
        for part in (f"audit event {event}: ", *says):
            assert part in str(caught.value)


def test_an_untouched_log_is_whole_and_its_last_digest_grows_with_it(
    logged: Registry, module: Callable[..., Path]
) -> None:
    with nothing_changes(logged):
        before = audit.verify(logged)
    events = audit.events(logged)
    assert (before.events, before.digest) == (5, events[-1].digest)
    assert before.witness == f"5:{events[-1].digest}"
    assert len({event.digest for event in events}) == 5
    tasks.retire(logged, "task-0")
    after = audit.verify(logged)
    assert after.events == 6
    assert after.digest != before.digest
    with nothing_changes(logged):
        tasks.retire(logged, "task-0")
    assert audit.verify(logged) == after


def write_anew(registry: Registry) -> None:
    """Chain the events as they are now, as someone could who has the database."""
    digest = "0" * 64
    with registry.read() as uow:
        found = list(uow.session.scalars(select(AuditEvent).order_by(AuditEvent.id)))
    for row in found:
        digest = chain_digest(digest, row)
        tamper(registry, event(row.id, digest=digest))
    tamper(registry, update(AuditHead).values(count=len(found), digest=digest))


def event(number: int, **values: object) -> Executable:
    return update(AuditEvent).where(AuditEvent.id == number).values(**values)


@pytest.mark.parametrize("number", [1, 3, 5])
@pytest.mark.parametrize(
    "values",
    [
        {"at": datetime(2020, 1, 1, tzinfo=UTC)},
        {"actor": "nlu/eve"},
        {"action": "task:retire"},
        {"subject": "task-9"},
        {"forced": True},
        {"details": {}},
        {"digest": "f" * 64},
    ],
    ids=lambda values: next(iter(values)),
)
def test_a_changed_column_is_found_and_its_event_named(
    logged: Registry, number: int, values: dict[str, object]
) -> None:
    tamper(logged, event(number, **values))
    chain_breaks_at(logged, number, "was changed")


def test_the_smallest_changes_are_found(logged: Registry) -> None:
    third = audit.events(logged)[2]
    details = {key: value for key, value in third.details.items() if key != "team"}
    for values in (
        {"at": third.at + timedelta(microseconds=1)},
        {"actor": f"{third.actor} "},
        {"details": details},
        {"details": {**third.details, "more": None}},
        {"details": {**third.details, "version": 1.0}},
    ):
        tamper(logged, event(3, **values))
        chain_breaks_at(logged, 3)
        tamper(logged, event(3, at=third.at, actor=third.actor, details=third.details))
        assert audit.verify(logged).events == 5


@pytest.mark.parametrize("number", [1, 3, 5], ids=["start", "middle", "end"])
def test_a_row_that_was_taken_out_is_found(logged: Registry, number: int) -> None:
    tamper(logged, delete(AuditEvent).where(AuditEvent.id == number))
    chain_breaks_at(logged, number, "is missing")


def test_a_row_that_was_taken_out_is_found_where_the_others_moved_up(logged: Registry) -> None:
    tamper(
        logged,
        delete(AuditEvent).where(AuditEvent.id == 3),
        event(4, id=3),
        event(5, id=4),
        update(AuditHead).values(count=4),
    )
    chain_breaks_at(logged, 3, "was changed")


def test_a_log_that_was_emptied_is_found(logged: Registry) -> None:
    tamper(logged, delete(AuditEvent))
    chain_breaks_at(logged, 1, "is missing")
    tamper(logged, delete(AuditHead))
    chain_breaks_at(logged, 1, "is missing")


@pytest.mark.parametrize("number", [0, 30, -1])
def test_a_changed_id_is_found(logged: Registry, number: int) -> None:
    tamper(logged, event(3, id=number))
    chain_breaks_at(logged, 1 if number < 1 else 3, "is missing")


def test_two_rows_that_changed_places_are_found(logged: Registry) -> None:
    tamper(logged, event(3, id=30), event(4, id=3), event(30, id=4))
    chain_breaks_at(logged, 3, "was changed")


def forged(registry: Registry, number: int) -> Executable:
    """An event that nobody recorded, rightly linked to the one before it."""
    previous = audit.events(registry)[number - 2].digest
    row = AuditEvent(
        id=number,
        at=datetime.now(UTC),
        actor="nlu/eve",
        action="task:retire",
        subject="task-0",
        forced=False,
        details={},
    )
    values = {column.name: getattr(row, column.name) for column in AuditEvent.__table__.columns}
    return insert(AuditEvent).values({**values, "digest": chain_digest(previous, row)})


def test_a_row_that_was_put_in_at_the_end_is_found(logged: Registry) -> None:
    tamper(logged, forged(logged, 6))
    chain_breaks_at(logged, 6, "was not written by Centra")


def test_a_row_that_was_put_in_between_is_found_at_the_next(logged: Registry) -> None:
    tamper(logged, event(5, id=6), event(4, id=5), event(3, id=4), forged(logged, 3))
    chain_breaks_at(logged, 4, "was changed, or one before it was")


def test_a_row_that_was_exchanged_for_another_is_found_at_the_next(logged: Registry) -> None:
    tamper(logged, delete(AuditEvent).where(AuditEvent.id == 3), forged(logged, 3))
    chain_breaks_at(logged, 4, "one before it was")
    tamper(logged, delete(AuditEvent).where(AuditEvent.id > 3))
    chain_breaks_at(logged, 4, "is missing")


@pytest.mark.parametrize(
    ("change", "number"),
    [
        (update(AuditHead).values(count=4), 5),
        (update(AuditHead).values(count=0), 1),
        (update(AuditHead).values(count=7), 6),
        (update(AuditHead).values(digest="f" * 64), 5),
        (delete(AuditHead), 6),
    ],
    ids=["shorter", "zero", "longer", "digest", "gone"],
)
def test_a_changed_head_is_found(logged: Registry, change: Executable, number: int) -> None:
    tamper(logged, change)
    chain_breaks_at(logged, number)


def test_a_log_that_was_written_anew_as_a_whole_shows_by_a_digest_kept_elsewhere(
    logged: Registry,
) -> None:
    kept = audit.verify(logged).witness
    tamper(logged, event(3, forced=True))
    write_anew(logged)
    assert audit.verify(logged).witness != kept
    with pytest.raises(AuditError, match=f"{kept} was kept: its first 5 events are others"):
        audit.verify(logged, expected=[kept])


def test_a_tail_that_was_cut_shows_by_a_digest_kept_elsewhere(logged: Registry) -> None:
    kept = audit.verify(logged).witness
    tasks.retire(logged, "task-0")
    tasks.restore(logged, "task-0")
    longer = audit.verify(logged, expected=[kept, kept]).witness
    fifth = audit.events(logged)[4].digest
    tamper(
        logged,
        delete(AuditEvent).where(AuditEvent.id > 5),
        update(AuditHead).values(count=5, digest=fifth),
    )
    assert audit.verify(logged, expected=[kept]).witness == kept
    with pytest.raises(AuditError, match=f"{longer} was kept: it ends at event 5") as caught:
        audit.verify(logged, expected=[kept, longer])
    assert exit_code(caught.value) == 6


@pytest.mark.parametrize("witness", ["", "5", "5:", "0:" + "a" * 64, "5:" + "A" * 64, "five:x"])
def test_what_is_no_witness_is_refused(registry: Registry, witness: str) -> None:
    with pytest.raises(UsageError, match="expected COUNT:DIGEST"):
        audit.verify(registry, expected=[witness])


@pytest.mark.parametrize(
    "change", ["details = 'half of {'", "details = '[NaN]'", "at = 'infinity'", "at = 7"]
)
def test_a_row_that_cannot_even_be_read_is_named(logged: Registry, change: str) -> None:
    try:
        tamper(logged, text(f"UPDATE audit_events SET {change} WHERE id = 3"))
    except DBAPIError:  # It knows its columns' types itself.
        assert logged.engine.name == "postgresql"
        assert audit.verify(logged).events == 5
    else:
        chain_breaks_at(logged, 3, "cannot be read")


# The database's own guard.


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_events SET actor = 'nlu/eve'",
        "UPDATE audit_events SET id = 30 WHERE id = 3",
        "UPDATE audit_events SET details = details WHERE id = 1",
        "DELETE FROM audit_events",
        "DELETE FROM audit_events WHERE id = 5",
        "TRUNCATE audit_events",
        "TRUNCATE audit_events CASCADE",
    ],
)
def test_the_database_refuses_to_change_the_log(logged: Registry, statement: str) -> None:
    says = "append-only"
    if statement.startswith("TRUNCATE") and logged.engine.name == "sqlite":
        says = "syntax error"  # It has no such statement.
    with (
        nothing_changes(logged),
        pytest.raises(DBAPIError, match=says),
        logged.engine.begin() as connection,
    ):
        connection.execute(text(statement))
    assert audit.verify(logged).events == 5


def test_the_database_refuses_to_replace_an_event(logged: Registry) -> None:
    statement = (
        "REPLACE INTO audit_events SELECT id, at, 'nlu/eve', action, subject, forced, "
        "details, digest FROM audit_events WHERE id = 3"
    )
    says = "append-only" if logged.engine.name == "sqlite" else "syntax error"
    with (
        nothing_changes(logged),
        pytest.raises(DBAPIError, match=says),
        logged.engine.begin() as connection,
    ):
        connection.execute(text(statement))
