"""Copying a store, moving it, and taking a copy for it."""

from __future__ import annotations

import dataclasses
import shutil
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from centra.errors import ConflictError, FormatError, StoreNotWritableError
from centra.formats.manifest import ChannelPointer
from centra.runtime import load_release
from centra.store import LocalStore, open_store
from centra.store.document import StoreDocument
from registry import Registry, audit, channels, doctor, releases, signatures, tasks
from registry.errors import IncompleteError, WrongStoreError
from registry.storage import gc, identity, stores
from tests import support
from tests.registry.helpers import (
    ADA,
    blob_path,
    die,
    files,
    in_child,
    nothing_changes,
    opened,
    refused,
    reopened,
    root_of,
    rows,
    url_of,
)
from tests.support import version_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from centra.store import BlobStore
    from tests.registry.helpers import Sqlite

NOW = timedelta()
KILLED = -9


@pytest.fixture
def used(
    registry: Registry,
    module: Callable[..., Path],
    tmp_path: Path,
    bring: Callable[..., Registry],
) -> Registry:
    """A registry with two releases, the first of which is signed and served by ``production``."""

    def build() -> None:
        tasks.register(registry, "intent", module())
        releases.compose(registry, publish=True)
        signatures.sign(registry, "1", support.make_key(tmp_path / "release.pem"))
        channels.move(registry, "production", "1")
        tasks.update(registry, "intent", module(seed=1))
        releases.compose(registry, publish=True)

    return bring("used, signed", build)


def at(registry: Registry, store: BlobStore) -> Registry:
    """The same database with another store."""
    return dataclasses.replace(registry, store=store)


def is_whole(registry: Registry) -> None:
    """All that the database names is in the store, and it is the database's own."""
    given = {"database": url_of(registry), "actor": ADA, "store": registry.store.url}
    wrong = [check for check in doctor.examine(**given) if check.state == "problem"]
    assert wrong == []
    for row in releases.list(registry):
        releases.verify(registry, str(row.number))
    for channel in channels.list(registry):
        assert channels.pointer_fault(registry, channel) is None
    assert len(signatures.of_release(registry, "1")) == 1
    audit.verify(registry)


def content(registry: Registry) -> dict[str, bytes]:
    """The files of a store but for its document."""
    return {name: data for name, data in files(registry).items() if name != "store.json"}


# Copying.


def test_a_copy_has_all_that_is_reached_and_nothing_else(used: Registry, tmp_path: Path) -> None:
    wanted = content(used)
    used.store.put(b"litter")
    before = rows(used), files(used)
    done = stores.copy(used, str(tmp_path / "copied"))
    assert (rows(used), files(used)) == before
    copied = at(used, LocalStore(tmp_path / "copied"))
    assert content(copied) == wanted
    assert done.blobs == len([name for name in wanted if name.startswith("blobs")])
    assert done.bytes == sum(len(wanted[name]) for name in wanted if name.startswith("blobs"))
    assert (done.signatures, done.pointers) == (1, 2)
    assert open_store(done.address).witnesses() == used.store.witnesses() != []
    with nothing_changes(used):
        again = stores.copy(used, str(tmp_path / "copied"))
    assert dataclasses.replace(done, blobs=0, bytes=0, signatures=0, pointers=0) == again


def test_servers_read_from_a_copy_and_nothing_writes_to_it(used: Registry, tmp_path: Path) -> None:
    stores.copy(used, str(tmp_path / "copied"))
    copied = at(used, LocalStore(tmp_path / "copied"))
    assert load_release(f"{tmp_path / 'copied'}#production").tasks
    before = files(copied)
    for write in (
        lambda: tasks.pin(at(used, copied.store), "intent@1.0"),
        lambda: gc.collect(at(used, copied.store), grace=NOW, delete=True),
        lambda: channels.sync(at(used, copied.store)),
    ):
        with refused(used, WrongStoreError, "a copy of this registry's", code="store-is-copy"):
            write()
    assert files(copied) == before
    detail = stores.show(copied)
    assert (detail.own, detail.moved_to) == (False, None)
    assert detail.registry == detail.database
    assert stores.show(used).own


