from __future__ import annotations

import dataclasses
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from centra.errors import StoreError, StoreNotWritableError
from centra.formats.backbone import BackboneSpec
from centra.formats.manifest import ChannelPointer
from centra.store import LocalStore, open_store
from centra.system.files import file_digest
from registry import audit, backbones, channels, releases, tasks
from registry.errors import UnreadableError
from registry.storage import claims, gc
from tests import support
from tests.memory_store import MemoryStore
from tests.registry.helpers import (
    actions,
    blob_path,
    die,
    files,
    finish,
    in_child,
    nothing_changes,
    opened,
    refused,
    reopened,
    root_of,
    rows,
    start_children,
    unclaimed,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from centra.formats.identities import Digest
    from centra.store import BlobStore, StoredBlob
    from registry import Registry
    from tests.registry.helpers import Sqlite

NOW = timedelta()
DAY = timedelta(days=1)
MORE = ("alarm", "music", "weather", "news")
KILLED = -9


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches follow each other at once; who waits for a turn gets it all the same."""
    monkeypatch.setattr(gc, "_PAUSE_S", 0.01)


def used(registry: Registry, module: Callable[..., Path]) -> None:
    """Bring a registry to a state in which each sort of row names blobs."""
    tasks.register(registry, "intent", module())
    tasks.update(registry, "intent", module(seed=1))
    releases.compose(registry, publish=True)
    channels.move(registry, "production", "1")
    tasks.redefine(registry, "intent", module(labels=MORE))
    tasks.pin(registry, "intent@1.0")
    tasks.register(registry, "slots", module("tagging", tap=2))
    tasks.register(registry, "old", module(seed=2, on="other"))
    tasks.retire(registry, "old")
    releases.compose(registry, publish=True)


def litter(registry: Registry, *contents: bytes, age: timedelta = NOW) -> list[str]:
    """Put blobs that nothing reaches."""
    digests = [registry.store.put(data) for data in contents]
    for digest in digests:
        if age:  # One of this moment may be collected at once.
            make_older(blob_path(registry, digest), age)
    return digests


def make_older(path: Path, age: timedelta) -> None:
    then = time.time() - age.total_seconds()
    os.utime(path, (then, then))


def names(found: gc.Collection) -> list[str]:
    return [one.name for one in found.garbage]


def all_is_well(registry: Registry) -> None:
    """Every version, backbone, release and channel is there, whole, and works."""
    for row in tasks.list(registry):
        for version in tasks.show(registry, row.name).versions:
            registry.store.fetch(version.digest)
    for backbone in backbones.list(registry):
        for blob in BackboneSpec.fetch(backbone.digest, registry.store).blobs():
            registry.store.fetch(blob)
    for release in releases.list(registry):
        assert set(releases.verify(registry, str(release.number)).parity.values()) == {0.0}
    for channel in channels.list(registry):
        data = registry.store.read_pointer(channel.name) or b""
        pointer = ChannelPointer.from_bytes(data, channel.name)
        assert (pointer.release, pointer.revision) == (channel.release, channel.revision)
        registry.store.fetch(pointer.manifest)
    audit.verify(registry)


# What is garbage.


def test_what_versions_releases_backbones_and_channels_name_is_no_garbage(
    registry: Registry, module: Callable[..., Path]
) -> None:
    used(registry, module)
    with nothing_changes(registry):
        for delete in (False, True):
            found = gc.collect(registry, grace=NOW, delete=delete)
            assert (found.garbage, found.count, found.bytes, found.young) == ([], 0, 0, 0)
            assert found.deleted is delete
    all_is_well(registry)


def test_a_fresh_registrys_backbones_are_no_garbage(registry: Registry) -> None:
    assert gc.collect(registry, grace=NOW).garbage == []


def test_the_dry_run_changes_nothing_and_names_what_the_real_one_removes(
    registry: Registry, module: Callable[..., Path]
) -> None:
    used(registry, module)
    clean = files(registry)
    old = litter(registry, b"1", b"", b"333", age=9 * DAY)
    older = litter(registry, b"22", age=10 * DAY)
    with nothing_changes(registry):
        plan = gc.collect(registry)
    assert names(plan)[0] == older[0]
    assert {one.name: one.size for one in plan.garbage} == {
        old[0]: 1,
        old[1]: 0,
        older[0]: 2,
        old[2]: 3,
    }
    assert (plan.deleted, plan.count, plan.bytes) == (False, 4, 6)
    assert plan.grace == 7 * 24 * 3600
    for one in plan.garbage:
        assert one.kind == "blob"
        assert abs(timedelta(seconds=one.age) - (10 if one.name in older else 9) * DAY) < DAY / 99
        assert one.modified.tzinfo is UTC
    before = rows(registry)

    done = gc.collect(registry, delete=True)

    assert dataclasses.replace(done, deleted=False, garbage=[]) == dataclasses.replace(
        plan, garbage=[]
    )
    assert names(done) == names(plan)
    assert files(registry) == clean
    assert {**rows(registry), "audit_events": 0, "audit_head": 0} == {
        **before,
        "audit_events": 0,
        "audit_head": 0,
    }
    with nothing_changes(registry):
        assert gc.collect(registry, delete=True).garbage == []
    all_is_well(registry)


def test_what_a_killed_register_left_is_garbage(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    (left,) = litter(registry, module(seed=1).read_bytes())
    assert names(gc.collect(registry, grace=NOW)) == [left]
    tasks.update(registry, "intent", module(seed=1))
    assert gc.collect(registry, grace=NOW).garbage == []


def test_nothing_younger_than_the_grace_period_is_removed(registry: Registry) -> None:
    (young,) = litter(registry, b"young", age=7 * DAY - timedelta(minutes=5))
    (old,) = litter(registry, b"old!", age=7 * DAY + timedelta(minutes=5))
    done = gc.collect(registry, delete=True)
    assert names(done) == [old]
    assert (done.young, done.young_bytes) == (1, 5)
    assert registry.store.has(young)
    assert gc.collect(registry, grace=8 * DAY, delete=True).garbage == []
    assert names(gc.collect(registry, grace=6 * DAY, delete=True)) == [young]
    assert not registry.store.has(young)


def test_a_grace_period_of_any_length_is_possible(registry: Registry) -> None:
    litter(registry, b"litter", age=999 * DAY)
    found = gc.collect(registry, grace=timedelta.max, delete=True)
    assert (found.count, found.young) == (0, 1)


class Elsewhere(LocalStore):
    """A store on a machine whose clock goes a week ahead of ours."""

    def clock(self) -> datetime:
        return super().clock() + 7 * DAY

    def blobs(self) -> Iterator[StoredBlob]:
        for blob in super().blobs():
            yield dataclasses.replace(blob, modified=blob.modified + 7 * DAY)

    def stat(self, digest: str) -> StoredBlob | None:
        blob = super().stat(digest)
        return blob and dataclasses.replace(blob, modified=blob.modified + 7 * DAY)


def test_ages_are_told_by_the_stores_own_clock(registry: Registry) -> None:
    there = dataclasses.replace(registry, store=Elsewhere(root_of(registry)))
    (young,) = litter(registry, b"young")
    assert gc.collect(there, grace=DAY, delete=True).young == 1
    assert registry.store.has(young)
    (old,) = litter(registry, b"old", age=2 * DAY)
    assert names(gc.collect(there, grace=DAY, delete=True)) == [old]


# What another registry's pointer names.


@pytest.fixture
def foreign(
    make_registry: Callable[[], Registry], module: Callable[..., Path]
) -> tuple[Registry, set[str]]:
    """A registry whose store has the pointer and the blobs of a release that it does not know.

    With the digests of the blobs that this release alone needs.
    """
    registry, other = make_registry(), make_registry()
    tasks.register(registry, "intent", module())
    releases.compose(registry, publish=True)
    tasks.register(other, "theirs", module("regression"))
    theirs = releases.compose(other, publish=True)
    needed = set(theirs.manifest.files().values()) | {theirs.digest}
    alone = {digest for digest in needed if not registry.store.has(digest)}
    for digest in alone:
        registry.store.put(other.store.fetch(digest))
    pointer = ChannelPointer(name="abroad", revision=1, release=1, manifest=theirs.digest)
    registry.store.write_pointer("abroad", pointer.to_bytes())
    assert len(alone) == 2
    return registry, alone


def test_what_a_pointer_of_an_unknown_release_names_is_kept(
    foreign: tuple[Registry, set[str]],
) -> None:
    registry, alone = foreign
    with nothing_changes(registry):
        assert gc.collect(registry, grace=NOW, delete=True).garbage == []
    (root_of(registry) / "channels" / "abroad.json").unlink()
    assert set(names(gc.collect(registry, grace=NOW, delete=True))) == alone
    all_is_well(registry)


def test_a_pointer_that_is_behind_the_database_keeps_nothing_from_being_used(
    registry: Registry, module: Callable[..., Path]
) -> None:
    used(registry, module)
    behind = registry.store.read_pointer("production")
    channels.move(registry, "production", "2")
    registry.store.write_pointer("production", behind or b"")
    (left,) = litter(registry, b"left")
    assert names(gc.collect(registry, grace=NOW, delete=True)) == [left]
    channels.sync(registry)
    all_is_well(registry)


# What cannot be decided.


def refuses(registry: Registry, *mentions: str, code: str = "pointer-unreadable") -> None:
    says = ("nothing may be removed", *mentions)
    for delete in (False, True):
        with refused(registry, UnreadableError, *says, code=code):
            gc.collect(registry, grace=NOW, delete=delete)


@pytest.mark.parametrize(
    "damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"{}")]
)
def test_a_backbone_whose_spec_cannot_be_read_stops_it(
    registry: Registry, damage: Callable[[Path], object], encoders: dict[str, support.Backbone]
) -> None:
    litter(registry, b"litter")
    digest = backbones.show(registry, "tiny").digest
    damage(blob_path(registry, digest))
    refuses(registry, "backbone tiny@1", digest, code="backbone-unreadable")
    backbones.register(registry, "tiny", str(encoders["tiny"].folder))
    assert gc.collect(registry, grace=NOW, delete=True).count == 1


def test_a_pointer_of_another_channel_stops_it(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    releases.compose(registry, publish=True)
    registry.store.write_pointer("production", registry.store.read_pointer("latest") or b"")
    refuses(
        registry,
        "the channel pointer production.json",
        "of the channel 'latest', expected one of 'production'",
    )


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("production", b"half of {"),
        ("production", b"{}"),
        ("production", b'{"format": "centra/channel", "format_version": "2.0"}'),
        ("production", b""),
        ("Not A Name", b"{}"),
    ],
)
def test_a_pointer_that_does_not_parse_stops_it(registry: Registry, name: str, data: bytes) -> None:
    litter(registry, b"litter")
    path = root_of(registry) / "channels" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    refuses(registry, f"the channel pointer {name}.json", code="pointer-unreadable")
    path.unlink()
    assert gc.collect(registry, grace=NOW, delete=True).count == 1


@pytest.mark.parametrize(
    "damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"{}")]
)
def test_an_unknown_release_that_cannot_be_read_stops_it(
    foreign: tuple[Registry, set[str]], damage: Callable[[Path], object]
) -> None:
    registry, _ = foreign
    litter(registry, b"litter")
    data = registry.store.read_pointer("abroad") or b""
    digest = ChannelPointer.from_bytes(data, "abroad").manifest
    damage(blob_path(registry, digest))
    refuses(registry, "the channel pointer abroad.json", digest)


def test_a_damaged_manifest_that_the_database_knows_stops_nothing(
    registry: Registry, module: Callable[..., Path]
) -> None:
    used(registry, module)
    blob_path(registry, releases.list(registry)[0].digest).write_bytes(b"noise")
    (left,) = litter(registry, b"left")
    assert names(gc.collect(registry, grace=NOW, delete=True)) == [left]


def test_a_store_that_cannot_be_listed_is_an_error(registry: Registry) -> None:
    litter(registry, b"litter")
    (root_of(registry) / "channels").write_bytes(b"not a folder")
    with refused(registry, StoreError, "cannot list"):
        gc.collect(registry, grace=NOW, delete=True)


# The log.


def test_a_run_that_removed_something_writes_one_event(registry: Registry) -> None:
    litter(registry, *(b"%d" % number for number in range(250)))
    gc.collect(registry, grace=NOW)
    assert actions(registry) == []
    done = gc.collect(registry, grace=NOW, delete=True)
    assert done.count == 250
    (event,) = audit.events(registry)[2:]
    assert (event.action, event.actor) == ("store:gc", "nlu/ada")
    assert event.details == {"count": 250, "bytes": 10 + 180 + 450}
    assert str(root_of(registry)).endswith(event.subject.removeprefix("…"))
    assert len(event.subject) <= 127
    audit.verify(registry)
    with nothing_changes(registry):
        gc.collect(registry, grace=NOW, delete=True)


@pytest.mark.parametrize(
    ("url", "subject"),
    [
        ("/srv/store?", "/srv/store?"),
        ("s3://bucket/some/prefix?endpoint_url=http://me:secret@host", "s3://bucket/some/prefix"),
        ("s3://me:secret@bucket/prefix", "s3://bucket/prefix"),
        (f"/srv/{'x' * 200}/store", f"…{'x' * 120}/store"),
    ],
)
def test_the_event_names_the_store_without_its_options_and_secrets(
    registry: Registry, tmp_path: Path, url: str, subject: str
) -> None:
    registry = dataclasses.replace(registry, store=memory_copy(registry, tmp_path))
    registry.store.url = url
    registry.store.put(b"litter")
    gc.collect(registry, grace=NOW, delete=True)
    assert audit.events(registry)[-1].subject == subject


class Failing(LocalStore):
    """A store that refuses the third removal."""

    removed = 0

    def remove(self, digest: str) -> None:
        if self.removed == 2:
            raise StoreNotWritableError("no more")
        super().remove(digest)
        self.removed += 1


def test_what_was_removed_before_a_failure_is_in_the_log(registry: Registry) -> None:
    digests = litter(registry, b"1", b"2", b"3", b"4")
    failing = dataclasses.replace(registry, store=Failing(root_of(registry)))
    with pytest.raises(StoreNotWritableError, match="no more"):
        gc.collect(failing, grace=NOW, delete=True)
    assert sum(registry.store.has(digest) for digest in digests) == 2
    assert audit.events(registry)[-1].details == {"count": 2, "bytes": 2}
    assert gc.collect(registry, grace=NOW, delete=True).count == 2
    assert actions(registry) == [f"store:gc {audit.events(registry)[-1].subject}"] * 2


def test_a_store_that_may_not_be_written_is_not_collected(
    registry: Registry, tmp_path: Path
) -> None:
    store = memory_copy(registry, tmp_path)
    locked = dataclasses.replace(registry, store=store)
    store.put(b"litter")
    store.writable = False
    assert gc.collect(locked, grace=NOW).count == 1
    before = rows(registry)
    with pytest.raises(StoreNotWritableError):
        gc.collect(locked, grace=NOW, delete=True)
    assert rows(registry) == before


# Leftovers of killed writes.


def test_temporary_files_of_killed_writes_are_named_and_removed(
    registry: Registry, module: Callable[..., Path]
) -> None:
    used(registry, module)
    clean = files(registry)
    digest = tasks.show(registry, "intent").versions[0].digest
    left = [f"blobs/sha256/{digest[:2]}/.{digest}.abcdefgh", "channels/.production.json.abcdefgh"]
    for name in left:
        path = root_of(registry) / name
        path.write_bytes(b"half")
        make_older(path, 8 * DAY)
    with nothing_changes(registry):
        plan = gc.collect(registry)
    assert [(one.kind, one.name, one.size) for one in plan.garbage] == [
        ("leftover", name, 4) for name in sorted(left, key=lambda name: names(plan).index(name))
    ]
    assert sorted(names(plan)) == left
    done = gc.collect(registry, delete=True)
    assert names(done) == names(plan)
    assert files(registry) == clean
    assert audit.events(registry)[-1].details == {"count": 2, "bytes": 8}


def test_temporary_files_that_may_still_be_written_are_left_alone(registry: Registry) -> None:
    path = root_of(registry) / "channels" / ".production.json.abcdefgh"
    path.parent.mkdir()
    path.write_bytes(b"half")
    for age in (NOW, timedelta(minutes=50)):
        make_older(path, age)
        with nothing_changes(registry):
            assert gc.collect(registry, grace=NOW, delete=True).young == 1
    make_older(path, timedelta(minutes=70))
    with nothing_changes(registry):
        assert gc.collect(registry, grace=DAY, delete=True).garbage == []
    assert gc.collect(registry, grace=NOW, delete=True).count == 1


def test_files_that_are_not_ours_are_left_alone(registry: Registry) -> None:
    for name in ("README", "blobs/sha256/README", "channels/.DS_Store", "channels/notes.txt"):
        path = root_of(registry) / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"mine")
        make_older(path, 99 * DAY)
    with nothing_changes(registry):
        gc.collect(registry, grace=NOW, delete=True)


# Stores of every kind.


def memory_copy(registry: Registry, folder: Path) -> MemoryStore:
    store = MemoryStore(folder / "fetched")
    copy(registry, store)
    return store


def copy(registry: Registry, store: BlobStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        blobs = [registry.store.fetch(blob.digest) for blob in registry.store.blobs()]
        assert all(pool.map(store.put, blobs))
    for name in registry.store.pointers():
        store.write_pointer(name, registry.store.read_pointer(name) or b"")
    store.write_document(registry.store.read_document() or b"")


def goes_and_the_rest_works(registry: Registry) -> None:
    """Garbage of a registry in use, in whatever store, is removed and nothing else."""
    store = registry.store
    garbage = {store.put(b"%d" % number) for number in range(5)}

    assert gc.collect(registry, grace=DAY, delete=True).young == 5
    plan = gc.collect(registry, grace=NOW)
    assert set(names(plan)) == garbage
    assert names(gc.collect(registry, grace=NOW, delete=True)) == names(plan)

    assert not any(store.has(digest) for digest in garbage)
    assert gc.collect(registry, grace=NOW).garbage == []


def test_garbage_in_memory_goes_and_the_rest_works(
    registry: Registry, module: Callable[..., Path], tmp_path: Path
) -> None:
    used(registry, module)
    in_memory = dataclasses.replace(registry, store=memory_copy(registry, tmp_path))
    goes_and_the_rest_works(in_memory)
    all_is_well(in_memory)


def test_garbage_in_a_folder_goes_and_the_rest_works(
    registry: Registry, module: Callable[..., Path]
) -> None:
    used(registry, module)
    goes_and_the_rest_works(registry)
    all_is_well(registry)


def test_garbage_in_a_bucket_goes_and_the_rest_works(
    sqlite_databases: Sqlite,
    template_store: Path,
    module: Callable[..., Path],
    s3_url: str,
    tmp_path: Path,
) -> None:
    with sqlite_databases.migrated(tmp_path) as url, opened(url, template_store) as local:
        on_s3 = dataclasses.replace(local, store=open_store(s3_url))
        copy(local, on_s3.store)
        tasks.register(on_s3, "intent", module())
        releases.compose(on_s3, publish=True)
        goes_and_the_rest_works(on_s3)
        # What is fetched from here on must come from the server.
        fresh = open_store(s3_url, cache=tmp_path / "fresh")
        all_is_well(dataclasses.replace(on_s3, store=fresh))


# Beside others who write.


def all_at_once(*uses: Callable[[], Any]) -> None:
    with ThreadPoolExecutor(len(uses)) as pool:
        for result in [pool.submit(use) for use in uses]:
            result.result()


class Interrupted(LocalStore):
    """A store in which something happens right after a new blob was put."""

    def __init__(self, root: Path, then: Callable[[str], object]) -> None:
        super().__init__(root)
        self.then = then

    def put(self, source: Path | bytes, digest: Digest | None = None) -> Digest:
        before = {blob.digest for blob in self.blobs()}
        digest = super().put(source, digest)
        if digest not in before:
            self.then(digest)
        return digest


def collecting(registry: Registry) -> tuple[Registry, list[str]]:
    """The same registry; whenever it puts a blob, somebody else collects garbage at once.

    With what was put so.
    """
    taken: list[str] = []

    def collect(digest: str) -> None:
        taken.append(digest)
        with reopened(registry, "ops/cleaner") as other:
            assert digest not in names(gc.collect(other, grace=NOW))
            gc.collect(other, grace=NOW, delete=True)
        assert registry.store.has(digest)

    store = Interrupted(root_of(registry), collect)
    return dataclasses.replace(registry, store=store), taken


def test_a_blob_is_not_collected_between_its_storing_and_its_row(
    registry: Registry, module: Callable[..., Path]
) -> None:
    own, taken = collecting(registry)
    (left,) = litter(registry, b"left")
    tasks.register(own, "intent", module())
    tasks.update(own, "intent", module(seed=1))
    tasks.redefine(own, "intent", module(labels=MORE))
    releases.compose(own, publish=True)
    assert len(taken) == 4
    assert not registry.store.has(left)
    assert gc.collect(registry, grace=NOW, delete=True).garbage == []
    assert [action.partition(" ")[0] for action in actions(registry)] == [
        "store:gc",
        "task:register",
        "task:update",
        "task:redefine",
        "release:publish",
        "channel:move",
    ]
    all_is_well(registry)


def test_a_backbones_blobs_are_not_collected_while_it_is_imported(
    registry: Registry, tmp_path: Path
) -> None:
    encoder = support.make_encoder("bert", tmp_path / "third", seed=3)
    own, taken = collecting(registry)
    assert backbones.register(own, "third", str(encoder)).changed
    assert len(taken) >= 5
    assert gc.collect(registry, grace=NOW, delete=True).garbage == []
    all_is_well(registry)


def test_what_was_stored_for_a_row_that_never_came_is_garbage_when_the_claim_has_run_out(
    registry: Registry, module: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> None:
        with reopened(registry) as own, claims.storing(own, {file_digest(module()): module()}):
            die()

    registry.engine.dispose()
    assert in_child(run) == KILLED
    digest = file_digest(module())
    with nothing_changes(registry):
        assert gc.collect(registry, grace=NOW, delete=True).garbage == []
    monkeypatch.setattr(claims, "_STORING", NOW)
    assert names(gc.collect(registry, grace=NOW, delete=True)) == [digest]
    monkeypatch.undo()
    tasks.register(registry, "intent", module())
    assert rows(registry)["blob_claims"] == []
    all_is_well(registry)


def test_a_claim_that_ran_out_and_was_collected_is_noticed_before_the_row_is_written(
    registry: Registry, module: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(digest: str) -> None:
        with reopened(registry) as other, monkeypatch.context() as patch:
            patch.setattr(claims, "_STORING", NOW)
            assert names(gc.collect(other, grace=NOW, delete=True)) == [digest]

    own = dataclasses.replace(registry, store=Interrupted(root_of(registry), too_late))
    with pytest.raises(StoreError, match="try again"):
        tasks.register(own, "intent", module())
    assert tasks.list(registry) == []
    assert rows(registry)["blob_claims"] == []
    tasks.register(registry, "intent", module())
    all_is_well(registry)


class Removing(LocalStore):
    """A store in which something happens while the first blob is removed."""

    def __init__(self, root: Path, meanwhile: Callable[[], object]) -> None:
        super().__init__(root)
        self.meanwhile: Callable[[], object] | None = meanwhile

    def remove(self, digest: str) -> None:
        if meanwhile := self.meanwhile:
            self.meanwhile = None
            meanwhile()
        super().remove(digest)


def test_whoever_wants_a_blob_that_is_being_removed_waits_and_stores_it_anew(
    registry: Registry, module: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (wanted,) = litter(registry, module().read_bytes())
    waiting = threading.Event()
    monkeypatch.setattr(claims, "_LONG_S", 0.0)
    monkeypatch.setattr(claims, "_log", SimpleNamespace(warning=lambda *_: waiting.set()))
    threads: list[threading.Thread] = []

    def register() -> None:
        with reopened(registry) as own:
            tasks.register(own, "intent", module())

    def meanwhile() -> None:
        threads.append(threading.Thread(target=register))
        threads[0].start()
        assert waiting.wait(30)
        # Others do not wait.
        with reopened(registry) as own:
            tasks.register(own, "mood", module(seed=1))

    store = Removing(root_of(registry), meanwhile)
    done = gc.collect(dataclasses.replace(registry, store=store), grace=NOW, delete=True)
    assert names(done) == [wanted]
    threads[0].join(30)
    assert [row.name for row in tasks.list(registry)] == ["intent", "mood"]
    assert rows(registry)["blob_claims"] == []
    all_is_well(registry)


class Slow(LocalStore):
    """A store in which something happens while it is listed."""

    def __init__(self, root: Path, meanwhile: Callable[[], object]) -> None:
        super().__init__(root)
        self.meanwhile = meanwhile

    def blobs(self) -> Iterator[StoredBlob]:
        first = next(super().blobs())
        yield first
        self.meanwhile()
        yield from (blob for blob in super().blobs() if blob.digest != first.digest)


def test_others_write_while_the_store_is_listed_and_lose_nothing(
    registry: Registry, module: Callable[..., Path]
) -> None:
    (left,) = litter(registry, b"left")

    def meanwhile() -> None:
        with reopened(registry) as own:
            tasks.register(own, "intent", module())
            releases.compose(own, publish=True)

    slow = dataclasses.replace(registry, store=Slow(root_of(registry), meanwhile))
    assert names(gc.collect(slow, grace=NOW)) == [left]
    assert names(gc.collect(slow, grace=NOW, delete=True)) == [left]
    all_is_well(registry)


def test_what_becomes_used_after_it_was_listed_is_not_removed(
    registry: Registry, module: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks.register(registry, "intent", module())
    needed, left = litter(registry, module(seed=1).read_bytes(), b"left")
    real = gc.blobs_to_keep

    def blobs_to_keep(*arguments: Any) -> set[str]:
        found = real(*arguments)
        monkeypatch.setattr(gc, "blobs_to_keep", real)
        with reopened(registry) as own:
            tasks.update(own, "intent", module(seed=1))
        assert {needed, left}.isdisjoint(found)
        return found

    monkeypatch.setattr(gc, "blobs_to_keep", blobs_to_keep)
    assert names(gc.collect(registry, grace=NOW, delete=True)) == [left]
    all_is_well(registry)


class Touched(LocalStore):
    """A store in which every blob is put again just before it is looked at once more."""

    def stat(self, digest: str) -> StoredBlob | None:
        os.utime(self.path(digest))
        return super().stat(digest)


def test_what_was_put_again_after_it_was_listed_counts_as_young(registry: Registry) -> None:
    (left,) = litter(registry, b"left", age=9 * DAY)
    touched = dataclasses.replace(registry, store=Touched(root_of(registry)))
    assert names(gc.collect(touched)) == [left]
    before = rows(registry)
    assert gc.collect(touched, delete=True).garbage == []
    assert registry.store.has(left)
    assert rows(registry) == before


def test_two_collections_at_once_remove_everything_once(registry: Registry) -> None:
    litter(registry, *(b"%d" % number for number in range(200)))
    counts: list[int] = []

    def run() -> None:
        with reopened(registry) as own:
            counts.append(gc.collect(own, grace=NOW, delete=True).count)

    all_at_once(run, run)
    assert sum(counts) == 200
    assert gc.collect(registry, grace=NOW).garbage == []


def test_nothing_that_others_register_meanwhile_is_lost(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    done = threading.Event()
    removed: list[int] = []

    def collect() -> None:
        with reopened(registry, "ops/cleaner") as own:
            while not done.is_set():
                removed.append(gc.collect(own, grace=NOW, delete=True).count)

    def update() -> None:
        with reopened(registry) as own:
            for seed in range(1, 7):
                litter(own, b"update %d" % seed)
                tasks.update(own, "intent", module(seed=seed))

    def compose() -> None:
        with reopened(registry) as own:
            for seed in range(6):
                litter(own, b"compose %d" % seed)
                tasks.register(own, f"task-{seed}", module(seed=seed))
                made = releases.compose(own, publish=True)
                channels.move(own, "production", str(made.release))

    def write() -> None:
        try:
            all_at_once(update, compose)
        finally:
            done.set()

    all_at_once(write, collect, collect)
    assert sum(removed) >= 1
    assert len(tasks.show(registry, "intent").versions) == 7
    assert len(tasks.list(registry)) == 7
    gc.collect(registry, grace=NOW, delete=True)
    all_is_well(registry)


def test_processes_register_while_another_collects(
    registry: Registry, module: Callable[..., Path]
) -> None:
    tasks.register(registry, "intent", module())
    paths = [[module(seed=10 * i + j) for j in range(1, 5)] for i in range(2)]
    registry.engine.dispose()

    def update(own_paths: list[Path]) -> None:
        with reopened(registry) as own:
            for path in own_paths:
                own.store.put(path.name.encode())
                tasks.update(own, "intent", path)

    def collect() -> None:
        with reopened(registry) as own:
            while len(tasks.show(own, "intent").versions) < 9:
                gc.collect(own, grace=NOW, delete=True)

    writers = [lambda own=own: update(own) for own in paths]
    assert finish(start_children([*writers, collect])) == [0, 0, 0]
    assert len(tasks.show(registry, "intent").versions) == 9
    gc.collect(registry, grace=NOW, delete=True)
    all_is_well(registry)


# A collection that is killed.


@pytest.mark.parametrize("moment", ["while removing", "before the event is committed"])
def test_a_collection_that_is_killed_leaves_a_registry_that_works_and_its_rerun_finishes(
    registry: Registry,
    module: Callable[..., Path],
    moment: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used(registry, module)
    new = module("tagging", tap=2, seed=7)
    digests = litter(registry, *(b"%d" % number for number in range(120)), new.read_bytes())
    before = unclaimed(registry)
    registry.engine.dispose()

    class Killed(LocalStore):
        removed = 0

        def remove(self, digest: str) -> None:
            if moment == "while removing" and self.removed == 110:
                die()
            super().remove(digest)
            self.removed += 1

    def run() -> None:
        with reopened(registry) as own, pytest.MonkeyPatch.context() as patch:
            if moment != "while removing":
                patch.setattr("registry.database.unit_of_work.UnitOfWork.record", lambda *_: die())
            gc.collect(dataclasses.replace(own, store=Killed(root_of(own))), grace=NOW, delete=True)

    assert in_child(run) == KILLED
    assert unclaimed(registry) == before
    left = [digest for digest in digests if registry.store.has(digest)]
    assert len(left) == (11 if moment == "while removing" else 0)
    all_is_well(registry)
    # As if some time had passed.
    monkeypatch.setattr(claims, "_BUSY", NOW)
    plan = gc.collect(registry, grace=NOW)
    assert set(names(plan)) == set(left)
    assert names(gc.collect(registry, grace=NOW, delete=True)) == names(plan)
    assert gc.collect(registry, grace=NOW).garbage == []
    # What both removed is in the log, and once.
    events = [event.details for event in audit.events(registry) if event.action == "store:gc"]
    assert [event.get("interrupted", False) for event in events] == [True, False][: len(events)]
    assert sum(event["count"] for event in events) == 121
    monkeypatch.setattr(claims, "_REMOVING", NOW)
    tasks.update(registry, "slots", new)
    assert gc.collect(registry, grace=NOW, delete=True).garbage == []
    assert rows(registry)["blob_claims"] == []
    assert sum("gc" in action for action in actions(registry)) == len(events)
    all_is_well(registry)


def test_a_collection_begins_no_removal_when_its_turn_is_over(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = litter(registry, *(b"%d" % number for number in range(7)))
    monkeypatch.setattr(claims, "TURN_S", 10.0)
    now = [0.0]
    monkeypatch.setattr("registry.storage.gc.time.clock_gettime", lambda _: now[0])
    claimed: list[int] = []

    class Long(LocalStore):
        def remove(self, digest: str) -> None:
            claimed.append(len(rows(registry)["blob_claims"]))
            now[0] += 4
            super().remove(digest)

    own = dataclasses.replace(registry, store=Long(root_of(registry)))
    assert set(names(gc.collect(own, grace=NOW, delete=True))) == set(digests)
    # Three in a turn; what a turn has removed is kept for the log until the end.
    assert claimed == [7, 7, 7, 7, 7, 7, 7]
    assert audit.events(registry)[-1].details["count"] == 7
    assert rows(registry)["blob_claims"] == []


def test_a_missing_database_removes_nothing(registry: Registry, tmp_path: Path) -> None:
    from registry import Registry as Opened
    from registry.errors import DatabaseError

    (left,) = litter(registry, b"left")
    other = Opened.open(database=f"{tmp_path}/none.db", store=str(root_of(registry)))
    with pytest.raises(DatabaseError, match="no database"):
        gc.collect(other, grace=NOW, delete=True)
    assert registry.store.has(left)
