"""What was changed past Centra: rows, triggers, and a log whose end or whole was exchanged."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import delete, func, insert, select, text, update

from centra.errors import StoreError
from cli.errors import exit_code
from registry import audit, backbones, channels, evaluations, promotion, releases, tasks, transfer
from registry.database.models import (
    AuditEvent,
    AuditHead,
    Backbone,
    Channel,
    ChannelMove,
    Evaluation,
    Release,
    ReleaseTask,
    Task,
    TaskVersion,
    now,
)
from registry.errors import AuditError
from registry.rules.replay import Change, replay
from tests.registry.helpers import (
    acting,
    die,
    in_child,
    nothing_changes,
    reopened,
    root_of,
    unguarded,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Executable

    from registry import Registry


@pytest.fixture
def used(
    registry: Registry,
    module: Callable[..., Path],
    tiny_data: Callable[[str], Path],
    bring: Callable[..., Registry],
) -> Registry:
    """A registry in which everything has happened that its log tells of."""

    def build() -> None:
        tasks.register(registry, "intent", module(seed=5))
        tasks.register(registry, "slots", module("tagging"))
        releases.compose(registry, publish=True)
        tasks.update(registry, "intent", module(seed=1))
        releases.compose(registry, publish=True)
        tasks.redefine(
            registry, "intent", module(seed=1, labels=("alarm", "music", "weather", "x"))
        )
        tasks.pin(registry, "intent@1.1")
        tasks.retire(registry, "slots")
        tasks.restore(registry, "slots")
        evaluations.evaluate(registry, "1", "intent", tiny_data("single"))
        promotion.promote(registry, "1", "production")
        promotion.promote(registry, "2", "production")
        channels.rollback(registry, "production")
        channels.move(registry, "staging", "2")
        backbones.retire(registry, "other@1")

    return bring("used", build)


@contextmanager
def tampered(registry: Registry, *changes: Executable) -> Iterator[None]:
    """Change rows behind Centra's back."""
    with registry.engine.begin() as connection, unguarded(connection):
        for change in changes:
            connection.execute(change)
    yield


def finds(registry: Registry, *says: str, finding: str | None = None) -> str:
    """What verifying says, which has all of this, and such a finding if one is named."""
    with pytest.raises(AuditError) as caught:
        audit.verify(registry)
    assert exit_code(caught.value) == 6
    for part in says:
        assert part in str(caught.value)
    assert finding is None or finding in caught.value.data["findings"]
    return str(caught.value)


# Rows.


def test_whatever_happens_the_tables_are_as_the_log_says(used: Registry) -> None:
    found = audit.verify(used)
    assert (found.events, found.partly, found.void) == (len(audit.events(used)), 0, {})
    counts = [
        used_rows(used, model)
        for model in (Backbone, Task, TaskVersion, Release, Channel, ChannelMove, Evaluation)
    ]
    assert found.rows == sum(counts)
    assert min(counts) > 0


def used_rows(registry: Registry, model: Any) -> int:
    with registry.read() as uow:
        return uow.session.scalar(select(func.count()).select_from(model)) or 0


def of(model: Any, **where: Any) -> Any:
    return [getattr(model, name) == value for name, value in where.items()]


