"""A store and a database that do not belong together are refused by everything that writes."""

from __future__ import annotations

import dataclasses
import shutil
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from centra.errors import ConflictError, FormatError, UnsupportedFormatError
from centra.store import LocalStore
from centra.store.document import StoreDocument
from cli.doctor import mend
from registry import Registry, backbones, channels, doctor, evaluations, releases, signatures, tasks
from registry.database.engine import make_engine
from registry.database.migrations import upgrade
from registry.database.models import Identity
from registry.errors import IncompleteError, WrongStoreError
from registry.promotion import promote
from registry.rules.lifecycle import Actor
from registry.storage import gc, identity, stores
from registry.transfer import export_file, import_file
from tests import support
from tests.registry.helpers import (
    ADA,
    blob_path,
    files,
    finish,
    opened,
    refused,
    reopened,
    root_of,
    rows,
    start_children,
    url_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from centra.formats.identities import Digest
    from tests.registry.helpers import Databases

NOW = timedelta()


@contextmanager
def made(url: str, store: LocalStore) -> Iterator[Registry]:
    """A registry of its own, with a fresh identity."""
    engine = make_engine(url)
    try:
        upgrade(engine)
        yield Registry(engine=engine, store=store, actor=Actor.parse(ADA))
    finally:
        engine.dispose()


@pytest.fixture
def fresh(empty_database: str, tmp_path: Path) -> Iterator[Registry]:
    """A registry that nothing was written to."""
    with made(empty_database, LocalStore(tmp_path / "fresh")) as registry:
        yield registry


def used(registry: Registry, module: Callable[..., Path]) -> None:
    tasks.register(registry, "intent", module())
    releases.compose(registry, publish=True)
    tasks.update(registry, "intent", module(seed=1))
    releases.compose(registry, publish=True)
    channels.move(registry, "production", "1")
    channels.move(registry, "production", "2")


def own_document(registry: Registry) -> StoreDocument:
    found = identity.read_document(registry.store)
    assert found is not None
    return found


# A mix of two registries.


def test_everything_that_writes_refuses_another_registrys_store_and_nothing_changes(
    registry: Registry,
    fresh: Registry,
    module: Callable[..., Path],
    encoders: dict[str, support.Backbone],
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    used(registry, module)
    export_file(registry, tmp_path / "intent.tar", references=["intent"])
    backbones.register(fresh, "tiny", str(encoders["tiny"].folder))
    tasks.register(fresh, "theirs", module(seed=5))
    tasks.register(fresh, "gone", module(seed=6))
    releases.compose(fresh, publish=True)
    fresh.store.put(b"litter")
    key = support.make_key(tmp_path / "release.pem")
    before = rows(fresh), files(fresh)
    writes: list[Callable[[Registry], object]] = [
        lambda mix: tasks.register(mix, "new", module()),
        lambda mix: tasks.update(mix, "intent", module(seed=2)),
        lambda mix: tasks.redefine(mix, "intent", module(labels=("a", "b"))),
        lambda mix: tasks.retire(mix, "intent"),
        lambda mix: tasks.pin(mix, "intent@1.0"),
        lambda mix: backbones.register(mix, "again", str(encoders["tiny"].folder)),
        lambda mix: backbones.restore(mix, "tiny@1"),
        lambda mix: releases.compose(mix, publish=True),
        lambda mix: promote(mix, "1", "production"),
        lambda mix: channels.rollback(mix, "production"),
        lambda mix: channels.move(mix, "staging", "1"),
        channels.sync,
        lambda mix: channels.publish_pointer(mix, "latest"),
        lambda mix: signatures.sign(mix, "1", key),
        lambda mix: evaluations.evaluate(mix, "1", "intent", tiny_data("single")),
        lambda mix: import_file(mix, tmp_path / "intent.tar"),
        lambda mix: gc.collect(mix, grace=NOW, delete=True),
        lambda mix: gc.collect(mix, grace=NOW),
        lambda mix: stores.copy(mix, str(tmp_path / "copied")),
        lambda mix: stores.move(mix, str(tmp_path / "moved")),
        stores.adopt,
    ]
    origins = {"database": "CENTRA_DATABASE_URL", "store": "/home/ada/centra.toml"}
    for write in writes:
        mix = dataclasses.replace(registry, store=fresh.store, origins=origins)
        with refused(registry, ConflictError):
            write(mix)
        assert (rows(fresh), files(fresh)) == before
    assert not (tmp_path / "copied").exists()
    with pytest.raises(WrongStoreError) as caught:
        tasks.retire(mix, "intent")
    own, theirs = own_document(registry), own_document(fresh)
    for part in (
        f"(from CENTRA_DATABASE_URL), registry {own.registry[:8]}",
        f"{fresh.store.url} (from /home/ada/centra.toml), of registry {theirs.registry[:8]}",
    ):
        assert part in str(caught.value)
    assert caught.value.code == "store-of-another-registry"
    # What only reads goes on.
    assert [row.name for row in tasks.list(mix)] == ["intent"]
    assert releases.list(mix)
    assert channels.list(mix)


def test_the_doctor_names_a_mix_and_does_not_speak_of_its_consequences(
    registry: Registry, fresh: Registry, encoders: dict[str, support.Backbone]
) -> None:
    backbones.register(fresh, "tiny", str(encoders["tiny"].folder))
    given = {"database": url_of(registry), "actor": ADA}
    found = {c.check: c for c in doctor.examine(**given, store=fresh.store.url)}
    assert found["identity"].state == "problem"
    assert "(from --store), of registry" in found["identity"].found
    assert "one registry" in (mend(found["identity"]) or "")
    assert {found[name].state for name in ("blobs", "garbage", "pointers")} == {"skipped"}
    found = {c.check: c for c in doctor.examine(**given, store=registry.store.url)}
    assert found["identity"].state == "ok"


# The first write.


def test_the_first_write_binds_an_empty_store_and_a_refused_one_leaves_nothing(
    fresh: Registry, encoders: dict[str, support.Backbone], tmp_path: Path
) -> None:
    store = root_of(fresh)
    with pytest.raises(Exception, match="no such file"):
        tasks.register(fresh, "intent", tmp_path / "missing")
    assert gc.collect(fresh, grace=NOW).garbage == []
    assert channels.sync(fresh) == []
    assert not store.exists()
    backbones.register(fresh, "tiny", str(encoders["tiny"].folder))
    with fresh.read() as uow:
        own = uow.identity()
    assert (own_document(fresh).registry, own_document(fresh).store) == own
    assert [*store.glob("store.json*")] == [store / "store.json"]


def test_two_first_writers_at_once_bind_the_same(
    fresh: Registry, encoders: dict[str, support.Backbone]
) -> None:
    fresh.engine.dispose()

    def run(name: str) -> None:
        with reopened(fresh) as own:
            backbones.register(own, name, str(encoders[name].folder))

    assert finish(start_children([lambda: run("tiny"), lambda: run("other")])) == [0, 0]
    with reopened(fresh) as own:
        assert len(backbones.list(own)) == 2
        own.check_store()
        with own.write():
            pass


def test_an_empty_folder_in_the_place_of_a_store_is_refused(registry: Registry) -> None:
    root = root_of(registry)
    away = root.with_name("away")
    root.rename(away)
    for there in (False, True):
        if there:
            root.mkdir()
        with pytest.raises(WrongStoreError, match="which is empty, while the database names"):
            tasks.retire(dataclasses.replace(registry), "intent")
        with pytest.raises(WrongStoreError, match="which is empty"):
            gc.collect(dataclasses.replace(registry), grace=NOW, delete=True)
    assert not any(root.iterdir())
    root.rmdir()
    away.rename(root)
    assert gc.collect(dataclasses.replace(registry), grace=NOW).garbage == []


def test_a_store_from_before_stores_said_whose_they_are_is_taken_if_all_is_there(
    registry: Registry, module: Callable[..., Path]
) -> None:
    used(registry, module)
    document = root_of(registry) / "store.json"
    document.unlink()
    again = dataclasses.replace(registry)
    again.check_store()
    assert not document.exists()
    tasks.pin(again, "intent@1.0")
    with registry.read() as uow:
        assert (own_document(registry).registry, own_document(registry).store) == uow.identity()


@pytest.mark.parametrize("lost", ["version", "layer"])
def test_a_store_without_a_document_that_lacks_something_is_taken_only_when_that_is_said(
    registry: Registry, module: Callable[..., Path], lost: str
) -> None:
    used(registry, module)
    (root_of(registry) / "store.json").unlink()
    digest = {
        "version": tasks.show(registry, "intent").versions[0].digest,
        "layer": backbones.spec(registry, "tiny").layers[0],
    }[lost]
    blob_path(registry, digest).unlink()
    again = dataclasses.replace(registry)
    with refused(again, WrongStoreError, "lacks 1 of the", digest, code="store-lacks-blobs"):
        gc.collect(again, grace=NOW, delete=True)
    with refused(again, IncompleteError, "lacks 1 of the", digest):
        stores.adopt(again)
    assert stores.adopt(again, incomplete=True).missing == 1
    # From here on it is mended as ever.
    assert tasks.list(dataclasses.replace(registry))
    with dataclasses.replace(registry).write():
        pass


def test_a_fresh_database_takes_no_store_that_holds_something(
    fresh: Registry, registry: Registry, module: Callable[..., Path]
) -> None:
    used(registry, module)
    (root_of(registry) / "store.json").unlink()
    mix = dataclasses.replace(fresh, store=registry.store)
    before = files(registry)
    with pytest.raises(WrongStoreError, match="while the database names no blob"):
        gc.collect(mix, grace=NOW, delete=True)
    assert files(registry) == before


def test_an_older_backup_of_the_database_works_beside_the_newer_store(
    sqlite_databases: Databases, template_store: Path, module: Callable[..., Path], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(template_store, store)
    with sqlite_databases.migrated(tmp_path) as url:
        backup = tmp_path / "backup.db"
        shutil.copyfile(url.removeprefix("sqlite:///"), backup)
        with opened(url, store) as registry:
            used(registry, module)
        with opened(f"sqlite:///{backup}", store) as restored:
            tasks.register(restored, "intent", module(seed=9))
            releases.compose(restored, publish=True)
            assert gc.collect(restored).garbage == []


@pytest.mark.parametrize(
    ("data", "error", "code"),
    [
        (b"{", FormatError, "store-document-unreadable"),
        (b"", FormatError, "store-document-unreadable"),
        (
            b'{"format": "centra/store", "format_version": "2.0"}',
            UnsupportedFormatError,
            "unsupported-format",
        ),
    ],
)
def test_a_document_that_cannot_be_read_is_refused(
    registry: Registry, data: bytes, error: type[FormatError], code: str
) -> None:
    registry.store.write_document(data)
    again = dataclasses.replace(registry)
    with refused(again, error, "store.json", code=code):
        gc.collect(again, grace=NOW, delete=True)


def test_a_store_that_was_moved_while_somebody_worked_takes_no_row(
    registry: Registry, module: Callable[..., Path]
) -> None:
    class Moved(LocalStore):
        def put(self, source: Path | bytes, digest: Digest | None = None) -> Digest:
            with registry.engine.begin() as connection:
                connection.execute(update(Identity).values(store_id="0" * 32))
            return super().put(source, digest)

    own = dataclasses.replace(registry, store=Moved(root_of(registry)))
    with registry.read() as uow:
        _, before = uow.identity()
    try:
        with pytest.raises(Exception, match="moved meanwhile"):
            tasks.register(own, "intent", module())
        assert tasks.list(registry) == []
    finally:
        with registry.engine.begin() as connection:
            connection.execute(update(Identity).values(store_id=before))
    assert rows(registry)["blob_claims"] == []