def test_a_copy_gets_what_came_since_and_no_older_pointer(
    used: Registry, module: Callable[..., Path], tmp_path: Path
) -> None:
    stores.copy(used, str(tmp_path / "copied"))
    copied = at(used, LocalStore(tmp_path / "copied"))
    pointer = ChannelPointer.from_bytes(used.store.read_pointer("production") or b"", "production")
    newer = pointer.model_copy(update={"revision": pointer.revision + 1}).to_bytes()
    copied.store.write_pointer("production", newer)
    tasks.update(used, "intent", module(seed=2))
    done = stores.copy(used, str(tmp_path / "copied"))
    assert (done.blobs, done.pointers) == (1, 0)
    channels.move(used, "production", "2")
    channels.move(used, "production", "1")
    assert stores.copy(used, str(tmp_path / "copied")).pointers == 1
    assert content(copied) == content(used)


def test_each_blob_is_checked_on_its_way_and_all_others_are_copied(
    used: Registry, tmp_path: Path
) -> None:
    damaged, lost = (version.digest for version in tasks.show(used, "intent").versions)
    support.flip(blob_path(used, damaged), bit=100)
    blob_path(used, lost).unlink()
    for use in (stores.copy, stores.move):
        with refused(used, IncompleteError, "2 of ", "could not be copied"):
            use(used, str(tmp_path / "copied"))
    copied = LocalStore(tmp_path / "copied")
    assert {blob.digest for blob in used.store.blobs()} - {damaged} == {
        blob.digest for blob in copied.blobs()
    }


def test_a_place_that_is_not_free_is_refused(
    used: Registry, make_registry: Callable[[], Registry], tmp_path: Path
) -> None:
    other = make_registry()
    other.store.write_document(StoreDocument(registry="1" * 32, store="2" * 32).to_bytes())
    unknown = LocalStore(tmp_path / "unknown")
    unknown.put(b"something")
    for use in (stores.copy, stores.move):
        with refused(used, ConflictError, "registry 11111111", "Choose another place"):
            use(used, other.store.url)
        with refused(used, ConflictError, "says not whose", "empty place"):
            use(used, unknown.url)
    with refused(used, ConflictError, "the registry's own store"):
        stores.copy(used, used.store.url)
    assert len(list(unknown.blobs())) == 1


# Moving.


def test_a_moved_store_is_whole_and_the_old_one_says_where_it_went(
    used: Registry, module: Callable[..., Path], tmp_path: Path
) -> None:
    wanted = content(used)
    old = identity.read_document(used.store)
    done = stores.move(used, str(tmp_path / "moved"))
    moved = at(used, LocalStore(tmp_path / "moved"))
    assert (done.changed, done.left, done.blobs > 0) == (True, True, True)
    assert content(moved) == wanted
    is_whole(moved)
    event = audit.events(used)[-1]
    assert event.action == "store:move"
    assert str(tmp_path / "moved").endswith(event.details["to"].removeprefix("…"))
    tasks.update(moved, "intent", module(seed=2))
    releases.compose(moved, publish=True)
    assert gc.collect(moved, grace=NOW, delete=True).garbage == []
    # Whoever still has the old settings is told, also in the midst of its work.
    with refused(moved, WrongStoreError, f"moved to {tmp_path / 'moved'}", code="store-moved"):
        gc.collect(at(used, used.store), grace=NOW, delete=True)
    with refused(moved, ConflictError, "moved meanwhile"):
        tasks.pin(used, "intent@1.0")
    assert stores.show(used).moved_to == str(tmp_path / "moved")
    # And back.
    back = stores.move(moved, used.store.url)
    assert (back.changed, back.blobs) == (True, 2)
    is_whole(at(used, used.store))
    assert identity.read_document(used.store) == old
    with refused(at(used, used.store), WrongStoreError, f"moved to {root_of(used)}"):
        gc.collect(at(used, moved.store), grace=NOW, delete=True)