INTENT = select(Task.id).where(Task.name == "intent").scalar_subquery()
FIRST = of(TaskVersion, task_id=INTENT, major=1, minor=0)
RELEASE = select(Release.id).where(Release.number == 1).scalar_subquery()
ROWS: dict[str, tuple[list[Executable], str]] = {
    "owner": (
        [update(Task).where(Task.name == "intent").values(team="vision")],
        "task intent: team is 'vision', but by event 3 'nlu'",
    ),
    "state": (
        [update(Task).where(Task.name == "slots").values(state="retired")],
        "task slots: state is 'retired', but by event ",
    ),
    "current version": (
        [
            update(TaskVersion).where(TaskVersion.current_of == INTENT).values(current_of=None),
            update(TaskVersion).where(*FIRST).values(current_of=INTENT),
        ],
        "task intent: current is '1.0', but by event ",
    ),
    "no current version": (
        [update(TaskVersion).where(TaskVersion.current_of == INTENT).values(current_of=None)],
        "task intent: current is None, but by event ",
    ),
    "metrics": (
        [update(TaskVersion).where(*FIRST).values(metrics={"accuracy": 0.99})],
        "version intent@1.0: metrics is {'accuracy': 0.99}, but by event 3",
    ),
    "labels": (
        [update(TaskVersion).where(*FIRST).values(labels=["music", "alarm", "weather"])],
        "version intent@1.0: labels is ",
    ),
    "kind": (
        [update(TaskVersion).where(*FIRST).values(kind="multilabel")],
        "version intent@1.0: kind is 'multilabel', but by event 3 'classification'",
    ),
    "tap": (
        [update(TaskVersion).where(*FIRST).values(tap_layer=3)],
        "version intent@1.0: tap_layer is 3",
    ),
    "module": (
        [update(TaskVersion).where(*FIRST).values(digest="f" * 64)],
        "version intent@1.0: digest is 'ffff",
    ),
    "number": (
        [update(TaskVersion).where(*FIRST).values(minor=7)],
        "version intent@1.7: no event made this row",
    ),
    "maker": (
        [update(TaskVersion).where(*FIRST).values(created_by="vision/eve")],
        "version intent@1.0: created_by is 'vision/eve', but by event 3 'nlu/ada'",
    ),
    "release": (
        [update(Release).where(Release.number == 1).values(digest="f" * 64)],
        "release 1: digest is 'ffff",
    ),
    "what a release holds": (
        [
            update(ReleaseTask)
            .where(*of(ReleaseTask, release_id=RELEASE, task_id=INTENT))
            .values(precision="int8")
        ],
        "release 1: holds is ",
    ),
    "a task of a release": (
        [delete(ReleaseTask).where(*of(ReleaseTask, release_id=RELEASE, task_id=INTENT))],
        "release 1: tasks is ['slots'], but by event 5 ['intent', 'slots']",
    ),
    "channel": (
        [update(Channel).where(Channel.name == "staging").values(release_id=RELEASE)],
        "channel staging: release is 1, but by event ",
    ),
    "revision": (
        [update(Channel).where(Channel.name == "production").values(revision=9)],
        "channel production: revision is 9, but by event ",
    ),
    "history": (
        [
            update(ChannelMove)
            .where(*of(ChannelMove, channel="production", revision=3))
            .values(kind="promote")
        ],
        "move 3 of channel production: kind is 'promote', but by event ",
    ),
    "a move that is gone": (
        [delete(ChannelMove).where(*of(ChannelMove, channel="production", revision=2))],
        "move 2 of channel production: its row is gone, which event ",
    ),
    "measured": (
        [update(Evaluation).values(metrics={"accuracy": 1.0})],
        "measurement of intent@1.0 in release 1 on ",
    ),
    "examples": ([update(Evaluation).values(examples=9)], "examples is 9, but by event "),
    "what came of rows": ([update(Evaluation).values(outcomes=b"x")], "outcomes is '2d711642"),
    "no rows": ([update(Evaluation).values(outcomes=None)], "outcomes is None, but by event "),
    "what a report says": ([update(Evaluation).values(summary={})], "summary is '44136fa3"),
    "a measurement that is gone": ([delete(Evaluation)], "its row is gone, which event "),
    "a task of nobody": (
        [insert(Task).values(name="ghost", team="vision", state="active", created_at=now())],
        "task ghost: no event made this row",
    ),
    "a backbone's state": (
        [update(Backbone).where(Backbone.name == "other").values(state="active")],
        "backbone other@1: state is 'active', but by event ",
    ),
}


@pytest.mark.parametrize("what", ROWS)
def test_a_row_that_is_not_as_the_log_says_is_named(used: Registry, what: str) -> None:
    changes, says = ROWS[what]
    with tampered(used, *changes):
        finds(used, says, "changed past Centra")


def test_all_rows_that_are_not_as_the_log_says_are_named_at_once(used: Registry) -> None:
    for what in ("owner", "metrics", "revision", "a measurement that is gone"):
        with tampered(used, *ROWS[what][0]):
            pass
    finds(
        used, *(ROWS[w][1] for w in ("owner", "metrics", "revision", "a measurement that is gone"))
    )


