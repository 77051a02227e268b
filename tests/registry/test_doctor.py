from __future__ import annotations

import json
import os
import re
import shutil
import socket
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text

from centra.errors import StoreNotWritableError
from centra.formats.backbone import BackboneSpec
from centra.store import LocalStore, open_store
from centra.store.s3 import S3Store
from cli.doctor import mend
from registry import Registry, audit, backbones, channels, doctor, releases, tasks, transfer
from registry.database.engine import make_engine
from registry.database.migrations import SCHEMA, upgrade
from registry.rules.lifecycle import Actor
from registry.storage import scrub
from tests import support
from tests.registry.helpers import (
    ADA,
    blob_path,
    files,
    nothing_changes,
    opened,
    root_of,
    rows,
    ruled,
    unguarded,
    url_of,
)
from tests.services import _execute as execute
from tests.services import s3_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from centra.store import BlobProblem
    from tests.registry.helpers import Sqlite

NAMES = [
    "settings",
    "actor",
    "database",
    "migration",
    "tables",
    "policy",
    "audit log",
    "credentials",
    "store",
    "witnesses",
    "store writable",
    "clock",
    "permissions",
    "identity",
    "blobs",
    "garbage",
    "pointers",
]
OF_THE_STORE = ["witnesses", "store writable", "identity", "blobs", "garbage", "pointers"]
OF_THE_MIGRATION = [
    "tables",
    "policy",
    "audit log",
    "witnesses",
    "identity",
    "blobs",
    "garbage",
    "pointers",
]


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty current folder, and no setting in the environment."""
    for name in ("CENTRA_DATABASE_URL", "CENTRA_STORE", "CENTRA_ACTOR"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")


def in_use(registry: Registry, module: Callable[..., Path]) -> Registry:
    """Bring a registry to a state in which nothing is wrong with it."""
    tasks.register(registry, "intent", module())
    releases.compose(registry, publish=True)
    channels.move(registry, "production", "1")
    return registry


@pytest.fixture
def either(
    registry: Registry, module: Callable[..., Path], bring: Callable[..., Registry]
) -> Registry:
    """A healthy registry on either kind of database."""
    return bring("in use", lambda: in_use(registry, module))


@pytest.fixture(scope="module")
def healthy_once(
    sqlite_databases: Sqlite,
    template_store: Path,
    module: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Sqlite, Path]:
    """Such databases as :func:`healthy` has, and the store that its store is a copy of."""
    folder = tmp_path_factory.mktemp("healthy")
    shutil.copytree(template_store, folder / "store")
    with sqlite_databases.migrated(folder) as url:
        with opened(url, folder / "store") as registry:
            in_use(registry, module)
        return sqlite_databases.copies_of(url), folder / "store"


@pytest.fixture
def healthy(healthy_once: tuple[Sqlite, Path], tmp_path: Path) -> Iterator[Registry]:
    """A healthy registry on SQLite, for what has little to do with the database."""
    databases, store = healthy_once
    support.mirror(store, tmp_path / "healthy")
    with (
        databases.migrated(tmp_path) as url,
        opened(url, tmp_path / "healthy") as registry,
    ):
        yield registry


def examined(registry: Registry, **given: str | None) -> dict[str, doctor.Check]:
    """Every check of a registry by its name."""
    settings = {"database": url_of(registry), "store": registry.store.url, "actor": ADA, **given}
    checks = list(doctor.examine(**settings))
    assert [check.check for check in checks] == NAMES
    for check in checks:
        assert check.found
        assert (mend(check) is None) == (check.state in ("ok", "skipped"))
    return {check.check: check for check in checks}


def deeply(registry: Registry) -> doctor.Check:
    """The check that reads every blob."""
    settings = {"database": url_of(registry), "store": registry.store.url, "actor": ADA}
    *others, check = doctor.examine(**settings, deep=True)
    assert [other.check for other in others] == NAMES
    assert check.check == "contents"
    return check


def damage(registry: Registry, digest: str) -> None:
    """Change a byte of a stored blob, whose size stays."""
    path = registry.store.fetch(digest)
    data = path.read_bytes()
    bad = data[:-1] + bytes([data[-1] ^ 1])
    if isinstance(registry.store, LocalStore):
        path.write_bytes(bad)
    else:
        key = f"some/prefix/blobs/sha256/{digest[:2]}/{digest}"
        bucket = urlsplit(registry.store.url).netloc
        s3_client(registry.store.url).put_object(Bucket=bucket, Key=key, Body=bad)


def not_ok(checks: dict[str, doctor.Check]) -> dict[str, str]:
    return {name: check.state for name, check in checks.items() if check.state != "ok"}


def only(checks: dict[str, doctor.Check], name: str, state: str, *says: str) -> doctor.Check:
    """The one check that is not ok, which finds all this."""
    assert not_ok(checks) == {name: state}
    for part in says:
        assert part in checks[name].found
    return checks[name]


def skipped(names: list[str], **others: str) -> dict[str, str]:
    return {**dict.fromkeys(names, "skipped"), **others}


# A setup with which nothing is wrong.


def test_a_healthy_registry_is_fine_and_stays_as_it_is(either: Registry) -> None:
    with nothing_changes(either):
        checks = examined(either)
    assert not_ok(checks) == {}
    assert "from --database" in checks["settings"].found
    assert ADA in checks["actor"].found
    assert either.engine.name in checks["database"].found
    assert SCHEMA in checks["migration"].found
    assert "6 events" in checks["audit log"].found
    assert str(root_of(either)) in checks["store"].found
    assert ("the database and the store" in checks["clock"].found) == (
        either.engine.name == "postgresql"
    )
    assert "channels: 2" in checks["pointers"].found


def test_an_unused_registry_is_fine(empty_database: str, tmp_path: Path) -> None:
    engine = make_engine(empty_database)
    upgrade(engine)
    engine.dispose()
    folder = tmp_path / "not made yet"
    checks = list(doctor.examine(database=empty_database, store=str(folder), actor=ADA))
    assert {check.state for check in checks} == {"ok"}
    assert not folder.exists()


def test_a_password_is_never_shown(healthy: Registry) -> None:
    for check in doctor.examine(
        database="postgresql://me:hunter2@127.0.0.1:1/centra", store="nowhere", actor=ADA
    ):
        assert "hunter2" not in f"{check.found}{mend(check)}"


def test_settings_say_where_they_come_from(
    healthy: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "centra.toml"
    config.write_text(f'database = "{url_of(healthy)}"\nstore = "{root_of(healthy)}"\n')
    checks = {check.check: check for check in doctor.examine(actor=ADA)}
    assert checks["settings"].found == f"database from {config}, store from {config}"
    assert not_ok(checks) == {}
    monkeypatch.setenv("CENTRA_STORE", str(root_of(healthy)))
    found = next(doctor.examine(database=url_of(healthy))).found
    assert found == "database from --database, store from CENTRA_STORE"


# Settings.


def test_without_any_setting_it_says_how_to_begin() -> None:
    first, *rest = doctor.examine()
    assert (first.check, first.state) == ("settings", "problem")
    assert "centra.toml" in first.found
    assert "centra init" in (mend(first) or "")
    assert [check.check for check in rest] == NAMES[1:]
    assert {check.state for check in rest} == {"skipped"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"database": "mysql://x/y"}, "mysql"),
        ({"store": "ftp://x"}, "ftp://x"),
        ({"actor": "nobody"}, "TEAM/PERSON"),
    ],
)
def test_a_malformed_setting_is_named(given: dict[str, str], says: str) -> None:
    first, *rest = doctor.examine(
        **{"database": "sqlite:///none.db", "store": "none", "actor": ADA, **given}
    )
    assert (first.state, first.check) == ("problem", "settings")
    assert says in first.found
    assert {check.state for check in rest} == {"skipped"}


def test_a_malformed_file_of_settings_is_named(tmp_path: Path) -> None:
    (tmp_path / "centra.toml").write_text("database = [")
    first, *_ = doctor.examine()
    assert first.state == "problem"
    assert str(tmp_path / "centra.toml") in first.found


def test_a_malformed_policy_is_named_and_stops_nothing_else(
    healthy: Registry, tmp_path: Path
) -> None:
    (tmp_path / "centra.toml").write_text("[channels.production]\nmax_layerz = 3\n")
    checks = examined(healthy)
    only(checks, "policy", "problem", "channels.production.max_layerz")


def test_rules_that_were_never_applied_are_a_problem(healthy: Registry, tmp_path: Path) -> None:
    assert (
        examined(healthy)["policy"].found == "no policy was ever applied, and no channel has rules"
    )
    file = tmp_path / "centra.toml"
    file.write_text("[channels.production]\nmax_layers = 3\n")
    check = only(examined(healthy), "policy", "problem", f"{file} were never applied")
    assert mend(check) == "centra policy apply"


def test_a_file_that_says_something_else_than_the_policy_in_force_is_a_warning(
    healthy: Registry, tmp_path: Path
) -> None:
    file = tmp_path / "centra.toml"
    ruled(healthy, max_layers=3, parity=True)
    says = "version 1 by nlu/ada is in force, with rules for production"
    for content in (
        'actor = "nlu/ada"\n',
        "[channels.production]\nmax_layers = 3\nparity = true\noverwrite = false\n",
    ):
        file.write_text(content)
        checks = examined(healthy)
        assert not_ok(checks) == {}
        assert checks["policy"].found == says
    file.write_text("[channels.production]\nmax_layers = 4\n")
    check = only(examined(healthy), "policy", "warning", says, f"{file} says otherwise of:")
    assert check.found.splitlines()[1:] == [
        "channels.production.max_layers",
        "channels.production.parity",
    ]
    assert mend(check) == "centra policy apply"


def test_an_actor_without_a_team_is_a_warning(healthy: Registry) -> None:
    check = only(examined(healthy, actor=None), "actor", "warning", "for no team")
    assert "CENTRA_ACTOR" in (mend(check) or "")


# The database.


def test_a_database_that_is_not_there_is_reported_and_the_store_still_examined(
    healthy: Registry, tmp_path: Path
) -> None:
    checks = examined(healthy, database=f"sqlite:///{tmp_path}/none.db")
    assert not_ok(checks) == skipped(["migration", *OF_THE_MIGRATION], database="problem")
    assert f"{tmp_path}/none.db" in checks["database"].found
    assert mend(checks["database"]) == "centra db upgrade"
    assert not (tmp_path / "none.db").exists()


def test_a_file_that_is_no_database_is_reported(healthy: Registry, tmp_path: Path) -> None:
    (tmp_path / "notes").write_bytes(b"not a database" * 99)
    checks = examined(healthy, database=f"sqlite:///{tmp_path}/notes")
    assert checks["database"].state == "problem"
    assert "not a database" in checks["database"].found


def test_a_server_that_does_not_answer_is_reported(healthy: Registry) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    checks = examined(healthy, database=f"postgresql://me:secret@127.0.0.1:{port}/centra")
    assert not_ok(checks) == skipped(["migration", *OF_THE_MIGRATION], database="problem")
    assert "refused" in checks["database"].found
    assert "address" in (mend(checks["database"]) or "")


def test_a_database_without_tables_or_of_another_age_is_reported(
    either: Registry, empty_database: str
) -> None:
    engine = make_engine(empty_database)
    with engine.connect():
        pass  # SQLite makes its file.
    checks = examined(either, database=empty_database)
    assert not_ok(checks) == skipped(OF_THE_MIGRATION, migration="problem")
    assert "no Centra tables" in checks["migration"].found
    assert mend(checks["migration"]) == "centra db upgrade"
    upgrade(engine)
    for version, advice in (("0001", "centra db upgrade"), ("9999", "install a newer Centra")):
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE alembic_version SET version_num = '{version}'"))
        checks = examined(either, database=empty_database)
        assert not_ok(checks) == skipped(OF_THE_MIGRATION, migration="problem")
        assert version in checks["migration"].found
        assert SCHEMA in checks["migration"].found
        assert mend(checks["migration"]) == advice
    engine.dispose()


def test_tables_that_were_changed_by_hand_are_reported(
    either: Registry, empty_database: str
) -> None:
    engine = make_engine(empty_database)
    upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("DROP INDEX ix_audit_events_at"))
    engine.dispose()
    checks = examined(either, database=empty_database)
    assert checks["tables"].state == "problem"
    assert "ix_audit_events_at" in checks["tables"].found


def test_a_changed_log_is_reported(either: Registry) -> None:
    with either.engine.begin() as connection, unguarded(connection):
        connection.execute(text("UPDATE audit_events SET actor = 'nlu/eve' WHERE id = 4"))
    only(examined(either), "audit log", "problem", "audit event 4")


def test_a_log_that_the_store_has_seen_another_of_is_reported(either: Registry) -> None:
    either.store.write_witness((4, "f" * 64))
    either.store.write_witness((9, "e" * 64))
    check = only(
        examined(either), "witnesses", "problem", f"4:{'f' * 64}, but that event is another"
    )
    assert "the log ends at event 6" in check.found
    assert "centra audit accept" in str(mend(check))


def test_a_database_that_may_only_be_read_is_reported(
    either: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    if either.engine.name == "sqlite":
        # Root may write everything, so the file's mode says nothing here.
        may = os.access
        file = either.engine.url.database
        monkeypatch.setattr(os, "access", lambda path, how: str(path) != file and may(path, how))
        only(examined(either), "permissions", "problem", f"you may not write {file}")
        return
    role = "centra_test_reader"
    url = url_of(either)
    execute(
        url, f"CREATE ROLE {role} LOGIN", f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
    )
    try:
        check = only(
            examined(either, database=str(either.engine.url.set(username=role))),
            "permissions",
            "problem",
            f"{role} may read the database, but not write it",
        )
        assert "grant" in (mend(check) or "")
    finally:
        execute(url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


# The store.


def test_a_store_that_is_no_folder_is_reported(healthy: Registry, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "channels").write_bytes(b"not a folder")
    checks = examined(healthy, store=str(tmp_path / "store"))
    assert not_ok(checks) == skipped(OF_THE_STORE, store="problem")
    assert "cannot list" in checks["store"].found


def test_a_store_that_cannot_be_written_is_reported(healthy: Registry, tmp_path: Path) -> None:
    checks = examined(healthy, store="/proc/centra-store")
    assert checks["store writable"].state == "problem"
    assert "/proc cannot be written" in checks["store writable"].found
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "blobs").mkdir()
    (tmp_path / "store" / "blobs" / "sha256").mkdir()
    for number in range(256):
        (tmp_path / "store" / "blobs" / "sha256" / f"{number:02x}").write_bytes(b"not a folder")
    checks = examined(healthy, store=str(tmp_path / "store"))
    assert checks["store writable"].state == "problem"
    assert str(tmp_path / "store") in checks["store writable"].found


def test_a_store_that_forgets_is_reported(
    healthy: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = LocalStore.put

    def forgetting(store: LocalStore, source: bytes) -> str:
        digest = put(store, source)
        store.remove(digest)
        return digest

    monkeypatch.setattr(LocalStore, "put", forgetting)
    only(examined(healthy), "store writable", "problem", "not there")


@pytest.fixture
def on_s3(s3_url: str, tmp_path: Path) -> Iterator[Registry]:
    """A registry without any task, on SQLite, whose store is a bucket with one blob."""
    engine = make_engine(f"sqlite:///{tmp_path}/registry.db")
    upgrade(engine)
    registry = Registry(engine=engine, store=open_store(s3_url), actor=Actor.parse(ADA))
    with registry.write():
        registry.store.put(b"litter")
    yield registry
    engine.dispose()


def test_a_healthy_bucket_is_fine_and_nothing_is_left_in_it(on_s3: Registry) -> None:
    before = sorted(blob.digest for blob in on_s3.store.blobs())
    checks = examined(on_s3)
    assert not_ok(checks) == {}
    assert "test:tester" in checks["credentials"].found
    assert "s3://centra-" in checks["store"].found
    assert "the store" in checks["clock"].found
    assert sorted(blob.digest for blob in on_s3.store.blobs()) == before


def test_a_bucket_that_may_only_be_read_is_reported(
    on_s3: Registry, become_s3_reader: Callable[[], None]
) -> None:
    become_s3_reader()
    check = only(examined(on_s3), "store writable", "problem", "may not write")
    assert "right to write" in (mend(check) or "")


def test_a_bucket_that_nothing_may_be_removed_from_is_a_warning(
    on_s3: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StoreNotWritableError("may not")

    monkeypatch.setattr(S3Store, "remove", refuse)
    check = only(examined(on_s3), "store writable", "warning", "nothing can be removed")
    (left,) = [d for d in check.found.split() if len(d) == 64]
    assert on_s3.store.has(left)


def test_wrong_or_missing_credentials_and_buckets_are_reported(
    on_s3: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = on_s3.store.url
    checks = examined(on_s3, store=url.replace("s3://", "s3://no-such-"))
    assert not_ok(checks) == skipped(OF_THE_STORE, store="problem")
    assert "no bucket" in checks["store"].found
    with monkeypatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        checks = examined(on_s3)
        assert not_ok(checks) == skipped(OF_THE_STORE, store="problem")
        assert "SignatureDoesNotMatch" in checks["store"].found
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    checks = examined(on_s3)
    assert checks["credentials"].state == "problem"
    assert "AWS_ACCESS_KEY_ID" in (mend(checks["credentials"]) or "")
    assert {checks[name].state for name in ("store", *OF_THE_STORE)} == {"skipped"}


@pytest.mark.usefixtures("aws_account")
@pytest.mark.usefixtures("impatient")
def test_an_endpoint_that_does_not_answer_is_reported(healthy: Registry) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    checks = examined(healthy, store=f"s3://bucket/prefix?endpoint_url=http://127.0.0.1:{port}")
    assert not_ok(checks) == skipped(["clock", *OF_THE_STORE], store="problem")
    assert "cannot be reached" in checks["store"].found


@pytest.fixture
def aws_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The AWS settings of somebody."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("CENTRA_CACHE", str(tmp_path / "cache"))


# Clocks and permissions.


@pytest.mark.parametrize(
    ("off", "says"),
    [(timedelta(minutes=2), "120 s behind the store's"), (-timedelta(hours=1), "3600 s ahead of")],
)
def test_a_clock_that_goes_wrong_is_a_warning(
    healthy: Registry, monkeypatch: pytest.MonkeyPatch, off: timedelta, says: str
) -> None:
    right = LocalStore.clock

    def wrong(store: LocalStore) -> datetime:
        return right(store) + off

    monkeypatch.setattr(LocalStore, "clock", wrong)
    check = only(examined(healthy), "clock", "warning", says)
    assert "NTP" in (mend(check) or "")


def test_a_clock_that_is_a_little_off_is_fine(
    healthy: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = LocalStore.clock
    monkeypatch.setattr(LocalStore, "clock", lambda store: right(store) + timedelta(seconds=3))
    assert not_ok(examined(healthy)) == {}


def test_what_everybody_may_write_is_a_warning(either: Registry) -> None:
    root = root_of(either)
    root.chmod(0o777)
    check = only(examined(either), "permissions", "warning", f"everybody may write {root}")
    assert mend(check) == f"chmod o-w {root}"
    root.chmod(0o755)
    if either.engine.name == "sqlite":
        file = either.engine.url.database
        assert file is not None
        Path(file).chmod(0o666)
        only(examined(either), "permissions", "warning", f"everybody may write {file}")
        Path(file).chmod(0o644)
    assert not_ok(examined(either)) == {}


def test_a_password_that_everybody_may_read_is_a_warning(either: Registry, tmp_path: Path) -> None:
    url = either.engine.url
    if either.engine.name == "postgresql":  # SQLite has none.
        url = url.set(password="hunter2")
    config = tmp_path / "centra.toml"
    config.write_text(f'database = "{url.render_as_string(hide_password=False)}"\n')
    config.chmod(0o644)
    if not url.password:
        assert not_ok(examined(either, database=None)) == {}
        return
    check = only(examined(either, database=None), "permissions", "warning", str(config))
    assert mend(check) == f"chmod o-r {config}"
    config.chmod(0o600)
    assert not_ok(examined(either, database=None)) == {}


def test_a_cache_that_cannot_be_written_is_reported(
    on_s3: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CENTRA_CACHE", "/proc/centra-cache")
    check = examined(on_s3)["permissions"]
    assert check.state == "problem"
    assert "/proc" in check.found


# What the registry says is in the store.


def test_a_missing_module_is_named_and_mended_by_its_file(
    healthy: Registry, module: Callable[..., Path]
) -> None:
    digest = tasks.show(healthy, "intent").versions[0].digest
    blob_path(healthy, digest).unlink()
    check = only(examined(healthy), "blobs", "problem", "task intent@1.0", digest, "is missing")
    assert "centra task update intent FILE" in (mend(check) or "")
    tasks.update(healthy, "intent", module())
    assert not_ok(examined(healthy)) == {}


def test_a_cut_off_module_is_named(healthy: Registry) -> None:
    digest = tasks.show(healthy, "intent").versions[0].digest
    path = blob_path(healthy, digest)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    only(examined(healthy), "blobs", "problem", "intent@1.0", f"has {size - 1} of {size} bytes")


@pytest.mark.parametrize("part", ["spec", "embeddings", "layer", "tokenizer"])
def test_a_missing_part_of_a_backbone_is_named_and_mended_by_its_source(
    healthy: Registry, encoders: dict[str, support.Backbone], part: str
) -> None:
    row = backbones.show(healthy, "tiny")
    spec = BackboneSpec.fetch(row.digest, healthy.store)
    digest = {
        "spec": spec.digest,
        "embeddings": spec.embeddings,
        "layer": spec.layers[-1],
        "tokenizer": spec.tokenizer["tokenizer.json"],
    }[part]
    blob_path(healthy, digest).unlink()
    checks = examined(healthy)
    expected = {"blobs": "problem"}
    if part == "spec":  # Without it, nobody knows what is garbage.
        expected["garbage"] = "problem"
    assert not_ok(checks) == expected
    assert f"backbone tiny@1: blob {digest} is missing" in checks["blobs"].found
    assert f"again from {encoders['tiny'].folder}" in (mend(checks["blobs"]) or "")
    backbones.register(healthy, "tiny", str(encoders["tiny"].folder))
    assert not_ok(examined(healthy)) == {}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"num_attention_heads": 0}, "makes no sense: .*num_attention_heads 0"),
        ({"hidden_act": "x"}, "makes no sense: .*hidden_act 'x'"),
        ({"vocab_size": 10**9}, "bytes, less than its backbone says it holds"),
    ],
)
def test_a_senseless_backbone_of_an_earlier_import_is_named(
    healthy: Registry, settings: dict[str, object], says: str
) -> None:
    row = backbones.show(healthy, "other")
    spec = json.loads(healthy.store.fetch(row.digest).read_bytes())
    spec["config"] |= settings
    digest = healthy.store.put(json.dumps(spec).encode())
    with healthy.write() as uow:
        uow.backbone("other").digest = digest
    blob_path(healthy, row.digest).unlink()
    check = examined(healthy)["blobs"]
    assert check.state == "problem"
    assert re.search(says, check.found)
    assert "backbone other@1" in check.found
    assert mend(check)


def test_reading_all_finds_a_backbone_whose_whole_parts_are_not_what_it_says(
    healthy: Registry,
) -> None:
    row = backbones.show(healthy, "other")
    spec = json.loads(healthy.store.fetch(row.digest).read_bytes())
    spec["layers"].reverse()
    digest = healthy.store.put(json.dumps(spec).encode())
    with healthy.write() as uow:
        uow.backbone("other").digest = digest
    blob_path(healthy, row.digest).unlink()
    assert examined(healthy)["blobs"].state == "ok"
    check = deeply(healthy)
    assert check.state == "problem"
    assert "backbone other@1 makes no sense" in check.found
    assert mend(check) == "centra backbone retire other@1, and move its tasks to another"


def test_a_damaged_spec_of_a_backbone_is_named(healthy: Registry) -> None:
    blob_path(healthy, backbones.show(healthy, "tiny").digest).write_bytes(b"noise")
    checks = examined(healthy)
    assert not_ok(checks) == {"blobs": "problem", "garbage": "problem"}
    assert "backbone tiny@1" in checks["blobs"].found
    assert "is damaged" in checks["blobs"].found


def test_a_missing_manifest_is_named_and_mended_by_composing_again(healthy: Registry) -> None:
    blob_path(healthy, releases.show(healthy, "1").digest).unlink()
    check = only(examined(healthy), "blobs", "problem", "release 1", "is missing")
    assert "centra compose --base 1 --release" in (mend(check) or "")
    releases.compose(healthy, base="1", publish=True)
    assert not_ok(examined(healthy)) == {}


def test_of_many_missing_blobs_a_few_are_named_and_the_rest_counted(
    registry: Registry, module: Callable[..., Path]
) -> None:
    for number in range(13):
        tasks.register(registry, f"task-{number:02}", module(seed=number % 3))
    for seed in range(3):
        (version,) = tasks.show(registry, f"task-{seed:02}").versions
        blob_path(registry, version.digest).unlink()
    found = examined(registry)["blobs"].found
    assert found.count("is missing") == 10
    assert "task-09" in found
    assert found.splitlines()[10:] == ["and 3 more"]


def test_a_blob_that_is_registered_meanwhile_is_not_missed(
    healthy: Registry, module: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = LocalStore.blobs

    def late(store: LocalStore) -> Iterator[object]:
        found = list(listing(store))
        if len(tasks.list(healthy)) == 1:
            tasks.register(healthy, "slots", module("tagging", tap=2))
        yield from found

    monkeypatch.setattr(LocalStore, "blobs", late)
    assert not_ok(examined(healthy)) == {}


# Reading every blob.


@pytest.mark.parametrize("where", ["healthy", "on_s3"])
def test_every_damaged_blob_is_found_and_put_back_by_its_mend(
    where: str,
    request: pytest.FixtureRequest,
    module: Callable[..., Path],
    encoders: dict[str, support.Backbone],
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry: Registry = request.getfixturevalue(where)
    if where == "on_s3":
        backbones.register(registry, "tiny", str(encoders["tiny"].folder))
        in_use(registry, module)
    tasks.register(registry, "slots", module("tagging", tap=2))
    assert deeply(registry).state == "ok"
    row = backbones.show(registry, "tiny")
    spec = BackboneSpec.fetch(row.digest, registry.store)
    task = tasks.show(registry, "intent").versions[0].digest
    manifest = releases.show(registry, "1").digest
    needed = {
        spec.layers[0]: ["backbone tiny@1", "task intent@1.0", "task slots@1.0", "release 1"],
        spec.layers[1]: ["backbone tiny@1", "task slots@1.0"],
        spec.layers[2]: ["backbone tiny@1"],
        task: ["task intent@1.0", "release 1"],
        manifest: ["release 1"],
    }
    for digest in needed:
        damage(registry, digest)
    assert not_ok(examined(registry)) == {}  # By a listing all is well.

    check = deeply(registry)

    assert check.state == "problem"
    assert {one.digest: one.needed_by for one in check.damaged} == needed
    assert {one.problem for one in check.damaged} == {"damaged"}
    for advice in (
        f"centra backbone register tiny SOURCE, again from {encoders['tiny'].folder}",
        "centra task update intent FILE, with the file of 1.0",
        "centra compose --base 1 --release",
    ):
        assert advice in (mend(check) or "")
    backbones.register(registry, "tiny", str(encoders["tiny"].folder))
    assert tasks.update(registry, "intent", module()).mended == "damaged"
    releases.compose(registry, base="1", publish=True)
    assert deeply(registry).state == "ok"
    said = [record.getMessage() for record in caplog.records]
    for digest in needed:
        assert f"blob sha256:{digest} was damaged; put back" in said


def test_an_import_puts_back_what_is_damaged(healthy: Registry, tmp_path: Path) -> None:
    transfer.export_file(healthy, tmp_path / "export.tar", release="1")
    task = tasks.show(healthy, "intent").versions[0].digest
    damage(healthy, task)
    transfer.import_file(healthy, tmp_path / "export.tar")
    assert deeply(healthy).state == "ok"


def test_reading_all_goes_on_where_it_was_stopped(
    healthy: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CENTRA_CACHE", str(tmp_path / "cache"))
    read: list[str] = []
    fault = LocalStore.find_problem

    def counted(store: LocalStore, digest: str) -> BlobProblem | None:
        if len(read) == 5:
            raise KeyboardInterrupt
        read.append(digest)
        return fault(store, digest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LocalStore, "find_problem", counted)
        scrub.scrub(healthy)
    seen: list[tuple[str, int, int]] = []
    specs = {row.digest for row in backbones.list(healthy)}
    since = next(digest for digest in read if digest not in specs)
    damage(healthy, since)  # Written since, it is another file.

    found = scrub.scrub(healthy, lambda *call: seen.append(call))

    assert found.known == 4
    assert [one.digest for one in found.damaged] == [since]
    total = found.count
    assert seen == [("hash blobs", done, total) for done in range(1, total + 1)]
    assert scrub.scrub(healthy).known == 0
    assert not list((tmp_path / "cache" / "scrub").iterdir())


def test_garbage_is_a_warning_once_it_is_old(healthy: Registry) -> None:
    path = blob_path(healthy, healthy.store.put(b"litter"))
    checks = examined(healthy)
    assert not_ok(checks) == {}
    assert "1 file, 6 bytes, younger than 7 days" in checks["garbage"].found
    then = path.stat().st_mtime - 8 * 86400
    os.utime(path, (then, then))
    check = only(examined(healthy), "garbage", "warning", "1 file, 6 bytes")
    assert "centra gc" in (mend(check) or "")
    assert path.exists()


def test_pointers_that_are_missing_stale_or_damaged_are_mended_by_sync(healthy: Registry) -> None:
    production = healthy.store.read_pointer("production") or b""
    other = healthy.store.read_pointer("latest")
    for data in (None, production.replace(b'"revision":1', b'"revision":0'), b"half of {", other):
        path = root_of(healthy) / "channels" / "production.json"
        path.unlink() if data is None else path.write_bytes(data)
        checks = examined(healthy)
        assert checks["pointers"].state == "problem"
        says = "is missing" if data is None else "is not as the database has it"
        assert f"the pointer of production {says}" in checks["pointers"].found
        assert (data is other) is ("it names the channel 'latest'" in checks["pointers"].found)
        assert mend(checks["pointers"]) == "centra channel sync production"
        channels.sync(healthy)
        assert not_ok(examined(healthy)) == {}


def test_a_pointer_of_no_channel_is_a_warning(healthy: Registry) -> None:
    latest = healthy.store.read_pointer("latest") or b""
    healthy.store.write_pointer("old", latest.replace(b'"latest"', b'"old"'))
    check = only(examined(healthy), "pointers", "warning", "channels/old.json")
    assert "remove channels/old.json" in (mend(check) or "")


def test_a_pointer_that_follows_a_moment_later_is_fine(
    healthy: Registry, module: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks.update(healthy, "intent", module(seed=1))
    releases.compose(healthy, publish=True)
    listing = channels.list

    def then_moved(registry: Registry) -> list[channels.ChannelRow]:
        found = listing(registry)
        channels.move(healthy, "production", "2")
        return found

    monkeypatch.setattr(channels, "list", then_moved)
    assert not_ok(examined(healthy)) == {}


# Everything at once.


def test_an_unexpected_fault_of_one_check_stops_no_other(
    healthy: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(audit, "verify", fail)
    only(examined(healthy), "audit log", "problem", "ZeroDivisionError: by zero")


def test_all_problems_are_found_at_once_and_nothing_is_changed(healthy: Registry) -> None:
    blob_path(healthy, tasks.show(healthy, "intent").versions[0].digest).unlink()
    (root_of(healthy) / "channels" / "latest.json").unlink()
    root_of(healthy).chmod(0o777)
    with healthy.engine.begin() as connection, unguarded(connection):
        connection.execute(text("UPDATE audit_events SET actor = 'nlu/eve' WHERE id = 4"))
    before = rows(healthy), files(healthy)
    checks = examined(healthy, actor=None)
    assert not_ok(checks) == {
        "actor": "warning",
        "audit log": "problem",
        "permissions": "warning",
        "blobs": "problem",
        "pointers": "problem",
    }
    assert (rows(healthy), files(healthy)) == before