def test_repeating_a_move_does_nothing_more(used: Registry, tmp_path: Path) -> None:
    stores.move(used, str(tmp_path / "moved"))
    moved = at(used, LocalStore(tmp_path / "moved"))
    for again in (at(used, used.store), moved):
        before = rows(used), files(used), files(moved)
        done = stores.move(again, str(tmp_path / "moved"))
        assert (done.changed, done.blobs, done.left) == (False, 0, True)
        assert (rows(used), files(used), files(moved)) == before


@contextmanager
def dying(at_step: int) -> Iterator[list[str]]:
    """Die before or after the given one of the steps that a move makes; gives the steps made."""
    steps: list[str] = []

    def step(name: str) -> None:
        steps.append(name)
        if len(steps) == at_step:
            die()

    def around(patch: pytest.MonkeyPatch, name: str, *, always: bool) -> None:
        real = getattr(LocalStore, name)

        def call(*arguments: Any) -> Any:
            counts = always or f"before {name}" not in steps
            if counts:
                step(f"before {name}")
            result = real(*arguments)
            if counts:
                step(f"after {name}")
            return result

        patch.setattr(LocalStore, name, call)

    write = Registry.write

    @contextmanager
    def writing(*arguments: Any, **options: Any) -> Any:
        step("before a transaction")
        with write(*arguments, **options) as uow:
            yield uow
            step("before its end")
        step("after a transaction")

    with pytest.MonkeyPatch.context() as patch:
        around(patch, "put", always=False)
        for name in ("write_document", "write_signature", "write_pointer"):
            around(patch, name, always=True)
        patch.setattr(Registry, "write", writing)
        yield steps


# The steps are the store's; one kind of database shows them.
@pytest.mark.parametrize("databases", ["sqlite"], indirect=True)
def test_a_move_killed_at_any_step_leaves_one_whole_store_and_its_rerun_finishes(
    used: Registry, tmp_path: Path
) -> None:
    used.engine.dispose()
    for number in range(1, 100):
        target = tmp_path / f"moved-{number}"

        def run(number: int = number, target: Path = target, used: Registry = used) -> None:
            with reopened(used) as own, dying(number):
                stores.move(own, str(target))

        code = in_child(run)
        moved = at(used, LocalStore(target))
        whole = [one for one in (at(used, used.store), moved) if stores.show(one).own]
        (own,) = whole
        if own.store is used.store:
            is_whole(own)
        # Where it was killed between the change and the pointers, sync is what a rerun does.
        done = stores.move(at(used, used.store), str(target))
        assert done.left
        is_whole(moved)
        assert stores.show(used).moved_to == str(target)
        stores.move(moved, used.store.url)
        is_whole(at(used, used.store))
        if code == 0:
            break
        assert code == KILLED
    assert 15 < number < 40


def test_what_others_write_while_it_is_copied_is_copied_too(
    used: Registry, module: Callable[..., Path], tmp_path: Path
) -> None:
    left = [2, 3]

    class Busy(LocalStore):
        """A store to which somebody else writes whenever it has been listed."""

        def blobs(self) -> Any:
            yield from list(super().blobs())
            if left:
                with reopened(used) as other:
                    tasks.update(other, "intent", module(seed=left.pop()))
                    releases.compose(other, publish=True)

    done = stores.move(at(used, Busy(root_of(used))), str(tmp_path / "moved"))
    assert done.changed
    moved = at(used, LocalStore(tmp_path / "moved"))
    is_whole(moved)
    assert channels.show(moved, "latest").release == 4