def test_what_an_older_centra_did_not_record_is_skipped_and_counted() -> None:
    def event(number: int, action: str, subject: str, **details: Any) -> Change:
        return Change(id=number, actor="a/b", action=action, subject=subject, details=details)

    old = [
        event(1, "task:register", "intent", version="1.0", digest="d", team="nlu"),
        event(2, "release:publish", "1", digest="e", base=None, tasks=["intent"]),
        event(3, "task:evaluate", "intent", release=1, version="1.0", data="f" * 64, f1=0.5),
        event(4, "task:evaluate", "intent", release=1, version="1.0", data="a", precision=0.5),
        event(5, "something:else", "new", unknown=True),
    ]
    rows = replay(old)
    assert rows["version intent@1.0"].values == {"digest": "d", "created_by": "a/b"}
    assert rows["task intent"].values == {"team": "nlu", "state": "active", "current": "1.0"}
    assert "holds" not in rows["release 1"].values
    assert rows["measurement of intent@1.0 in release 1 on ffffffffffff"].values["metrics"] == {
        "f1": 0.5
    }
    assert "metrics" not in rows["measurement of intent@1.0 in release 1 on a"].values
    assert len(rows) == 5


def test_an_event_that_does_not_say_what_its_kind_says_is_named(used: Registry) -> None:
    with used.write() as uow:
        uow.record("task:pin", "intent", {"to": "1.0"})
        uow.record("task:register", "new", {"half": True})
    finds(used, "audit event 21: is no task:register")


# Replaying is no matter of the database, and filling one takes time.
@pytest.mark.parametrize("databases", ["sqlite"], indirect=True)
def test_ten_thousand_events_take_seconds(registry: Registry) -> None:
    with registry.write() as uow:
        for number in range(2_000):
            name = f"task-{number}"
            details = {"version": "1.0", "digest": f"{number:064}", "team": "nlu"}
            uow.session.add(task := Task(name=name, team="nlu", state="active", created_at=uow.now))
            uow.session.flush()
            uow.session.execute(insert(TaskVersion), version_row(task.id, f"{number:064}"))
            uow.record("task:register", name, details)
            for action in ("task:retire", "task:restore") * 2:
                uow.record(action, name, {"version": "1.0"})
    began = time.process_time()
    found = audit.verify(registry)
    assert (found.events, found.rows, found.partly) == (10_002, 4_002, 2_000)
    assert time.process_time() - began < 20  # It takes about one.


def version_row(task: int, digest: str) -> dict[str, Any]:
    return {
        "task_id": task,
        "major": 1,
        "minor": 0,
        "current_of": task,
        "digest": digest,
        "size": 1,
        "backbone_id": 1,
        "kind": "classification",
        "input": "single",
        "labels": ["a", "b"],
        "tap_layer": 1,
        "depth": 1,
        "metrics": {},
        "created_at": now(),
        "created_by": "nlu/ada",
    }


# Triggers.


def altered(registry: Registry) -> Iterator[tuple[list[str], str, str]]:
    """Ways to disarm the triggers: statements, the trigger's name, and what is said of it."""
    if registry.engine.name == "sqlite":
        for name in ("update", "delete", "replace"):
            trigger = f"audit_events_no_{name}"
            yield [f"DROP TRIGGER {trigger}"], trigger, "is missing"
        yield (
            [
                "DROP TRIGGER audit_events_no_update",
                (
                    "CREATE TRIGGER audit_events_no_update BEFORE UPDATE ON audit_events WHEN "
                    "NEW.id = 0 BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
                ),
            ],
            "audit_events_no_update",
            "was altered",
        )
        return
    trigger, table = "audit_events_append_only", "audit_events"
    make = f"CREATE TRIGGER {trigger} BEFORE %s ON audit_events FOR EACH STATEMENT %s EXECUTE FUNCTION %s()"
    drop = f"DROP TRIGGER {trigger} ON {table}"
    function = (
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
    )
    every = "UPDATE OR DELETE OR TRUNCATE"
    refuse = "centra_refuse_change"
    yield [drop], trigger, "is missing"
    yield [f"ALTER TABLE {table} DISABLE TRIGGER {trigger}"], trigger, "was altered"
    yield [f"ALTER TABLE {table} ENABLE REPLICA TRIGGER {trigger}"], trigger, "was altered"
    yield [drop, make % ("UPDATE OR DELETE", "", refuse)], trigger, "was altered"
    yield [drop, make % (every, "WHEN (false)", refuse)], trigger, "was altered"
    yield (
        [drop, make % ("UPDATE OF actor OR DELETE OR TRUNCATE", "", refuse)],
        trigger,
        "was altered",
    )
    yield [function, drop, make % (every, "", "nothing")], trigger, "was altered"
    body = function.replace("FUNCTION nothing", f"OR REPLACE FUNCTION {refuse}")
    yield [body], trigger, "was altered"


