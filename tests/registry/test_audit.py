from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from centra.blobs import file_digest
from registry import audit, backbones, channels, releases, tasks
from registry.errors import TaskNotFoundError
from registry.unit_of_work import UnitOfWork
from tests import support
from tests.registry.helpers import ADA, BOB, acting, actions, anonymous, nothing_changes, rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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


def test_the_log_of_a_task_that_never_was_is_refused(registry: Registry) -> None:
    with pytest.raises(TaskNotFoundError):
        audit.events(registry, task="intent")
