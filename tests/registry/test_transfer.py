"""Tasks and releases travel in one file between registries that share nothing."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from centra.errors import (
    BlobNotFoundError,
    ConflictError,
    CorruptBlobError,
    FormatError,
    InvalidNameError,
    NotFoundError,
    StoreError,
    StoreNotWritableError,
    UnsupportedFormatError,
    UsageError,
    VerificationError,
)
from centra.formats.documents import canonical_json, sha256
from centra.formats.manifest import ReleaseManifest
from centra.formats.task_module import TaskModule
from centra.releases.compose import ComposeError
from centra.releases.signing import SignatureError
from centra.store import LocalStore, open_store
from centra.system.files import file_digest
from centra.tokenization import trial as tokenizer_trial
from registry import Registry, audit, backbones, channels, releases, signatures, tasks
from registry.database.engine import make_engine
from registry.database.migrations import upgrade
from registry.errors import NotOwnerError, TaskNotFoundError
from registry.releases import compose
from registry.rules.lifecycle import Actor
from registry.storage import gc
from registry.tasks.versioning import AddedVersion, VersionRequest, add_version
from registry.transfer import ImportedTask, export_file, import_file, importing
from registry.transfer.archive import Export, unpack
from tests import support
from tests.registry.helpers import (
    ADA,
    BOB,
    Registries,
    acting,
    actions,
    anonymous,
    nothing_changes,
    refused,
    root_of,
    rows,
)
from tests.support import version_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from centra.formats.identities import Digest
    from centra.formats.task_module import ModuleFile
    from tests.registry.helpers import Databases, Sqlite

TEXTS = ["wake me at seven", "play some jazz"]
Files = dict[str, bytes]


@pytest.fixture
def other(
    databases: Databases, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Registry]:
    """An empty registry on the other kind of database, and with the other kind of store."""
    if databases.name == "sqlite":
        kind, store = "postgresql", open_store(request.getfixturevalue("s3_url"))
    else:
        kind, store = "sqlite", LocalStore(tmp_path / "other")
    with request.getfixturevalue(f"{kind}_databases").empty(tmp_path) as url:
        engine = make_engine(url)
        upgrade(engine)
        yield Registry(engine=engine, store=store, actor=Actor.parse(ADA))
        engine.dispose()


@pytest.fixture
def target(make_registry: Callable[[], Registry]) -> Registry:
    """A second registry, with two backbones and no task."""
    return make_registry()


@pytest.fixture
def full(
    registry: Registry, module: Callable[..., Path], bring: Callable[..., Registry]
) -> Registry:
    """A registry with intent of team nlu, slots of team vision, and release 1 of both."""
    return bring("full", lambda: filled(registry, module))


def filled(registry: Registry, module: Callable[..., Path]) -> Registry:
    tasks.register(registry, "intent", module())
    tasks.register(acting(registry, BOB), "slots", module("tagging", tap=2))
    compose(registry, publish=True)
    return registry


@pytest.fixture(scope="module")
def places(
    sqlite_databases: Sqlite, template_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Registries]:
    """Registries on SQLite, for what does not depend on the database."""
    places = Registries(sqlite_databases, template_store, tmp_path_factory.mktemp("places"))
    yield places
    places.close()


@pytest.fixture(scope="module")
def release_file(
    places: Registries, module: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An export of a signed release of intent and slots."""
    folder = tmp_path_factory.mktemp("exported")
    with places.lend(folder) as registry:
        filled(registry, module)
        signatures.sign(registry, "1", support.make_key(folder / "key"))
        export_file(registry, folder / "release.tar", release="1")
    return folder / "release.tar"


