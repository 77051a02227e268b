"""Upgrading databases that earlier versions of Centra have filled."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, select, text, update

from centra.formats.documents import canonical_json, sha256
from registry import audit, channels, evaluations, tasks
from registry.database.engine import make_engine, writing
from registry.database.migrations import SCHEMA, alembic_config, differences, revision, upgrade
from registry.database.models import AuditEvent, ChannelMove
from registry.releases.reading import list_releases
from registry.rules.chain import chain_digest
from registry.rules.lineage import Composed
from registry.storage import identity
from tests.registry.helpers import finish, opened, start_children
from tests.support import ROOT, version_number

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection

    from tests.registry.helpers import Databases

START = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
REVISIONS = [
    script.revision
    for script in ScriptDirectory.from_config(Config(ROOT / "alembic.ini")).walk_revisions()
    if script.revision != SCHEMA
][::-1]


def digest(letter: str) -> str:
    return letter * 64


def at(minute: int) -> datetime:
    return START + timedelta(minutes=minute)


def fill_0001(insert: Inserting) -> None:
    """Two tasks, two releases, two channels, as Centra wrote them before it chained its log."""
    person = {"created_by": "nlu/ada"}
    backbone = {"family": "bert", "num_layers": 6, "hidden_size": 384, "max_length": 256}
    insert("backbones", id=1, name="minilm", version=1, digest=digest("a"), source="x", created_at=at(0), **backbone, **person)  # fmt: skip
    for number, name in ((1, "intent"), (2, "slots")):
        insert("tasks", id=number, name=name, team="nlu", state="active", created_at=at(1))
    kinds = {"kind": "classification", "input": "single", "labels": ["a", "b"]}
    place = {"backbone_id": 1, "size": 10, "tap_layer": 4, "depth": 2, **kinds}
    for number, task, minor, letter in ((1, 1, 0, "b"), (2, 2, 0, "c"), (3, 1, 1, "d")):
        current = task if (task, minor) in ((2, 0), (1, 1)) else None
        insert("task_versions", id=number, task_id=task, major=1, minor=minor, current_of=current, digest=digest(letter), metrics={"accuracy": 0.9}, created_at=at(2), **place, **person)  # fmt: skip
    insert("releases", id=1, number=1, digest=digest("e"), base_id=None, created_at=at(3), **person)
    insert("releases", id=2, number=2, digest=digest("f"), base_id=1, created_at=at(4), **person)
    for release, task, version in ((1, 1, 1), (1, 2, 2), (2, 1, 3), (2, 2, 2)):
        insert("release_tasks", release_id=release, task_id=task, version_id=version)
    moved = {"moved_at": at(5), "moved_by": "ops/eve"}
    insert("channels", name="latest", release_id=2, revision=2, **moved)
    insert("channels", name="production", release_id=1, revision=3, **moved)
    first = {"version": "1.0", "team": "nlu", "digest": digest("b"), "note": "ünïcode ✓"}
    slots = {"version": "1.0", "team": "nlu", "digest": digest("c")}
    second = {"version": "1.1", "from": "1.0", "digest": digest("d")}
    both = ["intent", "slots"]
    events: list[tuple[int, str, str, dict[str, Any]]] = [
        (0, "backbone:register", "minilm", {"version": 1, "digest": digest("a")}),
        (1, "task:register", "intent", first),
        (1, "task:register", "slots", slots),
        (1, "task:update", "intent", second),
        (1, "release:publish", "1", {"digest": digest("e"), "base": None, "tasks": both}),
        (2, "channel:move", "latest", {"from": None, "to": 1, "revision": 1}),
        (3, "channel:move", "production", {"from": None, "to": 1, "revision": 1}),
        (4, "release:publish", "2", {"digest": digest("f"), "base": 1, "tasks": both}),
        (4, "channel:move", "latest", {"from": 1, "to": 2, "revision": 2}),
        (5, "channel:move", "production", {"from": 1, "to": 2, "revision": 2}),
        (6, "channel:move", "production", {"from": 2, "to": 1, "revision": 3}),
    ]
    for number, (minute, action, subject, details) in enumerate(events):
        actor = "ops/eve" if action == "channel:move" else "nlu/ada"
        # A transaction that was rolled back on PostgreSQL has left gaps.
        insert("audit_events", id=3 * number + 2, at=at(minute), actor=actor, action=action, subject=subject, forced=number == 1, details=details)  # fmt: skip


def fill_0002(insert: Inserting) -> None:
    """A measurement, which there was not before."""
    insert("evaluations", id=1, release_id=2, version_id=3, data=digest("9"), examples=7, metrics={"accuracy": 0.8}, at=at(8), by="nlu/ada")  # fmt: skip
    measured = {"release": 2, "version": "1.1", "data": digest("9"), "accuracy": 0.8}
    insert.log("task:evaluate", "intent", measured)


def fill_0003(insert: Inserting) -> None:
    """A task in int8, measured by nobody knows what."""
    release = {"id": 3, "number": 3, "digest": digest("0"), "base_id": 2}
    insert("releases", created_at=at(6), created_by="nlu/ada", **release)
    insert("release_tasks", release_id=3, task_id=1, version_id=3, precision="int8")
    insert("evaluations", id=2, release_id=3, version_id=3, data=digest("9"), examples=7, metrics={"accuracy": 0.8}, at=at(9), by="nlu/ada")  # fmt: skip
    published = {"digest": digest("0"), "base": 2, "tasks": ["intent"]}
    insert.log("release:publish", "3", published)
    measured = {"release": 3, "version": "1.1", "data": digest("9"), "accuracy": 0.8}
    insert.log("task:evaluate", "intent", {**measured, "precision": "int8"})


def fill_0004(insert: Inserting) -> None:
    """A measurement and what took it, and compositions of clients whose clocks are minutes apart.

    Release 1 was made again of 2 and moved to production; release 4 was made of 1, by a clock behind.
    """
    insert("release_bases", release_id=1, base_id=2, at=at(5))
    release = {"id": 4, "number": 4, "digest": digest("1"), "base_id": 1}
    insert("releases", created_at=at(1), created_by="nlu/ada", **release)
    insert("release_bases", release_id=4, base_id=1, at=at(1))
    insert("channels", name="staging", release_id=4, revision=1, moved_at=at(1), moved_by="nlu/ada")
    insert("channel_moves", channel="staging", revision=1, kind="promote", release_id=4, at=at(1), by="nlu/ada")  # fmt: skip
    insert("evaluations", id=3, release_id=1, version_id=1, data=digest("9"), examples=7, metrics={"accuracy": 0.7}, at=at(10), by="nlu/ada", engine="onnxruntime 1.32.0")  # fmt: skip
    insert.log("release:publish", "4", {"digest": digest("1"), "base": 1, "tasks": []})
    insert.log("channel:promote", "staging", {"from": None, "to": 4, "revision": 1})
    measured = {"release": 1, "version": "1.0", "data": digest("9"), "accuracy": 0.7}
    insert.log("task:evaluate", "intent", {**measured, "engine": "onnxruntime 1.32.0"})


def fill_0005(insert: Inserting) -> None:
    """A measurement of a later day."""
    insert("evaluations", id=4, release_id=1, version_id=1, data=digest("8"), examples=7, metrics={"accuracy": 0.7}, at=at(12), by="nlu/ada", engine="onnxruntime 1.32.0")  # fmt: skip
    measured = {"release": 1, "version": "1.0", "data": digest("8"), "accuracy": 0.7}
    insert.log("task:evaluate", "intent", {**measured, "engine": "onnxruntime 1.32.0"})


def fill_0006(insert: Inserting) -> None:
    """A policy."""
    rules = {"channels": {"production": {"max_layers": 9}}}
    own = sha256(canonical_json(rules))
    insert("policies", version=1, rules=rules, digest=own, created_at=at(13), created_by="nlu/ada")
    insert.log("policy:apply", "policy", {"version": 1, "digest": own, "changes": []})


def fill_0007(insert: Inserting) -> None:
    """A claim on a blob."""
    insert("blob_claims", operation="0" * 32, digest=digest("7"), purpose="removed", at=at(14))


def fill_0008(insert: Inserting) -> None:
    """A measurement of which nothing but the metrics is kept."""
    insert("evaluations", id=5, release_id=1, version_id=1, data=digest("7"), examples=7, metrics={"accuracy": 0.6}, at=at(15), by="nlu/ada", engine="onnxruntime 1.32.0")  # fmt: skip
    measured = {"release": 1, "version": "1.0", "data": digest("7"), "accuracy": 0.6}
    insert.log("task:evaluate", "intent", {**measured, "engine": "onnxruntime 1.32.0"})


FILL = {
    "0001": fill_0001,
    "0002": fill_0002,
    "0003": fill_0003,
    "0004": fill_0004,
    "0005": fill_0005,
    "0006": fill_0006,
    "0007": fill_0007,
    "0008": fill_0008,
}


class Inserting:
    """Inserts rows into tables as the database has them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._found = MetaData()
        self._found.reflect(connection)

    def __call__(self, table: str, **values: Any) -> None:
        self._connection.execute(self._found.tables[table].insert().values(**values))

    def log(self, action: str, subject: str, details: dict[str, Any]) -> None:
        """Insert an event, once the log is chained."""
        head = self._found.tables["audit_head"]
        count, last = self._connection.execute(select(head.c.count, head.c.digest)).one()
        event = AuditEvent(
            id=count + 1,
            at=at(count),
            actor="nlu/ada",
            action=action,
            subject=subject,
            details=details,
            forced=False,
        )
        names = ("id", "at", "actor", "action", "subject", "details", "forced")
        own = chain_digest(last, event)
        self("audit_events", digest=own, **{name: getattr(event, name) for name in names})
        self._connection.execute(update(head).values(count=event.id, digest=own))


