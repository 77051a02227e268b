"""What the tests of the registry share: fresh databases, other actors, and what is in a registry."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import shutil
import sqlite3
import uuid
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from sqlalchemy import delete, insert, make_url, select, text, true, update

from centra.store import LocalStore
from registry import Registry, audit, backbones, policies
from registry.database.engine import make_engine
from registry.database.migrations import upgrade
from registry.database.models import (
    AuditEvent,
    AuditHead,
    Backbone,
    Base,
    Identity,
    Release,
    ReleaseTask,
)
from registry.rules.lifecycle import Actor
from registry.settings import Rules
from registry.storage import identity
from tests import support
from tests.services import _execute as execute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine

    from centra.errors import CentraError
    from centra.formats.manifest import ReleaseManifest
    from tests.support import Backbone

ADA = "nlu/ada"
BOB = "vision/bob"


class Databases(Protocol):
    """A kind of database, and fresh ones of it."""

    name: str

    def empty(self, folder: Path) -> Any:
        """A context whose value is the address of a database without any table."""

    def migrated(self, folder: Path) -> Any:
        """The same with all tables, and the backbones ``tiny@1`` and ``other@1``."""

    def copies_of(self, url: str) -> Databases:
        """The same kind, where the migrated ones are copies of such a database, no longer in use."""


class Sqlite:
    """SQLite: files, copied from one that was prepared once."""

    name = "sqlite"

    def __init__(self, template: Path) -> None:
        self._template = template

    @contextmanager
    def empty(self, folder: Path) -> Iterator[str]:
        yield f"sqlite:///{folder}/{uuid.uuid4().hex}.db"

    @contextmanager
    def migrated(self, folder: Path) -> Iterator[str]:
        with self.empty(folder) as url:
            shutil.copyfile(self._template, url.removeprefix("sqlite:///"))
            yield url

    def copies_of(self, url: str) -> Sqlite:
        checkpoint(url)
        return Sqlite(Path(url.removeprefix("sqlite:///")))


class Postgres:
    """PostgreSQL: databases of one server, made from one that was prepared once."""

    name = "postgresql"

    def __init__(self, server: str, template: str) -> None:
        self._server = server
        self._template = template

    @contextmanager
    def empty(self, _folder: Path) -> Iterator[str]:
        with fresh_postgres(self._server, "template0") as url:
            yield url

    @contextmanager
    def migrated(self, _folder: Path) -> Iterator[str]:
        with fresh_postgres(self._server, self._template) as url:
            yield url

    def copies_of(self, url: str) -> Postgres:
        return Postgres(self._server, str(make_url(url).database))


@contextmanager
def fresh_postgres(server: str, template: str) -> Iterator[str]:
    """The address of a new database, dropped at the end."""
    name = f"centra_test_{uuid.uuid4().hex}"
    execute(server, f"CREATE DATABASE {name} TEMPLATE {template} ENCODING 'UTF8'")
    try:
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        execute(server, f"DROP DATABASE {name} WITH (FORCE)")


def prepare(url: str, store: Path, tiny: Backbone, other: Backbone) -> None:
    """Migrate a database and register the two tiny backbones in it."""
    engine = make_engine(url)
    try:
        upgrade(engine)
        registry = Registry(engine=engine, store=LocalStore(store), actor=Actor.parse(ADA))
        belong_together(registry)
        backbones.register(registry, "tiny", str(tiny.folder))
        backbones.register(registry, "other", str(other.folder))
    finally:
        engine.dispose()
    if engine.dialect.name == "sqlite":
        checkpoint(url)


def checkpoint(url: str) -> None:
    """What still lies in a SQLite database's write-ahead log must be in the file that is copied."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def belong_together(registry: Registry) -> None:
    """Make a database that of the registry that its store names, if it names one."""
    if found := identity.read_document(registry.store):
        with registry.engine.begin() as connection:
            values = {"registry_id": found.registry, "store_id": found.store}
            connection.execute(update(Identity).values(**values))