def test_a_trigger_that_is_gone_or_altered_is_named_and_put_back(registry: Registry) -> None:
    for number, (statements, trigger, fault) in enumerate(altered(registry), 1):
        with registry.engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))
        finds(registry, f"the trigger {trigger} {fault}", finding="guards")
        assert audit.restore_guards(registry) == [trigger]
        assert audit.verify(registry).events == 2 + number
        event = audit.events(registry)[-1]
        assert (event.action, event.details) == ("audit:guard", {"restored": [trigger]})
        if registry.engine.name == "postgresql":
            with registry.engine.begin() as connection:
                connection.execute(text("DROP FUNCTION IF EXISTS nothing()"))
    with nothing_changes(registry):
        assert audit.restore_guards(registry) == []


def test_a_trigger_that_is_not_centra_s_is_named(registry: Registry) -> None:
    if registry.engine.name == "sqlite":
        make = "CREATE TRIGGER eves AFTER INSERT ON audit_events BEGIN SELECT 1; END"
        drop = "DROP TRIGGER eves"
    else:
        make = "CREATE RULE eves AS ON INSERT TO audit_events DO ALSO NOTHING"
        drop = "DROP RULE eves ON audit_events"
    with registry.engine.begin() as connection:
        connection.execute(text(make))
    try:
        finds(registry, "the trigger eves is not Centra's")
        assert audit.restore_guards(registry) == []
    finally:
        with registry.engine.begin() as connection:
            connection.execute(text(drop))
    audit.verify(registry)


# Witnesses.


def last(registry: Registry) -> tuple[int, str]:
    event = audit.events(registry)[-1]
    return event.id, event.digest


def cut(registry: Registry, count: int) -> None:
    """Take the log back to its first events, and the head with it."""
    digest = audit.events(registry)[count - 1].digest
    with tampered(
        registry,
        delete(AuditEvent).where(AuditEvent.id > count),
        update(AuditHead).values(count=count, digest=digest),
    ):
        pass


def published_at(registry: Registry, release: int) -> tuple[int, str]:
    return next(
        (event.id, event.digest)
        for event in audit.events(registry)
        if (event.action, event.subject) == ("release:publish", str(release))
    )


def test_the_store_bears_witness_of_each_release(used: Registry) -> None:
    seen = [published_at(used, 1), published_at(used, 2)]
    assert used.store.witnesses() == seen
    file = root_of(used) / "witnesses" / "{}-{}.txt".format(*seen[0])
    assert file.read_text() == "{}:{}\n".format(*seen[0])
    assert audit.verify(used).witnesses == audit.check_witnesses(used) == 2
    assert audit.verify(used, ask_store=False).witnesses == 0
    with nothing_changes(used):
        releases.compose(used, publish=True)


def test_a_log_that_was_cut_with_its_head_contradicts_the_store(used: Registry) -> None:
    count, digest = published_at(used, 2)
    cut(used, count - 1)
    finds(used, f"the store has seen {count}:{digest}, but the log ends at event {count - 1}")
    with pytest.raises(AuditError) as caught:
        audit.check_witnesses(used)
    assert caught.value.data["findings"] == ["witnesses"]


def test_a_log_that_was_written_anew_contradicts_the_store(used: Registry) -> None:
    count, digest = published_at(used, 1)
    with tampered(used, update(AuditEvent).where(AuditEvent.id == 4).values(forced=True)):
        write_anew(used)
    finds(used, f"the store has seen {count}:{digest}, but that event is another here")


def write_anew(registry: Registry) -> None:
    from registry.rules.chain import START, chain_digest

    digest = START
    with registry.read() as uow:
        found = list(uow.session.scalars(select(AuditEvent).order_by(AuditEvent.id)))
    changes: list[Executable] = []
    for row in found:
        digest = chain_digest(digest, row)
        changes.append(update(AuditEvent).where(AuditEvent.id == row.id).values(digest=digest))
    with tampered(registry, *changes, update(AuditHead).values(digest=digest)):
        pass