@pytest.fixture(scope="module")
def earlier_databases(
    databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Databases]]:
    """Databases at each earlier revision, with what Centra has written so far."""
    folder = tmp_path_factory.mktemp("earlier")
    made: dict[str, Databases] = {}
    with ExitStack() as stack:
        fresh = databases.empty(folder)
        for reached in REVISIONS:
            url = stack.enter_context(fresh)
            engine = make_engine(url)
            with writing(engine).begin() as connection:
                command.upgrade(alembic_config(connection), reached)
            with engine.begin() as connection:
                assert revision(connection) == reached
                FILL[reached](Inserting(connection))
            engine.dispose()
            made[reached] = databases.copies_of(url)
            fresh = made[reached].migrated(folder)
        yield made


@pytest.fixture(params=REVISIONS)
def earlier(
    request: pytest.FixtureRequest, earlier_databases: dict[str, Databases], tmp_path: Path
) -> Iterator[str]:
    """The address of a database at an earlier revision, with what Centra has written so far."""
    with earlier_databases[request.param].migrated(tmp_path) as url:
        yield url


def check(url: str, store: Path) -> None:
    """All that was there is there, and works."""
    with opened(url, store) as registry:
        assert differences(registry.engine) == []
        assert [(row.name, row.version) for row in tasks.list(registry)] == [
            ("intent", version_number("1.1")),
            ("slots", version_number("1.0")),
        ]
        *newer, second, first = list_releases(registry)
        assert [row.number for row in newer] in ([], [3], [4, 3])
        assert [(row.number, row.channels) for row in (second, first)] == [
            (2, ["latest"]),
            (1, ["production"]),
        ]
        steps = [
            (row.revision, row.kind, row.release, row.before, row.at, row.by)
            for row in channels.history(registry, "production")
        ]
        assert steps == [
            (3, "move", 1, 2, at(6), "ops/eve"),
            (2, "move", 2, 1, at(5), "ops/eve"),
            (1, "move", 1, None, at(3), "ops/eve"),
        ]
        assert [row.kind for row in channels.history(registry, "latest")] == ["publish", "publish"]
        events = audit.events(registry)
        assert [event.id for event in events[:11]] == list(range(1, 12))
        assert events[1].details["note"] == "ünïcode ✓"
        assert events[1].forced
        assert events[1].at == at(1)
        with registry.read() as uow:
            compositions = uow.compositions()
            assert compositions.pop(2) == [Composed(base=1, order=1)]
            if compositions:
                # Numbers of releases count more than clocks.
                assert compositions == {
                    1: [Composed(base=2, order=2)],
                    4: [Composed(base=1, order=3)],
                }
            seen = {
                (move.channel, move.revision): move.composition
                for move in uow.session.scalars(select(ChannelMove))
            }
            skewed = bool(compositions)
            assert seen == {
                ("latest", 1): 0,
                ("latest", 2): 1,
                ("production", 1): 0,
                ("production", 2): 1 + skewed,
                ("production", 3): 1 + 2 * skewed,
                **({("staging", 1): 3} if skewed else {}),
            }
            assert uow.backbone("minilm").state == "active"
            held = uow.released_versions(uow.release("2"))
            assert {task: str(version) for task, version in held.items()} == {
                "intent": "1.1",
                "slots": "1.0",
            }
            measured = evaluations.of_version(uow, uow.version("intent", version_number("1.1")))
            assert all((row.examples, row.engine) == (7, None) for row in measured)
            assert all(row.counts == (row.precision == "fp32") for row in measured)
            assert not any(row.complete for row in measured)