def test_a_registry_that_never_rests_is_not_moved(
    used: Registry, module: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Busy(LocalStore):
        def blobs(self) -> Any:
            yield from list(super().blobs())
            with reopened(used) as other:
                current = tasks.show(other, "intent").current
                tasks.pin(other, "intent@1.0" if current == version_number("1.1") else "intent@1.1")

    monkeypatch.setattr(stores, "_PASSES", 3)
    with pytest.raises(ConflictError, match="try again"):
        stores.move(at(used, Busy(root_of(used))), str(tmp_path / "moved"))
    is_whole(at(used, used.store))


def test_an_old_store_that_cannot_be_written_is_moved_all_the_same(
    used: Registry, tmp_path: Path
) -> None:
    class Locked(LocalStore):
        def write_document(self, data: bytes) -> None:
            raise StoreNotWritableError("no")

    done = stores.move(at(used, Locked(root_of(used))), str(tmp_path / "moved"))
    assert (done.changed, done.left) == (True, False)
    is_whole(at(used, LocalStore(tmp_path / "moved")))
    with refused(used, WrongStoreError, "a copy of this registry's"):
        gc.collect(at(used, used.store), grace=NOW, delete=True)


def test_a_store_moves_from_a_folder_to_a_bucket_and_back(
    sqlite_databases: Sqlite,
    template_store: Path,
    module: Callable[..., Path],
    s3_url: str,
    tmp_path: Path,
) -> None:
    shutil.copytree(template_store, tmp_path / "store")
    with sqlite_databases.migrated(tmp_path) as url, opened(url, tmp_path / "store") as local:
        tasks.register(local, "intent", module())
        releases.compose(local, publish=True)
        signatures.sign(local, "1", support.make_key(tmp_path / "release.pem"))
        stores.copy(local, str(tmp_path / "mirror"))
        stores.move(local, s3_url)
        fresh = open_store(s3_url, cache=tmp_path / "fresh")
        is_whole(at(local, fresh))
        tasks.update(at(local, fresh), "intent", module(seed=1))
        with pytest.raises(WrongStoreError, match="moved to s3://"):
            tasks.pin(at(local, local.store), "intent@1.0")
        # Nothing of a whole store stays in the cache.
        cached = len(list((tmp_path / "fresh").rglob("*")))
        done = stores.move(at(local, fresh), str(tmp_path / "third"))
        assert done.blobs > 5
        assert len(list((tmp_path / "fresh").rglob("*"))) <= cached + 4
        is_whole(at(local, LocalStore(tmp_path / "third")))


# Taking a copy for the store.


def test_a_copy_takes_the_place_of_a_store_that_was_lost(
    used: Registry, module: Callable[..., Path], tmp_path: Path
) -> None:
    stores.copy(used, str(tmp_path / "copied"))
    newest = tasks.update(used, "intent", module(seed=2))
    shutil.rmtree(root_of(used))
    copied = at(used, LocalStore(tmp_path / "copied"))
    with refused(copied, IncompleteError, "lacks 1 of the", code="store-incomplete"):
        stores.adopt(copied)
    done = stores.adopt(copied, incomplete=True)
    assert (done.changed, done.missing) == (True, 1)
    assert audit.events(copied)[-1].action == "store:adopt"
    copied = at(used, copied.store)
    # The file of the last version brings back what is missing.
    assert not tasks.update(copied, "intent", module(seed=2)).changed
    assert newest.version == version_number("1.2")
    is_whole(copied)
    with nothing_changes(copied):
        assert stores.adopt(copied) == dataclasses.replace(done, changed=False, missing=0)


# The steps are the store's; one kind of database shows them.
@pytest.mark.parametrize("databases", ["sqlite"], indirect=True)
def test_an_adoption_that_is_killed_is_repeated(used: Registry) -> None:
    (root_of(used) / "store.json").unlink()
    used.engine.dispose()
    for number in range(1, 20):

        def run(number: int = number) -> None:
            with reopened(used) as own, dying(number):
                stores.adopt(own)

        code = in_child(run)
        own = at(used, used.store)
        stores.adopt(own)
        is_whole(at(used, used.store))
        if code == 0:
            break
        assert code == KILLED
        (root_of(used) / "store.json").unlink()
    assert 4 < number < 10


def test_another_registrys_store_is_never_adopted(used: Registry) -> None:
    foreign = StoreDocument(registry="1" * 32, store="2" * 32)
    used.store.write_document(foreign.to_bytes())
    for incomplete in (False, True):
        with refused(used, ConflictError, "registry 11111111"):
            stores.adopt(at(used, used.store), incomplete=incomplete)
    used.store.write_document(b"{")
    with refused(used, FormatError, code="store-document-unreadable"):
        stores.adopt(at(used, used.store))