@pytest.fixture(scope="module")
def receiver(places: Registries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry for files that it refuses, and so leaves as it was to the next test."""
    with places.lend(tmp_path_factory.mktemp("receiver")) as registry:
        yield anonymous(registry)


def content(registry: Registry) -> tuple[Any, ...]:
    """All that is in a registry, whatever its store."""
    store = registry.store
    signed = [store.signatures(row.digest) for row in releases.list(registry)]
    blobs = {(blob.digest, blob.size) for blob in store.blobs()}
    return rows(registry), blobs, store.pointers(), signed


@contextmanager
def unchanged(registry: Registry) -> Iterator[None]:
    before = content(registry)
    yield
    assert content(registry) == before


def logits(registry: Registry, reference: str) -> dict[str, Any]:
    return releases.load(registry, reference).logits(TEXTS)


def read_tar(file: Path) -> Files:
    with tarfile.open(file) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive.getmembers()}


def write_tar(file: Path, files: Files) -> Path:
    """A tar as Centra writes it, of other content."""
    with tarfile.open(file, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return file


def forged(
    file: Path, target: Path, change: Callable[[dict[str, Any], dict[str, bytes]], None]
) -> Path:
    """The file with its document and blobs changed, and made consistent again by who did that."""
    files = read_tar(file)
    document = json.loads(files.pop("export.json"))
    blobs = {name.removeprefix("blobs/"): data for name, data in files.items()}
    change(document, blobs)
    del document["checksum"]
    document["blobs"] = {digest: len(data) for digest, data in blobs.items()}
    document["checksum"] = sha256(canonical_json(document))
    members = {f"blobs/{digest}": blobs[digest] for digest in sorted(blobs)}
    return write_tar(target, {"export.json": canonical_json(document), **members})


def put(blobs: dict[str, bytes], data: bytes) -> str:
    blobs[sha256(data)] = data
    return sha256(data)


# There and back


def test_a_release_is_the_same_release_on_the_other_side(
    full: Registry, other: Registry, tmp_path: Path
) -> None:
    key = support.make_key(tmp_path / "key")
    signatures.sign(full, "1", key)
    done = export_file(full, tmp_path / "release.tar", release="latest")
    assert (done.release, done.tasks) == (
        1,
        {"intent": version_number("1.0"), "slots": version_number("1.0")},
    )
    assert (done.digest, done.size) == (
        file_digest(tmp_path / "release.tar"),
        (tmp_path / "release.tar").stat().st_size,
    )

    found = import_file(anonymous(other), tmp_path / "release.tar")

    there, here = releases.show(full, "1"), releases.show(other, "1")
    assert here.digest == there.digest
    assert (here.base, here.channels, here.tasks) == (None, [], there.tasks)
    assert found.release is not None
    assert (found.digest, found.changed) == (done.digest, True)
    assert (found.release.release, found.release.digest, found.release.changed) == (
        1,
        there.digest,
        True,
    )
    assert [(b.backbone, b.changed) for b in found.backbones] == [("tiny@1", True)]
    assert found.tasks == [
        ImportedTask(
            task=task,
            version=version_number("1.0"),
            change="register",
            forced=False,
            current=version_number("1.0"),
            state="active",
        )
        for task in ("intent", "slots")
    ]
    assert [(row.name, row.team) for row in tasks.list(other)] == [
        ("intent", "nlu"),
        ("slots", "vision"),
    ]
    verified = releases.verify(other, "1", keys=[support.public(key)])
    assert verified.parity == {"intent": 0.0, "slots": 0.0}
    ours, theirs = logits(full, "1"), logits(other, "1")
    for task, arrays in ours.items():
        assert all(np.array_equal(a, b) for a, b in zip(arrays, theirs[task], strict=True))
    assert channels.list(other) == []
    assert other.store.pointers() == []
    events = audit.events(other)
    assert [f"{event.action} {event.subject}" for event in events] == [
        "backbone:register tiny",
        "task:register intent",
        "task:register slots",
        "release:publish 1",
        f"registry:import sha256:{done.digest}",
    ]
    assert events[-1].details == {
        "backbones": ["tiny@1"],
        "tasks": {"intent": "1.0", "slots": "1.0"},
        "release": 1,
        "signatures": [row.signature for row in signatures.of_release(full, "1")],
    }
    assert audit.verify(other).events == 5


def test_importing_twice_changes_nothing(full: Registry, other: Registry, tmp_path: Path) -> None:
    signatures.sign(full, "1", support.make_key(tmp_path / "key"))
    export_file(full, tmp_path / "release.tar", release="1")
    importer = anonymous(other)
    first = import_file(importer, tmp_path / "release.tar")

    with unchanged(other):
        again = import_file(importer, tmp_path / "release.tar")

    assert (again.changed, again.digest) == (False, first.digest)
    assert [task.change for task in again.tasks] == [None, None]
    assert [task.version for task in again.tasks] == [task.version for task in first.tasks]
    assert again.release is not None
    assert (again.release.changed, again.release.signatures) == (False, 0)
    with unchanged(full):  # And it came from here.
        assert not import_file(full, tmp_path / "release.tar").changed


def test_the_same_content_gives_the_same_bytes(
    full: Registry, target: Registry, tmp_path: Path
) -> None:
    export_file(full, tmp_path / "one.tar", release="1")
    import_file(anonymous(target), tmp_path / "one.tar")
    compose(target, publish=True)

    export_file(acting(full, BOB), tmp_path / "two.tar", release="latest")
    export_file(target, tmp_path / "three.tar", release="1")

    one = (tmp_path / "one.tar").read_bytes()
    assert (tmp_path / "two.tar").read_bytes() == (tmp_path / "three.tar").read_bytes() == one
    with tarfile.open(tmp_path / "one.tar") as archive:
        members = archive.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {
        (0, 0, 0, "", "", 0o644)
    }
    assert members[0].name == "export.json"
    assert [m.name for m in members[1:]] == sorted(m.name for m in members[1:])
    # With its team: three letters of a name stand in a digest now and then.
    assert b"nlu/ada" not in read_tar(tmp_path / "one.tar")["export.json"]


def test_a_file_that_is_taken_back_and_forth_keeps_its_release(
    full: Registry, target: Registry, module: Callable[..., Path], tmp_path: Path
) -> None:
    export_file(full, tmp_path / "there.tar", release="1")
    import_file(anonymous(target), tmp_path / "there.tar")
    tasks.update(target, "intent", module(seed=1))
    made = compose(target, publish=True)
    export_file(target, tmp_path / "back.tar", release=str(made.release))

    found = import_file(full, tmp_path / "back.tar")

    assert [(t.task, t.version, t.change) for t in found.tasks] == [
        ("intent", version_number("1.1"), "update"),
        ("slots", version_number("1.0"), None),
    ]
    assert found.release is not None
    assert (found.release.release, found.release.digest) == (2, made.digest)
    assert channels.show(full, "latest").release == 1
    assert releases.show(full, "2").base is None


# Tasks


def test_an_unknown_task_is_registered_for_its_team(
    full: Registry, target: Registry, tmp_path: Path
) -> None:
    export_file(full, tmp_path / "tasks.tar", references=["slots", "intent@1.0"])
    found = import_file(anonymous(target), tmp_path / "tasks.tar")

    assert found.release is None
    assert [(t.task, t.version, t.change) for t in found.tasks] == [
        ("intent", version_number("1.0"), "register"),
        ("slots", version_number("1.0"), "register"),
    ]
    assert tasks.show(target, "slots").team == "vision"
    assert compose(target).parity == {}, "proven when it was imported"
    details = {event.subject: event.details for event in audit.events(target)}
    assert details["intent"]["parity"] < 1e-6 > details["slots"]["parity"]


def test_an_unknown_task_can_be_given_to_another_team(
    full: Registry, target: Registry, tmp_path: Path
) -> None:
    export_file(full, tmp_path / "slots.tar", references=["slots"])
    with refused(target, InvalidNameError):
        import_file(target, tmp_path / "slots.tar", team="No Team")
    with refused(target, NotOwnerError, "vision"):
        import_file(target, tmp_path / "slots.tar")

    import_file(target, tmp_path / "slots.tar", team="nlu")

    assert tasks.show(target, "slots").team == "nlu"


def test_known_tasks_are_updated_or_redefined(
    full: Registry,
    target: Registry,
    module: Callable[..., Path],
    tmp_path: Path,
) -> None:
    tasks.register(target, "intent", module(seed=7))
    tasks.register(target, "slots", module())
    export_file(full, tmp_path / "tasks.tar", references=["intent", "slots"])

    found = import_file(target, tmp_path / "tasks.tar", team="ignored")

    assert [(t.task, t.version, t.change) for t in found.tasks] == [
        ("intent", version_number("1.1"), "update"),
        ("slots", version_number("2.0"), "redefine"),
    ]
    assert actions(target)[-3:] == [
        "task:update intent",
        "task:redefine slots",
        f"registry:import sha256:{found.digest}",
    ]
    assert audit.events(target)[-2].details["difference"]
    assert tasks.show(target, "slots").team == "nlu"


def test_bytes_of_an_earlier_version_are_known(
    full: Registry, module: Callable[..., Path], tmp_path: Path
) -> None:
    export_file(full, tmp_path / "intent.tar", references=["intent"])
    tasks.update(full, "intent", module(seed=1))

    with nothing_changes(full):
        found = import_file(full, tmp_path / "intent.tar")
    assert [(t.version, t.change) for t in found.tasks] == [(version_number("1.0"), None)]


def test_another_team_s_task_needs_force(
    full: Registry,
    target: Registry,
    module: Callable[..., Path],
    tmp_path: Path,
) -> None:
    export_file(full, tmp_path / "release.tar", release="1")
    tasks.register(acting(target, BOB), "intent", module(seed=7))
    with refused(target, NotOwnerError, "task intent belongs to team vision"):
        import_file(target, tmp_path / "release.tar")

    found = import_file(target, tmp_path / "release.tar", force=True)

    assert [(t.change, t.forced) for t in found.tasks] == [("update", True), ("register", True)]
    assert [e.forced for e in audit.events(target)[-4:]] == [True, True, False, True]


def test_retired_tasks_and_backbones_stay_so(
    full: Registry,
    target: Registry,
    module: Callable[..., Path],
    tmp_path: Path,
) -> None:
    export_file(full, tmp_path / "intent.tar", references=["intent"])
    tasks.register(target, "intent", module(seed=7))
    tasks.retire(target, "intent")
    with refused(target, ConflictError, "intent is retired"):
        import_file(target, tmp_path / "intent.tar")
    backbones.retire(target, "tiny@1")
    with refused(target, ConflictError, "tiny@1 is retired"):
        import_file(target, tmp_path / "intent.tar")


# Backbones


def test_a_backbone_that_is_there_keeps_its_name(
    full: Registry, make_registry: Callable[[], Registry], tmp_path: Path
) -> None:
    export_file(full, tmp_path / "intent.tar", references=["intent"])
    found = import_file(make_registry(), tmp_path / "intent.tar")
    assert [(b.backbone, b.changed) for b in found.backbones] == [("tiny@1", False)]


def test_a_name_taken_by_another_backbone_gets_its_next_version(
    full: Registry, other: Registry, imported: Callable[[str], support.Backbone], tmp_path: Path
) -> None:
    backbones.register(other, "tiny", str(imported("roberta").folder))
    export_file(full, tmp_path / "intent.tar", references=["intent"])

    found = import_file(other, tmp_path / "intent.tar")

    assert [(b.backbone, b.changed) for b in found.backbones] == [("tiny@2", True)]
    here, there = backbones.show(other, "tiny@2"), backbones.show(full, "tiny@1")
    assert (here.digest, here.source) == (there.digest, there.source)
    assert all(other.store.has(blob) for blob in backbones.spec(other, "tiny@2").blobs())
    assert tasks.show(other, "intent").versions[0].backbone == "tiny@2"


def test_a_release_on_two_backbones_travels_too(
    full: Registry, target: Registry, module: Callable[..., Path], tmp_path: Path
) -> None:
    tasks.update(full, "intent", module(on="other", seed=3))
    made = compose(full, publish=True, allow_two_backbones=True)
    export_file(full, tmp_path / "release.tar", release="2")

    found = import_file(anonymous(target), tmp_path / "release.tar")

    assert {b.backbone for b in found.backbones} == {"tiny@1", "other@1"}
    assert releases.show(target, "1").digest == made.digest
    assert releases.verify(target, "1").parity == {"intent": 0.0, "slots": 0.0}


# All or nothing


def test_an_import_that_fails_half_way_leaves_no_row_and_a_rerun_finishes(
    full: Registry, target: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_file(full, tmp_path / "release.tar", release="1")
    before = rows(target)

    def failing(uow: Any, request: VersionRequest, module: ModuleFile) -> AddedVersion:
        if request.task == "slots":
            raise KeyboardInterrupt
        return add_version(uow, request, module)

    with monkeypatch.context() as patch:
        patch.setattr(importing, "add_version", failing)
        with pytest.raises(KeyboardInterrupt):
            import_file(anonymous(target), tmp_path / "release.tar")
    assert rows(target) == before

    assert import_file(anonymous(target), tmp_path / "release.tar").changed
    assert releases.verify(target, "1").parity == {"intent": 0.0, "slots": 0.0}


def test_nothing_is_collected_while_it_is_imported(
    full: Registry, target: Registry, tmp_path: Path
) -> None:
    export_file(full, tmp_path / "release.tar", release="1")
    own = anonymous(target)
    counts: list[int] = []

    class Collected(LocalStore):
        def put(self, source: Path | bytes, digest: Digest | None = None) -> Digest:
            digest = super().put(source, digest)
            counts.append(gc.collect(target, grace=timedelta(), delete=True).count)
            return digest

    store = Collected(root_of(target))
    import_file(dataclasses.replace(own, store=store), tmp_path / "release.tar")
    assert set(counts) == {0}
    assert releases.verify(target, "1").files


def test_importing_again_mends_a_lost_blob(full: Registry, tmp_path: Path) -> None:
    export_file(full, tmp_path / "intent.tar", references=["intent"])
    digest = tasks.show(full, "intent").versions[0].digest
    full.store.remove(digest)

    assert not import_file(full, tmp_path / "intent.tar").changed
    assert full.store.has(digest)


def test_a_signature_made_since_is_added(full: Registry, target: Registry, tmp_path: Path) -> None:
    export_file(full, tmp_path / "before.tar", release="1")
    import_file(anonymous(target), tmp_path / "before.tar")
    done = signatures.sign(full, "1", support.make_key(tmp_path / "key"))
    export_file(full, tmp_path / "after.tar", release="1")

    found = import_file(anonymous(target), tmp_path / "after.tar")

    assert found.release is not None
    assert (found.changed, found.release.changed, found.release.signatures) == (True, False, 1)
    assert audit.events(target)[-1].details["signatures"] == [done.signature]
    (row,) = signatures.of_release(target, "1")
    assert (row.signature, row.key, row.signed_by) == (done.signature, None, None)
    assert signatures.signed_by(target, "1", [support.public(tmp_path / "key")]) is None


# Requests that make no sense


def test_what_cannot_be_exported_is_refused(full: Registry, tmp_path: Path) -> None:
    file = tmp_path / "out.tar"
    with nothing_changes(full):
        for options, error in (
            ({}, UsageError),
            ({"references": ["intent"], "release": "1"}, UsageError),
            ({"references": ["intent", "intent@1.0"]}, UsageError),
            ({"references": ["nope"]}, TaskNotFoundError),
            ({"references": ["intent@9.9"]}, TaskNotFoundError),
            ({"release": "7"}, NotFoundError),
        ):
            with pytest.raises(error):
                export_file(full, file, **options)
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(StoreNotWritableError):
            export_file(full, tmp_path / "file" / "out.tar", release="1")
    full.store.remove(tasks.show(full, "slots").versions[0].digest)
    with pytest.raises(BlobNotFoundError):
        export_file(full, file, release="1")
    assert list(tmp_path.glob("*.tar*")) == list(tmp_path.glob(".out*")) == []


def test_a_damaged_signature_stays_behind(full: Registry, tmp_path: Path) -> None:
    full.store.write_signature(releases.show(full, "1").digest, b"noise")
    export_file(full, tmp_path / "release.tar", release="1")
    document = json.loads(read_tar(tmp_path / "release.tar")["export.json"])
    assert document["release"]["signatures"] == []


def test_files_that_are_no_export_are_refused(
    receiver: Registry, release_file: Path, module: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "empty.tar").write_bytes(b"")
    (tmp_path / "zeros.tar").write_bytes(bytes(10240))
    write_tar(tmp_path / "nothing.tar", {})
    write_tar(tmp_path / "foreign.tar", {"../../etc/passwd": b"root"})
    write_tar(tmp_path / "json.tar", {"export.json": b'{"format": "another"}'})
    with tarfile.open(tmp_path / "link.tar", "w") as archive:
        link = tarfile.TarInfo("export.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as archive:
        archive.add(release_file, "export.json")
    with nothing_changes(receiver):
        for file in (*tmp_path.glob("*.tar"), module(), tmp_path):
            with pytest.raises(FormatError, match=str(file)):
                import_file(receiver, file)
        with pytest.raises(NotFoundError, match="no such file"):
            import_file(receiver, tmp_path / "missing.tar")


def test_another_major_version_is_refused(
    receiver: Registry, release_file: Path, tmp_path: Path
) -> None:
    def newer(document: dict[str, Any], _blobs: Files) -> None:
        document["format_version"] = "2.0"

    file = forged(release_file, tmp_path / "newer.tar", newer)
    with refused(receiver, UnsupportedFormatError, "centra/export 2.0", "centra/export 1.x"):
        import_file(receiver, file)


def test_a_newer_minor_version_is_read(
    places: Registries, release_file: Path, tmp_path: Path
) -> None:
    def newer(document: dict[str, Any], _blobs: Files) -> None:
        document.update(format_version="1.7", note="what nobody knows yet")

    file = forged(release_file, tmp_path / "newer.tar", newer)
    with places.lend(tmp_path) as registry:
        assert import_file(anonymous(registry), file).changed


def test_a_file_that_is_cut_off_anywhere_is_refused(
    receiver: Registry, release_file: Path, tmp_path: Path
) -> None:
    data, file = release_file.read_bytes(), tmp_path / "cut.tar"
    with nothing_changes(receiver):
        for size in (*range(0, len(data), len(data) // 40), 512, len(data) - 1, len(data) - 9000):
            file.write_bytes(data[:size])
            with pytest.raises(FormatError, match=r"cut off|no header"):
                import_file(receiver, file)
        file.write_bytes(data + bytes(10240))
        with pytest.raises(FormatError, match="behind its last file"):
            import_file(receiver, file)


def test_a_flipped_bit_anywhere_is_found(
    receiver: Registry, release_file: Path, tmp_path: Path
) -> None:
    size, document = release_file.stat().st_size, len(read_tar(release_file)["export.json"])
    blob = 512 + document + -document % 512
    early = range(blob + 512)  # Header, document, padding, and the first blob's header.
    rest = range(blob + 512, size, size // 40)
    file = tmp_path / "flipped.tar"
    file.write_bytes(release_file.read_bytes())
    with nothing_changes(receiver):
        for byte in (*early[::11], *early[140:165], *rest, size - 1):
            support.flip(file, 8 * byte + byte % 8)
            with pytest.raises((FormatError, CorruptBlobError)):
                import_file(receiver, file)
            support.flip(file, 8 * byte + byte % 8)
    assert file.read_bytes() == release_file.read_bytes()


def test_members_that_the_document_does_not_list_are_refused(
    receiver: Registry, release_file: Path, tmp_path: Path
) -> None:
    files = read_tar(release_file)
    extra = b"not listed"
    names = list(files)
    for changed in (
        {**files, f"blobs/{sha256(extra)}": extra},
        {**files, "../outside": extra},
        {names[0]: files[names[0]], "../outside": extra, **files},
        {name: files[name] for name in names[:-1]},
        {name: files[name] for name in (names[0], *reversed(names[1:]))},
        {name: files[name] + b"\0" for name in names},
    ):
        file = write_tar(tmp_path / "changed.tar", changed)
        with refused(receiver, FormatError):
            import_file(receiver, file)
    assert not (tmp_path / "outside").exists()


# Files that somebody made up


def drop_task(document: dict[str, Any], blobs: Files) -> None:
    del blobs[document["tasks"].pop("slots")["module"]]


def add_blob(_document: dict[str, Any], blobs: Files) -> None:
    put(blobs, b"something else")


def drop_layer(document: dict[str, Any], blobs: Files) -> None:
    (digest,) = document["backbones"]
    del blobs[json.loads(blobs[digest])["layers"][-1]]


def unnamed_backbone(document: dict[str, Any], _blobs: Files) -> None:
    document["backbones"] = {}


def pickled_module(document: dict[str, Any], blobs: Files) -> None:
    document["tasks"]["intent"]["module"] = put(blobs, b"PK\x03\x04 pickle")


def nameless_task(document: dict[str, Any], _blobs: Files) -> None:
    document["tasks"]["../intent"] = document["tasks"].pop("intent")


def no_task(document: dict[str, Any], blobs: Files) -> None:
    document.update(tasks={}, backbones={}, release=None)
    blobs.clear()


def other_manifest(document: dict[str, Any], blobs: Files) -> None:
    manifest = json.loads(blobs.pop(document["release"]["manifest"]))
    manifest["tasks"]["intent"]["tap_layer"] = 2
    document["release"]["manifest"] = put(blobs, canonical_json(manifest))


def foreign_signature(document: dict[str, Any], blobs: Files) -> None:
    document["release"]["signatures"].append(put(blobs, b"{}"))


def other_shapes(document: dict[str, Any], blobs: Files) -> None:
    """The backbone names another tensor than its layers hold; all else is made to fit."""
    ((digest, backbone),) = document["backbones"].items()
    spec = json.loads(blobs.pop(digest))
    spec["layer_tensors"]["more"] = [1]
    document["backbones"] = {put(blobs, canonical_json(spec)): backbone}


def senseless(**settings: Any) -> Callable[[dict[str, Any], Files], None]:
    """Another backbone.json, with its digest wherever it is named."""

    def change(document: dict[str, Any], blobs: Files) -> None:
        ((digest, backbone),) = document["backbones"].items()
        spec = json.loads(blobs.pop(digest))
        for key, value in settings.items():
            (spec["config"] if key in spec["config"] else spec)[key] = value
        document["backbones"] = {put(blobs, canonical_json(spec)): backbone}

    return change


def lead_out(document: dict[str, Any], blobs: Files) -> None:
    ((digest, _),) = document["backbones"].items()
    names = json.loads(blobs[digest])["tokenizer"]
    senseless(tokenizer={**names, "../../x": names["tokenizer.json"]})(document, blobs)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (senseless(num_attention_heads=0), "num_attention_heads 0"),
        (senseless(hidden_act="x"), "hidden_act 'x'"),
        (senseless(vocab_size=10**9), "word_embeddings.weight"),
        (senseless(num_layers=10**9), "num_layers is 1000000000, but 3 are named"),
        (lead_out, "tokenizer.../../x: expected a text of the form"),
    ],
    ids=["no heads", "odd activation", "large vocabulary", "many layers", "a path"],
)
def test_a_senseless_backbone_is_refused_before_anything_is_stored(
    change: Callable[[dict[str, Any], Files], None],
    says: str,
    receiver: Registry,
    release_file: Path,
    tmp_path: Path,
) -> None:
    file = forged(release_file, tmp_path / "forged.tar", change)
    with refused(receiver, FormatError, f"{file}: ", "backbone", says):
        import_file(receiver, file)


def test_a_task_without_a_release_is_proven_too(
    full: Registry, target: Registry, tmp_path: Path
) -> None:
    def lie(document: dict[str, Any], blobs: Files) -> None:
        task = document["tasks"]["intent"]
        (tmp_path / "honest").write_bytes(blobs.pop(task["module"]))
        honest = TaskModule.read(tmp_path / "honest")
        made_up = {**honest.tensors, "probe.logits": honest.tensors["probe.logits"] + 0.01}
        task["module"] = put(blobs, dataclasses.replace(honest, tensors=made_up).to_bytes())

    export_file(full, tmp_path / "intent.tar", references=["intent"])
    file = forged(tmp_path / "intent.tar", tmp_path / "forged.tar", lie)
    with refused(target, ComposeError, "task intent: parity failed"):
        import_file(anonymous(target), file)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (drop_task, FormatError, "not what its tasks merge to"),
        (add_blob, FormatError, "holds more than"),
        (drop_layer, FormatError, "lacks blobs of backbone tiny"),
        (unnamed_backbone, FormatError, "task intent: its backbone is not in the file"),
        (pickled_module, FormatError, "task intent: this is a pickle"),
        (nameless_task, FormatError, "tasks."),
        (no_task, FormatError, "names no task"),
        (other_manifest, FormatError, "not what its tasks merge to"),
        (foreign_signature, SignatureError, "a signature is damaged"),
        (other_shapes, FormatError, "layer_tensors: found 'more' (1,), its config needs None"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_file_that_contradicts_itself_is_refused(
    receiver: Registry,
    release_file: Path,
    tmp_path: Path,
    change: Callable[[dict[str, Any], Files], None],
    error: type[VerificationError],
    says: str,
) -> None:
    file = forged(release_file, tmp_path / "forged.tar", change)
    with refused(receiver, error, says):
        import_file(receiver, file)


def test_a_release_whose_task_fails_parity_is_refused(
    receiver: Registry, release_file: Path, tmp_path: Path
) -> None:
    """The module is sound, and so is the manifest; only the probe's answers are made up."""

    def lie(document: dict[str, Any], blobs: Files) -> None:
        task = document["tasks"]["intent"]
        (tmp_path / "honest").write_bytes(blobs.pop(task["module"]))
        honest = TaskModule.read(tmp_path / "honest")
        made_up = {**honest.tensors, "probe.logits": honest.tensors["probe.logits"] + 0.01}
        task["module"] = put(blobs, dataclasses.replace(honest, tensors=made_up).to_bytes())
        release = document["release"]
        manifest = json.loads(blobs.pop(release["manifest"]))
        manifest["tasks"]["intent"]["digest"] = task["module"]
        for signature in release["signatures"]:
            del blobs[signature]
        release.update(manifest=put(blobs, canonical_json(manifest)), signatures=[])

    file = forged(release_file, tmp_path / "forged.tar", lie)
    with refused(receiver, ComposeError, "task intent: parity failed"):
        import_file(receiver, file)


def test_a_changed_document_is_found_by_its_checksum(
    receiver: Registry, release_file: Path, tmp_path: Path
) -> None:
    files = read_tar(release_file)
    document = files.pop("export.json")
    for changed in (
        document.replace(b'"team":"nlu"', b'"team":"nls"'),
        document.replace(b'"team":"nlu"', b'"team": "nlu"'),
        document.replace(b'"team":"nlu"', b'"team":"\\u006elu"'),
    ):
        assert changed != document
        file = write_tar(tmp_path / "changed.tar", {"export.json": changed, **files})
        with refused(receiver, FormatError, "its checksum is another"):
            import_file(receiver, file)


def test_where_there_is_no_room_the_error_says_so(release_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="TMPDIR"):
        unpack(release_file, LocalStore(tmp_path / "file" / "below"))


def test_an_export_document_round_trips() -> None:
    export = Export.sealed(backbones={}, tasks={}, blobs={"ab" * 32: 3})
    again = Export.from_bytes(export.to_bytes(), "export.json")
    again.check("export.json")
    assert again.to_bytes() == export.to_bytes()
    assert again.release is None


def test_a_manifest_of_the_same_set_is_the_same_release(
    full: Registry, target: Registry, module: Callable[..., Path], tmp_path: Path
) -> None:
    """Composing on the other side what was imported makes no second release."""
    export_file(full, tmp_path / "release.tar", release="1")
    import_file(anonymous(target), tmp_path / "release.tar")

    plan = compose(target, publish=True)

    assert (plan.release, plan.published, plan.parity) == (1, False, {})
    assert channels.show(target, "latest").release == 1
    data = target.store.fetch(plan.digest).read_bytes()
    assert ReleaseManifest.from_bytes(data, "here").digest == releases.show(full, "1").digest


def test_tokenizers_that_are_not_known_here_are_tried(
    places: Registries, release_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer_trial, "_faults", {})
    monkeypatch.setattr(tokenizer_trial, "_fault", lambda _: "its tokenizer was tried")

    with places.lend(tmp_path) as known:
        import_file(known, release_file, force=True)
    with places.databases.empty(tmp_path) as url:
        engine = make_engine(url)
        upgrade(engine)
        new = Registry(engine=engine, store=LocalStore(tmp_path / "new"), actor=Actor.parse(ADA))
        with pytest.raises(
            FormatError, match=r"release\.tar: backbone tiny: its tokenizer was tried"
        ):
            import_file(new, release_file)
        engine.dispose()


@pytest.mark.parametrize("source", ["a\0b"])
def test_a_text_that_no_database_holds_is_refused(
    source: str, release_file: Path, receiver: Registry, tmp_path: Path
) -> None:
    files = read_tar(release_file)
    document = json.loads(files["export.json"])
    for backbone in document["backbones"].values():
        backbone["source"] = source
    del document["checksum"]
    document["checksum"] = sha256(canonical_json(document))
    file = write_tar(tmp_path / "x.tar", {**files, "export.json": canonical_json(document)})

    with pytest.raises(FormatError, match="source: expected a text of the form"):
        import_file(receiver, file)