def test_there_is_data_for_every_earlier_revision() -> None:
    assert list(FILL) == REVISIONS


def test_a_filled_database_is_upgraded_with_all_it_holds(earlier: str, tmp_path: Path) -> None:
    engine = make_engine(earlier)
    upgrade(engine)
    engine.dispose()
    check(earlier, tmp_path)
    with opened(earlier, tmp_path) as registry:
        before = audit.verify(registry)
        assert before.events >= 11
        assert before.partly
        with registry.read() as uow:
            own = uow.identity()
            assert all(len(one) == 32 for one in own)
        # The log goes on where it was. There are no such blobs, so nothing would take the store for its.
        identity.write_identity(registry.store, own)
        tasks.retire(registry, "intent")
        assert audit.events(registry)[-1].id == before.events + 1
        assert audit.verify(registry).digest != before.digest


def test_upgrades_of_a_filled_database_started_at_once_do_no_harm(
    earlier: str, tmp_path: Path
) -> None:
    def run() -> None:
        engine = make_engine(earlier)
        upgrade(engine)
        engine.dispose()

    assert finish(start_children([run] * 3)) == [0, 0, 0]
    check(earlier, tmp_path)


def test_an_upgrade_that_dies_half_way_changes_nothing_and_is_repeated(
    earlier: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise KeyboardInterrupt

    engine = make_engine(earlier)
    with engine.connect() as connection:
        before = revision(connection)
    with monkeypatch.context() as patch:
        patch.setattr("alembic.runtime.migration.HeadMaintainer.update_to_step", failing)
        with pytest.raises(KeyboardInterrupt):
            upgrade(engine)
    with engine.connect() as connection:
        assert revision(connection) == before
        assert connection.scalar(text("SELECT count(*) FROM audit_events")) >= 11
    upgrade(engine)
    engine.dispose()
    check(earlier, tmp_path)


def test_going_down_keeps_what_the_earlier_revision_knows(earlier: str, tmp_path: Path) -> None:
    engine = make_engine(earlier)
    with engine.connect() as connection:
        before = revision(connection)
    upgrade(engine)
    with writing(engine).begin() as connection:
        command.downgrade(alembic_config(connection), before)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM audit_events")) >= 11
    upgrade(engine)
    engine.dispose()
    check(earlier, tmp_path)
