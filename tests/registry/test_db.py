from __future__ import annotations

import io
import os
import socket
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import delete, func, insert, inspect, make_url, select, text, update
from sqlalchemy.exc import IntegrityError

from centra.errors import UsageError
from registry import Registry, audit, releases, tasks
from registry.database import engine as database_engine
from registry.database import sqlite as database_sqlite
from registry.database.engine import make_engine, writing
from registry.database.migrations import SCHEMA, alembic_config, differences, revision, upgrade
from registry.database.models import (
    AuditEvent,
    AuditHead,
    Backbone,
    Base,
    Channel,
    ChannelMove,
    Evaluation,
    Release,
    ReleaseBase,
    ReleaseTask,
    Task,
    TaskVersion,
    UtcTime,
)
from registry.errors import DatabaseError
from tests.registry.helpers import (
    actions,
    finish,
    nothing_changes,
    opened,
    reopened,
    rows,
    start_children,
)
from tests.support import ROOT, version_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine

    from tests.registry.helpers import Databases

NEWER = "9999"
TIME = datetime(2026, 1, 1, tzinfo=UTC)


@contextmanager
def connected(url: str) -> Iterator[Engine]:
    engine = make_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


@pytest.fixture
def migrated(databases: Databases, tmp_path: Path) -> Iterator[Registry]:
    """A registry on a database that the test may spoil."""
    with databases.migrated(tmp_path) as url, opened(url, tmp_path / "store") as found:
        yield found


def tables(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names())


def at(engine: Engine) -> str | None:
    with engine.connect() as connection:
        return revision(connection)