@dataclass(frozen=True)
class State:
    """What is in a registry with a local store."""

    rows: dict[str, list[dict[str, Any]]]
    """Of every table."""
    store: Path
    """A copy of its store's folder."""

    @classmethod
    def of(cls, registry: Registry, folder: Path) -> State:
        """The state of a registry, with the copy in a folder."""
        shutil.copytree(root_of(registry), folder)
        with registry.engine.connect() as connection:
            rows = {
                table.name: [dict(row) for row in connection.execute(select(table)).mappings()]
                for table in Base.metadata.sorted_tables
            }
        return cls(rows, folder)

    def restore(self, registry: Registry) -> None:
        """Make it the state of another registry."""
        support.mirror(self.store, root_of(registry))
        with registry.engine.begin() as connection, unguarded(connection):
            postgresql = connection.dialect.name == "postgresql"
            if not postgresql:
                connection.execute(text("PRAGMA defer_foreign_keys = ON"))
            for table in reversed(Base.metadata.sorted_tables):
                connection.execute(delete(table))
            for table in Base.metadata.sorted_tables:
                if self.rows[table.name]:
                    connection.execute(insert(table), self.rows[table.name])
                    if postgresql and "id" in table.c:
                        sequence = f"pg_get_serial_sequence('{table.name}', 'id')"
                        highest = f"(SELECT max(id) FROM {table.name})"
                        connection.execute(text(f"SELECT setval({sequence}, {highest})"))


class Registries:
    """Registries for one test at a time, on one kind of database.

    A database that was given back is emptied and lent again, with its engine: making either anew
    takes longer than most tests.
    """

    def __init__(self, databases: Databases, store: Path, folder: Path) -> None:
        self.databases = databases
        self._store = store
        self._folder = folder
        self._free: list[Engine] = []
        self._made = ExitStack()
        self._states: dict[str, State] = {}

    def bring(self, registry: Registry, name: str, build: Callable[[], object]) -> Registry:
        """Bring a lent registry to a state, which is built once and from then on copied.

        Args:
            registry: as it was lent.
            name: the state's, which must always be built in the same way.
            build: does with the registry what leads there.
        """
        if name in self._states:
            self._states[name].restore(registry)
        else:
            build()
            self._states[name] = State.of(registry, self._folder / name)
        return registry

    @contextmanager
    def lend(self, folder: Path) -> Iterator[Registry]:
        """A registry with two backbones and no task, its store in the folder, acting as nlu/ada."""
        engine = self._free.pop() if self._free else self._make()
        empty(engine)
        store = folder / f"store-{uuid.uuid4().hex}"
        support.mirror(self._store, store)
        registry = Registry(engine=engine, store=LocalStore(store), actor=Actor.parse(ADA))
        belong_together(registry)
        try:
            yield registry
        finally:
            engine.dispose()
            self._free.append(engine)

    def close(self) -> None:
        """Drop the databases."""
        self._made.close()

    def _make(self) -> Engine:
        return make_engine(self._made.enter_context(self.databases.migrated(self._folder)))


def empty(engine: Engine) -> None:
    """Delete whatever a test may have added to a prepared database, or changed in it."""
    with engine.begin() as connection, unguarded(connection):
        for table in reversed(Base.metadata.sorted_tables):
            kept = table.name in ("backbones", "audit_events", "audit_head", "identity")
            connection.execute(delete(table).where(table.c.id > 2 if kept else true()))
        connection.execute(update(Backbone).values(state="active"))
        digest = select(AuditEvent.digest).where(AuditEvent.id == 2).scalar_subquery()
        connection.execute(update(AuditHead).values(count=2, digest=digest))


@contextmanager
def unguarded(connection: Connection) -> Iterator[None]:
    """Let a block change the log, which the database's triggers refuse."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        yield
        connection.execute(text("SET LOCAL session_replication_role = origin"))
        return
    query = text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
    triggers = connection.execute(query).all()
    for name, _ in triggers:
        connection.execute(text(f"DROP TRIGGER {name}"))
    yield
    for _, sql in triggers:
        connection.execute(text(sql))


@contextmanager
def opened(url: str, store: Path, actor: str = ADA) -> Iterator[Registry]:
    """A registry at these addresses."""
    engine = make_engine(url)
    try:
        yield Registry(engine=engine, store=LocalStore(store), actor=Actor.parse(actor))
    finally:
        engine.dispose()


@contextmanager
def reopened(registry: Registry, actor: str | None = None) -> Iterator[Registry]:
    """The same registry with connections of its own, as another process would have them."""
    with opened(url_of(registry), root_of(registry), actor or str(registry.actor)) as other:
        yield other


def url_of(registry: Registry) -> str:
    """The address of a registry's database."""
    return registry.engine.url.render_as_string(hide_password=False)