def test_a_witness_that_a_crash_left_out_is_written_by_the_rerun(
    registry: Registry, module: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks.register(registry, "intent", module())

    def dies() -> None:
        with reopened(registry) as other:
            monkeypatch.setattr(type(other.store), "write_witness", lambda *_: die())
            releases.compose(other, publish=True)

    assert in_child(dies) == -9
    assert registry.store.witnesses() == []
    audit.verify(registry)
    assert not releases.compose(registry, publish=True).published
    assert registry.store.witnesses() == [published_at(registry, 1)]


def test_a_witness_that_cannot_be_written_is_told_and_written_by_the_rerun(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    (root_of(registry) / "witnesses").write_text("in the way")
    with pytest.raises(StoreError, match=r"release 1 is published, .*repeat the command") as caught:
        releases.compose(registry, publish=True)
    assert exit_code(caught.value) == 1
    (root_of(registry) / "witnesses").unlink()
    releases.compose(registry, publish=True)
    assert audit.verify(registry).witnesses == 1


def test_rebased_and_imported_releases_are_witnessed_too(
    make_registry: Callable[[], Registry], module: Callable[..., Path], tmp_path: Path
) -> None:
    registry, other = make_registry(), make_registry()
    tasks.register(registry, "intent", module(seed=5))
    tasks.register(registry, "slots", module("tagging"))
    releases.compose(registry, publish=True)
    promotion.promote(registry, "1", "production")
    tasks.update(registry, "intent", module(seed=1))
    tasks.update(registry, "slots", module("tagging", seed=1))
    for change in ("intent@1.1", "slots@1.1"):
        releases.compose(registry, base="1", replace=[change], publish=True)
    promotion.promote(registry, "2", "production")
    promotion.promote(registry, "3", "production", rebase=True)
    assert registry.store.witnesses() == [published_at(registry, n) for n in (1, 2, 3, 4)]
    transfer.export_file(registry, tmp_path / "file", release="4")
    transfer.import_file(acting(other, "nlu/ada"), tmp_path / "file")
    assert other.store.witnesses() == [published_at(other, 1)]
    audit.verify(other)


def test_after_an_older_backup_was_restored_the_registry_goes_on_once_somebody_says_so(
    used: Registry, module: Callable[..., Path]
) -> None:
    first, second = published_at(used, 1), published_at(used, 2)
    restore_to_release_1(used)
    audit.verify(used, ask_store=False)
    finds(used, "{}:{}".format(*second), finding="witnesses")
    before = len(audit.events(used))
    assert audit.accept(used) == ["{}:{}".format(*second)]
    event = audit.events(used)[-1]
    assert (event.id, event.action) == (before + 1, "audit:accept")
    assert event.details == {"void": ["{}:{}".format(*second)]}
    with nothing_changes(used):
        assert audit.accept(used) == []

    # It goes on past what the store had seen, and is guarded again.
    for seed in range(11, 16):
        tasks.update(used, "intent", module(seed=seed))
        releases.compose(used, publish=True)
    found = audit.verify(used)
    assert found.events > second[0]
    assert found.void == {event.id: ["{}:{}".format(*second)]}
    assert found.witnesses == audit.check_witnesses(used) == 6
    assert first in used.store.witnesses()
    newest = published_at(used, 6)
    cut(used, newest[0] - 1)
    finds(used, "{}:{}".format(*newest))


def restore_to_release_1(registry: Registry) -> None:
    """Make the database what it was when release 1 had just been published and moved to."""
    intent = of(TaskVersion, task_id=INTENT)
    with tampered(
        registry,
        delete(Evaluation),
        delete(ChannelMove).where((ChannelMove.channel != "latest") | (ChannelMove.revision > 1)),
        delete(Channel).where(Channel.name != "latest"),
        update(Channel).values(release_id=RELEASE, revision=1),
        delete(ReleaseTask).where(ReleaseTask.release_id != RELEASE),
        text("DELETE FROM release_bases"),
        delete(Release).where(Release.number > 1),
        update(TaskVersion).where(*intent).values(current_of=None),
        delete(TaskVersion).where(*intent, (TaskVersion.minor > 0) | (TaskVersion.major > 1)),
        update(TaskVersion).where(*intent).values(current_of=INTENT),
        update(Backbone).values(state="active"),
    ):
        cut(registry, published_at(registry, 1)[0] + 1)


def test_a_broken_log_cannot_be_accepted(used: Registry) -> None:
    with tampered(used, update(AuditEvent).where(AuditEvent.id == 4).values(forced=True)):
        pass
    with nothing_changes(used), pytest.raises(AuditError, match="audit event 4"):
        audit.accept(used)