def set_revision(engine: Engine, number: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :n"), {"n": number})


EVERYTHING = {*Base.metadata.tables, "alembic_version"}

# Migrations.


def test_the_schema_that_the_code_names_is_the_newest_migration() -> None:
    config = Config(ROOT / "alembic.ini")
    assert ScriptDirectory.from_config(config).get_heads() == [SCHEMA]


def test_upgrading_an_empty_database_makes_all_tables(empty_database: str) -> None:
    with connected(empty_database) as engine:
        upgrade(engine)
        assert at(engine) == SCHEMA
        assert tables(engine) == EVERYTHING
        assert differences(engine) == []


def test_upgrading_again_changes_nothing(registry: Registry, module: Callable[..., Path]) -> None:
    tasks.register(registry, "intent", module())
    with nothing_changes(registry):
        upgrade(registry.engine)
    assert at(registry.engine) == SCHEMA


def test_models_and_migrations_agree(registry: Registry) -> None:
    assert differences(registry.engine) == []


def test_downgrading_removes_every_table_and_upgrading_brings_them_back(
    empty_database: str,
) -> None:
    with connected(empty_database) as engine:
        upgrade(engine)
        with writing(engine).begin() as connection:
            command.downgrade(alembic_config(connection), "base")
        assert tables(engine) == {"alembic_version"}
        assert at(engine) is None
        upgrade(engine)
        assert tables(engine) == EVERYTHING
        assert differences(engine) == []


def test_an_upgrade_that_fails_leaves_nothing_half_done(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise KeyboardInterrupt

    with connected(empty_database) as engine:
        with monkeypatch.context() as patch:
            # The last statement of a migration is the one that writes its number down.
            patch.setattr("alembic.runtime.migration.HeadMaintainer.update_to_step", failing)
            with pytest.raises(KeyboardInterrupt):
                upgrade(engine)
        assert tables(engine) <= {"alembic_version"}
        upgrade(engine)
        assert differences(engine) == []


def test_upgrades_started_at_once_in_several_processes_all_succeed(empty_database: str) -> None:
    def run() -> None:
        with connected(empty_database) as engine:
            upgrade(engine)

    assert finish(start_children([run] * 3)) == [0, 0, 0]
    with connected(empty_database) as engine:
        assert at(engine) == SCHEMA
        assert differences(engine) == []


def test_alembic_itself_works_with_centras_settings(
    empty_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CENTRA_DATABASE_URL", empty_database)
    monkeypatch.setenv("CENTRA_STORE", str(tmp_path / "store"))
    output = io.StringIO()
    config = Config(ROOT / "alembic.ini", stdout=output)
    command.upgrade(config, "head")
    command.check(config)
    command.current(config)
    assert SCHEMA in output.getvalue()
    with connected(empty_database) as engine:
        assert differences(engine) == []


def test_the_statements_of_the_migrations_can_be_printed_for_someone_to_review(
    empty_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CENTRA_DATABASE_URL", empty_database)
    monkeypatch.setenv("CENTRA_STORE", str(tmp_path / "store"))
    output = io.StringIO()
    command.upgrade(Config(ROOT / "alembic.ini", output_buffer=output), "head", sql=True)
    for table in Base.metadata.tables:
        assert f"CREATE TABLE {table} " in output.getvalue()


# A database of another state is refused.


def every_use(registry: Registry) -> list[Callable[[], object]]:
    """A read, a write, and the check for developers."""
    return [
        lambda: tasks.list(registry),
        lambda: tasks.retire(registry, "intent"),
        lambda: releases.compose(registry),
        lambda: differences(registry.engine),
    ]


def test_an_empty_database_is_refused_with_what_to_do(empty_database: str, tmp_path: Path) -> None:
    with opened(empty_database, tmp_path / "store") as found:
        for use in every_use(found):
            with pytest.raises(DatabaseError, match=r" yet$") as caught:
                use()
            assert caught.value.code in ("database-missing", "database-empty")
        assert tables(found.engine) == set()


def test_a_database_behind_is_refused_with_both_numbers_and_what_to_do(
    migrated: Registry,
) -> None:
    set_revision(migrated.engine, "0000")
    for use in every_use(migrated):
        with pytest.raises(DatabaseError, match=f"0000, .* needs {SCHEMA}$") as caught:
            use()
        assert caught.value.code == "database-older"
        assert caught.value.data == {"found": "0000", "needed": SCHEMA}


def test_a_database_ahead_is_refused_with_both_numbers_and_left_alone(migrated: Registry) -> None:
    set_revision(migrated.engine, NEWER)
    before = rows(migrated)
    for use in [*every_use(migrated), lambda: upgrade(migrated.engine)]:
        with pytest.raises(DatabaseError, match=f"{NEWER}, newer than .* {SCHEMA}; upgrade Centra"):
            use()
    assert rows(migrated) == before
    assert at(migrated.engine) == NEWER


def test_a_database_of_a_number_that_nobody_knows_is_not_upgraded(migrated: Registry) -> None:
    set_revision(migrated.engine, "0000")
    with pytest.raises(DatabaseError, match="0000"):
        upgrade(migrated.engine)


def test_a_table_that_is_missing_is_named(migrated: Registry) -> None:
    with migrated.engine.begin() as connection:
        connection.execute(text("DROP TABLE release_tasks"))
        connection.execute(text("DROP TABLE channel_moves"))
        connection.execute(text("DROP TABLE channels"))
    with pytest.raises(DatabaseError, match="channels"):
        releases.list(migrated)
    assert any("channels" in line for line in differences(migrated.engine))


def test_a_column_that_is_missing_is_named_as_a_difference(migrated: Registry) -> None:
    with migrated.engine.begin() as connection:
        connection.execute(text("ALTER TABLE backbones DROP COLUMN source"))
    (line,) = differences(migrated.engine)
    assert "source" in line


def test_tables_whose_migration_number_was_lost_are_refused(migrated: Registry) -> None:
    with migrated.engine.begin() as connection:
        connection.execute(text("DELETE FROM alembic_version"))
    with pytest.raises(DatabaseError) as caught:
        tasks.list(migrated)
    assert caught.value.code == "database-empty"
    with pytest.raises(DatabaseError, match="already exists"):
        upgrade(migrated.engine)


# The schema itself refuses what must never be.


def backbone_row(**fields: Any) -> dict[str, Any]:
    return {
        "name": "third",
        "version": 1,
        "digest": "c" * 64,
        "family": "bert",
        "num_layers": 3,
        "hidden_size": 32,
        "max_length": 64,
        "source": "here",
        "created_by": "nlu/ada",
        **fields,
    }


def dated(model: type[Base]) -> dict[str, Any]:
    """A time for whatever wants one: no column has its own."""
    columns = model.__table__.columns
    return {column.name: TIME for column in columns if isinstance(column.type, UtcTime)}


def version_row(**fields: Any) -> dict[str, Any]:
    return {
        "task_id": 1,
        "major": 1,
        "minor": 1,
        "current_of": None,
        "digest": "d" * 64,
        "size": 1,
        "backbone_id": 1,
        "kind": "classification",
        "input": "single",
        "labels": ["a", "b"],
        "tap_layer": 1,
        "depth": 1,
        "metrics": {},
        "created_by": "nlu/ada",
        **fields,
    }


def release_row(**fields: Any) -> dict[str, Any]:
    return {"number": 2, "digest": "f" * 64, "created_by": "nlu/ada", **fields}


def channel_row(**fields: Any) -> dict[str, Any]:
    return {"name": "staging", "release_id": 1, "revision": 1, "moved_by": "nlu/ada", **fields}


def move_row(**fields: Any) -> dict[str, Any]:
    return {
        "channel": "latest",
        "revision": 2,
        "kind": "promote",
        "release_id": 1,
        "before_id": 1,
        "composition": 0,
        "by": "nlu/ada",
        **fields,
    }


def evaluation_row(**fields: Any) -> dict[str, Any]:
    return {
        "release_id": 1,
        "version_id": 1,
        "data": "b" * 64,
        "examples": 10,
        "metrics": {"accuracy": 0.5},
        "by": "nlu/ada",
        **fields,
    }


def event_row(**fields: Any) -> dict[str, Any]:
    return {
        "actor": "nlu/ada",
        "action": "a:b",
        "subject": "c",
        "forced": False,
        "details": {},
        "digest": "1" * 64,
        **fields,
    }


GOOD: list[tuple[type[Base], dict[str, Any]]] = [
    (Backbone, backbone_row()),
    (Task, {"name": "slots", "team": "nlu", "state": "retired"}),
    (TaskVersion, version_row()),
    (Release, release_row(base_id=1)),
    (ReleaseTask, {"release_id": 1, "task_id": 2, "version_id": 2}),
    (Channel, channel_row()),
    (ChannelMove, move_row()),
    (ReleaseBase, {"release_id": 1, "base_id": 1}),
    (Evaluation, evaluation_row()),
    (AuditEvent, event_row()),
]
BAD: dict[str, tuple[type[Base], dict[str, Any]]] = {
    "a second current version": (TaskVersion, version_row(current_of=1)),
    "a current version of another task": (TaskVersion, version_row(current_of=3)),
    "a version twice": (TaskVersion, version_row(minor=0)),
    "a module twice": (TaskVersion, version_row(digest="a" * 64)),
    "a version 0": (TaskVersion, version_row(major=0)),
    "a negative version": (TaskVersion, version_row(minor=-1)),
    "a short digest": (TaskVersion, version_row(digest="d" * 63)),
    "no digest": (TaskVersion, version_row(digest=None)),
    "a negative tap": (TaskVersion, version_row(tap_layer=-1)),
    "a negative depth": (TaskVersion, version_row(depth=-1)),
    "a version of no kind": (TaskVersion, version_row(kind="")),
    "an unknown input": (TaskVersion, version_row(input="triple")),
    "a version of no task": (TaskVersion, version_row(task_id=9)),
    "a version on no backbone": (TaskVersion, version_row(backbone_id=9)),
    "a task twice": (Task, {"name": "intent", "team": "vision", "state": "active"}),
    "an unknown state": (Task, {"name": "slots", "team": "nlu", "state": "gone"}),
    "a task of no team": (Task, {"name": "slots", "team": None, "state": "active"}),
    "a backbone's version twice": (Backbone, backbone_row(name="tiny")),
    "a backbone's version 0": (Backbone, backbone_row(version=0)),
    "a backbone's short digest": (Backbone, backbone_row(digest="c")),
    "a release's number twice": (Release, release_row(number=1)),
    "a release 0": (Release, release_row(number=0)),
    "a release twice": (Release, release_row(digest="e" * 64)),
    "a release's short digest": (Release, release_row(digest="f" * 32)),
    "a release on no base": (Release, release_row(base_id=9)),
    "a task twice in a release": (
        ReleaseTask,
        {"release_id": 1, "task_id": 1, "version_id": 1},
    ),
    "no version in a release": (ReleaseTask, {"release_id": 1, "task_id": 2, "version_id": 9}),
    "a channel twice": (Channel, channel_row(name="latest")),
    "a channel of no release": (Channel, channel_row(release_id=9)),
    "a channel's revision 0": (Channel, channel_row(revision=0)),
    "an event of nobody": (AuditEvent, event_row(actor=None)),
    "an event twice": (AuditEvent, event_row(digest="2" * 64)),
    "an event's short digest": (AuditEvent, event_row(digest="3")),
    "a second head of the log": (AuditHead, {"id": 2, "count": 3, "digest": "4" * 64}),
    "a backbone's unknown state": (Backbone, backbone_row(state="gone")),
    "a move of no channel": (ChannelMove, move_row(channel="nope")),
    "a move to no release": (ChannelMove, move_row(release_id=9)),
    "a move of no known kind": (ChannelMove, move_row(kind="jump")),
    "a move before the first composition": (ChannelMove, move_row(composition=-1)),
    "a composition of no release": (ReleaseBase, {"release_id": 9, "base_id": 1}),
    "a composition onto no release": (ReleaseBase, {"release_id": 1, "base_id": 9}),
    "a move twice": (ChannelMove, move_row(revision=1)),
    "an evaluation of no release": (Evaluation, evaluation_row(release_id=9)),
    "an evaluation of no version": (Evaluation, evaluation_row(version_id=9)),
    "an evaluation on nothing": (Evaluation, evaluation_row(examples=0)),
    "an evaluation on a short digest": (Evaluation, evaluation_row(data="5")),
}


@pytest.fixture(scope="module")
def constrained(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A database with tasks 1 to 3, two versions that are current, release 1 and ``latest``."""
    with (
        databases.migrated(tmp_path_factory.mktemp("constrained")) as url,
        connected(url) as engine,
    ):
        with engine.begin() as connection:
            for model, row in (
                (Task, {"id": 1, "name": "intent", "team": "nlu", "state": "active"}),
                (Task, {"id": 2, "name": "topic", "team": "nlu", "state": "active"}),
                (Task, {"id": 3, "name": "new", "team": "nlu", "state": "active"}),
                (TaskVersion, version_row(id=1, minor=0, current_of=1, digest="a" * 64)),
                (TaskVersion, version_row(id=2, task_id=2, current_of=2)),
                (Release, release_row(id=1, number=1, digest="e" * 64)),
                (ReleaseTask, {"release_id": 1, "task_id": 1, "version_id": 1}),
                (Channel, channel_row(name="latest")),
                (ChannelMove, move_row(revision=1)),
                (AuditEvent, event_row(id=3, digest="2" * 64)),
            ):
                connection.execute(insert(model).values(dated(model) | row))
        yield engine


def attempt(engine: Engine, model: type[Base], row: dict[str, Any]) -> None:
    """Insert a row past all of our code, and take it back."""
    with engine.connect() as connection:
        # Ids of our own: those that were given by hand above did not count.
        with_id = {"id": 99} if "id" in model.__table__.c else {}
        connection.execute(insert(model).values(dated(model) | with_id | row))
        connection.rollback()


def test_the_schema_accepts_good_rows(constrained: Engine) -> None:
    for model, row in GOOD:
        attempt(constrained, model, row)


@pytest.mark.parametrize("what", BAD)
def test_the_schema_refuses(constrained: Engine, what: str) -> None:
    with pytest.raises(IntegrityError):
        attempt(constrained, *BAD[what])


def test_the_schema_refuses_to_make_a_second_version_current(constrained: Engine) -> None:
    with constrained.connect() as connection:
        row = dated(TaskVersion) | version_row(id=99)
        connection.execute(insert(TaskVersion).values(row))
        with pytest.raises(IntegrityError):
            connection.execute(update(TaskVersion).where(TaskVersion.id == 99).values(current_of=1))


@pytest.mark.parametrize("model", [Backbone, Task, TaskVersion, Release])
def test_the_schema_refuses_to_delete_what_something_needs(
    constrained: Engine, model: type[Base]
) -> None:
    with constrained.connect() as connection, pytest.raises(IntegrityError):
        connection.execute(delete(model).where(model.__table__.c.id == 1))


# Transactions.


def test_a_read_sees_one_state_whatever_is_written_meanwhile(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    with registry.read() as uow, reopened(registry) as other:
        task = uow.task("intent")
        tasks.update(other, "intent", module(seed=1))
        tasks.register(other, "topic", module())
        assert [version.number for version in task.versions] == [version_number("1.0")]
        assert uow.current(task).number == version_number("1.0")
        assert uow.find_task("topic") is None
    assert tasks.show(registry, "intent").current == version_number("1.1")


def test_readers_do_not_wait_for_a_writer(registry: Registry, module: Callable[..., Path]) -> None:
    tasks.register(registry, "intent", module())
    with registry.write() as uow, reopened(registry) as other:
        uow.task("intent").state = "retired"
        uow.session.flush()
        began = time.monotonic()
        assert tasks.show(other, "intent").state == "active"
        assert time.monotonic() - began < 2


def test_workers_that_are_forked_have_connections_of_their_own(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())

    def work() -> None:
        for _ in range(20):
            assert [row.name for row in tasks.list(registry)] == ["intent"]
        tasks.retire(registry, "intent")
        tasks.restore(registry, "intent")

    with registry.read() as uow:  # A connection in use, and one that lies in the pool.
        tasks.list(registry)
        assert finish(start_children([work] * 4)) == [0] * 4
        assert uow.task("intent").state == "active"
        assert len(uow.task("intent").versions) == 1
    assert tasks.show(registry, "intent").state == "active"
    audit.verify(registry)


def test_writers_take_turns_and_each_sees_what_the_one_before_it_wrote(
    registry: Registry,
) -> None:
    order: list[str] = []

    def second() -> None:
        with reopened(registry) as other, other.write() as uow:
            order.append(f"second sees {uow.session.scalar(select(func.count(Task.id)))}")

    with registry.write() as uow:
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        uow.session.add(Task(name="intent", team="nlu", state="active", created_at=TIME))
        order.append("first is done")
    thread.join(30)
    assert order == ["first is done", "second sees 1"]


def test_a_writer_that_waits_too_long_says_so(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (database_engine, database_sqlite):
        monkeypatch.setattr(module, "LOCK_WAIT_S", 1)
    with (
        registry.write(),
        reopened(registry) as other,
        pytest.raises(DatabaseError, match="lock"),
        other.write(),
    ):
        pass
    with registry.write():
        pass


def test_times_are_in_utc_whatever_the_servers_zone(
    migrated: Registry, module: Callable[..., Path]
) -> None:
    if migrated.engine.dialect.name == "postgresql":
        with migrated.engine.begin() as connection:
            name = connection.scalar(text("SELECT current_database()"))
            connection.execute(text(f"ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'"))
        migrated.engine.dispose()
    with migrated.write(any_store=True) as uow:
        uow.session.add(Task(name="intent", team="nlu", state="active", created_at=TIME))
    with migrated.read() as uow:
        created = uow.task("intent").created_at
    assert created == TIME
    assert created.isoformat() == "2026-01-01T00:00:00+00:00"


# Addresses.


@pytest.mark.parametrize(
    ("url", "mention"),
    [
        ("", "file"),
        ("sqlite://", "file"),
        ("sqlite:///", "file"),
        ("sqlite:///:memory:", "file"),
        (":memory:", "file"),
        ("mysql://ada:secret@db/centra", "'mysql' is not supported"),
        ("oracle+oracledb://ada:secret@db/centra", "'oracle' is not supported"),
        ("postgresql://ada:secret@db:port/centra", "malformed"),
        ("://ada:secret@db", "malformed"),
    ],
)
def test_an_address_that_cannot_be_is_refused_without_showing_its_password(
    url: str, mention: str
) -> None:
    with pytest.raises(UsageError, match=mention) as caught:
        make_engine(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["postgres://db/centra", "postgresql://db/centra", "postgresql+psycopg2://db/centra"],
)
def test_a_postgresql_address_is_reached_with_the_driver_that_centra_brings(url: str) -> None:
    with connected(url) as engine:
        assert engine.url.drivername == "postgresql+psycopg"


@pytest.mark.parametrize("name", ["plain.db", "what?.db", "50%.db", "a@b:c.db", "ü 日.db"])
def test_a_plain_path_is_a_sqlite_file(tmp_path: Path, name: str) -> None:
    with connected(str(tmp_path / name)) as engine:
        upgrade(engine)
    assert (tmp_path / name).is_file()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_an_unreachable_postgresql_is_named_quickly_without_its_password(tmp_path: Path) -> None:
    url = f"postgresql://ada:secret@127.0.0.1:{closed_port()}/centra"
    began = time.monotonic()
    with opened(url, tmp_path / "store") as found:
        for use in [*every_use(found), lambda: upgrade(found.engine)]:
            with pytest.raises(DatabaseError, match=r"ada:\*\*\*@127\.0\.0\.1") as caught:
                use()
            assert "secret" not in str(caught.value)
            assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 10


def test_a_postgresql_database_that_is_not_there_is_named(
    postgres_url: str, tmp_path: Path
) -> None:
    url = make_url(postgres_url).set(database="missing").render_as_string(hide_password=False)
    with opened(url, tmp_path / "store") as found, pytest.raises(DatabaseError, match="missing"):
        tasks.list(found)


def test_a_connection_that_broke_is_named_and_the_next_one_works(
    postgresql_databases: Databases, tmp_path: Path
) -> None:
    with (
        postgresql_databases.migrated(tmp_path) as url,
        opened(url, tmp_path / "store") as found,
        connected(url) as admin,
    ):
        with pytest.raises(DatabaseError), found.read() as uow:
            end_other_sessions(admin)
            uow.backbones()
        assert len(tasks.list(found)) == 0
        # One that broke while it lay unused must not be noticed at all.
        end_other_sessions(admin)
        assert len(tasks.list(found)) == 0


def end_other_sessions(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )


def in_no_folder(folder: Path) -> Path:
    return folder / "missing" / "registry.db"


def below_a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file" / "registry.db"


def a_folder(folder: Path) -> Path:
    (folder / "registry.db").mkdir()
    return folder / "registry.db"


def no_database(folder: Path) -> Path:
    (folder / "registry.db").write_bytes(b"PK\3\4 not at all a database\n" * 100)
    return folder / "registry.db"


@pytest.mark.parametrize("place", [in_no_folder, below_a_file, a_folder, no_database])
def test_a_sqlite_file_that_cannot_be_used_is_named_quickly(
    tmp_path: Path, place: Callable[[Path], Path]
) -> None:
    path = place(tmp_path)
    began = time.monotonic()
    with opened(f"sqlite:///{path}", tmp_path / "store") as found:
        for use in [*every_use(found), lambda: upgrade(found.engine)]:
            with pytest.raises(DatabaseError) as caught:
                use()
            assert str(path) in str(caught.value)
    assert time.monotonic() - began < 10


def test_a_damaged_sqlite_file_is_named(sqlite_databases: Databases, tmp_path: Path) -> None:
    with sqlite_databases.migrated(tmp_path) as url:
        path = Path(url.removeprefix("sqlite:///"))
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(os.urandom(1 << 16))
        with opened(url, tmp_path / "store") as found, pytest.raises(DatabaseError) as caught:
            tasks.list(found)
    assert str(path) in str(caught.value)


def test_sqlite_keeps_what_was_committed_when_the_power_fails(registry: Registry) -> None:
    def setting(connection: Connection, name: str) -> Any:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar()

    if registry.engine.dialect.name != "sqlite":
        with registry.engine.connect() as connection:
            assert connection.scalar(text("SHOW synchronous_commit")) == "on"
        return
    with registry.engine.connect() as connection:
        assert setting(connection, "journal_mode") == "wal"
        assert setting(connection, "synchronous") == 2
        assert setting(connection, "foreign_keys") == 1


def test_the_tests_registry_is_as_expected(registry: Registry) -> None:
    assert actions(registry) == []
    assert {name: len(found) for name, found in rows(registry).items() if found} == {
        "backbones": 2,
        "audit_events": 2,
        "audit_head": 1,
        "identity": 1,
    }