def root_of(registry: Registry) -> Path:
    """The folder of a registry's store."""
    assert isinstance(registry.store, LocalStore)
    return registry.store.root


def acting(registry: Registry, actor: str) -> Registry:
    """The same registry in the hands of someone else."""
    return dataclasses.replace(registry, actor=Actor.parse(actor))


def anonymous(registry: Registry) -> Registry:
    """The same registry in the hands of someone who named no team."""
    return dataclasses.replace(registry, actor=Actor(person="eve"))


def rules_of(**tables: Any) -> Rules:
    """Rules as a ``centra.toml`` in this folder has them."""
    return Rules(file=Path("centra.toml").absolute(), tables=tables)


def ruled(registry: Registry, **rules: Any) -> Registry:
    """The same registry, in which these rules for production, and no others, are in force now."""
    proposed = rules_of(channels={"production": rules})
    policies.apply(registry, proposed, force=True)
    return registry


def blob_path(registry: Registry, digest: str) -> Path:
    """Where a registry's store keeps a blob."""
    assert isinstance(registry.store, LocalStore)
    return registry.store.path(digest)


def rows(registry: Registry) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table."""
    with registry.engine.connect() as connection:
        return {
            table.name: [
                tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))
            ]
            for table in Base.metadata.sorted_tables
        }


def unclaimed(registry: Registry) -> dict[str, list[tuple[Any, ...]]]:
    """Every row but for claims on blobs: those of a process that was killed run out."""
    return {table: found for table, found in rows(registry).items() if table != "blob_claims"}


def files(registry: Registry) -> dict[str, bytes]:
    """Every file of the store: blobs, pointers, and whatever should not be there."""
    root = root_of(registry)
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def forge(registry: Registry, manifest: ReleaseManifest) -> None:
    """Put a manifest with the tasks of release 1 behind the registry's back, as release 2."""
    digest = registry.store.put(manifest.to_bytes())
    with registry.write() as uow:
        versions = uow.versions_of(uow.release("1")).values()
        held = [ReleaseTask(task_id=v.task_id, version_id=v.id) for v in versions]
        uow.session.add(
            Release(number=2, digest=digest, created_at=uow.now, created_by="eve", tasks=held)
        )


def actions(registry: Registry) -> list[str]:
    """``action subject`` of every audit event so far, but for the prepared backbones'."""
    events = audit.events(registry)
    assert [event.action for event in events[:2]] == ["backbone:register"] * 2
    return [f"{event.action} {event.subject}" for event in events[2:]]


@contextmanager
def nothing_changes(registry: Registry) -> Iterator[None]:
    """Assert that a block leaves no row, no event, no blob and no pointer behind."""
    before = rows(registry), files(registry)
    yield
    assert (rows(registry), files(registry)) == before


@contextmanager
def refused(
    registry: Registry,
    error: type[CentraError] | tuple[type[CentraError], ...],
    *mentions: str,
    code: str | None = None,
    **data: Any,
) -> Iterator[None]:
    """Assert that a block is refused with an error that says all this, and changes nothing."""
    with nothing_changes(registry), pytest.raises(error) as caught:
        yield
    for mention in mentions:
        assert mention in str(caught.value)
    if code is not None:
        assert caught.value.code == code
    assert data.items() <= caught.value.data.items()


def in_child(function: Callable[[], object]) -> int:
    """Run a function in a forked process, and give its exit status: minus the signal if killed.

    The function must not use the parent's connections; see :func:`reopened`.
    """
    children = start_children([function])
    return finish(children)[0]


def start_children(functions: list[Callable[[], object]]) -> list[Any]:
    """Start forked processes, each running one function."""
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=function) for function in functions]
    for child in children:
        child.start()
    return children


def finish(children: list[Any]) -> list[int]:
    """Wait for forked processes and give their exit statuses."""
    for child in children:
        child.join(60)
    codes = [child.exitcode for child in children]
    for child in children:
        if child.exitcode is None:
            child.kill()
            child.join()
        child.close()
    return codes


def die() -> None:
    """End this process at once, as if the machine had lost its power."""
    os.kill(os.getpid(), 9)
